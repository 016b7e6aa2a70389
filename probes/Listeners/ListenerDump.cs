using Sidecar.Probes.SockDiag;

using Sidecar.Probes.Values;

namespace Sidecar.Probes.Listeners;

/// <summary>The accept queues, and the connections that came through them.</summary>
public static class ListenerDump
{
    private const uint StateListen = 1u << (int)TcpState.Listen;

    /// <summary>
    /// All listening sockets of the namespace, TCP and Unix. The kernel keeps TCP listeners in a table of their own, so this
    /// costs nothing for each connection there is.
    /// </summary>
    /// <exception cref="KernelException">A request was refused or its answer broke off.</exception>
    public static List<ListeningSocket> ReadListeners(this SockDiagClient client)
    {
        var listeners = new List<ListeningSocket>();
        client.DumpMessages((request, sequence) => InetDiagWire.WriteDump(request, sequence, StateListen, InetDiagWire.ExtensionMemory, []), InetDiagWire.TCPDIAG_GETSOCK, "sock_diag dump of listeners", payload =>
        {
            if (!InetDiagWire.TryReadSocket(payload, out var socket))
            {
                return false;
            }

            listeners.Add(new ListeningSocket
            {
                Local = socket.Local,
                Name = socket.Local.ToString(),
                Inode = socket.Inode,
                Waiting = socket.ReceiveQueue,
                Limit = socket.SendQueue,
                Drops = InetDiagWire.ReadDrops(payload),
            });
            return true;
        });
        client.DumpMessages((request, sequence) => UnixDiagWire.WriteDump(request, sequence, StateListen), InetDiagWire.SOCK_DIAG_BY_FAMILY, "unix_diag dump of listeners", payload =>
        {
            var read = UnixDiagWire.TryReadListener(payload, out var listener);
            if (listener is not null)
            {
                listeners.Add(listener);
            }

            return read;
        });
        return listeners;
    }

    /// <summary>Visits the server's ends of TCP connections to any of the local ports, those that still wait among them.</summary>
    /// <param name="ports">Bytecode for the local ports, from <see cref="SocketFilter.Compile"/>.</param>
    /// <param name="visitor">Called for each, on this thread.</param>
    /// <exception cref="KernelException">The request was refused or the answer broke off.</exception>
    public static DumpResult VisitServed(this SockDiagClient client, ReadOnlySpan<byte> ports, Action<ServedConnection> visitor) =>
        client.Dump(SockDiagClient.StatesOfConnections, ports, withInfo: false, (in SocketObservation socket) => visitor(new ServedConnection
        {
            Local = socket.Local,
            Name = null,
            Cookie = socket.Cookie,
            IsAccepted = socket.Inode != 0,
            PeerIsGone = socket.State == TcpState.CloseWait,
        }));

    /// <summary>
    /// Visits the connected Unix sockets that bear a name: the servers' ends. The kernel leaves out those that wait to be
    /// accepted, which have no inode yet.
    /// </summary>
    /// <param name="visitor">Called for each, on this thread.</param>
    /// <exception cref="KernelException">The request was refused or the answer broke off.</exception>
    public static DumpResult VisitServedUnix(this SockDiagClient client, Action<ServedConnection> visitor)
    {
        return client.DumpMessages((request, sequence) => UnixDiagWire.WriteDump(request, sequence, 1u << (int)TcpState.Established), InetDiagWire.SOCK_DIAG_BY_FAMILY, "unix_diag dump of connections", payload =>
        {
            var read = UnixDiagWire.TryReadConnection(payload, out var connection);
            if (connection is { } served)
            {
                visitor(served);
            }

            return read;
        });
    }
}
