using System.Buffers.Binary;
using Sidecar.Probes.Values;
using static Sidecar.Probes.Interop.Libc;

namespace Sidecar.Probes.Sockets;

/// <summary>The bytes of <see cref="ResumeStalled"/>: the filter for one connection's segments, and the ICMP message that quotes one.</summary>
internal static class QuotedUnreachable
{
    private const int HeaderV4 = 20;
    private const int HeaderV6 = 40;
    private const int HeaderTcp = 20;

    // Classic BPF (linux/filter.h): the few instructions that are needed.
    private const ushort LoadWord = 0x20;
    private const ushort LoadHalf = 0x28;
    private const ushort LoadByte = 0x30;
    private const ushort LoadHalfAtIndex = 0x48;
    private const ushort LoadIndexOfHeader = 0xb1;
    private const ushort And = 0x54;
    private const ushort JumpIfEqual = 0x15;
    private const ushort Return = 0x06;
    private const uint PacketType = 0xfffff000 + 4; // SKF_AD_OFF + SKF_AD_PKTTYPE
    private const uint Outgoing = 4;

    /// <summary>Lets nothing pass.</summary>
    internal static readonly BpfInstruction[] Nothing = [new(Return, 0, 0, 0)];

    /// <summary>Lets pass the headers of segments that leave on this connection.</summary>
    internal static BpfInstruction[] Filter(in SocketKey key)
    {
        List<BpfInstruction> code = [];
        void Is(ushort load, uint offset, uint value)
        {
            code.Add(new(load, 0, 0, offset));
            code.Add(new(JumpIfEqual, 0, 1, value));
        }

        Is(LoadWord, PacketType, Outgoing);
        code.Add(new(LoadByte, 0, 0, 0));
        code.Add(new(And, 0, 0, 0xf0));
        Span<byte> local = stackalloc byte[16];
        Span<byte> peer = stackalloc byte[16];
        if (key.Local.IsIPv4)
        {
            code.Add(new(JumpIfEqual, 0, 1, 0x40));
            Is(LoadByte, 9, IPPROTO_TCP);
            Is(LoadWord, 12, (uint)key.Local.Address);
            Is(LoadWord, 16, (uint)key.Peer.Address);
            code.Add(new(LoadIndexOfHeader, 0, 0, 0));
            Is(LoadHalfAtIndex, 0, key.Local.Port);
            Is(LoadHalfAtIndex, 2, key.Peer.Port);
        }
        else
        {
            key.Local.WriteWire(AF_INET6, local);
            key.Peer.WriteWire(AF_INET6, peer);
            code.Add(new(JumpIfEqual, 0, 1, 0x60));
            Is(LoadByte, 6, IPPROTO_TCP);
            for (var i = 0; i < 16; i += 4)
            {
                Is(LoadWord, (uint)(8 + i), BinaryPrimitives.ReadUInt32BigEndian(local[i..]));
                Is(LoadWord, (uint)(24 + i), BinaryPrimitives.ReadUInt32BigEndian(peer[i..]));
            }

            Is(LoadHalf, HeaderV6, key.Local.Port);
            Is(LoadHalf, HeaderV6 + 2, key.Peer.Port);
        }

        code.Add(new(Return, 0, 0, 128));
        code.Add(new(Return, 0, 0, 0));

        // A mismatch leads to the last instruction.
        for (var i = 0; i < code.Count; i++)
        {
            if (code[i].Code == JumpIfEqual)
            {
                code[i] = code[i] with { IfFalse = (byte)(code.Count - 1 - (i + 1)) };
            }
        }

        return [.. code];
    }

    /// <summary>The sequence number of a segment, from its headers on; false for one that carries data, which is no window probe.</summary>
    internal static bool TryReadProbe(ReadOnlySpan<byte> packet, out uint sequence)
    {
        sequence = 0;
        if (packet.Length < 1)
        {
            return false;
        }

        var isV4 = packet[0] >> 4 == 4;
        var header = isV4 ? (packet[0] & 0xf) * 4 : HeaderV6;
        if (packet.Length < header + HeaderTcp)
        {
            return false;
        }

        var segment = isV4 ? BinaryPrimitives.ReadUInt16BigEndian(packet[2..]) - header : BinaryPrimitives.ReadUInt16BigEndian(packet[4..]);
        sequence = BinaryPrimitives.ReadUInt32BigEndian(packet[(header + 4)..]);
        return segment == (packet[header + 12] >> 4) * 4;
    }

    /// <summary>
    /// Host unreachable, or for IPv6 no route to destination: the codes for which tcp_v4_err() and tcp_v6_err() revert a
    /// back-off. The kernel fills in the checksum of ICMPv6; that of the quoted segment is compared by nobody.
    /// </summary>
    internal static byte[] Message(in SocketKey key, uint sequence)
    {
        var isV4 = key.Local.IsIPv4;
        var header = isV4 ? HeaderV4 : HeaderV6;
        var message = new byte[8 + header + HeaderTcp];
        (message[0], message[1]) = isV4 ? ((byte)3, (byte)1) : ((byte)1, (byte)0);
        var quoted = message.AsSpan(8);
        if (isV4)
        {
            quoted[0] = 0x45;
            BinaryPrimitives.WriteUInt16BigEndian(quoted[2..], HeaderV4 + HeaderTcp);
            quoted[6] = 0x40; // do not fragment
            quoted[8] = 255; // IP_MINTTL is compared with it
            quoted[9] = IPPROTO_TCP;
            BinaryPrimitives.WriteUInt32BigEndian(quoted[12..], (uint)key.Local.Address);
            BinaryPrimitives.WriteUInt32BigEndian(quoted[16..], (uint)key.Peer.Address);
            BinaryPrimitives.WriteUInt16BigEndian(quoted[10..], Checksum(quoted[..HeaderV4]));
        }
        else
        {
            quoted[0] = 0x60;
            BinaryPrimitives.WriteUInt16BigEndian(quoted[4..], HeaderTcp);
            quoted[6] = IPPROTO_TCP;
            quoted[7] = 255;
            key.Local.WriteWire(AF_INET6, quoted[8..]);
            key.Peer.WriteWire(AF_INET6, quoted[24..]);
        }

        var segment = quoted[header..];
        BinaryPrimitives.WriteUInt16BigEndian(segment, key.Local.Port);
        BinaryPrimitives.WriteUInt16BigEndian(segment[2..], key.Peer.Port);
        BinaryPrimitives.WriteUInt32BigEndian(segment[4..], sequence);
        segment[12] = 5 << 4;
        segment[13] = 0x10; // ACK
        if (isV4)
        {
            BinaryPrimitives.WriteUInt16BigEndian(message.AsSpan(2), Checksum(message));
        }

        return message;
    }

    /// <summary>The sockaddr of the connection's own end, without a port.</summary>
    internal static byte[] Address(in SocketKey key)
    {
        if (key.Local.IsIPv4)
        {
            var v4 = new byte[16];
            BitConverter.TryWriteBytes(v4, (ushort)AF_INET);
            BinaryPrimitives.WriteUInt32BigEndian(v4.AsSpan(4), (uint)key.Local.Address);
            return v4;
        }

        var v6 = new byte[28];
        BitConverter.TryWriteBytes(v6, (ushort)AF_INET6);
        key.Local.WriteWire(AF_INET6, v6.AsSpan(8));
        BitConverter.TryWriteBytes(v6.AsSpan(24), key.Interface); // a link-local address means nothing without it
        return v6;
    }

    /// <summary>RFC 1071, of an even number of bytes.</summary>
    private static ushort Checksum(ReadOnlySpan<byte> bytes)
    {
        var sum = 0u;
        for (var i = 0; i < bytes.Length; i += 2)
        {
            sum += BinaryPrimitives.ReadUInt16BigEndian(bytes[i..]);
        }

        while (sum >> 16 != 0)
        {
            sum = (sum & 0xffff) + (sum >> 16);
        }

        return (ushort)~sum;
    }
}
