using System.Diagnostics;
using Microsoft.Extensions.Logging;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Judgement;
using Sidecar.Agent.Measurement;
using Sidecar.Agent.Remedies;
using Sidecar.Agent.Stack;
using Sidecar.Agent.Telemetry;
using Sidecar.Agent.Tracking;
using Sidecar.Probes;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.PostgreSql;
using Sidecar.Probes.Processes;
using Sidecar.Probes.SockDiag;

namespace Sidecar.Agent;

/// <summary>
/// observe -> track -> judge -> remedy -> tell, on one thread. A full look at every scan interval, more rarely where all is
/// quiet; between them short looks, by cookie, at the few connections on which something is unanswered or an action is
/// under way.
/// </summary>
internal sealed class SidecarLoop : IDisposable
{
    private static readonly TimeSpan ShortLook = TimeSpan.FromMilliseconds(100);
    private static readonly TimeSpan NamespaceRefresh = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan NameRefresh = TimeSpan.FromSeconds(30);

    private const int AlwaysDescribed = 500;

    private static readonly TimeSpan AdviceHolds = TimeSpan.FromSeconds(60);

    /// <summary>Who asks for a description waits for it no longer than this.</summary>
    private static readonly TimeSpan DescribeWithin = TimeSpan.FromSeconds(2);

    /// <summary>A description that nobody has asked for since takes up room for this long.</summary>
    private static readonly TimeSpan KeepDescription = TimeSpan.FromSeconds(30);

    private static readonly TimeSpan TidyEvery = TimeSpan.FromSeconds(15);
    private const long WorthTidying = 8 * 1024 * 1024;

    /// <summary>Short looks at more connections than this would no longer be short; the others wait for the full look.</summary>
    private const int MostInterests = 512;

    private readonly SidecarConfiguration _configuration;
    private readonly SidecarMetrics _metrics;
    private readonly JournalLog _log;
    private readonly Func<TimeSpan> _clock;
    private readonly IReadOnlyList<Upstream> _upstreams;
    private readonly NamespaceTable _namespaces;
    private readonly PathTable _paths = new();
    private readonly ConnectionTable _connections;
    private readonly OwnerTable _owners;
    private readonly WorkerMonitor _workers;
    private readonly IncidentStore? _incidents;
    private readonly RemedyEngine? _remedies;
    private readonly SessionTable? _sessions;
    private readonly SelfCheck _selfCheck;
    private readonly Surroundings? _surroundings;
    private readonly ScanPacing _pacing;
    private readonly Timeline _timeline = new();
    private readonly AutoResetEvent _wake = new(false);
    private readonly List<TrackedConnection> _looked = [];
    private readonly Dictionary<Upstream, ((TimeSpan? Lower, bool CountsDataOnly, ServerSettings? Settings) Facts, TimeSpan At, IReadOnlyList<string> Lines)> _advice = [];
    private readonly List<TrackedConnection> _interests = [];
    private readonly List<TrackedConnection> _ownerless = [];
    private readonly PathLearning? _learning;
    private readonly ResetWatch? _resets;
    private readonly CancellationTokenSource _stopping = new();
    private volatile AgentSnapshot? _snapshot;
    private volatile bool _isAsked;
    private volatile TaskCompletionSource _nextDescription = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private long _scans;
    private TimeSpan _describedAt;
    private TimeSpan _toldAt;
    private TimeSpan _nextTidy;
    private long _allocatedAtTidy;
    private TimeSpan _lookTook;
    private TimeSpan _ownersTook;
    private long _scannedAt;
    private TimeSpan _nextNamespaces;
    private TimeSpan _nextNames;
    private Task<string?>[] _resolving = [];
    private int _resolved;
    private string? _lastProblem;

    /// <summary>A loop over the configuration. Without <paramref name="incidents"/> it looks and judges, and has no remedies.</summary>
    public SidecarLoop(SidecarConfiguration configuration, SidecarMetrics metrics, IncidentStore? incidents, JournalLog log, SelfCheck selfCheck, Func<TimeSpan> clock, BackgroundMeasurement? measurement = null, Surroundings? surroundings = null)
    {
        _configuration = configuration;
        _metrics = metrics;
        _log = log;
        _clock = clock;
        _selfCheck = selfCheck;
        _surroundings = surroundings;
        var processes = new ProcessReader();
        _upstreams = [.. configuration.Upstreams.Select(section => new Upstream(section))];
        _namespaces = new NamespaceTable(processes);
        _connections = new ConnectionTable(_upstreams, _paths);
        _owners = new OwnerTable(processes, configuration.Workers);
        _workers = new WorkerMonitor(processes, _owners);
        _incidents = incidents;
        if (incidents is not null)
        {
            _sessions = new SessionTable(configuration, _namespaces, _owners, clock);
            _remedies = new RemedyEngine(configuration, new Teller(incidents, metrics, log, clock, _timeline), processes, _namespaces, _owners, _sessions);
            _remedies.Remember(incidents.Recent(1000), DateTimeOffset.UtcNow, clock());
        }

        if (measurement is not null)
        {
            _learning = new PathLearning(measurement, _namespaces);
            _paths.Came = _learning.Resume;
            if (configuration.Upstreams.Any(upstream => upstream.IdleTimeout.Source == IdleTimeoutSource.Measure && upstream.Direction == UpstreamDirection.Outbound))
            {
                _resets = new ResetWatch(_connections, Probe);
            }
        }

        var now = clock();
        _pacing = new ScanPacing(configuration.Agent.ScanInterval, now);
        _nextTidy = now + TidyEvery;
    }

    /// <summary>
    /// The last look in words; null before the first. Describing ten thousand connections costs more than looking at them,
    /// so on a large host it is done for those who ask: they wait for the loop's next turn, two seconds at most. So they do
    /// where all is quiet and the last look lies back longer than a scan interval.
    /// </summary>
    public AgentSnapshot? Snapshot
    {
        get
        {
            var next = _nextDescription.Task;
            if (HasLooked && (_snapshot?.Scan != Volatile.Read(ref _scans) || _clock().Ticks - Volatile.Read(ref _scannedAt) > _configuration.Agent.ScanInterval.Ticks * 5 / 4))
            {
                _isAsked = true;
                _wake.Set();
                next.Wait(DescribeWithin);
            }

            return _snapshot;
        }
    }

    /// <summary>Whether the first look is done.</summary>
    public bool HasLooked => Volatile.Read(ref _scans) > 0;

    /// <summary>Connections that are watched.</summary>
    public int Watched { get; private set; }

    /// <summary>When the loop last turned, monotonic.</summary>
    public TimeSpan LastTurn { get; private set; }

    /// <summary>Remedies that the configuration asks for and that are not possible here.</summary>
    public IReadOnlyList<string> NotPossible => _selfCheck.NotPossible;

    /// <summary>Why the HTTP endpoint is not there, where it is not.</summary>
    public Func<string?>? EndpointProblem { get; set; }

    /// <summary>Whether an action is under way.</summary>
    public bool IsFollowing { get; private set; }

    /// <summary>
    /// Turns until told to stop, on the calling thread. Nothing that happens in one turn ends the loop: it is logged and
    /// the next turn begins anew.
    /// </summary>
    /// <param name="turned">Called after every turn, for the watchdog.</param>
    /// <param name="cancellation">Ends it.</param>
    public void Run(Action turned, CancellationToken cancellation)
    {
        using var registration = cancellation.Register(() => _wake.Set());
        if (_incidents is not null)
        {
            // Not before: a second agent is refused only after it was made, and these may be the first one's.
            _remedies!.CloseInterrupted(_incidents.Recent(1000));
        }

        var planned = _clock();
        while (!cancellation.IsCancellationRequested)
        {
            try
            {
                Turn(planned);
            }
            catch (Exception e)
            {
                Problem($"a look failed: {e.Message}");
            }

            _incidents?.Retry();
            turned();
            Tidy();
            planned = Sleep(turned);
        }
    }

    /// <summary>Sleeps until the next look is due or somebody wakes it, and glances at the kernel's counters meanwhile.</summary>
    /// <returns>When the look was due.</returns>
    private TimeSpan Sleep(Action turned)
    {
        var now = _clock();
        var isBusy = IsFollowing || _interests.Count > 0;
        var shortLook = isBusy ? now + ShortLook : TimeSpan.MaxValue;
        while (true)
        {
            var due = shortLook < _pacing.Next ? shortLook : _pacing.Next;
            if (due <= now)
            {
                return now;
            }

            var glance = now + _pacing.GlanceEvery;
            var isGlance = glance < due;
            if (_wake.WaitOne((isGlance ? glance : due) - now))
            {
                return _clock(); // woken early: nothing came late
            }

            if (!isGlance)
            {
                return due;
            }

            var began = _clock();
            var counters = Counters();
            now = _clock();
            _pacing.Glance(counters, now, now - began);
            turned();
        }
    }

    /// <summary>What the kernel has counted of TCP, in all namespaces; null where one of them cannot be read.</summary>
    private TcpCounters? Counters()
    {
        TcpCounters? sum = default(TcpCounters);
        try
        {
            foreach (var network in _namespaces.Open)
            {
                sum += network.Counters;
            }
        }
        catch (KernelException)
        {
            return null;
        }

        return sum;
    }

    /// <summary>One full look without remedies, for <c>status</c> without a running agent.</summary>
    public AgentSnapshot LookOnce()
    {
        ResolveNames();
        Task.WaitAll(_resolving, TimeSpan.FromSeconds(2));
        ResolveNames();
        var began = _clock();
        for (var until = _clock() + TimeSpan.FromSeconds(4); ;)
        {
            _pacing.Bring(TimeSpan.Zero, _clock());
            Observe(_clock(), out _);
            CollectProbes(_clock());
            JudgeLooked(full: true);
            if (_clock() > until || !_connections.All.Any(connection => connection.Judged.Reason == Reason.RetransmittingPathUnknown && connection.Path.IsRunning))
            {
                break;
            }

            _wake.WaitOne(ShortLook);
        }

        return Describe(_clock(), _clock() - began, inWords: true);
    }

    /// <summary>One full turn now, however soon after the last one; for benchmarks.</summary>
    /// <returns>How long looking took, how long of that finding owners, and how many connections are watched.</returns>
    internal (TimeSpan Look, TimeSpan Owners, int Connections) TurnAtOnce()
    {
        var now = _clock();
        _pacing.Bring(TimeSpan.Zero, now);
        Turn(now);
        return (_lookTook, _ownersTook, _connections.All.Count);
    }

    public void Dispose()
    {
        _stopping.Cancel();
        _remedies?.Stop(_connections.All, _clock());
        _remedies?.Dispose();
        _sessions?.Dispose();
        _namespaces.Dispose();
        _stopping.Dispose();
        _wake.Dispose();
    }

    private void Turn(TimeSpan planned)
    {
        var started = _clock();
        ResolveNames();
        var full = Observe(started, out var gone);
        foreach (var connection in gone)
        {
            if (!full)
            {
                connection.Upstream.Tally.Remove(connection.Judged.Verdict);
            }

            _remedies?.NoteGone(connection, started);
            _owners.Forget(connection.Last.Inode);
        }

        var observed = _clock();
        _lookTook = observed - started;
        var late = StarvationGate.IsLate(planned, started, observed);
        if (late)
        {
            // Whatever a fresh connection said before the agent slept may no longer be true.
            foreach (var path in _paths.All)
            {
                path.Distrust();
            }
        }

        CollectProbes(observed);
        JudgeLooked(full);
        _remedies?.Consider(_looked, _connections.All, _upstreams, late, _clock(), Probe);
        LastTurn = _clock();
        IsFollowing = _remedies?.IsFollowing == true;
        CollectInterests();
        Pace(full);
        if (full && _sessions is not null)
        {
            _sessions.Attend(_connections.All);
            foreach (var problem in _sessions.NewProblems())
            {
                _log.Write(LogLevel.Warning, problem, MessageIds.Limitation);
            }
        }

        Tell(full, observed - started);
        if (full)
        {
            _learning?.Turn(_paths.All, LastTurn);
            Watched = _connections.All.Count;
            Volatile.Write(ref _scannedAt, started.Ticks);
            Volatile.Write(ref _scans, _connections.Scans);
            _metrics.Scanned(observed - started, _connections.LastScanSockets, DateTimeOffset.UtcNow);
        }
    }

    /// <summary>The gauges at every full look, and soon when something is stuck; words where there are few, or somebody asks.</summary>
    private void Tell(bool full, TimeSpan took)
    {
        var now = LastTurn;
        var asked = _isAsked;
        if (!full && !asked && (now - _toldAt < TimeSpan.FromMilliseconds(500) || !_upstreams.Any(upstream => upstream.Tally.Of(Verdict.Stuck) + upstream.Tally.Of(Verdict.Outage) > 0)))
        {
            return;
        }

        _toldAt = now;
        var inWords = asked || _connections.All.Count <= AlwaysDescribed;
        var snapshot = Describe(now, took, inWords);
        _metrics.Publish(snapshot, _upstreams);
        _timeline.Note(snapshot);
        _remedies?.FollowChains(_connections.All);
        _lastProblem = null;
        if (inWords)
        {
            _isAsked = false;
            _describedAt = now;
            _snapshot = snapshot;
            Interlocked.Exchange(ref _nextDescription, new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously)).SetResult();
        }
        else if (now - _describedAt > KeepDescription)
        {
            _snapshot = null;
        }
    }

    /// <summary>
    /// Looks leave next to nothing behind, so the collector would not come for hours after a start, or a description of all
    /// connections, that did. It is called when something has gathered, and gives the room back.
    /// </summary>
    private void Tidy()
    {
        if (LastTurn < _nextTidy)
        {
            return;
        }

        _nextTidy = LastTurn + TidyEvery;
        var allocated = GC.GetTotalAllocatedBytes();
        if (allocated - _allocatedAtTidy > WorthTidying)
        {
            _connections.TrimExcess();
            _owners.TrimExcess();
            _looked.TrimExcess();
            _ownerless.Clear();
            _ownerless.TrimExcess();
            GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
            _allocatedAtTidy = allocated;
        }
    }

    /// <summary>Decides when the next full look is due.</summary>
    private void Pace(bool full)
    {
        var isArming = _remedies?.IsArming == true;
        if (full)
        {
            var isBusy = isArming || IsFollowing || _interests.Count > 0 || _upstreams.Any(upstream => upstream.Tally.Silent > 0);
            _pacing.End(_lookTook, isBusy, _paths.ShortestIdleTimeout);
        }

        if (_configuration.Agent.AllNetworkNamespaces)
        {
            _pacing.Bring(_nextNamespaces, LastTurn); // what happens in those that are not open yet is not counted
        }

        if (isArming)
        {
            _pacing.Bring(LastTurn + ShortLook, LastTurn);
        }
    }

    /// <summary>Looks; afterwards <see cref="_looked"/> holds the connections that were seen anew.</summary>
    private bool Observe(TimeSpan now, out IReadOnlyList<TrackedConnection> gone)
    {
        _looked.Clear();
        var isStale = now - _pacing.Began >= _configuration.Agent.ScanInterval;
        if (now < _pacing.Next && !(_isAsked && isStale))
        {
            gone = LookAtInterests();
            return false;
        }

        _pacing.Begin(now, Counters());
        if (now >= _nextNamespaces)
        {
            _nextNamespaces = now + NamespaceRefresh;
            if (_configuration.Agent.AllNetworkNamespaces)
            {
                _namespaces.Refresh();
            }

            _paths.Prune(now);
            _owners.Prune();
        }

        _resets?.Look(_namespaces.Open, now);
        gone = _connections.Scan(_namespaces.Open, _clock);
        if (_connections.LastProblem is { } problem)
        {
            Problem(problem);
        }

        _looked.AddRange(_connections.All);
        var found = _clock();
        FindOwners(now);
        _ownersTook = _clock() - found;
        return true;
    }

    /// <summary>Looks for the owners of new connections; those that were found once are asked for only when one was lost.</summary>
    private void FindOwners(TimeSpan now)
    {
        _ownerless.Clear();
        foreach (var connection in _looked)
        {
            if (connection.OwnerVersion != _owners.Version)
            {
                _ownerless.Add(connection);
            }
        }

        if (_ownerless.Count == 0)
        {
            return;
        }

        _owners.Resolve(_ownerless.Select(connection => connection.Last.Inode), now);
        foreach (var connection in _ownerless)
        {
            connection.OwnerVersion = _owners.IsKnown(connection.Last.Inode) ? _owners.Version : 0;
            if (_owners.Find(connection.Last.Inode).First is { } owner && IsAgent(owner))
            {
                _connections.Ignore(connection);
            }
        }

        _looked.RemoveAll(connection => connection.IsGone);
    }

    /// <summary>The agent itself (its sessions, its fresh connections), or <c>measure</c> run by hand beside it.</summary>
    private static bool IsAgent(OwnerInfo owner) =>
        owner.Identity.Pid == Environment.ProcessId
        || (owner.Executable is { } executable && executable == Environment.ProcessPath && Path.GetFileName(executable) == "conn-sidecar");

    /// <summary>Which connections the short looks until the next full one are for.</summary>
    private void CollectInterests()
    {
        _interests.Clear();
        foreach (var connection in _looked)
        {
            if (connection.IsOfInterest && !connection.IsGone && _interests.Count < MostInterests)
            {
                _interests.Add(connection);
            }
        }
    }

    private List<TrackedConnection> LookAtInterests()
    {
        var gone = new List<TrackedConnection>();
        foreach (var connection in _interests)
        {
            if (_namespaces.Find(connection.NamespaceInode) is not { } network)
            {
                continue;
            }

            try
            {
                if (_connections.Look(connection, network, _clock()))
                {
                    _looked.Add(connection);
                }
                else
                {
                    gone.Add(connection);
                }
            }
            catch (KernelException e)
            {
                Problem(e.Message);
            }
        }

        return gone;
    }

    private void CollectProbes(TimeSpan now)
    {
        foreach (var path in _paths.All)
        {
            if (path.Collect(now) is not { } probe)
            {
                continue;
            }

            foreach (var connection in _connections.All)
            {
                if (connection.Path == path)
                {
                    connection.NoteFreshConnect(probe.IsCleanSuccess, probe.Started, probe.Ended);
                }
            }
        }
    }

    private void JudgeLooked(bool full)
    {
        if (full)
        {
            foreach (var upstream in _upstreams)
            {
                upstream.Tally.Clear();
            }
        }

        var utcNow = DateTimeOffset.UtcNow;
        foreach (var connection in _looked)
        {
            var before = connection.Judged.Verdict;
            if (connection.Assess(utcNow))
            {
                Probe(connection);
            }

            if (full)
            {
                connection.Upstream.Tally.Add(connection);
                _pacing.Saw(connection.LastData);
            }
            else
            {
                connection.Upstream.Tally.Move(before, connection.Judged.Verdict);
            }
        }
    }

    private void Probe(TrackedConnection connection)
    {
        if (_namespaces.Find(connection.NamespaceInode) is { } network)
        {
            connection.Path.Request(network, _clock(), _wake, _stopping.Token);
        }
    }

    private void ResolveNames()
    {
        // One name that nobody answers for must not keep the others waiting.
        var resolved = _resolving.Count(task => task.IsCompleted);
        if (resolved != _resolved)
        {
            _resolved = resolved;
            _connections.Recompile();
        }

        if (_resolving.Length > 0 && resolved == _resolving.Length)
        {
            foreach (var problem in _resolving.Where(task => task.IsCompletedSuccessfully).Select(task => task.Result).OfType<string>())
            {
                Problem(problem);
            }

            _resolving = [];
            _resolved = 0;
        }

        var now = _clock();
        if (_resolving.Length == 0 && now >= _nextNames)
        {
            _nextNames = now + NameRefresh;
            _resolving = [.. _upstreams.Where(upstream => upstream.HasHostNames).Select(upstream => upstream.ResolveAsync(_stopping.Token))];
        }
    }

    private AgentSnapshot Describe(TimeSpan now, TimeSpan duration, bool inWords)
    {
        // Those that are silent are always told of: the metrics count for how long.
        var connections = new List<ConnectionStatus>(inWords ? _connections.All.Count : 0);
        if (inWords || _upstreams.Any(upstream => upstream.Tally.Silent > 0))
        {
            foreach (var connection in _connections.All)
            {
                if (inWords || connection.Judged.Verdict is Verdict.Suspect or Verdict.Stuck or Verdict.Outage)
                {
                    connections.Add(Status(connection, now));
                }
            }
        }

        var limitations = new List<string>(_selfCheck.Limitations);
        if (_namespaces.Refused > 0)
        {
            limitations.Add($"{_namespaces.Refused} other network namespaces cannot be entered ({_namespaces.RefusedBecause}): connections there are not seen");
        }

        limitations.AddRange(_sessions?.Problems ?? []);
        var stack = _surroundings?.Stack ?? StackView.Empty;
        limitations.AddRange(_surroundings?.Problems ?? []);
        if (EndpointProblem?.Invoke() is { } endpoint)
        {
            limitations.Add(endpoint);
        }

        if (_incidents?.Problem is { } problem)
        {
            limitations.Add(problem);
        }

        if (_lastProblem is { } last)
        {
            limitations.Add(last);
        }

        return new AgentSnapshot
        {
            Time = DateTimeOffset.UtcNow,
            Scan = _connections.Scans,
            Duration = duration,
            Mode = _configuration.Agent.Mode == AgentMode.Observe ? "observe" : "protect",
            Connections = connections,
            Upstreams = [.. _upstreams.Select(upstream => Status(upstream, now))],
            Workers = _workers.Look(_connections.All, now),
            Listeners = stack.Listeners,
            Groups = stack.Groups,
            ListenOverflows = stack.Overflows,
            Haproxies = _surroundings?.Haproxies ?? [],
            Checks = _surroundings?.Checks ?? [],
            Limitations = limitations,
        };
    }

    private ConnectionStatus Status(TrackedConnection connection, TimeSpan now)
    {
        var owner = _owners.Find(connection.Last.Inode).First;
        var evidence = connection.Evidence(now);
        string? words = null;
        var session = _sessions?.Describe(connection, now, out words);
        return new ConnectionStatus
        {
            Local = connection.Key.Local.ToEndPoint(),
            Peer = connection.Key.Peer.ToEndPoint(),
            Pid = owner?.Identity.Pid,
            Executable = owner?.Executable,
            Unit = owner?.Unit,
            Upstream = connection.Upstream.Name,
            Namespace = _namespaces.Find(connection.NamespaceInode)?.Name ?? "gone",
            Idle = evidence.Idle,
            Verdict = connection.Judged.Verdict,
            Why = words is null ? Explanation.Of(connection, now) : $"{Explanation.Of(connection, now)}; {words}",
            StuckFor = connection.Judged.Verdict is Verdict.Suspect or Verdict.Stuck or Verdict.Outage ? evidence.Stall?.Silence : null,
            KeepaliveArmed = connection.Last.Timer switch
            {
                SocketTimer.Keepalive => true,
                SocketTimer.None => false,
                _ => null,
            },
            Cookie = connection.Cookie.Value,
            Session = session,
        };
    }

    private UpstreamStatus Status(Upstream upstream, TimeSpan now)
    {
        var last = _paths.All.Where(path => path.Upstream == upstream && path.Last is not null).Select(path => path.Last!).MaxBy(probe => probe.Ended);
        var (lower, upper) = IdleTimeout(upstream);
        var server = _sessions?.Find(upstream.Name)?.ViewAt(now)?.Look;
        return new UpstreamStatus
        {
            Name = upstream.Name,
            Endpoint = string.Join(", ", upstream.Section.Endpoints.Select(endpoint => endpoint.Text)),
            PathUp = last?.Up,
            PathRoundTrip = last is { Up: true } ? last.Result.Elapsed : null,
            IdleTimeoutLower = lower,
            IdleTimeoutUpper = upper,
            ConnectionLimit = server?.ConnectionLimit,
            ServerConnections = server?.Connections,
            Server = server?.Facts is { } facts ? Status(upstream.Section, server.IsInRecovery, facts) : null,
            Advice = Advice(upstream, lower, now),
        };
    }

    /// <summary>Kept for a while: it reads files of the host, and is wanted at every look.</summary>
    private IReadOnlyList<string> Advice(Upstream upstream, TimeSpan? lower, TimeSpan now)
    {
        (TimeSpan? Lower, bool CountsDataOnly, ServerSettings? Settings) facts =
            (lower, _paths.All.Any(path => path.Upstream == upstream && path.CountsDataOnly), _sessions?.Find(upstream.Name)?.Settings);
        if (!_advice.TryGetValue(upstream, out var kept) || kept.Facts != facts || now - kept.At > AdviceHolds)
        {
            _advice[upstream] = kept = (facts, now, Advisor.For(upstream.Section, facts.Lower, facts.CountsDataOnly, facts.Settings));
        }

        return kept.Lines;
    }

    private static ServerStatus Status(UpstreamSection section, bool isStandby, ServerFacts facts)
    {
        var role = isStandby ? "standby" : facts.IsReadOnly ? "read-only" : "primary";
        return new ServerStatus
        {
            Role = role,
            IsRoleAsDeclared = section.ServerRole is { } wanted ? role == wanted : null,
            ReplicationLag = facts.ReplicationLag,
            Standbys = facts.Standbys,
            OldestTransaction = facts.OldestTransaction,
        };
    }

    /// <summary>As declared, or what the best observed of the upstream's paths is known to have.</summary>
    private (TimeSpan? Lower, TimeSpan? Upper) IdleTimeout(Upstream upstream)
    {
        if (upstream.Section.IdleTimeout is { Source: IdleTimeoutSource.Declared, Value: var declared })
        {
            return (declared, declared);
        }

        var best = _paths.All.Where(path => path.Upstream == upstream && path.Estimate is not null).Select(path => path.Estimate!).MaxBy(estimate => (estimate.Upper is not null, estimate.Count));
        return best is null ? (null, null) : (best.Lower > TimeSpan.Zero ? best.Lower : null, best.Upper);
    }

    private void Problem(string problem)
    {
        if (_lastProblem != problem)
        {
            _log.Write(LogLevel.Warning, problem);
        }

        _lastProblem = problem;
    }

    /// <summary>Monotonic time since its making; does not run while the host is suspended, as the kernel's ages do not.</summary>
    public static Func<TimeSpan> MonotonicClock()
    {
        var origin = Stopwatch.GetTimestamp();
        return () => Stopwatch.GetElapsedTime(origin);
    }
}
