using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Tracking;

/// <summary>
/// All watched connections of all network namespaces. It is handed what a scan has seen, namespace by namespace, and decides
/// which sockets are watched and which have gone.
/// </summary>
public sealed class ConnectionTable
{
    /// <summary>One dump may miss a socket that is open (a dump resumes by bucket and index), so absence has to repeat.</summary>
    internal const int MissesUntilGone = 2;

    /// <summary>Own sockets remembered as such; a ladder has 32 at most.</summary>
    private const int MostIgnored = 4096;

    private readonly HashSet<TrackedConnection> _connections = new(new ByCookie());
    private readonly HashSet<TrackedConnection>.AlternateLookup<(ulong Namespace, SocketCookie Cookie)> _byCookie;
    private readonly IReadOnlyList<Upstream> _upstreams;
    private readonly PathTable _paths;
    private readonly Func<SocketCookie, bool> _isOwn;
    private readonly HashSet<ulong> _incomplete = [];
    private readonly HashSet<(ulong Namespace, SocketCookie Cookie)> _ignored = [];

    // The kernel dumps its table in much the same order each time, so the connection behind the last one is guessed and
    // looked up only where the guess was wrong.
    private List<TrackedConnection> _order = [];
    private List<TrackedConnection> _newOrder = [];
    private int _guess;
    private int _scan;

    /// <summary>An empty table.</summary>
    /// <param name="upstreams">Whose connections are watched.</param>
    /// <param name="paths">The paths that they take.</param>
    /// <param name="isOwn">Whether a socket is a tool of the agent's own: no worker's, and never watched.</param>
    internal ConnectionTable(IReadOnlyList<Upstream> upstreams, PathTable paths, Func<SocketCookie, bool> isOwn)
    {
        _upstreams = upstreams;
        _paths = paths;
        _isOwn = isOwn;
        _byCookie = _connections.GetAlternateLookup<(ulong, SocketCookie)>();
    }

    public IReadOnlyCollection<TrackedConnection> All => _connections;

    /// <summary>Number of full scans so far.</summary>
    public long Scans => _scan;

    /// <summary>The watched connection with this cookie, or null.</summary>
    public TrackedConnection? Find(ulong inode, SocketCookie cookie) => _byCookie.TryGetValue((inode, cookie), out var connection) ? connection : null;

    /// <summary>Gives back what growing has left over.</summary>
    internal void TrimExcess()
    {
        _connections.TrimExcess(_connections.Count + (_connections.Count / 16));
        _order.TrimExcess();
        _newOrder.Clear();
        _newOrder.TrimExcess();
        _newOrder.EnsureCapacity(_order.Count);
    }

    /// <summary>A full scan begins.</summary>
    internal void BeginScan()
    {
        _incomplete.Clear();
        _scan++;
        _newOrder.Clear();
        _guess = 0;
    }

    /// <summary>A full scan has seen a socket. Returns its connection where it is watched and was not seen in this scan before.</summary>
    /// <param name="inode">Network namespace.</param>
    /// <param name="socket">What the kernel said of it.</param>
    /// <param name="now">Monotonic time.</param>
    /// <param name="isNew">It was not in the table before.</param>
    internal TrackedConnection? See(ulong inode, in SocketObservation socket, TimeSpan now, out bool isNew)
    {
        isNew = false;
        if (socket.Cookie.IsNone)
        {
            return null;
        }

        TrackedConnection? connection;
        if (_guess < _order.Count && _order[_guess] is var guessed && guessed.Cookie == socket.Cookie && guessed.NamespaceInode == inode
            && guessed.LastScan != _scan && !guessed.IsGone)
        {
            connection = guessed;
        }
        else if (!_byCookie.TryGetValue((inode, socket.Cookie), out connection))
        {
            // Sockets of the agent's own are tools, not patients: keepalives on a ladder would spoil what it measures.
            if (FindUpstream(socket) is not { } upstream || _isOwn(socket.Cookie) || _ignored.Contains((inode, socket.Cookie)))
            {
                return null;
            }

            isNew = true;
            connection = _paths.Track(SocketKey.Of(socket), upstream, inode, socket.Uid, now);
            _connections.Add(connection);
        }

        if (connection.LastScan == _scan)
        {
            return null; // twice in one dump: the table was re-ordered under it
        }

        if (connection.Place >= 0)
        {
            _guess = connection.Place + 1;
        }

        connection.Place = _newOrder.Count;
        _newOrder.Add(connection);
        connection.LastScan = _scan;
        return connection;
    }

    /// <summary>The scan of a namespace missed sockets, or could not be finished: nothing of it is taken for gone.</summary>
    internal void Incomplete(ulong inode) => _incomplete.Add(inode);

    /// <summary>A full scan is done. Returns the connections that have gone since; they are no longer in the table.</summary>
    internal IReadOnlyList<TrackedConnection> EndScan()
    {
        (_order, _newOrder) = (_newOrder, _order);
        if (_order.Count == _connections.Count)
        {
            return []; // all were seen
        }

        var gone = new List<TrackedConnection>();
        foreach (var connection in _connections)
        {
            if (_incomplete.Contains(connection.NamespaceInode))
            {
                connection.LastScan = _scan; // not taken for missed
            }
            else if (_scan - connection.LastScan >= MissesUntilGone)
            {
                gone.Add(connection);
            }
        }

        foreach (var connection in gone)
        {
            Remove(connection);
        }

        return gone;
    }

    /// <summary>Takes a connection out for good: it turned out to be the agent's own.</summary>
    internal void Ignore(TrackedConnection connection)
    {
        if (_ignored.Count >= MostIgnored)
        {
            _ignored.Clear(); // they are recognised again
        }

        _ignored.Add((connection.NamespaceInode, connection.Cookie));
        Remove(connection);
    }

    /// <summary>Takes a connection in that was tracked elsewhere before.</summary>
    internal void Add(TrackedConnection connection) => _connections.Add(connection);

    /// <summary>Takes a connection out: it has gone.</summary>
    internal void Remove(TrackedConnection connection)
    {
        connection.IsGone = true;
        _connections.Remove(connection);
    }

    private Upstream? FindUpstream(in SocketObservation socket)
    {
        for (var i = 0; i < _upstreams.Count; i++)
        {
            if (_upstreams[i].Matches(socket.Local, socket.Peer))
            {
                return _upstreams[i];
            }
        }

        return null;
    }

    /// <summary>A connection carries what it is found by, so the table has no keys of its own.</summary>
    private sealed class ByCookie : IEqualityComparer<TrackedConnection>, IAlternateEqualityComparer<(ulong Namespace, SocketCookie Cookie), TrackedConnection>
    {
        public bool Equals(TrackedConnection? a, TrackedConnection? b) => ReferenceEquals(a, b);

        public bool Equals((ulong Namespace, SocketCookie Cookie) alternate, TrackedConnection other) =>
            alternate.Cookie == other.Cookie && alternate.Namespace == other.NamespaceInode;

        public int GetHashCode(TrackedConnection connection) => GetHashCode((connection.NamespaceInode, connection.Cookie));

        public int GetHashCode((ulong Namespace, SocketCookie Cookie) alternate) => alternate.GetHashCode();

        public TrackedConnection Create((ulong Namespace, SocketCookie Cookie) alternate) => throw new NotSupportedException();
    }
}
