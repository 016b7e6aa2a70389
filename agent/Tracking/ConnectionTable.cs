using Sidecar.Agent.Judgement;
using Sidecar.Agent.Judgement.IdleTimeout;
using Sidecar.Probes;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.SockDiag;
using Sidecar.Probes.Sockets;

namespace Sidecar.Agent.Tracking;

/// <summary>
/// All watched connections of all namespaces, and the looks at them: a full one (a filtered dump of each namespace) and
/// a short one (a request by cookie for each connection of interest).
/// </summary>
public sealed class ConnectionTable
{
    /// <summary>One dump may miss a socket that is open (a dump resumes by bucket and index), so absence has to repeat.</summary>
    private const int MissesUntilGone = 2;

    /// <summary>Own sockets remembered as such; a ladder has 32 at most.</summary>
    private const int MostIgnored = 4096;

    private readonly HashSet<TrackedConnection> _connections = new(new ByCookie());
    private readonly HashSet<TrackedConnection>.AlternateLookup<(ulong Namespace, SocketCookie Cookie)> _byCookie;
    private readonly IReadOnlyList<Upstream> _upstreams;
    private readonly PathTable _paths;
    private readonly SocketVisitor _visitor;
    private readonly List<TrackedConnection> _gone = [];
    private readonly HashSet<ulong> _failed = [];
    private readonly HashSet<(ulong Namespace, SocketCookie Cookie)> _ignored = [];

    // The kernel dumps its table in much the same order each time, so the connection behind the last one is guessed and
    // looked up only where the guess was wrong.
    private List<TrackedConnection> _order = [];
    private List<TrackedConnection> _newOrder = [];
    private int _guess;
    private byte[] _filter = [];
    private ulong _namespace;
    private TimeSpan _now;
    private DateTimeOffset _utcNow;
    private int _scan;

    public ConnectionTable(IReadOnlyList<Upstream> upstreams, PathTable paths)
    {
        _upstreams = upstreams;
        _paths = paths;
        _byCookie = _connections.GetAlternateLookup<(ulong, SocketCookie)>();
        _visitor = Visit;
        Recompile();
    }

    public IReadOnlyCollection<TrackedConnection> All => _connections;

    /// <summary>Sockets the kernel sent in the last full look.</summary>
    public int LastScanSockets { get; private set; }

    /// <summary>Why the last full look is not complete, or null.</summary>
    public string? LastProblem { get; private set; }

    /// <summary>Number of full looks so far.</summary>
    public long Scans => _scan;

    /// <summary>Compiles the kernel's filter anew, after host names were resolved.</summary>
    public void Recompile() => _filter = _upstreams.SelectMany(upstream => upstream.Conditions).ToList() is { Count: > 0 } conditions
        ? SocketFilter.Compile(conditions)
        : [];

    /// <summary>
    /// A full look. Returns the connections that have gone since; they are no longer in the table.
    /// </summary>
    /// <param name="namespaces">Where to look.</param>
    /// <param name="clock">Monotonic time; read per namespace, since ages count from the kernel's answer.</param>
    public IReadOnlyList<TrackedConnection> Scan(IEnumerable<NetworkNamespace> namespaces, Func<TimeSpan> clock)
    {
        _gone.Clear();
        _failed.Clear();
        LastProblem = null;
        _scan++;
        LastScanSockets = 0;
        _newOrder.Clear();
        _guess = 0;
        if (_filter.Length == 0)
        {
            return _gone; // no address is known yet: nothing is watched
        }

        foreach (var network in namespaces)
        {
            _namespace = network.Inode;
            try
            {
                _now = clock();
                _utcNow = DateTimeOffset.UtcNow;
                var dump = network.Diagnostics.Dump(SockDiagClient.StatesOfConnections, _filter, withInfo: true, _visitor);
                LastScanSockets += dump.Sockets;
                if (dump.Malformed > 0)
                {
                    // One of them may be a connection that is not seen: nothing is taken for gone.
                    _failed.Add(network.Inode);
                    LastProblem = $"{network.Name}: {dump.Malformed} of the kernel's messages cannot be read";
                }
            }
            catch (KernelException e)
            {
                // What was seen until then is kept, nothing of this namespace is taken for gone, and the others are looked at.
                _failed.Add(network.Inode);
                LastProblem = $"{network.Name}: {e.Message}";
            }
        }

        (_order, _newOrder) = (_newOrder, _order);
        if (_order.Count == _connections.Count)
        {
            return _gone; // all were seen
        }

        foreach (var connection in _connections)
        {
            if (_failed.Contains(connection.NamespaceInode))
            {
                connection.LastScan = _scan; // not taken for missed
            }
            else if (_scan - connection.LastScan >= MissesUntilGone)
            {
                _gone.Add(connection);
            }
        }

        foreach (var connection in _gone)
        {
            Remove(connection);
        }

        return _gone;
    }

    /// <summary>A short look at one connection; false when the kernel says it is gone, and then it has left the table.</summary>
    /// <exception cref="KernelException">The request was refused.</exception>
    public bool Look(TrackedConnection connection, NetworkNamespace network, TimeSpan now)
    {
        if (network.Diagnostics.TryGet(connection.Key, out var socket) && socket.State is TcpState.Established or TcpState.CloseWait)
        {
            Take(connection, socket, now, DateTimeOffset.UtcNow);
            return true;
        }

        Remove(connection);
        return false;
    }

    /// <summary>Takes a connection out for good: it turned out to be the agent's own.</summary>
    public void Ignore(TrackedConnection connection)
    {
        if (_ignored.Count >= MostIgnored)
        {
            _ignored.Clear(); // they are recognised again
        }

        _ignored.Add((connection.NamespaceInode, connection.Cookie));
        Remove(connection);
    }

    /// <summary>The watched connection with this cookie, or null.</summary>
    internal TrackedConnection? Find(ulong inode, SocketCookie cookie) => _byCookie.TryGetValue((inode, cookie), out var connection) ? connection : null;

    /// <summary>Gives back what growing has left over.</summary>
    internal void TrimExcess()
    {
        _connections.TrimExcess(_connections.Count + (_connections.Count / 16));
        _order.TrimExcess();
        _newOrder.Clear();
        _newOrder.TrimExcess();
        _newOrder.EnsureCapacity(_order.Count);
    }

    /// <summary>Takes a connection out: it was destroyed.</summary>
    public void Remove(TrackedConnection connection)
    {
        connection.IsGone = true;
        _connections.Remove(connection);
    }

    private void Visit(in SocketObservation socket)
    {
        if (socket.Cookie.IsNone)
        {
            return;
        }

        TrackedConnection? connection;
        if (_guess < _order.Count && _order[_guess] is var guessed && guessed.Cookie == socket.Cookie && guessed.NamespaceInode == _namespace
            && guessed.LastScan != _scan && !guessed.IsGone)
        {
            connection = guessed;
        }
        else if (!_byCookie.TryGetValue((_namespace, socket.Cookie), out connection))
        {
            // Sockets of the agent's own are tools, not patients: keepalives on a ladder would spoil what it measures.
            if (FindUpstream(socket) is not { } upstream || OwnSockets.Contains(socket.Cookie) || _ignored.Contains((_namespace, socket.Cookie)))
            {
                return;
            }

            connection = _paths.Track(SocketKey.Of(socket), upstream, _namespace, _now);
            _connections.Add(connection);
        }

        if (connection.LastScan == _scan)
        {
            return; // twice in one dump: the table was re-ordered under it
        }

        if (connection.Place >= 0)
        {
            _guess = connection.Place + 1;
        }

        connection.Place = _newOrder.Count;
        _newOrder.Add(connection);
        connection.LastScan = _scan;
        Take(connection, socket, _now, _utcNow);
    }

    /// <summary>One look at one connection, of which its path learns too.</summary>
    internal static void Take(TrackedConnection connection, in SocketObservation socket, TimeSpan now, DateTimeOffset utcNow)
    {
        var lesson = connection.Update(socket, now);
        var path = connection.Path;
        path.LastUsed = now;

        // What was lost while the path was down says nothing of how it is while it is up.
        if (lesson.Sent > 0 && !(path.LastDown >= lesson.SilentSince))
        {
            path.Loss.Add(lesson.Sent, lesson.Failed, now);
            if (lesson.SilentSince is not null)
            {
                path.Loss.AddBlip(now);
            }
        }

        if (lesson.Survived >= ForgottenOdds.ShortestGap)
        {
            path.Note(new Observation(lesson.Survived, GapOutcome.Survived, utcNow, EvidenceSource.Passive));
        }
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
