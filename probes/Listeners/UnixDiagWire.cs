using System.Runtime.InteropServices;
using System.Text;
using Sidecar.Probes.SockDiag;
using Sidecar.Probes.Values;

namespace Sidecar.Probes.Listeners;

/// <summary>The wire format of UNIX_DIAG (include/uapi/linux/unix_diag.h).</summary>
internal static class UnixDiagWire
{
    private const int AF_UNIX = 1;
    private const byte SOCK_STREAM = 1;
    private const byte SOCK_SEQPACKET = 5;

    internal const int RequestSize = InetDiagWire.NetlinkHeaderSize + 24;
    private const int MessageSize = 16;

    private const ushort UNIX_DIAG_NAME = 0;
    private const ushort UNIX_DIAG_RQLEN = 4;
    private const ushort UNIX_DIAG_SHUTDOWN = 6;

    private const uint UDIAG_SHOW_NAME = 0x1;
    private const uint UDIAG_SHOW_RQLEN = 0x10;

    /// <summary>RCV_SHUTDOWN of include/net/sock.h: nothing more will come.</summary>
    private const byte ReceiveShutdown = 1;

    /// <summary>Writes a dump request: struct unix_diag_req behind the header; returns its length.</summary>
    internal static int WriteDump(Span<byte> buffer, uint sequence, uint states)
    {
        buffer[..RequestSize].Clear();
        InetDiagWire.WriteHeader(buffer, RequestSize, InetDiagWire.SOCK_DIAG_BY_FAMILY, InetDiagWire.NLM_F_REQUEST | InetDiagWire.NLM_F_DUMP, sequence);
        var request = buffer[InetDiagWire.NetlinkHeaderSize..];
        request[0] = AF_UNIX;
        MemoryMarshal.Write(request[4..], states);
        MemoryMarshal.Write(request[12..], UDIAG_SHOW_NAME | UDIAG_SHOW_RQLEN);
        return RequestSize;
    }

    /// <summary>Reads a listening socket; false where the message is malformed. Null for one without a name.</summary>
    internal static bool TryReadListener(ReadOnlySpan<byte> payload, out ListeningSocket? listener)
    {
        listener = null;
        if (payload.Length < MessageSize || payload[0] != AF_UNIX)
        {
            return false;
        }

        var attributes = payload[MessageSize..];
        var queue = InetDiagWire.FindAttribute(attributes, UNIX_DIAG_RQLEN);
        var name = Name(attributes);
        if (queue.Length >= 2 * sizeof(uint) && name is not null && payload[1] is SOCK_STREAM or SOCK_SEQPACKET)
        {
            listener = new ListeningSocket
            {
                Local = null,
                Name = name,
                Inode = MemoryMarshal.Read<uint>(payload[4..]),
                Waiting = MemoryMarshal.Read<uint>(queue),
                Limit = MemoryMarshal.Read<uint>(queue[sizeof(uint)..]),
                Drops = 0,
            };
        }

        return true;
    }

    /// <summary>
    /// Reads a connected socket that bears a name. A server's end has the name of the socket that was connected to; a
    /// client's end has none, unless the client bound it.
    /// </summary>
    internal static bool TryReadConnection(ReadOnlySpan<byte> payload, out ServedConnection? connection)
    {
        connection = null;
        if (payload.Length < MessageSize || payload[0] != AF_UNIX)
        {
            return false;
        }

        var attributes = payload[MessageSize..];
        if (Name(attributes) is { } name)
        {
            var shutdown = InetDiagWire.FindAttribute(attributes, UNIX_DIAG_SHUTDOWN);
            connection = new ServedConnection
            {
                Local = null,
                Name = name,
                Cookie = new SocketCookie(MemoryMarshal.Read<ulong>(payload[8..])),
                IsAccepted = MemoryMarshal.Read<uint>(payload[4..]) != 0,
                PeerIsGone = shutdown.Length > 0 && (shutdown[0] & ReceiveShutdown) != 0,
            };
        }

        return true;
    }

    /// <summary>An abstract name begins with NUL and is written with @, as ss(8) does; a path may end with NUL.</summary>
    private static string? Name(ReadOnlySpan<byte> attributes)
    {
        var name = InetDiagWire.FindAttribute(attributes, UNIX_DIAG_NAME);
        if (name.IsEmpty)
        {
            return null;
        }

        return name[0] == 0 ? "@" + Encoding.UTF8.GetString(name[1..]) : Encoding.UTF8.GetString(name.TrimEnd((byte)0));
    }
}
