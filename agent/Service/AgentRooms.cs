using Microsoft.Extensions.Logging;
using Sidecar.Agent.Action;
using Sidecar.Agent.Core;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Agent.Measurement;
using Sidecar.Agent.Observation;
using Sidecar.Agent.Telemetry;
using Sidecar.Probes.Processes;
using Sidecar.Probes.Sockets;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Service;

/// <summary>
/// What one configuration is served by, put together: core, eyes, hands, reporter, publisher. Used by the loop's thread, but for what
/// says otherwise.
/// </summary>
internal sealed class AgentRooms : IDisposable
{
    private readonly IncidentStore? _incidents;
    private readonly SessionTable _sessions;
    private readonly KeepaliveLedger? _ledger;
    private readonly PathLearning? _learning;
    private readonly WorkerMonitor _workers;
    private readonly SelfCheck _selfCheck;
    private readonly Surroundings? _surroundings;
    private readonly IncidentReporter? _reporter;
    private readonly ILogger _log;
    private IReadOnlyList<SourceStatus>? _sources;
    private HashSet<string> _told = [];
    private string? _lastProblem;
    private bool _isRefusalTold;

    /// <summary>Puts the rooms together.</summary>
    /// <param name="configuration">What is watched, and what may be done.</param>
    /// <param name="metrics">Instruments.</param>
    /// <param name="incidents">Where actions are recorded; null: it observes and judges, and has no hands.</param>
    /// <param name="log">Journal or stderr.</param>
    /// <param name="selfCheck">What is not possible here.</param>
    /// <param name="clock">The agent's.</param>
    /// <param name="measurement">Ladders in the background, or null.</param>
    /// <param name="surroundings">What stands around the workers, or null.</param>
    /// <param name="earlier">The world of an agent that this one takes the place of, by the same clock; null: there was none.</param>
    public AgentRooms(
        SidecarConfiguration configuration, SidecarMetrics metrics, IncidentStore? incidents, JournalLog log, SelfCheck selfCheck, Clock clock,
        BackgroundMeasurement? measurement = null, Surroundings? surroundings = null, World? earlier = null)
    {
        Log = log;
        _log = log.CreateLogger("loop");
        _incidents = incidents;
        _selfCheck = selfCheck;
        _surroundings = surroundings;
        var processes = new ProcessReader();
        var namespaces = new NamespaceTable(processes, time: clock.Time);
        var world = new World(configuration, namespaces.Own.Inode, Environment.ProcessId, OwnSockets.Contains);
        if (earlier is not null)
        {
            world.TakeOver(earlier);
        }

        Core = new AgentCore(world, clock.Now);
        var learnsFromResets = measurement is not null
            && configuration.Upstreams.Any(upstream => upstream.IdleTimeout.Source == IdleTimeoutSource.Measure && upstream.Direction == UpstreamDirection.Outbound);
        Eyes = new KernelEyes(world, processes, namespaces, Inbox, clock, learnsFromResets);
        _workers = new WorkerMonitor(processes, world.Owners);
        _sessions = new SessionTable(incidents is null ? configuration with { Upstreams = [] } : configuration, clock);
        var timeline = new Timeline();
        if (incidents is not null)
        {
            _reporter = new IncidentReporter(incidents, metrics, log, timeline);
            Hands = new KernelHands(processes, namespaces, Inbox, _sessions, _reporter.Report, clock);
            _ledger = new KeepaliveLedger(configuration.Agent.StateDirectory, log.CreateLogger("keepalives"));
            Core.Engine.Recall(_ledger.Load());
            Core.Engine.Remember(incidents.Recent(1000), clock.UtcNow, clock.Now);
        }
        else
        {
            Hands = new KernelHands(processes, namespaces, Inbox, _sessions, static _ => { }, clock);
        }

        if (measurement is not null)
        {
            _learning = new PathLearning(measurement, namespaces);
            world.Paths.Came = _learning.Resume;
        }

        Publisher = new SnapshotPublisher(this, new SnapshotBuilder(world, upstream => _sessions.Find(upstream)?.Settings), metrics, timeline, _reporter);
    }

    public JournalLog Log { get; }

    public AgentCore Core { get; }

    public KernelEyes Eyes { get; }

    public KernelHands Hands { get; }

    public Inbox Inbox { get; } = new();

    /// <summary>May be used by any thread.</summary>
    public SnapshotPublisher Publisher { get; }

    /// <summary>Remedies that the configuration asks for and that are not possible here.</summary>
    public IReadOnlyList<string> NotPossible => _selfCheck.NotPossible;

    /// <summary>Why the HTTP endpoint is not there, where it is not.</summary>
    public Func<string?>? EndpointProblem { get; set; }

    /// <summary>The loop is about to begin. Not before: a second agent is refused only after it was made, and these may be the first one's.</summary>
    public void BeginActing()
    {
        foreach (var command in RemedyEngine.CloseInterrupted(_incidents?.Recent(1000) ?? []))
        {
            Hands.Carry(command);
        }
    }

    /// <summary>What comes in by itself is shown to the world.</summary>
    public void BeforeTick() => _sessions.Show(Core.World, Eyes.Now);

    /// <summary>What is due once a tick beside its commands.</summary>
    public void AfterTick()
    {
        var now = Eyes.Now;
        Hands.EndTick();
        Eyes.EndTick();
        if (Eyes.NextNamespaces is { } refresh)
        {
            Core.Pacing.Bring(refresh, now); // what happens in namespaces that are not open yet is not counted
        }

        if (Core.World.IsFull)
        {
            _sessions.Attend(Core.World.Connections.All);
            _sources = ReadSources();
            TellProblems(_sources);
            if (Eyes.Namespaces.Problem is { } refused && !_isRefusalTold)
            {
                _log.Limitation(refused);
                _isRefusalTold = true;
            }

            _learning?.Exchange(Core.World.Paths.All, now);
        }

        foreach (var problem in Eyes.TakeProblems())
        {
            if (_lastProblem != problem)
            {
                _log.ScanProblem(problem);
            }

            _lastProblem = problem;
        }

        Publisher.Publish(now);
        _lastProblem = Core.World.IsFull ? null : _lastProblem;
        _ledger?.Save(Core.Engine, now);
        _incidents?.Retry();
    }

    /// <summary>Adds what stands around the connections to a snapshot.</summary>
    public AgentSnapshot Complete(AgentSnapshot snapshot, TimeSpan now)
    {
        var limitations = new List<string>(_selfCheck.Limitations);
        if (Eyes.Namespaces.LeftOut > 0)
        {
            limitations.Add($"{Quantity.Of(Eyes.Namespaces.LeftOut, "network namespace is", "network namespaces are")} left out, since there are too many, in all or of one user: connections there are not seen");
        }

        var sources = _sources ?? ReadSources();
        limitations.AddRange(sources.Select(source => source.Problem).OfType<string>());
        limitations.AddRange(_surroundings?.Problems ?? []);
        limitations.AddRange(new[] { Eyes.Namespaces.Problem, EndpointProblem?.Invoke(), _incidents?.Problem, _lastProblem, Eyes.Owners.Problem }.OfType<string>());
        var stack = _surroundings?.Stack ?? StackView.Empty;
        return snapshot with
        {
            Workers = _workers.Measure(Core.World.Connections.All, now),
            Listeners = stack.Listeners,
            Groups = stack.Groups,
            ListenOverflows = stack.Overflows,
            Haproxies = _surroundings?.Haproxies ?? [],
            Checks = _surroundings?.Checks ?? [],
            Sources = sources,
            Limitations = limitations,
        };
    }

    /// <summary>One full scan without remedies, for <c>status</c> without a running agent.</summary>
    public AgentSnapshot ScanOnce()
    {
        Eyes.ResolveNames(TimeSpan.FromSeconds(2));
        for (var until = Eyes.Now + TimeSpan.FromSeconds(4); ;)
        {
            Core.Pacing.Bring(TimeSpan.Zero, Eyes.Now);
            Core.Tick(Eyes.Now, Eyes, Hands);
            if (Eyes.Now > until || !Core.World.Paths.All.Any(path => path.IsProbing))
            {
                break;
            }

            Inbox.Wait(TimeSpan.FromMilliseconds(100));
        }

        return Complete(new SnapshotBuilder(Core.World, _ => null).Describe(Eyes.Now, Core.Took, inWords: true), Eyes.Now);
    }

    public void Dispose()
    {
        foreach (var command in Core.Engine.Stop())
        {
            Hands.Carry(command);
        }

        _ledger?.Save(Core.Engine, Eyes.Now, atOnce: true);
        Hands.Dispose();
        Eyes.Dispose();
        _sessions.Dispose();
        Eyes.Namespaces.Dispose();
        Inbox.Dispose();
    }

    private IReadOnlyList<SourceStatus> ReadSources() => [.. Eyes.Names, .. _sessions.Sources, .. _surroundings?.Sources ?? []];

    /// <summary>What is wrong with a source is logged once, and again when it comes back.</summary>
    private void TellProblems(IReadOnlyList<SourceStatus> sources)
    {
        if (_told.Count == 0 && sources.All(source => source.Problem is null))
        {
            return;
        }

        var problems = sources.Select(source => source.Problem).OfType<string>().ToHashSet(StringComparer.Ordinal);
        foreach (var problem in problems.Except(_told, StringComparer.Ordinal))
        {
            _log.Limitation(problem);
        }

        _told = problems;
    }
}
