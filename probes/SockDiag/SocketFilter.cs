using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Sidecar.Probes.Values;

namespace Sidecar.Probes.SockDiag;

/// <summary>
/// Conditions joined by OR, as the bytecode that inet_diag_bc_run() interprets, so that the kernel sends only watched
/// sockets. S_COND and D_COND are understood by every kernel since 2.6.
/// </summary>
public static class SocketFilter
{
    private const byte OpJump = 1;
    private const byte OpSourceCondition = 7;
    private const byte OpDestinationCondition = 8;
    private const int OpSize = 4;
    private const int HostConditionSize = 8;

    /// <summary>The kernel reads jump distances as 16 bits.</summary>
    public const int MaximumLength = 65532;

    /// <summary>
    /// Compiles the conditions. An empty result means that every socket passes.
    /// </summary>
    /// <exception cref="ArgumentException">The list is empty or does not fit into 64 KiB of bytecode.</exception>
    public static byte[] Compile(IReadOnlyList<FilterCondition> conditions)
    {
        if (conditions.Count == 0)
        {
            throw new ArgumentException("a filter without conditions would pass every socket", nameof(conditions));
        }

        var total = 0;
        for (var i = 0; i < conditions.Count; i++)
        {
            total += Length(conditions[i]) + (i < conditions.Count - 1 ? OpSize : 0);
        }

        if (total > MaximumLength)
        {
            throw new ArgumentException($"{conditions.Count} conditions need {total} bytes of filter, the kernel takes {MaximumLength}", nameof(conditions));
        }

        var code = new byte[total];
        var at = 0;
        for (var i = 0; i < conditions.Count; i++)
        {
            var condition = conditions[i];
            var length = Length(condition);

            // On a match go on to the jump behind it (to the end: accepted); on a mismatch skip that jump. Behind the
            // last one there is none, so the mismatch leads four bytes past the end, which is how the kernel says no.
            WriteOp(code.AsSpan(at), condition.End == FilterEnd.Peer ? OpDestinationCondition : OpSourceCondition, (byte)length, (ushort)(length + OpSize));
            WriteHost(code.AsSpan(at + OpSize), condition);
            at += length;
            if (i < conditions.Count - 1)
            {
                WriteOp(code.AsSpan(at), OpJump, OpSize, (ushort)(total - at));
                at += OpSize;
            }
        }

        return code;
    }

    private static int Length(in FilterCondition condition) => OpSize + HostConditionSize + AddressLength(condition);

    private static int AddressLength(in FilterCondition condition) => condition.PrefixLength == 0 ? 0 : IsIPv4(condition) ? 4 : 16;

    private static bool IsIPv4(in FilterCondition condition) => condition.PrefixLength >= 96 && condition.Network >> 32 == 0xffff;

    private static void WriteOp(Span<byte> at, byte code, byte yes, ushort no)
    {
        at[0] = code;
        at[1] = yes;
        MemoryMarshal.Write(at[2..], no);
    }

    /// <summary>struct inet_diag_hostcond: family, prefix_len, two bytes of padding, port (int), address in network order.</summary>
    private static void WriteHost(Span<byte> at, in FilterCondition condition)
    {
        var v4 = IsIPv4(condition);
        at[0] = condition.PrefixLength == 0 ? (byte)0 : (byte)(v4 ? Interop.Libc.AF_INET : Interop.Libc.AF_INET6);
        at[1] = (byte)(condition.PrefixLength == 0 ? 0 : v4 ? condition.PrefixLength - 96 : condition.PrefixLength);
        MemoryMarshal.Write(at[4..], (int)condition.Port);
        if (condition.PrefixLength == 0)
        {
            return;
        }

        if (v4)
        {
            BinaryPrimitives.WriteUInt32BigEndian(at[8..], (uint)condition.Network);
        }
        else
        {
            BinaryPrimitives.WriteUInt128BigEndian(at[8..], condition.Network);
        }
    }
}
