using System.Diagnostics;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Judgement;
using Sidecar.Agent.Remedies;
using Sidecar.Agent.Tracking;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.Paths;

namespace Sidecar.Simulator;

/// <summary>
/// The agent's loop and the carrying out of its remedies, against simulated sockets and processes. Tracking, judgement,
/// limits, planning, the last look before a recycle and the question of other progress are the agent's own code; what
/// stands here is the order in which the loop and the remedy engine call them.
/// </summary>
internal sealed class SimulatedAgent : Actor
{
    private const int Pauses = 1;
    private const int Suspends = 2;
    private const int Restarts = 3;
    private const int ActsLate = 4;

    private static readonly TimeSpan ShortLook = TimeSpan.FromMilliseconds(100);
    private static readonly TimeSpan HelpWithin = TimeSpan.FromSeconds(3);

    private readonly World _world;
    private readonly Report _report;
    private readonly TimeSpan _interval;
    private readonly bool _observe;
    private readonly List<SimulatedConnection> _all = [];
    private readonly List<SimulatedConnection> _looked = [];
    private readonly List<SimulatedConnection> _stalled = [];
    private readonly List<(SimulatedConnection Connection, long Scan)> _ended = [];
    private readonly List<SimulatedConnection> _recycled = [];
    private readonly Dictionary<string, List<TimeSpan>> _terminations = new(StringComparer.Ordinal);
    private readonly Dictionary<string, List<TimeSpan>> _brakedRecycles = new(StringComparer.Ordinal);
    private Upstream[] _upstreams = [];
    private PathTable _paths = new();
    private ProgressMemory _progress = new();
    private Dictionary<string, WorkerGroup> _groups = [];
    private Dictionary<string, CommonModeBrake> _brakes = [];
    private Dictionary<string, SlidingBudget> _expiredRates = [];
    private readonly Dictionary<string, Ending> _endings = new(StringComparer.Ordinal);
    private ScanPacing _pacing;
    private TimeSpan? _glanceAt;
    private TimeSpan _nextTurn;
    private TimeSpan _pausedUntil;
    private TimeSpan _lastSkipped;
    private TimeSpan _nextPrune;
    private long _scan;
    private int _running;
    private int _completed;

    internal SimulatedAgent(World world, Report report)
    {
        _world = world;
        _report = report;
        _interval = world.Configuration.Agent.ScanInterval;
        _observe = world.Configuration.Agent.Mode == AgentMode.Observe;
        _pacing = new ScanPacing(_interval, TimeSpan.Zero);
        Reset(TimeSpan.Zero);
    }

    /// <summary>Connections whose sockets changed since the last full look.</summary>
    internal HashSet<SimulatedConnection> Dirty { get; } = [];

    /// <summary>Until when the agent itself was in no state to help.</summary>
    internal TimeSpan ExcusedUntil { get; private set; }

    internal void Start()
    {
        Next(Pauses, _world.HoursBetweenPauses, TimeSpan.Zero);
        Next(Suspends, _world.HoursBetweenSuspensions, TimeSpan.Zero);
        Next(Restarts, _world.HoursBetweenAgentRestarts, TimeSpan.Zero);
    }

    internal override void Happen(int what, int version, TimeSpan now)
    {
        switch (what)
        {
            case Pauses:
                _pausedUntil = now + _world.Dice.MagnitudeSeconds(0.1, 120);
                _world.Trace(now, $"the agent is paused until {World.Text(_pausedUntil)}");
                ExcusedUntil = _pausedUntil + _interval;
                Next(Pauses, _world.HoursBetweenPauses, now);
                break;
            case Suspends:
                _world.Suspend(_world.Dice.MagnitudeSeconds(1, 7200), now);
                Next(Suspends, _world.HoursBetweenSuspensions, now);
                break;
            case Restarts:
                _world.Trace(now, "the agent restarts");
                Reset(now);
                ExcusedUntil = now + TimeSpan.FromSeconds(2);
                Next(Restarts, _world.HoursBetweenAgentRestarts, now);
                break;
            case ActsLate when version == _generation:
                var (connection, memory, brake) = _acting!.Value;
                _acting = null;
                _pausedUntil = now > _pausedUntil ? now : _pausedUntil;
                Destroy(connection, memory, brake, now);
                break;
        }
    }

    /// <summary>Turns as often as is due before the next event; a turn may itself bring about an earlier one.</summary>
    internal void TurnUntilNextEvent()
    {
        while (true)
        {
            var next = _world.Queue.NextTime;
            var starts = _nextTurn > _pausedUntil ? _nextTurn : _pausedUntil;
            if (_glanceAt is { } glance && _acting is null && glance < starts && glance <= next)
            {
                _glanceAt = null;
                _pacing.Glance(_world.Counters, glance, TimeSpan.Zero);
                _nextTurn = _pacing.Next < _nextTurn ? _pacing.Next : _nextTurn;
                continue;
            }

            if (starts > next || _acting is not null)
            {
                return;
            }

            if (IsQuiet)
            {
                // Looks at sockets on which nothing happens see nothing: they are left out.
                while (_pacing.Next <= next)
                {
                    _lastSkipped = _pacing.Next;
                    _glanceAt = null;
                    _pacing.Begin(_lastSkipped, _world.Counters);
                    Pace(isBusy: false);
                }

                _nextTurn = _pacing.Next;
                return;
            }

            Turn(_nextTurn, starts);
        }
    }

    /// <summary>Takes the last of the looks that were left out at this connection, before it changes.</summary>
    internal void CatchUp(SimulatedConnection connection, TimeSpan now)
    {
        if (_stalled.Count > 0)
        {
            // The next of the short looks that would have taken place.
            var due = _lastTurn + (ShortLook * Math.Ceiling((now - _lastTurn) / ShortLook));
            _nextTurn = due < _nextTurn ? due : _nextTurn;
            _uneventful = 0;
        }

        if (connection.Tracked is { } tracked && tracked.LastLook < _lastSkipped)
        {
            Update(connection, tracked, _lastSkipped);
        }
    }

    /// <summary>The kernel has counted something: the next glance at its counters will show it.</summary>
    internal void Counted(TimeSpan now)
    {
        if (_glanceAt is null)
        {
            var awake = _lastTurn > _lastSkipped ? _lastTurn : _lastSkipped;
            _glanceAt = awake + (ScanPacing.GlanceInterval * Math.Ceiling((now - awake) / ScanPacing.GlanceInterval));
            _glanceAt = _glanceAt > _pausedUntil ? _glanceAt : _pausedUntil;
        }
    }

    internal void NoteEnd(SimulatedConnection connection)
    {
        Dirty.Remove(connection);
        if (connection.Tracked is not null)
        {
            _ended.Add((connection, _scan));
        }
    }

    internal void Wake(TimeSpan now)
    {
        _running--;
        _completed++;
        if (now < _nextTurn)
        {
            _nextTurn = now;
        }
    }

    private bool IsQuiet => Dirty.Count == 0 && _stalled.Count == 0 && _ended.Count == 0 && _recycled.Count == 0 && _endings.Count == 0 && _completed == 0;

    private (SimulatedConnection Connection, ConnectionCase Memory, CommonModeBrake Brake)? _acting;

    private void Next(int what, double hours, TimeSpan now)
    {
        if (hours > 0)
        {
            _world.Queue.Add(now + _world.Dice.Exponential(hours * 3600), this, what);
        }
    }

    /// <summary>A new process: everything is forgotten but the terminations of the period, which stand in the incidents.</summary>
    private void Reset(TimeSpan now)
    {
        _upstreams = [.. _world.Configuration.Upstreams.Select(section => new Upstream(section))];
        _paths = new PathTable();
        _progress = new ProgressMemory();
        _groups = _world.Configuration.Workers.ToDictionary(workers => workers.Name, workers => new WorkerGroup(workers), StringComparer.Ordinal);
        _brakes = _world.Configuration.Upstreams.ToDictionary(upstream => upstream.Name, _ => new CommonModeBrake(), StringComparer.Ordinal);
        _expiredRates = _world.Configuration.Upstreams.ToDictionary(upstream => upstream.Name, _ => new SlidingBudget(20, TimeSpan.FromSeconds(1)), StringComparer.Ordinal);
        _brakedRecycles.Clear();
        foreach (var (name, group) in _groups)
        {
            foreach (var at in _terminations.GetValueOrDefault(name, []).Where(at => now - at < group.Section.Budget.Period))
            {
                group.Budget.Spend(at);
            }
        }

        foreach (var ended in _ended)
        {
            ended.Connection.Tracked = null;
        }

        _all.Clear();
        _stalled.Clear();
        _ended.Clear();
        _recycled.Clear();
        _endings.Clear();
        _acting = null;
        _running = 0;
        _completed = 0;
        _generation++;
        foreach (var connection in _world.Connections)
        {
            connection.Tracked = null;
            connection.Dirty = true;
            Dirty.Add(connection);
        }

        _pacing = new ScanPacing(_interval, now);
        _glanceAt = null;
        _nextTurn = now;
        _lastSkipped = now;
    }

    private int _generation;
    private int _uneventful;
    private TimeSpan _lastTurn;

    private void Turn(TimeSpan planned, TimeSpan now)
    {
        _looked.Clear();
        var full = now >= _pacing.Next;
        if (full)
        {
            FullLook(now);
        }
        else
        {
            ShortLooks(now);
        }

        var late = StarvationGate.IsLate(planned, now, now);
        if (late)
        {
            foreach (var path in _paths.All)
            {
                path.Distrust();
            }
        }

        Collect(now);
        foreach (var connection in _looked)
        {
            var tracked = connection.Tracked!;
            var before = tracked.Judged.Verdict;
            if (tracked.Assess(World.Utc(now)))
            {
                Probe(connection, now);
            }

            tracked.Upstream.Tally.Move(before, tracked.Judged.Verdict);
            if (full)
            {
                _pacing.Saw(tracked.LastData);
            }

            _world.Scenario?.Note(tracked.Judged.Verdict, now);
        }

        Consider(late, now);
        _report.Turns++;
        if (_world.IsTracing)
        {
            foreach (var connection in _looked)
            {
                var tracked = connection.Tracked!;
                if (tracked.Judged.Verdict is Verdict.Suspect or Verdict.Outage)
                {
                    _world.Trace(now, $"    {connection} {tracked.Judged.Verdict.ToName()}: {Explanation.Of(tracked, now)}; {tracked.Evidence(now).Stall?.ConfirmedFailures} confirmed, rate {tracked.Path.Loss.RateAt(now):0.000}, odds {tracked.Judged.Odds:0.#e0}");
                }
            }
        }

        var following = _recycled.Count > 0 || _endings.Count > 0;
        var busy = following || _stalled.Exists(connection => connection.Tracked!.IsOfInterest);
        if (full)
        {
            Pace(busy || Array.Exists(_upstreams, upstream => upstream.Tally.Silent > 0));
        }

        _lastTurn = now;
        _nextTurn = busy && now + ShortLook < _pacing.Next ? now + ShortLook : _pacing.Next;

        // Looks at silent sockets on which nothing happens see only that time passes: most of them are left out, until
        // something does happen (see CatchUp) or the moment has come.
        if (busy && !following && Dirty.Count == 0 && _ended.Count == 0)
        {
            _nextTurn = now + (ShortLook * (++_uneventful < 20 ? 1 : 20));
        }
        else
        {
            _uneventful = 0;
        }
    }

    private void FullLook(TimeSpan now)
    {
        _glanceAt = null;
        _pacing.Begin(now, _world.Counters);
        _scan++;
        foreach (var connection in Dirty)
        {
            connection.Dirty = false;
            if (connection.Tracked is null)
            {
                var key = connection.Socket.Key;
                if (Array.Find(_upstreams, upstream => upstream.Matches(key.Local, key.Peer)) is not { } upstream)
                {
                    continue;
                }

                connection.Tracked = _paths.Track(key, upstream, 1, now);
                upstream.Tally.Add(connection.Tracked);
                _all.Add(connection);
            }

            if (!_stalled.Contains(connection))
            {
                _looked.Add(connection);
            }
        }

        Dirty.Clear();

        // A hash set's order is its own affair; ours must be the same every time.
        _looked.AddRange(_stalled);
        _looked.Sort(static (a, b) => a.Socket.Inode.CompareTo(b.Socket.Inode));
        foreach (var connection in _looked)
        {
            if (connection.Ended is null)
            {
                Update(connection, connection.Tracked!, now);
            }
        }

        for (var i = _ended.Count - 1; i >= 0; i--)
        {
            if (_scan - _ended[i].Scan >= 2)
            {
                Forget(_ended[i].Connection);
                _ended.RemoveAt(i);
            }
        }

        _stalled.RemoveAll(connection => connection.Tracked!.SilenceStart is null);
        foreach (var connection in _looked)
        {
            if (connection.Tracked!.SilenceStart is not null && connection.Ended is null && !_stalled.Contains(connection))
            {
                _stalled.Add(connection);
            }
        }

        if (now >= _nextPrune)
        {
            _nextPrune = now + TimeSpan.FromMinutes(10);
        }
    }

    /// <summary>A full look is done.</summary>
    private void Pace(bool isBusy) => _pacing.End(TimeSpan.FromMicroseconds(5) * _world.Connections.Count, isBusy, _paths.ShortestIdleTimeout);

    private void ShortLooks(TimeSpan now)
    {
        for (var i = _stalled.Count - 1; i >= 0; i--)
        {
            var connection = _stalled[i];
            if (!connection.Tracked!.IsOfInterest)
            {
                continue;
            }

            if (connection.Ended is not null)
            {
                _ended.RemoveAll(ended => ended.Connection == connection);
                Forget(connection);
                continue;
            }

            Update(connection, connection.Tracked, now);
            _looked.Add(connection);
        }

        _stalled.RemoveAll(connection => connection.Tracked!.SilenceStart is null);
    }

    private void Forget(SimulatedConnection connection)
    {
        _progress.NoteGone(connection.Thread.Process.Identity, connection.Tracked!);
        connection.Tracked!.Upstream.Tally.Remove(connection.Tracked.Judged.Verdict);
        _all.Remove(connection);
        _stalled.Remove(connection);
    }

    private void Update(SimulatedConnection connection, TrackedConnection tracked, TimeSpan now)
    {
        _report.Looks++;
        ConnectionTable.Take(tracked, connection.Socket.Observe(now), now, World.Utc(now));
    }

    private void Collect(TimeSpan now)
    {
        if (_completed == 0)
        {
            return;
        }

        _completed = 0;
        foreach (var path in _paths.All)
        {
            if (path.Collect(now) is not { } probe)
            {
                continue;
            }

            foreach (var connection in _all)
            {
                if (connection.Tracked!.Path == path)
                {
                    connection.Tracked.NoteFreshConnect(probe.IsCleanSuccess, probe.Started, probe.Ended);
                }
            }
        }
    }

    private void Probe(SimulatedConnection connection, TimeSpan now)
    {
        var path = connection.Tracked!.Path;
        if (path.IsDue(now))
        {
            _running++;
            path.Begin(new SimulatedProbe(_world, this, connection.Path, now, _generation).Result, now);
            _report.FreshConnections++;
        }
    }

    private void Consider(bool late, TimeSpan now)
    {
        UpdateBrakes();
        foreach (var connection in _looked)
        {
            var tracked = connection.Tracked!;
            if (tracked.Judged.Verdict == Verdict.Expired)
            {
                ForExpired(connection, late, now);
            }

            if (tracked.Judged.Verdict != Verdict.Stuck || tracked.StallStart is not { } stallStart)
            {
                continue;
            }

            if (tracked.Case is null || tracked.Case.StallStart != stallStart)
            {
                tracked.Case = new ConnectionCase(stallStart);
                _report.Stuck++;
                if (_world.IsTracing)
                {
                    _world.Trace(now, $"{connection} stuck ({(connection.IsLive(now) ? "LIVE" : "dead")}): {Explanation.Of(tracked, now)}; {tracked.Evidence(now).Stall?.ConfirmedFailures} confirmed, rate {tracked.Path.Loss.RateAt(now):0.000}, odds {tracked.Judged.Odds:0.#e0}");
                }
            }

            Plan(connection, tracked.Case, late, now);
            if (_acting is not null)
            {
                return;
            }
        }

        FollowRecycled(late, now);
        FollowTerminations(now);
    }

    private void UpdateBrakes()
    {
        foreach (var upstream in _upstreams)
        {
            _brakes[upstream.Name].Update(upstream.Tally.Silent, upstream.Tally.Total);
        }
    }

    private void ForExpired(SimulatedConnection connection, bool late, TimeSpan now)
    {
        var tracked = connection.Tracked!;
        if (tracked.ProbingStart is not { } probingStart)
        {
            return;
        }

        if (tracked.Case is null || tracked.Case.StallStart != probingStart)
        {
            tracked.Case = new ConnectionCase(probingStart);
        }

        var memory = tracked.Case;
        var rate = _expiredRates[tracked.Upstream.Name];
        var expired = new StuckCase
        {
            Declared = tracked.Upstream.Matches(tracked.Key.Local, tracked.Key.Peer),
            PathUp = tracked.Path.IsUpSince(probingStart, now),
            RecycleEnabled = tracked.Upstream.Section.Recycle,
            Recycle = memory.Recycle,
            Worker = default,
        };
        var decision = RemedyPlanner.ForExpired(expired, tracked.Judged.Reason == Reason.ProbesUnanswered, new Circumstances
        {
            Observe = _observe,
            TickLate = late,
            CommonMode = true,
            RecycleRateLeft = rate.IsLeftAt(now),
        });
        if (decision.WithheldBy is { } guardrail)
        {
            _report.Withheld[guardrail] += memory.IsNew(decision.Remedy, guardrail) ? 1 : 0;
        }
        else if (decision.IsAction && !tracked.Path.IsUpNow(tracked.LastRetransmission, now))
        {
            Probe(connection, now);
        }
        else if (decision.IsAction)
        {
            rate.Spend(now);
            Destroy(connection, memory, null, now);
        }
    }

    private void Plan(SimulatedConnection connection, ConnectionCase memory, bool late, TimeSpan now)
    {
        var tracked = connection.Tracked!;
        var brake = _brakes[tracked.Upstream.Name];
        var section = tracked.Upstream.Section;
        var circumstances = new Circumstances
        {
            Observe = _observe,
            TickLate = late,
            CommonMode = brake.IsOn,
            RecycleRateLeft = brake.IsRateLeftAt(now),
        };
        var willTerminate = !section.Recycle || memory.Recycle is RecycleProgress.Refused or RecycleProgress.DidNotHelp;
        var stuck = new StuckCase
        {
            Declared = tracked.Upstream.Matches(tracked.Key.Local, tracked.Key.Peer),
            PathUp = tracked.Path.IsUpSince(memory.RecycledOwner is null ? memory.StallStart : memory.RecycledAt, now),
            RecycleEnabled = section.Recycle,
            Recycle = memory.Recycle,
            Worker = willTerminate ? Worker(connection, memory, now) : default,
        };
        var decision = RemedyPlanner.ForStuck(stuck, circumstances);
        if (decision.Remedy == Remedy.None)
        {
            if (memory.Recycle == RecycleProgress.NotTried)
            {
                _report.Violation(_world, now, "unexplained", $"{connection} is stuck, nothing is planned and nothing withheld");
            }

            return;
        }

        if (decision.WithheldBy is { } guardrail)
        {
            if (memory.IsNew(decision.Remedy, guardrail))
            {
                _report.Withheld[guardrail]++;
                if (guardrail.ToName().Length == 0 || Explanation.Of(tracked, now).Length == 0)
                {
                    _report.Violation(_world, now, "unexplained", $"{connection}: {decision} without words");
                }
            }

            return;
        }

        if (!tracked.Path.IsUpNow(tracked.LastRetransmission, now))
        {
            Probe(connection, now);
            return;
        }

        if (_observe)
        {
            _report.Violation(_world, now, "observe", $"{connection}: {decision} in observe mode");
        }

        if (decision.Remedy == Remedy.Recycle)
        {
            memory.SwitchesBefore = connection.Thread.Process.Switches;
            if (_world.HoursBetweenPauses > 0 && _world.Dice.Chance(0.05))
            {
                // Preempted between the decision and the act.
                _acting = (connection, memory, brake);
                _world.Queue.Add(now + _world.Dice.MagnitudeSeconds(0.001, 3), this, ActsLate, _generation);
                return;
            }

            Destroy(connection, memory, brake, now);
        }
        else
        {
            Terminate(connection, memory, now);
        }
    }

    private WorkerEvidence Worker(SimulatedConnection connection, ConnectionCase memory, TimeSpan now)
    {
        var process = connection.Thread.Process;
        var group = process.Owner.Workers is { } section ? _groups[section.Name] : null;
        var soleOwnerKnown = process.Alive && !_world.IsInheritedSocket(process);
        var named = group?.Section.Terminate == true;
        var busy = group is not null && (_endings.ContainsKey(group.Section.Name) || group.IsBusyAt(now));
        return new WorkerEvidence
        {
            SoleOwnerKnown = soleOwnerKnown,
            Protected = false,
            NamedForTermination = named,
            OtherProgress = soleOwnerKnown && named && !busy ? MadeProgress(connection, memory.StallStart, now) : null,
            HungFirst = group is not null && IsFirstHung(memory.StallStart, group),
            GroupBusy = busy,
            BudgetLeft = group?.Budget.IsLeftAt(now) ?? false,
        };
    }

    /// <summary>On a connection that is open, or on one that has gone since.</summary>
    private bool MadeProgress(SimulatedConnection stuck, TimeSpan stallStart, TimeSpan now)
    {
        var process = stuck.Thread.Process;
        if (_progress.MovedSince(process.Identity, stallStart))
        {
            return true;
        }

        foreach (var other in _all)
        {
            if (other != stuck && other.Thread.Process == process && ProgressMemory.MovedSince(other.Tracked!, stallStart))
            {
                return true;
            }
        }

        foreach (var thread in process.Threads)
        {
            foreach (var other in thread.Connections)
            {
                if (other is not null && other != stuck && ProgressProbe.Shows(other.Socket.Observe(now), now - stallStart))
                {
                    return true;
                }
            }
        }

        return false;
    }

    private bool IsFirstHung(TimeSpan stallStart, WorkerGroup group)
    {
        foreach (var other in _all)
        {
            if (other.Tracked!.Judged.Verdict is Verdict.Suspect or Verdict.Stuck && other.Tracked.StallStart < stallStart
                && other.Thread.Process.Owner.Workers?.Name == group.Section.Name)
            {
                return false;
            }
        }

        return true;
    }

    private void Destroy(SimulatedConnection connection, ConnectionCase memory, CommonModeBrake? brake, TimeSpan now)
    {
        memory.RecycledAt = now;
        if (connection.Ended is not null || !Recycler.IsAsJudged(connection.Tracked!.Last.Info, connection.Socket.Observe(now)))
        {
            memory.Recycle = RecycleProgress.Helped;
            _report.Recovered++;
            return;
        }

        var name = connection.Tracked.Upstream.Name;
        _report.Recycled++;
        if (brake is null)
        {
            _report.Expired++;
        }

        if (connection.IsLive(now))
        {
            _report.WrongRecycle(_world, connection.Path, now, $"{connection} was recycled alive; {Conditions(connection.Path)}; {Explanation.Of(connection.Tracked, now)}, odds {connection.Tracked.Judged.Odds:0.#e0}, rate {connection.Tracked.Path.Loss.RateAt(now):0.000}");
        }

        CheckOutage(connection, now, "recycled");
        if (brake?.IsOn == true)
        {
            var braked = _brakedRecycles.TryGetValue(name, out var list) ? list : _brakedRecycles[name] = [];
            braked.RemoveAll(at => now - at >= TimeSpan.FromSeconds(1));
            braked.Add(now);
            if (braked.Count > CommonModeBrake.RecyclesPerSecond)
            {
                _report.Violation(_world, now, "rate", $"{braked.Count} recycles of {name} within a second while the brake is on");
            }
        }

        if (brake is null)
        {
            memory.Recycle = RecycleProgress.Helped;
            connection.End(now, "expired, recycled");
            return;
        }

        brake.Recycled(now);
        memory.Recycle = RecycleProgress.Settling;
        memory.RecycledOwner = connection.Thread.Process.Owner;
        connection.End(now, "recycled");
        _recycled.Add(connection);
    }

    /// <summary>
    /// A second is the time in which an outage that has just begun cannot be known: the fresh connection had succeeded
    /// before, and the next one is due at the next retransmission.
    /// </summary>
    private void CheckOutage(SimulatedConnection connection, TimeSpan now, string what)
    {
        if (connection.Path.DownFor(now) > TimeSpan.FromSeconds(1))
        {
            _report.Violation(_world, now, "outage", $"{connection} was {what}, the path being down for {connection.Path.DownFor(now).TotalSeconds:0.000} s");
        }
    }

    private void FollowRecycled(bool late, TimeSpan now)
    {
        for (var i = _recycled.Count - 1; i >= 0; i--)
        {
            var connection = _recycled[i];
            var memory = connection.Tracked!.Case!;
            var process = connection.Thread.Process;
            if (!process.Alive || process.Switches != memory.SwitchesBefore)
            {
                memory.Recycle = RecycleProgress.Helped;
                _recycled.RemoveAt(i);
                continue;
            }

            if (memory.Recycle == RecycleProgress.Settling)
            {
                if (now - memory.RecycledAt < HelpWithin)
                {
                    continue;
                }

                memory.Recycle = RecycleProgress.DidNotHelp;
                _report.DidNotHelp++;
            }

            if (connection.Tracked.Path.IsUpSince(memory.RecycledAt, now))
            {
                Plan(connection, memory, late, now);
            }
            else
            {
                Probe(connection, now);
            }
        }
    }

    private void Terminate(SimulatedConnection connection, ConnectionCase memory, TimeSpan now)
    {
        var process = connection.Thread.Process;
        var section = process.Owner.Workers;
        if (!process.Alive || (memory.RecycledOwner is null
            && (connection.Ended is not null || !Recycler.IsAsJudged(connection.Tracked!.Last.Info, connection.Socket.Observe(now)))))
        {
            _groups[section!.Name].RecoveringUntil = now + WorkerGroup.Recovery;
            return;
        }

        _report.Terminated++;
        if (section is not { Terminate: true })
        {
            _report.Violation(_world, now, "unnamed", $"{process.Identity.Pid} was terminated, and no section names it");
            return;
        }

        if (memory.RecycledOwner is null && connection.IsLive(now))
        {
            _report.WrongTerminations++;
            _report.Violation(_world, now, "live", $"{process.Identity.Pid} was terminated for a connection that lives; {Conditions(connection.Path)}; {Explanation.Of(connection.Tracked!, now)}");
        }

        // A quarter of a second before and after belongs to the request that hung.
        if (process.LastProgress > memory.StallStart + TimeSpan.FromMilliseconds(250))
        {
            _report.WrongTerminations++;
            _report.Violation(_world, now, "progress", $"{process.Identity.Pid} was terminated, and had an answer {now - process.LastProgress} before, {process.LastProgress - memory.StallStart} into the stall");
        }

        CheckOutage(connection, now, "the ground for a termination");
        var group = _groups[section.Name];
        var spent = _terminations.TryGetValue(section.Name, out var list) ? list : _terminations[section.Name] = [];
        spent.Add(now);
        if (spent.Count(at => now - at < section.Budget.Period) > section.Budget.Count)
        {
            _report.Violation(_world, now, "budget", $"more than {section.Budget.Count} terminations in {section.Budget.Period}");
        }

        if (_endings.ContainsKey(section.Name))
        {
            _report.Violation(_world, now, "two", $"two terminations at a time in {section.Name}");
        }

        memory.Terminating = true;
        group.Budget.Spend(now);
        _endings[section.Name] = new Ending(process, now);
        _world.Trace(now, $"{process.Identity.Pid} is terminated");
        process.Terminate(now);
    }

    private void FollowTerminations(TimeSpan now)
    {
        foreach (var (name, ending) in _endings.ToList())
        {
            var group = _groups[name];
            if (!ending.Process.Alive)
            {
                _endings.Remove(name);
                group.RecoveringUntil = now + WorkerGroup.Recovery;
            }
            else if (now - ending.TermAt >= group.Section.Grace)
            {
                ending.Process.Exit(now);
            }
        }
    }

    private static string Conditions(SimulatedPath path) =>
        $"loss {path.Loss:0.####}, bursts {path.MeanGood:0.#} s / {path.MeanBad:0.##} s at {path.BurstLoss:0.##}, timeout {path.Timeout?.TotalSeconds ?? 0:0} s";

    private sealed record Ending(SimulatedProcess Process, TimeSpan TermAt);

    /// <summary>A fresh connection: SYNs at 0, 1 and 3 s, as the kernel sends them.</summary>
    private sealed class SimulatedProbe : Actor
    {
        private static readonly int[] SynsAt = [0, 1, 3];

        private readonly TaskCompletionSource<FreshConnectResult> _result = new();
        private readonly World _world;
        private readonly SimulatedAgent _agent;
        private readonly SimulatedPath _path;
        private readonly TimeSpan _started;
        private readonly int _generation;
        private int _syns;

        internal SimulatedProbe(World world, SimulatedAgent agent, SimulatedPath path, TimeSpan now, int generation)
        {
            _world = world;
            _agent = agent;
            _path = path;
            _started = now;
            _generation = generation;
            Syn(now);
        }

        internal Task<FreshConnectResult> Result => _result.Task;

        internal override void Happen(int what, int version, TimeSpan now)
        {
            if (what == 0)
            {
                Syn(now);
                return;
            }

            var outcome = (FreshConnectOutcome)(what - 1);
            var elapsed = (long)((now - _started).TotalSeconds * Stopwatch.Frequency);
            _result.SetResult(new FreshConnectResult(outcome, 0, elapsed, outcome == FreshConnectOutcome.Connected ? _syns - 1 : 0, null));
            if (_agent._generation == _generation)
            {
                _agent.Wake(now);
            }
        }

        private void Syn(TimeSpan now)
        {
            _syns++;
            _world.Count(_syns == 1 ? new TcpCounters(1, 0, 0) : new TcpCounters(0, 0, 1), now);
            if (_path.Handshake(now) is FreshConnectOutcome.Connected and var outcome)
            {
                _world.Queue.Add(now + _path.RoundTrip, this, 1 + (int)outcome);
            }
            else if (_syns < SynsAt.Length)
            {
                _world.Queue.Add(_started + TimeSpan.FromSeconds(SynsAt[_syns]), this, 0);
            }
            else
            {
                _world.Queue.Add(_started + PathTracker.ConnectTimeout, this, 1 + (int)FreshConnectOutcome.TimedOut);
            }
        }
    }
}
