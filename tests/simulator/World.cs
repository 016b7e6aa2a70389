using System.Globalization;
using System.Net;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;

namespace Sidecar.Simulator;

/// <summary>
/// One host of workers, its paths and servers, and the agent beside it, all drawn from one seed. The same seed gives the
/// same history to the last microsecond.
/// </summary>
internal sealed class World
{
    private const string WorkerAddress = "10.1.0.2";

    private readonly Dictionary<SocketCookie, SimulatedConnection> _byCookie = [];
    private readonly Report _report;

    // What was drawn later than the rest is drawn apart, so that what a seed meant before stays as it was.
    private readonly Dice _more;
    private readonly Action<string>? _trace;
    private readonly List<SimulatedThread> _threads = [];
    private readonly List<SharedLock?> _locks = [];
    private double _slowQueries;
    private ulong _cookies;
    private int _pids = 1000;

    internal World(ulong seed, Report report, Action<string>? trace = null, WorldKind? kind = null)
    {
        Seed = seed;
        _report = report;
        _trace = trace;
        Dice = new Dice(seed);
        _more = new Dice(seed ^ 0x5deece66d);
        Kind = kind ?? KindOf(seed);
        Replay = kind is { } chosen && chosen != KindOf(seed) ? $"{seed} --kind {chosen}" : $"{seed}";
        Host = new SimulatedHost(this);
        Referee = new Referee(this, report);
        Build();
        Agent = new SimulatedAgent(this, report);
    }

    /// <summary>Half of the worlds are ordinary; one in sixteen of each sort is a large host.</summary>
    private static WorldKind KindOf(ulong seed) => seed % 2 == 0 ? WorldKind.Ordinary : (WorldKind)(1 + (int)(seed / 2 % 10));

    /// <summary>A world in which nothing is left to chance: one worker, one connection, and what the scenario says.</summary>
    internal World(Scenario scenario, Report report, Action<string>? trace = null)
    {
        _report = report;
        _trace = trace;
        Dice = new Dice(0);
        _more = Dice;
        Replay = "";
        Host = new SimulatedHost(this);
        Referee = new Referee(this, report);
        Scenario = scenario;
        Build(scenario);
        Agent = new SimulatedAgent(this, report);
    }

    /// <summary>What is to happen, where it was written down; null in a world that was drawn.</summary>
    internal Scenario? Scenario { get; }

    internal ulong Seed { get; }

    internal WorldKind Kind { get; }

    /// <summary>What makes the same world again.</summary>
    internal string Replay { get; }

    internal SimulatedHost Host { get; }

    internal Referee Referee { get; }

    /// <summary>Share of requests that ask for no answer.</summary>
    internal double Publishing { get; private set; }

    /// <summary>Mean hours between stops of a worker process; 0 for none.</summary>
    internal double HoursBetweenStops { get; private set; }

    internal Dice Dice { get; }

    internal EventQueue Queue { get; } = new();

    internal SimulatedAgent Agent { get; }

    internal List<SimulatedPath> Paths { get; } = [];

    internal List<SimulatedProcess> Processes { get; } = [];

    /// <summary>In the order in which they were made.</summary>
    internal List<SimulatedConnection> Connections { get; } = [];

    internal SidecarConfiguration Configuration { get; private set; } = null!;

    /// <summary>What the host's kernel has counted so far.</summary>
    internal TcpCounters Counters { get; private set; }

    /// <summary>When the last event was.</summary>
    internal TimeSpan Now { get; private set; }

    /// <summary>How long it is watched.</summary>
    internal TimeSpan Length { get; private set; }

    /// <summary>Idle time after which servers ask whether their clients live; zero for never.</summary>
    internal TimeSpan ServerKeepalive { get; private set; }

    /// <summary>The applications' own keepalives; zero for none.</summary>
    internal TimeSpan Keepalive { get; private set; }

    internal TimeSpan KeepaliveInterval { get; private set; }

    internal int KeepaliveCount { get; private set; }

    internal bool TailLossProbes { get; private set; }

    /// <summary>Probability that a request meets a peer that stops reading.</summary>
    internal double ZeroWindows { get; private set; }

    /// <summary>Probability that a worker sleeps on after its connection was ended under it.</summary>
    internal double Wedges { get; private set; }

    /// <summary>Whether window probes are permitted, and touching sockets at all.</summary>
    internal bool ProbesPermitted { get; private set; } = true;

    internal bool TouchPermitted { get; private set; } = true;

    /// <summary>Whether a process's sockets have two owners.</summary>
    internal bool IsInheritedSocket(SimulatedProcess process) => process.Identity.Pid % 17 == 0;

    internal static TimeSpan? AnyTimeout(Dice dice) => dice.Pick<double>(0, 10, 60, 60, 240, 300, 350, 350, 900, 3600) is > 0 and var seconds
        ? TimeSpan.FromSeconds(seconds)
        : null;

    /// <summary>Wall-clock time, which nothing but the age of evidence depends on.</summary>
    internal static DateTimeOffset Utc(TimeSpan now) => DateTimeOffset.UnixEpoch + now;

    internal static string Text(TimeSpan time) => time.TotalSeconds.ToString("0.000", CultureInfo.InvariantCulture);

    internal void Trace(TimeSpan now, string what) => _trace?.Invoke($"{Text(now),12}  {what}");

    internal bool IsTracing => _trace is not null;

    /// <summary>Runs it from beginning to end.</summary>
    internal void Run()
    {
        foreach (var path in Paths)
        {
            path.Start();
        }

        foreach (var thread in _threads)
        {
            thread.Start(TimeSpan.Zero);
        }

        Host.Start();
        Processes.ForEach(static process => process.Start());
        while (!Queue.IsEmpty && Queue.NextTime < Length)
        {
            Agent.TickUntilNextEvent();
            TakeEvent();
        }

        foreach (var connection in Connections)
        {
            Count(connection, Length);
        }

        _report.Worlds++;
        Connections.Clear();
    }

    /// <summary>Lets everything happen that happens until then, while the agent is at work.</summary>
    internal void Pass(TimeSpan until)
    {
        while (!Queue.IsEmpty && Queue.NextTime <= until && Queue.NextTime < Length)
        {
            TakeEvent();
        }
    }

    private void TakeEvent()
    {
        var (now, actor, what, version) = Queue.Take();
        Now = now;
        actor.Happen(what, version, now);
    }

    /// <summary>One world in sixteen is a large host: pools of hundreds of connections, most of which rest most of the time.</summary>
    private bool IsLarge => Seed % 16 == 0;

    internal TimeSpan ServiceTime() => Scenario is { } scenario ? scenario.Service : Dice.Chance(_slowQueries) ? Dice.MagnitudeSeconds(0.5, 7200) : Dice.MagnitudeSeconds(0.0005, 0.1);

    internal SimulatedConnection Connect(SimulatedThread thread, TimeSpan now)
    {
        var cookie = ++_cookies;
        var key = new SocketKey(
            2,
            TcpEndPoint.From(IPAddress.Parse(WorkerAddress), (int)(20000 + (cookie % 40000))),
            TcpEndPoint.From(ServerAddress(thread.Path.Index), 5432),
            0,
            new SocketCookie(cookie));
        var connection = new SimulatedConnection(this, thread.Path, thread, key, (uint)cookie, now);
        Connections.Add(connection);
        _byCookie[key.Cookie] = connection;
        _report.Connections++;
        Count(new TcpCounters(1, 1, 0), now);
        Touched(connection, now);
        return connection;
    }

    /// <summary>What is simulated behind a connection that the core knows.</summary>
    internal SimulatedConnection Of(TrackedConnection tracked) => _byCookie[tracked.Cookie];

    /// <summary>The leg of a bundle that a source port is hashed to; -1 where there is one way only.</summary>
    internal int LegOf(int port) => Kind == WorldKind.Bundle ? port % 2 : -1;

    /// <summary>As connect() takes it.</summary>
    internal int AnyPort() => Kind == WorldKind.Bundle ? _more.Choose(20000, 59999) : 20000;

    internal void NoteProbe() => _report.FreshConnections++;

    internal void NoteResumed() => _report.Resumed++;

    internal void NoteWindowProbe() => _report.WindowProbes++;

    /// <summary>The kernel counts.</summary>
    internal void Count(TcpCounters more, TimeSpan now)
    {
        Counters += more;
        Agent.Counted(now);
    }

    /// <summary>A connection's socket is about to change.</summary>
    internal void Touched(SimulatedConnection connection, TimeSpan now)
    {
        Agent.CatchUp(connection);
        connection.ChangedAt = now;
    }

    /// <summary>A connection's client end has closed.</summary>
    internal void Left(SimulatedConnection connection, TimeSpan now)
    {
        Connections.Remove(connection);
        Count(new TcpCounters(0, -1, 0), now);
        Count(connection, now);
        Agent.NoteEnd(connection);
    }

    private void Count(SimulatedConnection connection, TimeSpan until)
    {
        var hours = (until - connection.Established).TotalHours;
        _report.ConnectionHours += hours;
        _report.HoursInBursts += connection.Path.IsBursty ? hours : 0;
    }

    /// <summary>
    /// Keepalives went unanswered until the kernel ended a connection. Those of the agent's may do so where nothing was heard for as long
    /// as the kernel repeats data (tcp_retries2): an outage that lasts longer ends what has data in flight as well, and TCP_KEEPCNT, which
    /// ends at 127, allows no more at the pace that keeps a short-lived entry fresh.
    /// </summary>
    internal void EndedByKeepalive(SimulatedConnection connection, bool isAgents, TimeSpan interval, TimeSpan now)
    {
        if (isAgents && connection.IsLive(now))
        {
            _report.EndedByKeepalive++;
            // Where no dead-after is configured, no sooner than the kernel would have given data up, or than 127 probes (TCP_KEEPCNT
            // goes no further) last at the pace that a path wants which is believed to forget within seconds.
            var lasts = interval * 127;
            var most = lasts < KeepalivePlan.KernelGivesUp ? lasts : KeepalivePlan.KernelGivesUp;
            if (now - connection.Socket.LastHeard < (Configuration.Upstreams[connection.Path.Index].DeadAfter ?? most))
            {
                _report.Violation(this, now, "keepalive", $"{connection} lives, and was ended by a keepalive of the agent's after {(now - connection.Socket.LastHeard).TotalSeconds:0} s");
            }
        }
    }

    /// <summary>A connection is about to end: if it was silent and dead, how long did its worker hang?</summary>
    internal void Released(SimulatedConnection connection, TimeSpan now, string why)
    {
        if (IsTracing)
        {
            Trace(now, $"{connection} ends: {why}");
        }

        var path = connection.Path;
        var isAwaited = connection.IsAnswerAwaited;
        if (!(connection.IsUnanswered || isAwaited) || connection.IsLive(now) || path.DownFor(now) > TimeSpan.Zero || path.IsLegDown(connection.Leg, now))
        {
            return;
        }

        var since = connection.Socket.FirstSent;
        if (path.Timeout is { } timeout && connection.IsForgotten(now) && connection.EntrySeen + timeout is var expired && expired > since && expired <= now)
        {
            since = expired;
        }

        foreach (var excuse in (ReadOnlySpan<TimeSpan>)[path.TableLostAt, path.ServerLostAt, path.ExcusedUntil, Host.ExcusedUntil, connection.ServerClosedAt ?? TimeSpan.Zero])
        {
            since = excuse > since ? excuse : since;
        }

        // An agent that is paused yet is excused until later than now.
        _report.NoteRelease(this, connection, now, since < now ? now - since : TimeSpan.Zero, isAwaited, why);
    }

    internal void ServerSaysGoodbye(SimulatedPath path, TimeSpan now)
    {
        foreach (var connection in Connections.Where(connection => connection.Path == path).ToList())
        {
            connection.Goodbye(now);
        }
    }

    /// <summary>The router's timeout is about to change: what it has forgotten by then it does not remember by that.</summary>
    internal void ForgetExpired(SimulatedPath path, TimeSpan now)
    {
        foreach (var connection in Connections.Where(connection => connection.Path == path && connection.IsForgotten(now)))
        {
            connection.EntryMade = TimeSpan.MinValue;
        }
    }

    /// <summary>The host sleeps: its clocks stand still, the network's go on.</summary>
    internal void Suspend(TimeSpan length, TimeSpan now)
    {
        Trace(now, $"the host is suspended for {length}");
        foreach (var connection in Connections)
        {
            connection.EntrySeen -= length;
        }
    }

    /// <summary>A master starts another worker in the place of the one that exited.</summary>
    internal void Respawn(SimulatedProcess old, TimeSpan now)
    {
        Processes.Remove(old);
        var process = new SimulatedProcess(this, old.Owner with { Identity = new ProcessIdentity(++_pids, (ulong)_pids) })
        {
            IgnoresTermination = old.IgnoresTermination,
            Parent = old.Parent,
        };
        Processes.Add(process);
        process.Start();
        foreach (var thread in old.Threads)
        {
            var next = thread.Again(process);
            process.Threads.Add(next);
            next.Start(now + TimeSpan.FromSeconds(1));
        }
    }

    private void Build(Scenario scenario)
    {
        Length = scenario.Length;
        TailLossProbes = true;
        var path = new SimulatedPath(this, 0) { RoundTrip = TimeSpan.FromMilliseconds(0.2), Timeout = scenario.RouterForgetsAfter, Router = Forgetful.Silent };
        Paths.Add(path);
        Configuration = new SidecarConfiguration
        {
            // Observing: what is judged goes on to be judged.
            Agent = new AgentSection { Mode = AgentMode.Observe, ScanInterval = scenario.ScanInterval },
            Upstreams = [new UpstreamSection { Name = "db0", Endpoints = [new EndpointPattern("10.2.0.2:5432", null, new IPNetwork(ServerAddress(0), 32), 5432)], IdleTimeout = new(IdleTimeoutSource.None, TimeSpan.Zero) }],
            Workers = [],
            Files = [],
        };
        var process = new SimulatedProcess(this, new OwnerInfo(new ProcessIdentity(1, 1), "worker", "/usr/bin/worker", null, 1000, false, null));
        var thread = new SimulatedThread(this, process, path, 0, 1);
        process.Threads.Add(thread);
        Processes.Add(process);
        _threads.Add(thread);
        if (scenario.Outage is { } outage)
        {
            path.DownLater(outage.From, outage.For);
        }

        // The last event, up to which the agent goes on looking.
        Queue.Add(Length - TimeSpan.FromTicks(1), path, 0);
    }

    private static IPAddress ServerAddress(int path) => IPAddress.Parse($"10.2.{path}.2");

    private void Build()
    {
        ProbesPermitted = _more.Chance(0.85);
        TouchPermitted = ProbesPermitted || _more.Chance(0.6);
        Length = TimeSpan.FromHours(Dice.Magnitude(4, 96));
        TailLossProbes = Dice.Chance(0.9);
        ServerKeepalive = TimeSpan.FromSeconds(Dice.Pick<double>(0, 0, 60, 600, 7200));
        Keepalive = TimeSpan.FromSeconds(Dice.Pick<double>(0, 0, 0, 30, 175, 1800));
        KeepaliveInterval = TimeSpan.FromSeconds(Dice.Pick<double>(1, 10, 40));
        KeepaliveCount = Dice.Choose(3, 12);
        ZeroWindows = Dice.Chance(0.3) ? 0.005 : 0;
        Wedges = Dice.Chance(0.2) ? 0.1 : 0;
        _slowQueries = Dice.Pick(0, 0.001, 0.02);
        Host.HoursBetweenPauses = Dice.Chance(0.3) ? Dice.Magnitude(0.05, 10) : 0;
        Host.HoursBetweenSuspensions = Dice.Chance(0.1) ? 10 : 0;
        Host.HoursBetweenAgentRestarts = Dice.Chance(0.3) ? Dice.Magnitude(0.2, 10) : 0;

        var upstreams = new List<UpstreamSection>();
        var weather = Dice.Unit();
        for (var i = 0; i < Dice.Choose(1, 2); i++)
        {
            var path = new SimulatedPath(this, i)
            {
                RoundTrip = Dice.MagnitudeSeconds(0.0002, 0.08),
                Timeout = AnyTimeout(Dice),
                Router = Dice.Pick(Forgetful.Silent, Forgetful.Silent, Forgetful.Silent, Forgetful.Reset, Forgetful.PicksUp),
                Loss = weather switch
                {
                    < 0.4 => 0,
                    < 0.55 => Dice.Magnitude(0.0001, 0.01),
                    < 0.7 => Dice.Between(0.01, 0.1),
                    > 0.9 => Dice.Magnitude(0.0001, 0.03),
                    _ => 0,
                },
                HoursBetweenRouterFailures = Dice.Pick<double>(0, 0, 3, 12),
                HoursBetweenOutages = Dice.Pick(0, 0, 0.5, 4, 24),
                HoursBetweenTimeoutChanges = Dice.Pick<double>(0, 0, 12),
                HoursBetweenServerRestarts = Dice.Pick<double>(0, 0, 4, 24),
                HoursBetweenFullServers = Dice.Pick<double>(0, 0, 4),
            };
            if (weather >= 0.7)
            {
                // A tenth of the time at the most is bad.
                path.MeanBad = Dice.Magnitude(0.02, 5);
                path.MeanGood = Math.Max(path.MeanBad * 9, Dice.Magnitude(5, 3600));
                path.BurstLoss = Dice.Between(0.3, 1);
            }

            MakeSpecial(path);
            Paths.Add(path);
            upstreams.Add(new UpstreamSection
            {
                Name = $"db{i}",
                Endpoints = [new EndpointPattern($"10.2.{i}.2:5432", null, new IPNetwork(ServerAddress(i), 32), 5432)],
                IdleTimeout = DeclaredTimeout(path),
                Recycle = Dice.Chance(0.75),
            });
        }

        var workers = new List<WorkersSection>();
        for (var i = 0; i < Dice.Choose(1, 2); i++)
        {
            workers.Add(new WorkersSection
            {
                Name = $"web{i}",
                Unit = $"web{i}.service",
                Terminate = Dice.Chance(0.6),
                Grace = Dice.Seconds(1, 10),
                Budget = new TerminationBudget(Dice.Choose(1, 4), Dice.Pick(TimeSpan.FromMinutes(10), TimeSpan.FromHours(1))),
            });
        }

        Configuration = new SidecarConfiguration
        {
            Agent = new AgentSection
            {
                Mode = Dice.Chance(0.9) ? AgentMode.Protect : AgentMode.Observe,
                ScanInterval = TimeSpan.FromSeconds(Dice.Pick(0.5, 1, 1, 1, 1, 2)),
            },
            Upstreams = upstreams,
            Workers = workers,
            Files = [],
        };

        // The last unit is named by no section: its workers must never be touched.
        for (var unit = 0; unit <= workers.Count; unit++)
        {
            var shared = Dice.Chance(0.5) ? new SharedLock() : null;
            _locks.Add(shared);
            var threadsEach = Dice.Pick(1, 1, 1, 4);
            var large = IsLarge ? Dice.Choose(4, 24) : 0;
            for (var i = 0; i < (IsLarge ? large : Dice.Choose(1, 6)); i++)
            {
                AddProcess(unit < workers.Count ? workers[unit] : null, $"web{unit}.service", threadsEach, shared);
            }
        }
    }

    /// <summary>What is out of the ordinary in this kind of world.</summary>
    private void MakeSpecial(SimulatedPath path)
    {
        switch (Kind)
        {
            case WorldKind.Router:
                (path.HoursBetweenRouterFailures, path.RouterAway, path.LosesTable) = (_more.Magnitude(0.3, 6), (2, 300), 0.5);
                break;
            case WorldKind.SynProxy:
                (path.IsSynProxy, path.HoursBetweenServerRestarts, path.HoursBetweenOutages) = (true, _more.Magnitude(0.5, 6), _more.Magnitude(0.5, 6));
                break;
            case WorldKind.Bundle:
                path.HoursBetweenDeadLegs = _more.Magnitude(0.3, 6);
                break;
            case WorldKind.BlackHole:
                path.HoursBetweenHoles = _more.Magnitude(0.3, 6);
                break;
            case WorldKind.FailOver:
                path.HoursBetweenFailOvers = _more.Magnitude(0.3, 6);
                break;
            case WorldKind.Limits:
                path.AgentMayNotConnect = _more.Pick<ConnectProbeOutcome?>(ConnectProbeOutcome.NotTried, ConnectProbeOutcome.TimedOut, null);
                path.HoursBetweenFullServers = _more.Magnitude(0.3, 6);
                break;
            case WorldKind.Late:
                Host.HoursBetweenPauses = _more.Magnitude(0.05, 2);
                (Host.HoursBetweenAgentRestarts, Host.LongestAbsence) = (_more.Magnitude(0.2, 4), 600);
                break;
            case WorldKind.Publisher:
                Publishing = _more.Between(0.2, 0.8);
                break;
            case WorldKind.Stopped:
                HoursBetweenStops = _more.Magnitude(0.2, 4);
                break;
        }
    }

    /// <summary>Mostly what the path does, often unknown, sometimes too much: never too little, which would be a lie to the agent.</summary>
    private IdleTimeoutSetting DeclaredTimeout(SimulatedPath path) => Dice.Unit() switch
    {
        < 0.4 => new(IdleTimeoutSource.Measure, TimeSpan.Zero),
        < 0.8 when path.Timeout is { } timeout => new(IdleTimeoutSource.Declared, timeout),
        < 0.9 when path.Timeout is { } timeout => new(IdleTimeoutSource.Declared, timeout * 3),
        _ => new(IdleTimeoutSource.None, TimeSpan.Zero),
    };

    private void AddProcess(WorkersSection? section, string unit, int threads, SharedLock? shared)
    {
        var owner = new OwnerInfo(new ProcessIdentity(++_pids, (ulong)_pids), "worker", "/usr/bin/worker", unit, 1000, false, section);
        SimulatedProcess? parent = null;
        if (Kind == WorldKind.Forked)
        {
            // The parent is in the same group, and may be terminated as far as its name goes.
            parent = new SimulatedProcess(this, owner with { Identity = new ProcessIdentity(++_pids, (ulong)_pids), Comm = "parent" });
            Processes.Add(parent);
        }

        var process = new SimulatedProcess(this, owner) { IgnoresTermination = Dice.Chance(0.1), Parent = parent };
        for (var i = 0; i < threads; i++)
        {
            var path = Paths[Dice.Choose(0, Paths.Count - 1)];
            var think = Dice.Magnitude(5, 3600);
            var thread = IsLarge
                ? new SimulatedThread(this, process, path, think, Dice.Choose(1, 12), depth: 0.7) { Lock = shared }
                : new SimulatedThread(this, process, path, think, Dice.Choose(1, 4)) { Lock = shared };
            process.Threads.Add(thread);
            _threads.Add(thread);
        }

        Processes.Add(process);
    }
}
