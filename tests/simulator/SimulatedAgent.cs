using Sidecar.Agent.Core;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;
using CoreWorld = Sidecar.Agent.Core.Tracking.World;

namespace Sidecar.Simulator;

/// <summary>The agent's own core among simulated sockets: its eyes, and the waiting between its ticks. Nothing is decided here.</summary>
/// <remarks>
/// Every tick that the core asks for takes place. A scan of the product sees all sockets; here one sees those that rest every
/// <see cref="RestingEvery"/> only, or <see cref="NeighbourEvery"/> where something on their path is unanswered. Before a socket that
/// was left out changes it is shown as the last scan would have seen it (<see cref="CatchUp"/>). So the agent sees less here than it
/// does in the product, and never more.
/// </remarks>
internal sealed class SimulatedAgent : IEyes
{
    private static readonly TimeSpan PerSocket = TimeSpan.FromMicroseconds(5);

    /// <summary>A socket that has not changed for so long rests.</summary>
    private static readonly TimeSpan RestsAfter = TimeSpan.FromSeconds(2);

    private static readonly TimeSpan RestingEvery = TimeSpan.FromSeconds(4);
    private static readonly TimeSpan NeighbourEvery = TimeSpan.FromSeconds(0.9);

    private readonly World _world;
    private readonly Report _report;
    private readonly SimulatedHands _hands;
    private readonly List<(SimulatedConnection Connection, long Scan)> _ended = [];
    private readonly List<(PathTracker Path, ConnectProbeResult Result)> _completed = [];
    private readonly HashSet<PathTracker> _silent = [];
    private AgentCore _core = null!;
    private TimeSpan? _checkAt;
    private TimeSpan? _woken;
    private TimeSpan _lastTick;
    private TimeSpan _lastScan;
    private bool _isTicking;

    internal SimulatedAgent(World world, Report report)
    {
        (_world, _report) = (world, report);
        _hands = new SimulatedHands(world, () => Now, Completed);
        Restart(TimeSpan.Zero);
    }

    public TimeSpan Now { get; private set; }

    public DateTimeOffset UtcNow => World.Utc(Now);

    /// <summary>Grows with each restart: what an earlier run has begun is not this one's.</summary>
    internal int Generation { get; private set; }

    /// <summary>As <c>AgentLoop</c> waits: for the tick, for what comes in, for the check of the kernel's counters.</summary>
    internal void TickUntilNextEvent()
    {
        while (true)
        {
            var next = _world.Queue.NextTime;
            var due = TimeSpan.FromTicks(Math.Min(Math.Min(_core.NextTick.Ticks, _core.Pacing.Next.Ticks), (_woken ?? TimeSpan.MaxValue).Ticks));
            var starts = TimeSpan.FromTicks(Math.Max(Math.Max(due.Ticks, _world.Host.PausedUntil.Ticks), Now.Ticks));
            if (_checkAt is { } check && check < starts && check <= next)
            {
                _checkAt = null;
                _core.Pacing.Check(_world.Counters, check, TimeSpan.Zero);
            }
            else if (starts > next)
            {
                return;
            }
            else
            {
                Tick(due, starts);
            }
        }
    }

    /// <summary>Shows a connection as the last scan, which left it out, would have seen it: it is about to change.</summary>
    internal void CatchUp(SimulatedConnection connection)
    {
        if (!_isTicking && connection.Tracked is { } tracked && tracked.LastSeen < _lastScan)
        {
            _report.Scans++;
            _core.World.BeginTick(false, World.Utc(_lastScan));
            _core.World.Saw(tracked, connection.Socket.Observe(_lastScan), _lastScan);
        }
    }

    /// <summary>The kernel has counted something: the next check of its counters will show it.</summary>
    internal void Counted(TimeSpan now)
    {
        if (_checkAt is null)
        {
            var check = _lastTick + (_core.Pacing.CheckEvery * Math.Ceiling((now - _lastTick) / _core.Pacing.CheckEvery));
            _checkAt = check > _world.Host.PausedUntil ? check : _world.Host.PausedUntil;
        }
    }

    internal void NoteEnd(SimulatedConnection connection) => _ended.Add((connection, _core.World.Connections.Scans));

    /// <summary>A connect probe has ended.</summary>
    internal void Completed(PathTracker path, ConnectProbeResult result, int generation, TimeSpan now)
    {
        if (generation == Generation)
        {
            _completed.Add((path, result));
            _woken ??= now;
        }
    }

    /// <summary>Time goes on while the agent is at work.</summary>
    internal void Pass(TimeSpan length)
    {
        _world.Pass(Now + length);
        Now += length;
    }

    /// <summary>A new process: what it knows stands in the state directory.</summary>
    internal void Restart(TimeSpan now)
    {
        var before = _core;
        _core = new AgentCore(new CoreWorld(_world.Configuration, 1, 2, static _ => false), now);
        _core.Engine.Remember(_world.Referee.Incidents, World.Utc(now), now);
        _core.Engine.Recall(before?.Engine.ChangedKeepalives ?? []);
        _ended.Clear();
        _completed.Clear();
        _world.Referee.AgentRestarted();
        Generation++;
        _world.Connections.ForEach(static connection => connection.Tracked = null);
        (_checkAt, _woken, _lastTick, _lastScan) = (null, null, now, now);
    }

    TcpCounters? IEyes.ReadCounters()
    {
        _checkAt = null;
        return _world.Counters;
    }

    void IEyes.Scan(CoreWorld world)
    {
        _silent.Clear();
        _silent.UnionWith(world.Silent.Select(static tracked => tracked.Path));
        foreach (var connection in _world.Connections.Where(connection => !IsLeftOut(connection)))
        {
            Scan(world, connection);
        }

        // Absence has to repeat before a socket counts as gone.
        _ended.RemoveAll(ended => world.Connections.Scans - ended.Scan >= ConnectionTable.MissesUntilGone && Gone(world, ended.Connection));
        _lastScan = Now;
        Pass(PerSocket * _world.Connections.Count);
    }

    void IEyes.Recheck(CoreWorld world, IReadOnlyList<TrackedConnection> connections)
    {
        foreach (var tracked in connections.Where(static tracked => !tracked.IsGone))
        {
            if (_world.Of(tracked) is { Ended: null } connection)
            {
                Scan(world, connection);
            }
            else
            {
                _ended.RemoveAll(ended => ended.Connection.Tracked == tracked && Gone(world, ended.Connection));
            }
        }
    }

    void IEyes.Collect(CoreWorld world, RemedyEngine engine)
    {
        foreach (var (path, result) in _completed)
        {
            world.ConnectProbeEnded(path, result, Now);
            engine.ConnectProbeEnded(path, Now);
        }

        _completed.Clear();
        _woken = null;
    }

    /// <summary>It has been seen since it last changed, rests, and is not yet to be seen again.</summary>
    private bool IsLeftOut(SimulatedConnection connection) =>
        connection.Tracked is { SilenceStart: null } tracked && connection.ChangedAt < tracked.LastSeen && Now - connection.ChangedAt > RestsAfter
        && Now - tracked.LastSeen < (_silent.Contains(tracked.Path) ? NeighbourEvery : RestingEvery);

    private void Scan(CoreWorld world, SimulatedConnection connection)
    {
        _report.Scans++;
        if (connection.Tracked is { } known)
        {
            world.Saw(known, connection.Socket.Observe(Now), Now);
            return;
        }

        world.Saw(1, connection.Socket.Observe(Now), Now);
        if (world.Connections.Find(1, connection.Socket.Key.Cookie) is { } tracked)
        {
            connection.Tracked = tracked;
            var (owner, descriptor, holders) = connection.Thread.Process.Shown;
            world.Owners.Add(owner!);
            world.Owners.Found(connection.Socket.Inode, owner!.Identity, descriptor, holders);
            world.OwnerSearched(tracked);
        }
    }

    private static bool Gone(CoreWorld world, SimulatedConnection connection)
    {
        if (connection.Tracked is { IsGone: false } tracked)
        {
            world.Left(tracked);
        }

        connection.Tracked = null;
        return true;
    }

    private void Tick(TimeSpan planned, TimeSpan now)
    {
        (_isTicking, Now) = (true, now);
        var core = _core;
        core.Tick(planned, this, _hands);
        _isTicking = false;
        if (core != _core)
        {
            return; // it ended, and another one has begun
        }

        _report.Ticks++;
        _lastTick = Now;
        foreach (var tracked in core.World.Seen)
        {
            _world.Referee.Judged(tracked, now);
        }
    }
}
