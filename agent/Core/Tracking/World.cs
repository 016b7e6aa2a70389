using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Recordings;
using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Tracking;

/// <summary>
/// All that is known: connections, paths, upstreams, owners, the server's sessions. Observations come in through its methods and
/// nowhere else; what asks no observation to change it reads.
/// </summary>
public sealed class World
{
    private readonly List<TrackedConnection> _seen = [];
    private readonly List<TrackedConnection> _gone = [];
    private readonly List<TrackedConnection> _ownerless = [];
    private readonly List<TrackedConnection> _perhapsOfInterest = [];
    private readonly HashSet<TrackedConnection> _silent = [];
    private readonly HashSet<PathTracker> _returned = [];
    private readonly Dictionary<string, ServerView> _servers = new(StringComparer.Ordinal);
    private DateTimeOffset _utcNow;

    /// <summary>A world of which nothing has been seen.</summary>
    /// <param name="configuration">What is watched.</param>
    /// <param name="ownNamespace">The agent's own network namespace.</param>
    /// <param name="agentPid">The agent's own process.</param>
    /// <param name="isOwn">Whether a socket is a tool of the agent's own.</param>
    public World(SidecarConfiguration configuration, ulong ownNamespace, int agentPid, Func<SocketCookie, bool> isOwn)
    {
        Configuration = configuration;
        OwnNamespace = ownNamespace;
        AgentPid = agentPid;
        Upstreams = [.. configuration.Upstreams.Select(section => new Upstream(section))];
        Connections = new ConnectionTable(Upstreams, Paths, isOwn);
    }

    public SidecarConfiguration Configuration { get; }

    public ulong OwnNamespace { get; }

    public int AgentPid { get; }

    public IReadOnlyList<Upstream> Upstreams { get; }

    public PathTable Paths { get; } = new();

    public ConnectionTable Connections { get; }

    public OwnerTable Owners { get; } = new();

    /// <summary>What led to the decisions on silent connections.</summary>
    internal Recorder Recorder { get; } = new();

    /// <summary>The connections that this tick has seen anew.</summary>
    public IReadOnlyList<TrackedConnection> Seen => _seen;

    /// <summary>Those of the full scan whose owner is to be looked for.</summary>
    public IReadOnlyList<TrackedConnection> Ownerless => _ownerless;

    /// <summary>Among those that this tick has seen and considered, all that may be worth a recheck before the next scan.</summary>
    internal IReadOnlyList<TrackedConnection> PerhapsOfInterest => _perhapsOfInterest;

    /// <summary>When data last went either way on any connection, as of the last full scan, monotonic.</summary>
    internal TimeSpan LatestData { get; private set; } = TimeSpan.MinValue;

    /// <summary>Those that have gone since the last tick.</summary>
    public IReadOnlyList<TrackedConnection> Gone => _gone;

    /// <summary>All connections on which something is unanswered.</summary>
    public IReadOnlyCollection<TrackedConnection> Silent => _silent;

    /// <summary>Paths that were down, and of which this tick has learnt that they are back, or not down for all.</summary>
    internal IReadOnlySet<PathTracker> Returned => _returned;

    /// <summary>Whether this tick scans all sockets.</summary>
    public bool IsFull { get; private set; }

    /// <summary>Wall clock at the tick's beginning.</summary>
    public DateTimeOffset UtcNow => _utcNow;

    /// <summary>
    /// Takes over what an agent with another configuration knew: evidence survives a reload. What is no longer watched is left
    /// behind; owners are named anew. The other world is not to be used any more.
    /// </summary>
    /// <param name="earlier">That agent's world; its monotonic time is this one's.</param>
    public void TakeOver(World earlier)
    {
        foreach (var upstream in Upstreams)
        {
            upstream.Tally.WasUsed = earlier.Upstreams.Any(before => before.Name == upstream.Name && before.Tally.WasUsed);
        }

        var paths = new Dictionary<PathTracker, bool>();
        foreach (var connection in earlier.Connections.All)
        {
            var path = connection.Path;
            if (!paths.TryGetValue(path, out var isKept))
            {
                var key = connection.Key;
                var upstream = Upstreams.FirstOrDefault(upstream => upstream.Matches(key.Local, key.Peer) && upstream.Section.Direction == path.Upstream.Section.Direction);
                paths[path] = isKept = upstream is not null;
                if (upstream is not null)
                {
                    path.Rebind(upstream);
                    Paths.Adopt(path);
                }
            }

            if (isKept)
            {
                connection.Rebind();
                Connections.Add(connection);
                Recorder.TakeOver(earlier.Recorder, connection);
                connection.Upstream.Tally.Add(connection);
                if (connection.SilenceStart is not null)
                {
                    _silent.Add(connection);
                }
            }
        }
    }

    /// <summary>Gives back what growing has left over.</summary>
    public void TrimExcess()
    {
        Connections.TrimExcess();
        _seen.TrimExcess();
        _gone.TrimExcess();
        _ownerless.TrimExcess();
        _perhapsOfInterest.TrimExcess();
    }

    /// <summary>A tick begins.</summary>
    /// <param name="full">Whether all sockets are going to be scanned; else the silent ones alone are looked up.</param>
    /// <param name="utcNow">Wall clock, for what is kept and told; nothing is decided by it.</param>
    public void BeginTick(bool full, DateTimeOffset utcNow)
    {
        IsFull = full;
        _utcNow = utcNow;
        _seen.Clear();
        _gone.Clear();
        _ownerless.Clear();
        _perhapsOfInterest.Clear();
        Recorder.BeginTick();
        _returned.Clear();
        if (full)
        {
            Connections.BeginScan();
            foreach (var upstream in Upstreams)
            {
                upstream.Tally.BeginScan();
            }
        }
    }

    /// <summary>The full scan has seen a socket; whether it is one to watch is decided here.</summary>
    /// <param name="inode">Network namespace.</param>
    /// <param name="socket">What the kernel said of it.</param>
    /// <param name="now">When it was asked, monotonic.</param>
    public void Saw(ulong inode, in SocketObservation socket, TimeSpan now)
    {
        if (Connections.See(inode, socket, now, out var isNew) is { } connection)
        {
            if (isNew)
            {
                connection.Upstream.Tally.Add(connection);
            }

            Saw(connection, socket, now);
            connection.Upstream.Tally.Saw(connection);

            // Asked here, and not in a pass of its own: with 200,000 of them each pass is one over all of memory.
            if (IsOwnerWanted(connection))
            {
                _ownerless.Add(connection);
            }
        }
    }

    /// <summary>A watched connection was looked up by its key, and is there.</summary>
    public void Saw(TrackedConnection connection, in SocketObservation socket, TimeSpan now)
    {
        var lesson = connection.Update(socket, now);
        connection.User.Take(lesson, now - connection.FirstSeen, now, _utcNow);
        if (lesson.ProbeAnswered && connection.Path.Last?.Up != true)
        {
            // Where connect probes say nothing, a neighbour that was asked and has answered takes their place.
            var user = connection.User;
            Confirm(other => other.User == user, isClean: true, connection.LastWindowProbe!.Value, now);
        }

        if (lesson.Proven && connection.Judged.Verdict == Verdict.Outage)
        {
            Returns(connection.Path, now);
        }

        _seen.Add(connection);
        LatestData = IsFull && connection.LastData > LatestData ? connection.LastData : LatestData;
        if (connection.SilenceStart is null)
        {
            if (_silent.Count > 0)
            {
                _silent.Remove(connection);
            }
        }
        else
        {
            _silent.Add(connection);
        }

        Recorder.Saw(connection, socket, now);
    }

    /// <summary>The scan of a namespace missed sockets, or could not be finished: nothing of it is taken for gone.</summary>
    public void ScanIncomplete(ulong inode) => Connections.Incomplete(inode);

    /// <summary>All namespaces have been scanned.</summary>
    public void EndScan()
    {
        foreach (var connection in Connections.EndScan())
        {
            Left(connection);
        }
    }

    /// <summary>A watched connection was looked up, and the kernel says that it has gone.</summary>
    public void Left(TrackedConnection connection)
    {
        Connections.Remove(connection);
        connection.Upstream.Tally.Remove(connection);
        _silent.Remove(connection);
        _gone.Add(connection);
        Recorder.Left(connection);
    }

    /// <summary>A watched connection turned out to be the agent's own.</summary>
    public void IsOwn(TrackedConnection connection)
    {
        Connections.Ignore(connection);
        connection.Upstream.Tally.Remove(connection);
        _silent.Remove(connection);
        _seen.Remove(connection);
        Recorder.Left(connection);
    }

    /// <summary>The owner of a connection has been looked for.</summary>
    public void OwnerSearched(TrackedConnection connection) =>
        connection.OwnerVersion = Owners.IsKnown(connection.Last.Inode) ? Owners.Version : 0;

    /// <summary>Whether the owner of a connection is to be looked for.</summary>
    public bool IsOwnerWanted(TrackedConnection connection) => connection.OwnerVersion != Owners.Version;

    /// <summary>All has been considered that is to be done about it in this tick.</summary>
    internal void Considered(TrackedConnection connection)
    {
        if (connection.MayBeOfInterest)
        {
            _perhapsOfInterest.Add(connection);
        }
    }

    /// <summary>The owner of a connection is not who it was.</summary>
    public void OwnerLost(TrackedConnection connection)
    {
        Owners.Forget(connection.Last.Inode);
        connection.OwnerVersion = 0;
    }

    /// <summary>A connect probe has ended.</summary>
    /// <param name="path">Whose.</param>
    /// <param name="result">How; null where it was given up.</param>
    /// <param name="now">When that was learnt, monotonic.</param>
    public void ConnectProbeEnded(PathTracker path, ConnectProbeResult? result, TimeSpan now)
    {
        var wasDown = path.Last?.Up == false;
        if (path.ProbeEnded(result, now) is not { } probe)
        {
            return;
        }

        if (wasDown && probe.Up == true)
        {
            Returns(path, now);
        }

        // One that fails while neighbours are answered says nothing of them.
        Confirm(
            connection => connection.Path == path && (probe.Up == true || !(connection.User.LastProven >= probe.Started)),
            probe.IsCleanSuccess, probe.Started, probe.Ended);
    }

    /// <summary>The sessions on an upstream's server, as it was last asked.</summary>
    public void Server(string upstream, ServerView? view)
    {
        if (view is null)
        {
            _servers.Remove(upstream);
        }
        else
        {
            _servers[upstream] = view;
        }
    }

    /// <summary>The last view of an upstream's server, or null where there is none that is fresh enough.</summary>
    public ServerView? ServerAt(string upstream, TimeSpan now) => _servers.TryGetValue(upstream, out var view) && now - view.Taken < ServerView.StaleAfter ? view : null;

    /// <summary>
    /// The kernel announced the end of a watched connection, with its last numbers. Where a router has answered with RST they tell
    /// the idle time after which it did; it counts once a connect probe succeeds, since a server that is down answers so too.
    /// </summary>
    public void Ended(ulong inode, in SocketObservation socket, TimeSpan now)
    {
        if (Connections.Find(inode, socket.Cookie) is { } connection
            && connection.Upstream.Section.IdleTimeout.Source == IdleTimeoutSource.Measure
            && ResetEvidence.GapBeforeReset(connection.Last.Info, socket.Info) is { } gap && gap >= ForgottenOdds.ShortestGap
            && connection.User.TeachesIdling(now, gap, now))
        {
            connection.Path.NoteReset(gap, _utcNow, now);
            connection.Path.IsProbeWanted = true;
        }
    }

    /// <summary>Whatever connect probes said before the agent slept may no longer be true.</summary>
    internal void Distrust()
    {
        foreach (var path in Paths.All)
        {
            path.Distrust();
        }
    }

    /// <summary>Judges what this tick has seen.</summary>
    internal void Judge()
    {
        foreach (var connection in _seen)
        {
            var before = connection.Judged.Verdict;
            if (connection.IsAnswerUnknown && FindSession(connection, connection.LastSeen, out var view) is { } session && view!.Taken > connection.LastData)
            {
                Recorder.AnswerKnown(connection, session.IsActive);
                connection.NoteAnswerAwaited(session.IsActive);
            }

            if (connection.Assess(_utcNow, Recorder))
            {
                connection.Path.IsProbeWanted = true;
            }

            connection.Upstream.Tally.Move(connection, before);
        }
    }

    /// <summary>A window probe was sent on a connection.</summary>
    internal void WindowProbed(TrackedConnection connection, TimeSpan now)
    {
        Recorder.WindowProbed(connection, now);
        connection.NoteWindowProbe(now);
        _silent.Add(connection);
    }

    private void Returns(PathTracker path, TimeSpan now)
    {
        _returned.Add(path);
        path.ReturnedAt = now;
    }

    private void Confirm(Func<TrackedConnection, bool> isMeant, bool isClean, TimeSpan started, TimeSpan ended)
    {
        foreach (var connection in _silent)
        {
            if (isMeant(connection))
            {
                Recorder.ConnectProbed(connection, isClean, started, ended);
                connection.NoteConnectProbe(isClean, started, ended);
            }
        }
    }

    /// <summary>The session that a connection has on its server, as far as it can be claimed from this host.</summary>
    internal SessionClaim Claim(TrackedConnection connection) => SessionClaim.Of(connection, OwnNamespace, Owners.Find(connection.Last.Inode).First?.Identity.Pid);

    /// <summary>The back-end of a connection as last seen; null where it is not known for certain.</summary>
    public ServerSession? FindSession(TrackedConnection connection, TimeSpan now, out ServerView? view)
    {
        view = ServerAt(connection.Upstream.Name, now);
        return view is not null && view.Taken > connection.FirstSeen && SessionMatch.Find(view, Claim(connection), out var session, out _) == SessionIdentity.Proven
            ? session
            : null;
    }
}
