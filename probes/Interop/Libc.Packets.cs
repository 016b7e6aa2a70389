using System.Runtime.InteropServices;

namespace Sidecar.Probes.Interop;

/// <summary>Packet and raw sockets: seeing one segment that leaves, and handing the host an ICMP message.</summary>
internal static partial class Libc
{
    internal const int EAFNOSUPPORT = 97;
    internal const int AF_PACKET = 17;
    internal const int IPPROTO_ICMP = 1;
    internal const int IPPROTO_ICMPV6 = 58;
    internal const int SOL_RAW = 255;
    internal const int ICMP_FILTER = 1;
    internal const int ICMPV6_FILTER = 1;
    internal const int IP_RECVERR = 11;
    internal const int IPV6_RECVERR = 25;
    internal const int SO_BINDTOIFINDEX = 62;
    private const int SO_ATTACH_FILTER = 26;

    // ETH_P_ALL in network order: packets that leave are shown to nobody else.
    private const ushort EthernetAll = 0x0300;

    /// <summary>struct sock_filter: one instruction of classic BPF.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal readonly record struct BpfInstruction(ushort Code, byte IfTrue, byte IfFalse, uint Value);

    [StructLayout(LayoutKind.Sequential)]
    private unsafe struct BpfProgram
    {
        internal ushort Length;
        internal BpfInstruction* Instructions;
    }

    /// <summary>struct sockaddr_ll.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct SockAddrPacket
    {
        internal ushort Family;
        internal ushort Protocol;
        internal int Interface;
        internal ulong Rest;
        internal uint Padding;
    }

    [LibraryImport("libc", EntryPoint = "sendto", SetLastError = true)]
    private static unsafe partial nint SendTo(SafeHandle socket, byte* buffer, nuint length, int flags, byte* address, uint addressLength);

    /// <summary>Sends to a sockaddr of any family; false with errno set on failure.</summary>
    internal static unsafe bool TrySendTo(SafeHandle socket, ReadOnlySpan<byte> data, ReadOnlySpan<byte> address)
    {
        fixed (byte* p = data)
        fixed (byte* a = address)
        {
            return SendTo(socket, p, (nuint)data.Length, MSG_DONTWAIT, a, (uint)address.Length) == data.Length;
        }
    }

    /// <summary>Puts a filter in the place of the one before; false with errno set on failure.</summary>
    internal static unsafe bool TryAttachFilter(SafeHandle socket, ReadOnlySpan<BpfInstruction> filter)
    {
        fixed (BpfInstruction* p = filter)
        {
            var program = new BpfProgram { Length = (ushort)filter.Length, Instructions = p };
            return SetSockOpt(socket, SOL_SOCKET, SO_ATTACH_FILTER, &program, (uint)sizeof(BpfProgram)) == 0;
        }
    }

    /// <summary>Shows a packet socket what comes and goes on all interfaces; false with errno set on failure.</summary>
    internal static unsafe bool TryBindPackets(SafeHandle socket)
    {
        var address = new SockAddrPacket { Family = AF_PACKET, Protocol = EthernetAll };
        return Bind(socket, &address, 20) == 0;
    }

    /// <summary>Sets an option of any size; false with errno set on failure.</summary>
    internal static unsafe bool TrySetOption(SafeHandle socket, int level, int name, ReadOnlySpan<byte> value)
    {
        fixed (byte* p = value)
        {
            return SetSockOpt(socket, level, name, p, (uint)value.Length) == 0;
        }
    }
}
