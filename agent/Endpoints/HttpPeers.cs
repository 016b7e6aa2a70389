using System.Net;
using System.Net.Sockets;
using Microsoft.AspNetCore.Connections;
using Sidecar.Probes;
using Sidecar.Probes.SockDiag;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Endpoints;

/// <summary>
/// Who is connected to the endpoint. Nobody keeps others out: when there are no more places, the peer who has most loses the
/// connection that has rested longest. A peer is a user of this host, known by his socket's uid, or a remote address. May be used by
/// any thread.
/// </summary>
internal sealed class HttpPeers : IDisposable
{
    /// <summary>Connections in all.</summary>
    internal const int Most = 256;

    private readonly Lock _gate = new();
    private readonly Dictionary<string, Place> _places = new(StringComparer.Ordinal);
    private readonly Dictionary<string, int> _counts = new(StringComparer.Ordinal);
    private readonly SockDiagClient? _sockets;
    private long _clock;

    public HttpPeers()
    {
        try
        {
            _sockets = SockDiagClient.Open();
        }
        catch (KernelException)
        {
            // without it all of this host's users are one peer, and none of them is known
        }
    }

    /// <summary>The user at the other end; null for a remote one, or where it cannot be told.</summary>
    public uint? UserOf(string connection)
    {
        lock (_gate)
        {
            return _places.TryGetValue(connection, out var place) ? place.User : null;
        }
    }

    /// <summary>A connection was accepted.</summary>
    public void Enter(ConnectionContext connection, Socket socket)
    {
        var (user, peer) = Identify(socket);
        ConnectionContext? leaving = null;
        lock (_gate)
        {
            if (_places.Count >= Most)
            {
                leaving = Longest(_counts.MaxBy(pair => pair.Value).Key);
                Remove(leaving.ConnectionId);
            }

            _places[connection.ConnectionId] = new Place(connection, peer, user, ++_clock, Requests: 0);
            _counts[peer] = _counts.GetValueOrDefault(peer) + 1;
        }

        connection.ConnectionClosed.Register(() => Leave(connection.ConnectionId));
        leaving?.Abort(new ConnectionAbortedException("another connection took its place"));
    }

    /// <summary>A request begins or has ended on a connection.</summary>
    public void Note(string connection, bool isBusy)
    {
        lock (_gate)
        {
            if (_places.TryGetValue(connection, out var place))
            {
                _places[connection] = place with { Since = ++_clock, Requests = place.Requests + (isBusy ? 1 : -1) };
            }
        }
    }

    public void Dispose() => _sockets?.Dispose();

    private void Leave(string connection)
    {
        lock (_gate)
        {
            Remove(connection);
        }
    }

    private void Remove(string connection)
    {
        if (_places.Remove(connection, out var place) && --_counts[place.Peer] == 0)
        {
            _counts.Remove(place.Peer);
        }
    }

    /// <summary>The connection of a peer that has rested longest; where all are busy, the one that began first.</summary>
    private ConnectionContext Longest(string peer) => _places.Values.Where(place => place.Peer == peer)
        .MinBy(place => (place.Requests > 0, place.Since)).Connection;

    private (uint? User, string Peer) Identify(Socket socket)
    {
        if (socket is not { RemoteEndPoint: IPEndPoint remote, LocalEndPoint: IPEndPoint local })
        {
            return (null, "gone");
        }

        // The other end's socket is in this namespace only where the other end is on this host.
        try
        {
            if (_sockets is not null && _sockets.TryFind(TcpEndPoint.From(remote.Address, remote.Port), TcpEndPoint.From(local.Address, local.Port), 0, out var found)
                && found.Local == TcpEndPoint.From(remote.Address, remote.Port))
            {
                return (found.Uid, $"uid {found.Uid}");
            }
        }
        catch (KernelException)
        {
            // not known
        }

        // Of IPv6 everybody has a whole network of addresses.
        var address = remote.Address.IsIPv4MappedToIPv6 ? remote.Address.MapToIPv4() : remote.Address;
        return (null, address.AddressFamily == AddressFamily.InterNetworkV6 ? Convert.ToHexString(address.GetAddressBytes().AsSpan(0, 8)) : address.ToString());
    }

    /// <summary>A connection.</summary>
    /// <param name="Connection">It.</param>
    /// <param name="Peer">Whose.</param>
    /// <param name="User">His uid where he is on this host.</param>
    /// <param name="Since">When a request last began or ended on it, by this class's own count.</param>
    /// <param name="Requests">Under way.</param>
    private readonly record struct Place(ConnectionContext Connection, string Peer, uint? User, long Since, int Requests);
}
