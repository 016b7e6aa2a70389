using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Sidecar.Probes.SockDiag;
using Sidecar.Simulator;

namespace Sidecar.Fuzz;

/// <summary>Messages as the kernel's sock_diag writes them, with numbers as no kernel would.</summary>
internal static class DiagMessages
{
    private const int InfoSize = 280;
    private const ushort InfoAttribute = 2;

    /// <summary>A netlink message.</summary>
    internal static byte[] Message(ushort type, ushort flags, uint sequence, ReadOnlySpan<byte> payload)
    {
        var message = new byte[(InetDiagWire.NetlinkHeaderSize + payload.Length + 3) & ~3];
        MemoryMarshal.Write(message, (uint)(InetDiagWire.NetlinkHeaderSize + payload.Length));
        MemoryMarshal.Write(message.AsSpan(4), type);
        MemoryMarshal.Write(message.AsSpan(6), flags);
        MemoryMarshal.Write(message.AsSpan(8), sequence);
        payload.CopyTo(message.AsSpan(InetDiagWire.NetlinkHeaderSize));
        return message;
    }

    /// <summary>An inet_diag_msg with attributes, some of them unknown, in any order.</summary>
    internal static byte[] Socket(Dice dice, ulong cookie)
    {
        var payload = new List<byte>(new byte[InetDiagWire.MessageSize]);
        var head = new byte[InetDiagWire.MessageSize];
        head[0] = dice.Chance(0.5) ? (byte)2 : (byte)10;
        head[1] = (byte)(dice.Chance(0.7) ? 1 : dice.Choose(0, 13));
        head[2] = (byte)dice.Choose(0, 5);
        head[3] = (byte)dice.Next();
        BinaryPrimitives.WriteUInt16BigEndian(head.AsSpan(4), (ushort)dice.Next());
        BinaryPrimitives.WriteUInt16BigEndian(head.AsSpan(6), 5432);
        dice.Bytes(32).CopyTo(head, 8);
        MemoryMarshal.Write(head.AsSpan(44), cookie);
        dice.Bytes(20).CopyTo(head, 52);
        for (var i = 0; i < head.Length; i++)
        {
            payload[i] = head[i];
        }

        for (var more = dice.Choose(0, 3); more > 0; more--)
        {
            Attribute(payload, (ushort)dice.Choose(3, 0x3fff), dice.Bytes(dice.Choose(0, 40)));
        }

        if (dice.Chance(0.8))
        {
            Attribute(payload, InfoAttribute, Info(dice));
        }

        for (var more = dice.Choose(0, 2); more > 0; more--)
        {
            Attribute(payload, (ushort)dice.Choose(3, 0x3fff), dice.Bytes(dice.Choose(0, 40)));
        }

        return [.. payload];
    }

    /// <summary>A TCP_INFO of any kernel's length, or of none's.</summary>
    internal static byte[] Info(Dice dice)
    {
        var info = new byte[dice.Chance(0.8) ? InfoSize : dice.Choose(0, 400)];
        for (var at = 0; at + 8 <= info.Length; at += dice.Pick(4, 8))
        {
            MemoryMarshal.Write(info.AsSpan(at), dice.Chance(0.5) ? dice.Edge() : (uint)dice.Choose(0, 30));
        }

        return info;
    }

    private static void Attribute(List<byte> payload, ushort type, byte[] value)
    {
        payload.AddRange(BitConverter.GetBytes((ushort)(4 + value.Length)));
        payload.AddRange(BitConverter.GetBytes(type));
        payload.AddRange(value);
        while (payload.Count % 4 != 0)
        {
            payload.Add(0);
        }
    }
}
