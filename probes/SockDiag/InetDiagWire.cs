using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Sidecar.Probes.Values;

namespace Sidecar.Probes.SockDiag;

/// <summary>
/// The wire format of NETLINK_SOCK_DIAG (include/uapi/linux/inet_diag.h, netlink.h): writing requests, reading answers.
/// Every read is checked against the message's end; a malformed message is reported, never trusted.
/// </summary>
internal static class InetDiagWire
{
    internal const int NetlinkHeaderSize = 16;
    internal const int RequestSize = 56;
    private const int DumpRequestSize = 60;
    internal const int MaximumDumpSize = NetlinkHeaderSize + DumpRequestSize + AttributeHeaderSize + SocketFilter.MaximumLength;
    internal const int MessageSize = 72;
    private const int AttributeHeaderSize = 4;

    internal const ushort NLMSG_ERROR = 2;
    internal const ushort NLMSG_DONE = 3;
    internal const ushort TCPDIAG_GETSOCK = 18;
    internal const ushort SOCK_DIAG_BY_FAMILY = 20;
    internal const ushort SOCK_DESTROY = 21;

    internal const ushort NLM_F_REQUEST = 0x1;
    internal const ushort NLM_F_ACK = 0x4;
    internal const ushort NLM_F_DUMP = 0x300;
    internal const ushort NLM_F_DUMP_INTR = 0x10;

    private const ushort INET_DIAG_REQ_BYTECODE = 1;
    private const ushort INET_DIAG_INFO = 2;
    private const ushort INET_DIAG_SKMEMINFO = 7;

    /// <summary>Index of sk_drops in the array of 32-bit numbers that INET_DIAG_SKMEMINFO is (include/uapi/linux/sock_diag.h).</summary>
    private const int SK_MEMINFO_DROPS = 8;

    /// <summary>ext has one bit per attribute: 1 &lt;&lt; (attribute - 1).</summary>
    internal const byte ExtensionInfo = 1 << (INET_DIAG_INFO - 1);
    internal const byte ExtensionMemory = 1 << (INET_DIAG_SKMEMINFO - 1);

    /// <summary>
    /// Writes a dump request with the filter; returns its length. It is the older TCPDIAG_GETSOCK with its struct
    /// inet_diag_req, which every kernel serves: it dumps both address families in one walk over the kernel's table,
    /// where SOCK_DIAG_BY_FAMILY needs a walk for each.
    /// </summary>
    internal static int WriteDump(Span<byte> buffer, uint sequence, uint states, byte extensions, ReadOnlySpan<byte> filter)
    {
        var length = NetlinkHeaderSize + DumpRequestSize + (filter.IsEmpty ? 0 : AttributeHeaderSize + filter.Length);
        buffer[..length].Clear();
        WriteHeader(buffer, length, TCPDIAG_GETSOCK, NLM_F_REQUEST | NLM_F_DUMP, sequence);
        var request = buffer[NetlinkHeaderSize..];
        request[3] = extensions;
        MemoryMarshal.Write(request[52..], states);
        if (!filter.IsEmpty)
        {
            var attribute = buffer[(NetlinkHeaderSize + DumpRequestSize)..];
            MemoryMarshal.Write(attribute, (ushort)(AttributeHeaderSize + filter.Length));
            MemoryMarshal.Write(attribute[2..], INET_DIAG_REQ_BYTECODE);
            filter.CopyTo(attribute[AttributeHeaderSize..]);
        }

        return length;
    }

    /// <summary>Writes a request for exactly one socket (GET or DESTROY); returns its length.</summary>
    internal static int WriteSingle(Span<byte> buffer, uint sequence, ushort type, ushort flags, in SocketKey key, byte extensions)
    {
        const int length = NetlinkHeaderSize + RequestSize;
        buffer[..length].Clear();
        WriteHeader(buffer, length, type, flags, sequence);
        var request = buffer[NetlinkHeaderSize..];
        request[0] = (byte)key.Family;
        request[1] = Interop.Libc.IPPROTO_TCP;
        request[2] = extensions;
        MemoryMarshal.Write(request[4..], uint.MaxValue);
        var id = request[8..];
        BinaryPrimitives.WriteUInt16BigEndian(id, key.Local.Port);
        BinaryPrimitives.WriteUInt16BigEndian(id[2..], key.Peer.Port);
        key.Local.WriteWire(key.Family, id[4..]);
        key.Peer.WriteWire(key.Family, id[20..]);
        MemoryMarshal.Write(id[36..], key.Interface);
        MemoryMarshal.Write(id[40..], key.Cookie.Value);
        return length;
    }

    internal static void WriteHeader(Span<byte> buffer, int length, ushort type, int flags, uint sequence)
    {
        MemoryMarshal.Write(buffer, (uint)length);
        MemoryMarshal.Write(buffer[4..], type);
        MemoryMarshal.Write(buffer[6..], (ushort)flags);
        MemoryMarshal.Write(buffer[8..], sequence);
    }

    /// <summary>One netlink message inside a received buffer.</summary>
    internal readonly ref struct Message(ushort type, ushort flags, uint sequence, ReadOnlySpan<byte> payload)
    {
        internal ushort Type { get; } = type;
        internal ushort Flags { get; } = flags;
        internal uint Sequence { get; } = sequence;
        internal ReadOnlySpan<byte> Payload { get; } = payload;

        /// <summary>errno (positive) of an NLMSG_ERROR or NLMSG_DONE; 0 is success; -1 when the message is too short.</summary>
        internal int Errno => Payload.Length >= 4 ? -MemoryMarshal.Read<int>(Payload) : -1;
    }

    /// <summary>
    /// Takes the next message off <paramref name="rest"/>. False at the end, and with <paramref name="malformed"/> set
    /// when what remains is no message.
    /// </summary>
    internal static bool TryNext(ref ReadOnlySpan<byte> rest, out Message message, out bool malformed)
    {
        message = default;
        malformed = false;
        if (rest.IsEmpty)
        {
            return false;
        }

        if (rest.Length < NetlinkHeaderSize)
        {
            malformed = true;
            return false;
        }

        var length = MemoryMarshal.Read<uint>(rest);
        if (length < NetlinkHeaderSize || length > (uint)rest.Length)
        {
            malformed = true;
            return false;
        }

        message = new Message(
            MemoryMarshal.Read<ushort>(rest[4..]),
            MemoryMarshal.Read<ushort>(rest[6..]),
            MemoryMarshal.Read<uint>(rest[8..]),
            rest[NetlinkHeaderSize..(int)length]);

        // Messages are aligned to four bytes; the last one's padding may be missing.
        var aligned = (int)((length + 3) & ~3u);
        rest = aligned >= rest.Length ? [] : rest[aligned..];
        return true;
    }

    /// <summary>Reads an inet_diag_msg with its attributes; false when it is malformed.</summary>
    internal static bool TryReadSocket(ReadOnlySpan<byte> payload, out SocketObservation socket)
    {
        socket = default;
        if (payload.Length < MessageSize)
        {
            return false;
        }

        int family = payload[0];
        if (family is not (Interop.Libc.AF_INET or Interop.Libc.AF_INET6))
        {
            return false;
        }

        TcpInfo info = default;
        var attributes = payload[MessageSize..];
        while (attributes.Length >= AttributeHeaderSize)
        {
            int length = MemoryMarshal.Read<ushort>(attributes);
            var type = MemoryMarshal.Read<ushort>(attributes[2..]) & 0x3fff;
            if (length < AttributeHeaderSize || length > attributes.Length)
            {
                return false;
            }

            if (type == INET_DIAG_INFO)
            {
                info = TcpInfo.Read(attributes[AttributeHeaderSize..length]);
            }

            var aligned = (length + 3) & ~3;
            attributes = aligned >= attributes.Length ? [] : attributes[aligned..];
        }

        var id = payload[4..];
        socket = new SocketObservation
        {
            Family = family,
            State = (TcpState)payload[1],
            Timer = (SocketTimer)payload[2],
            TimerRetransmissions = payload[3],
            Local = TcpEndPoint.FromWire(family, id[4..20], BinaryPrimitives.ReadUInt16BigEndian(id)),
            Peer = TcpEndPoint.FromWire(family, id[20..36], BinaryPrimitives.ReadUInt16BigEndian(id[2..])),
            Interface = MemoryMarshal.Read<uint>(id[36..]),
            Cookie = new SocketCookie(MemoryMarshal.Read<ulong>(id[40..])),
            TimerExpiresMilliseconds = MemoryMarshal.Read<uint>(payload[52..]),
            ReceiveQueue = MemoryMarshal.Read<uint>(payload[56..]),
            SendQueue = MemoryMarshal.Read<uint>(payload[60..]),
            Uid = MemoryMarshal.Read<uint>(payload[64..]),
            Inode = MemoryMarshal.Read<uint>(payload[68..]),
            Info = info,
        };
        return true;
    }

    /// <summary>Packets that the socket has dropped (for LISTEN: connections that found its queue full); 0 where it was not told.</summary>
    internal static uint ReadDrops(ReadOnlySpan<byte> payload)
    {
        var memory = FindAttribute(payload[MessageSize..], INET_DIAG_SKMEMINFO);
        return memory.Length >= (SK_MEMINFO_DROPS + 1) * sizeof(uint) ? MemoryMarshal.Read<uint>(memory[(SK_MEMINFO_DROPS * sizeof(uint))..]) : 0;
    }

    /// <summary>The value of the attribute; empty where it is not there, or behind one that is malformed.</summary>
    internal static ReadOnlySpan<byte> FindAttribute(ReadOnlySpan<byte> attributes, ushort wanted)
    {
        while (attributes.Length >= AttributeHeaderSize)
        {
            int length = MemoryMarshal.Read<ushort>(attributes);
            if (length < AttributeHeaderSize || length > attributes.Length)
            {
                break;
            }

            if ((MemoryMarshal.Read<ushort>(attributes[2..]) & 0x3fff) == wanted)
            {
                return attributes[AttributeHeaderSize..length];
            }

            var aligned = (length + 3) & ~3;
            attributes = aligned >= attributes.Length ? [] : attributes[aligned..];
        }

        return [];
    }
}
