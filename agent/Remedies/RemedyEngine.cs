using System.Globalization;
using Microsoft.Extensions.Logging;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Judgement;
using Sidecar.Agent.Telemetry;
using Sidecar.Agent.Tracking;
using Sidecar.Probes.Processes;

namespace Sidecar.Agent.Remedies;

/// <summary>
/// Carries out what the planner decides and follows each action to its outcome. Runs on the loop's thread; every action
/// is recorded as pending before it is done and again with what came of it.
/// </summary>
internal sealed class RemedyEngine : IDisposable
{
    /// <summary>A recycled worker that has not run at all after this long was not helped.</summary>
    private static readonly TimeSpan HelpWithin = TimeSpan.FromSeconds(3);

    /// <summary>A process that SIGKILL does not end within this long is held by the kernel; nothing more can be done.</summary>
    private static readonly TimeSpan KillWithin = TimeSpan.FromSeconds(10);

    /// <summary>Expired connections closed per second and upstream: a pool that reconnects all at once is a load of its own.</summary>
    private const int ExpiredPerSecond = 20;

    private readonly Teller _teller;
    private readonly ProcessReader _processes;
    private readonly NamespaceTable _namespaces;
    private readonly OwnerTable _owners;
    private readonly bool _observe;
    private readonly Dictionary<string, WorkerGroup> _groups;
    private readonly Dictionary<string, CommonModeBrake> _brakes;
    private readonly List<TrackedConnection> _recycled = [];
    private readonly ProgressMemory _progress = new();
    private readonly Dictionary<PathTracker, Incident> _outages = [];
    private readonly KeepaliveArmer _armer;
    private readonly KeepaliveLedger _ledger;
    private readonly SessionTable _sessions;
    private readonly SessionReleaser _releaser;
    private readonly Dictionary<string, SlidingBudget> _expiredRates;

    public RemedyEngine(SidecarConfiguration configuration, Teller teller, ProcessReader processes, NamespaceTable namespaces, OwnerTable owners, SessionTable sessions)
    {
        _teller = teller;
        _sessions = sessions;
        _releaser = new SessionReleaser(sessions, teller);
        _processes = processes;
        _namespaces = namespaces;
        _owners = owners;
        _observe = configuration.Agent.Mode == AgentMode.Observe;
        _groups = configuration.Workers.ToDictionary(workers => workers.Name, workers => new WorkerGroup(workers), StringComparer.Ordinal);
        _ledger = new KeepaliveLedger(configuration.Agent.StateDirectory, teller.Log);
        _armer = new KeepaliveArmer(processes, owners, teller, _ledger, _observe);
        _expiredRates = configuration.Upstreams.ToDictionary(upstream => upstream.Name, _ => new SlidingBudget(ExpiredPerSecond, TimeSpan.FromSeconds(1)), StringComparer.Ordinal);
        _brakes = configuration.Upstreams.ToDictionary(upstream => upstream.Name, _ => new CommonModeBrake(), StringComparer.Ordinal);
    }

    /// <summary>True while short looks are needed to follow an action.</summary>
    public bool IsFollowing => _recycled.Count > 0 || _releaser.IsFollowing || _groups.Values.Any(group => group.InProgress is not null);

    /// <summary>True where connections wait for their keepalive: the next look should not.</summary>
    public bool IsArming => _armer.IsUnfinished;

    /// <summary>
    /// Takes over what a restarted or reloaded agent must not forget: terminations that count against the budgets.
    /// </summary>
    /// <param name="incidents">Incidents as recorded.</param>
    /// <param name="utcNow">Wall clock.</param>
    /// <param name="now">Monotonic time.</param>
    public void Remember(IEnumerable<Incident> incidents, DateTimeOffset utcNow, TimeSpan now)
    {
        foreach (var incident in incidents.Where(incident => incident is { Remedy: "terminate", WithheldBy: null, Workers: not null }).OrderBy(incident => incident.Time))
        {
            // A clock that was stepped back makes an incident's age negative: it counts as just now.
            var age = utcNow - incident.Time;
            if (_groups.TryGetValue(incident.Workers!, out var group) && age < group.Section.Budget.Period)
            {
                group.Budget.Spend(now - (age < TimeSpan.Zero ? TimeSpan.Zero : age));
            }
        }
    }

    /// <summary>
    /// Ends the incidents that an earlier run left <c>pending</c>: it was stopped between the deed and its record. Whether
    /// the deed was done is not known, so nothing is done again on their account; what is still wrong is judged anew.
    /// </summary>
    /// <param name="incidents">Incidents as recorded.</param>
    public void CloseInterrupted(IEnumerable<Incident> incidents)
    {
        foreach (var incident in incidents.Where(incident => incident.Outcome == "pending"))
        {
            _teller.End(incident with { Outcome = "interrupted", Why = $"{incident.Why}; the agent ended before it saw what came of it" });
        }
    }

    /// <summary>Considers every connection that a look has judged, then follows actions in progress.</summary>
    /// <param name="judged">The connections of the look.</param>
    /// <param name="all">All watched connections, for what they have in common.</param>
    /// <param name="upstreams">All upstreams, their connections counted.</param>
    /// <param name="late">The look came late (guardrail 4).</param>
    /// <param name="now">Monotonic time.</param>
    /// <param name="probe">Asks for a fresh connection.</param>
    public void Consider(IEnumerable<TrackedConnection> judged, IReadOnlyCollection<TrackedConnection> all, IReadOnlyList<Upstream> upstreams, bool late, TimeSpan now, Action<TrackedConnection> probe)
    {
        foreach (var upstream in upstreams)
        {
            _brakes[upstream.Name].Update(upstream.Tally.Silent, upstream.Tally.Total);
        }

        _armer.BeginPass();
        foreach (var connection in judged)
        {
            switch (connection.Judged.Verdict)
            {
                case Verdict.Stuck:
                    ForStuck(connection, all, late, now, probe);
                    break;
                case Verdict.Outage:
                    ForOutage(connection);
                    break;
                case Verdict.Expired:
                    ForExpired(connection, late, now, probe);
                    break;
                case Verdict.Aging when connection.Judged.Reason == Reason.NearTheTimeout:
                    ForNearTheTimeout(connection, late, now, probe);
                    break;
            }

            _armer.Consider(connection, now);
        }

        _armer.EndPass();
        _ledger.Save(all, now);
        _progress.Prune(now);

        FollowOutages(all);
        FollowRecycled(all, late, now, probe);
        _releaser.Follow();
        FollowTerminations(now);
    }

    /// <summary>Adds to the incidents of connections that still hang what has followed from them.</summary>
    public void FollowChains(IReadOnlyCollection<TrackedConnection> all) => _teller.Follow(cookie =>
        all.Any(connection => connection.Cookie == cookie && connection.Judged.Verdict is Verdict.Suspect or Verdict.Stuck or Verdict.Outage or Verdict.Expired));

    /// <summary>A connection has left the kernel's table; whatever was in progress for it ends here.</summary>
    public void NoteGone(TrackedConnection connection, TimeSpan now)
    {
        _ledger.Forget(connection);
        if (_owners.Find(connection.Last.Inode) is { IsSole: true, First.Workers: not null } ownership)
        {
            _progress.NoteGone(ownership.First.Identity, connection);
        }

        if (connection.Case is { Recycle: RecycleProgress.NotTried, Terminating: false } && connection.Judged.Verdict is Verdict.Stuck or Verdict.Suspect or Verdict.Outage)
        {
            _teller.Log(LogLevel.Information, $"{Describe(connection)} ended by itself after {Seconds(now - connection.Case.StallStart)} s of silence");
        }
    }

    /// <summary>Puts back what was set for a test only and writes down what was set for good.</summary>
    public void Stop(IReadOnlyCollection<TrackedConnection> all, TimeSpan now)
    {
        _armer.PutBack(all);
        _ledger.Save(all, now, atOnce: true);
    }

    public void Dispose()
    {
        foreach (var group in _groups.Values)
        {
            group.InProgress?.Worker.Dispose();
        }
    }

    private void ForStuck(TrackedConnection connection, IReadOnlyCollection<TrackedConnection> all, bool late, TimeSpan now, Action<TrackedConnection> probe)
    {
        if (connection.StallStart is not { } stallStart)
        {
            return;
        }

        if (connection.Case is null || connection.Case.StallStart != stallStart)
        {
            connection.Case = new ConnectionCase(stallStart);
        }

        Plan(connection, connection.Case, all, late, now, probe);
    }

    /// <summary>Closes an expired pooled connection before its worker uses it.</summary>
    private void ForExpired(TrackedConnection connection, bool late, TimeSpan now, Action<TrackedConnection> probe)
    {
        if (connection.ProbingStart is not { } probingStart)
        {
            return;
        }

        var (expired, circumstances) = Resting(connection, probingStart, connection.Path.IsUpSince(probingStart, now), late, now);
        if (CloseResting(connection, RemedyPlanner.ForExpired(expired, connection.Judged.Reason == Reason.ProbesUnanswered, circumstances), null, now, probe)
            && connection.Protection?.NudgedSince is not null)
        {
            _teller.Nudged(connection.Upstream.Name, "unanswered");
        }
    }

    /// <summary>
    /// Closes a pooled connection that lives and that its path is about to forget, where no keepalive prevents that and the
    /// server shows that nobody uses it. Where no server can be asked there is nothing to decide on: that is advice.
    /// </summary>
    private void ForNearTheTimeout(TrackedConnection connection, bool late, TimeSpan now, Action<TrackedConnection> probe)
    {
        var path = connection.Path;
        if (path.Unprovable || _sessions.Find(connection.Upstream.Name) is null)
        {
            return;
        }

        var isAtRest = _sessions.IsAtRest(connection, now, out var why);
        if (isAtRest is null && why is null)
        {
            return; // the server's answer is not here yet
        }

        var (aging, circumstances) = Resting(connection, connection.LastData, path.Last?.Up != false, late, now);
        if (CloseResting(connection, RemedyPlanner.ForNearTheTimeout(aging, isAtRest, circumstances), why, now, probe)
            && connection.Case!.Incident?.Outcome == "recovered")
        {
            connection.Case = null; // a keepalive came in between: it is near its end all the same
        }
    }

    /// <summary>A resting connection as the planner sees it; its case is the one of the rest that began at <paramref name="since"/>.</summary>
    private (StuckCase Resting, Circumstances Now) Resting(TrackedConnection connection, TimeSpan since, bool pathUp, bool late, TimeSpan now)
    {
        if (connection.Case is null || connection.Case.StallStart != since)
        {
            connection.Case = new ConnectionCase(since);
        }

        var resting = new StuckCase
        {
            Declared = connection.Upstream.Matches(connection.Key.Local, connection.Key.Peer),
            PathUp = pathUp,
            RecycleEnabled = connection.Upstream.Section.Recycle,
            Recycle = connection.Case.Recycle,
            Worker = default,
        };
        var circumstances = new Circumstances
        {
            Observe = _observe,
            TickLate = late,
            CommonMode = true, // always at a bounded rate: nobody is waiting yet
            RecycleRateLeft = _expiredRates[connection.Upstream.Name].IsLeftAt(now),
        };
        return (resting, circumstances);
    }

    /// <summary>Carries out what was planned for a resting connection; true where it was tried to close it.</summary>
    private bool CloseResting(TrackedConnection connection, Decision decision, string? why, TimeSpan now, Action<TrackedConnection> probe)
    {
        var memory = connection.Case!;
        if (decision.Remedy == Remedy.None)
        {
            return false;
        }

        if (decision.WithheldBy is { } guardrail)
        {
            Withhold(connection, memory, decision.Remedy, guardrail, _owners.Find(connection.Last.Inode).First, now, why);
            return false;
        }

        if (!connection.Path.IsUpNow(connection.LastRetransmission, now))
        {
            probe(connection); // and then, at the next look
            return false;
        }

        _expiredRates[connection.Upstream.Name].Spend(now);
        Recycle(connection, memory, null, now);
        return true;
    }

    private void Plan(TrackedConnection connection, ConnectionCase memory, IReadOnlyCollection<TrackedConnection> all, bool late, TimeSpan now, Action<TrackedConnection> probe)
    {
        var brake = _brakes[connection.Upstream.Name];
        var circumstances = new Circumstances
        {
            Observe = _observe,
            TickLate = late,
            CommonMode = brake.IsOn,
            RecycleRateLeft = brake.IsRateLeftAt(now),
        };
        var section = connection.Upstream.Section;
        var willTerminate = !section.Recycle || memory.Recycle is RecycleProgress.Refused or RecycleProgress.DidNotHelp;
        var ownership = willTerminate ? _owners.Find(connection.Last.Inode) : default;
        if (memory.RecycledOwner is { } recycledOwner)
        {
            // The socket is gone; its owner is the one it had when it was recycled.
            ownership = new Ownership(recycledOwner, -1, 1);
        }

        var stuck = new StuckCase
        {
            Declared = connection.Upstream.Matches(connection.Key.Local, connection.Key.Peer),
            PathUp = connection.Path.IsUpSince(memory.RecycledOwner is null ? memory.StallStart : memory.RecycledAt, now),
            RecycleEnabled = section.Recycle,
            Recycle = memory.Recycle,
            Worker = willTerminate ? WorkerEvidence(connection, memory, ownership, all, now) : default,
        };

        if (!section.Recycle && memory.Recycle == RecycleProgress.NotTried && memory.IsNew(Remedy.Recycle, Guardrail.SwitchedOff))
        {
            // Counted, and no incident of its own: the one that follows tells what was done instead.
            _teller.Withheld(connection.Upstream.Name, Remedy.Recycle, Guardrail.SwitchedOff);
        }

        var decision = RemedyPlanner.ForStuck(stuck, circumstances);
        if (decision.Remedy == Remedy.None)
        {
            return;
        }

        if (decision.WithheldBy is { } guardrail)
        {
            Withhold(connection, memory, decision.Remedy, guardrail, ownership.First ?? _owners.Find(connection.Last.Inode).First, now);
        }
        else if (!connection.Path.IsUpNow(connection.LastRetransmission, now))
        {
            probe(connection); // and then, at the next look
        }
        else if (decision.Remedy == Remedy.Recycle)
        {
            Recycle(connection, memory, brake, now);
        }
        else
        {
            Terminate(connection, memory, ownership.First!, now);
        }
    }

    private WorkerEvidence WorkerEvidence(TrackedConnection connection, ConnectionCase memory, Ownership ownership, IReadOnlyCollection<TrackedConnection> all, TimeSpan now)
    {
        var owner = ownership.First;
        var group = owner?.Workers is { } section ? _groups.GetValueOrDefault(section.Name) : null;
        var named = group?.Section.Terminate == true;
        var network = _namespaces.Find(connection.NamespaceInode);

        // The walk over the process's sockets is made only where everything cheaper lets the termination pass.
        var worthAsking = ownership.IsSole && named && !group!.IsBusyAt(now) && network is not null;
        return new WorkerEvidence
        {
            SoleOwnerKnown = ownership.IsSole,
            Protected = owner is not null && (owner.Identity.Pid == 1 || owner.Identity.Pid == Environment.ProcessId || owner.IsKernelThread),
            NamedForTermination = named,
            OtherProgress = worthAsking ? MadeProgress(connection, owner!.Identity, memory.StallStart, network!, all, now) : null,
            HungFirst = group is not null && IsFirstHung(memory.StallStart, group, all),
            GroupBusy = group?.IsBusyAt(now) ?? false,
            BudgetLeft = group?.Budget.IsLeftAt(now) ?? false,
        };
    }

    /// <summary>On a connection that is open, or on one that has gone since; null where that cannot be seen.</summary>
    private bool? MadeProgress(TrackedConnection stuck, ProcessIdentity process, TimeSpan stallStart, Probes.Namespaces.NetworkNamespace network, IReadOnlyCollection<TrackedConnection> all, TimeSpan now) =>
        _progress.MovedSince(process, stallStart) || all.Any(other => other != stuck && ProgressMemory.MovedSince(other, stallStart) && _owners.Find(other.Last.Inode).First?.Identity == process)
            ? true
            : ProgressProbe.MovedSince(now - stallStart, process.Pid, stuck.Last.Inode, network, _processes);

    private bool IsFirstHung(TimeSpan stallStart, WorkerGroup group, IReadOnlyCollection<TrackedConnection> all)
    {
        foreach (var other in all)
        {
            if (other.Judged.Verdict is Verdict.Suspect or Verdict.Stuck && other.StallStart < stallStart
                && _owners.Find(other.Last.Inode).First?.Workers?.Name == group.Section.Name)
            {
                return false;
            }
        }

        return true;
    }

    private void Recycle(TrackedConnection connection, ConnectionCase memory, CommonModeBrake? brake, TimeSpan now)
    {
        if (_namespaces.Find(connection.NamespaceInode) is not { } network)
        {
            Withhold(connection, memory, Remedy.Recycle, Guardrail.Unknown, null, now);
            return;
        }

        var owner = _owners.Find(connection.Last.Inode).First;
        memory.SwitchesBefore = owner is null ? null : _processes.ReadContextSwitches(owner.Identity.Pid);
        memory.Incident = _teller.Begin(Incident(connection, memory, Remedy.Recycle, owner, now));
        var (outcome, detail) = Recycler.Recycle(connection, network);
        memory.RecycledAt = now;
        var after = _teller.Now;
        switch (outcome)
        {
            case RecycleOutcome.Released:
                if (brake is null)
                {
                    // Nobody was waiting for it, so there is no worker to see going on.
                    memory.Recycle = RecycleProgress.Helped;
                    memory.Incident = memory.Incident with { Outcome = "released" };
                    _teller.Recycled(connection.Upstream.Name, "expired");
                    break;
                }

                brake.Recycled(now);
                memory.Recycle = RecycleProgress.Settling;
                memory.RecycledOwner = owner;
                memory.Incident = memory.Incident with { Outcome = "released", ReleaseSeconds = Round(after - memory.StallStart) };
                _teller.Recycled(connection.Upstream.Name, "stuck");
                _teller.Released(connection.Upstream.Name, after - memory.StallStart);
                _recycled.Add(connection);
                break;
            case RecycleOutcome.Refused:
                memory.Recycle = RecycleProgress.Refused;
                _teller.Withheld(connection.Upstream.Name, Remedy.Recycle, Guardrail.NotPermitted);
                memory.Incident = memory.Incident with { Outcome = "refused", Why = $"{memory.Incident.Why}; {detail}" };
                break;
            case RecycleOutcome.Failed:
                // Refused for a reason of its own: not tried again for this stall.
                memory.Recycle = RecycleProgress.Refused;
                memory.Incident = memory.Incident with { Outcome = "failed", Why = $"{memory.Incident.Why}; {detail}" };
                break;
            case RecycleOutcome.Vanished:
                memory.Recycle = RecycleProgress.Helped;
                memory.Incident = memory.Incident with { Outcome = "vanished" };
                break;
            case RecycleOutcome.Recovered:
                // Alive after all: this stall is over, and a new one is a new case.
                memory.Recycle = RecycleProgress.Helped;
                memory.Incident = memory.Incident with { Outcome = "recovered" };
                break;
        }

        _teller.End(memory.Incident);
        if (outcome == RecycleOutcome.Released)
        {
            _releaser.Release(connection, memory.Incident, now);
        }
    }

    private void FollowRecycled(IReadOnlyCollection<TrackedConnection> all, bool late, TimeSpan now, Action<TrackedConnection> probe)
    {
        for (var i = _recycled.Count - 1; i >= 0; i--)
        {
            var connection = _recycled[i];
            var memory = connection.Case!;
            if (memory.Recycle == RecycleProgress.Settling)
            {
                var owner = memory.RecycledOwner;

                // Where it cannot be seen whether the worker ran, it counts as helped: no process is ended on a guess.
                var ran = owner is null || memory.SwitchesBefore is not { } before || !_processes.IsAlive(owner.Identity)
                    || _processes.ReadContextSwitches(owner.Identity.Pid) is not { } switches || switches != before;
                if (ran)
                {
                    memory.Recycle = RecycleProgress.Helped;
                    _recycled.RemoveAt(i);
                    continue;
                }

                if (now - memory.RecycledAt < HelpWithin)
                {
                    continue;
                }

                memory.Recycle = RecycleProgress.DidNotHelp;
                _teller.Log(LogLevel.Warning, $"{Describe(connection)}: its worker [{owner!.Identity.Pid}] has not run since the connection was closed");
            }

            if (memory.Recycle != RecycleProgress.DidNotHelp || !_processes.IsAlive(memory.RecycledOwner!.Identity)
                || _processes.ReadContextSwitches(memory.RecycledOwner.Identity.Pid) != memory.SwitchesBefore)
            {
                _recycled.RemoveAt(i);
                continue;
            }

            if (connection.Path.IsUpSince(memory.RecycledAt, now))
            {
                Plan(connection, memory, all, late, now, probe);
            }
            else
            {
                probe(connection);
            }
        }
    }

    private void Terminate(TrackedConnection connection, ConnectionCase memory, OwnerInfo owner, TimeSpan now)
    {
        var group = _groups[owner.Workers!.Name];
        var incident = Incident(connection, memory, Remedy.Terminate, owner, now);

        // Everything that was judged is looked at once more with the process in hand.
        var worker = ProcessHandle.TryOpen(owner.Identity, _processes, out var failure);
        if (worker is null || (memory.RecycledOwner is null && !StillStuck(connection, owner)))
        {
            worker?.Dispose();
            _teller.Record(incident with { Outcome = failure is HandleFailure.None or HandleFailure.Gone ? "vanished" : "refused" });
            group.RecoveringUntil = now + WorkerGroup.Recovery;
            return;
        }

        incident = _teller.Begin(incident);
        failure = worker.Terminate();
        if (failure != HandleFailure.None)
        {
            worker.Dispose();
            _teller.End(incident with
            {
                Outcome = failure == HandleFailure.Gone ? "vanished" : "refused",
                Why = failure == HandleFailure.NotPermitted ? incident.Why + "; the signal needs CAP_KILL" : incident.Why,
            });
            group.RecoveringUntil = now + WorkerGroup.Recovery * 3;
            return;
        }

        memory.Terminating = true;
        group.Budget.Spend(now);
        group.InProgress = new Termination(worker, connection, incident, memory.StallStart, now);
        _teller.Terminated(group.Section.Name, "TERM");
    }

    private bool StillStuck(TrackedConnection connection, OwnerInfo owner)
    {
        var ownership = _owners.Refresh(connection.Last.Inode);
        if (!ownership.IsSole || ownership.First!.Identity != owner.Identity || _namespaces.Find(connection.NamespaceInode) is not { } network)
        {
            return false;
        }

        try
        {
            return _processes.HoldsSocket(owner.Identity.Pid, ownership.Descriptor, connection.Last.Inode)
                && network.Diagnostics.TryGet(connection.Key, out var present)
                && present.Info.SegmentsIn == connection.Last.Info.SegmentsIn
                && present.Info.BytesAcked == connection.BytesAcknowledged
                && present.Info.Unacked > 0;
        }
        catch (Probes.KernelException)
        {
            return false;
        }
    }

    private void FollowTerminations(TimeSpan now)
    {
        foreach (var group in _groups.Values)
        {
            group.StandDownTold &= !group.Budget.IsLeftAt(now);
            if (group.InProgress is not { } termination)
            {
                continue;
            }

            if (termination.Worker.HasExited)
            {
                var released = now - termination.StallStart;
                _teller.Released(termination.Connection.Upstream.Name, released);
                Finish(group, termination.Incident with { Outcome = termination.KillAt is null ? "exited" : "killed", ReleaseSeconds = Round(released) }, now);
            }
            else if (termination.KillAt is null && now - termination.TermAt >= group.Section.Grace)
            {
                termination.KillAt = now;
                if (termination.Worker.Kill() == HandleFailure.None)
                {
                    _teller.Terminated(group.Section.Name, "KILL");
                }
            }
            else if (termination.KillAt is { } killed && now - killed >= KillWithin)
            {
                Finish(group, termination.Incident with { Outcome = "failed", Why = termination.Incident.Why + "; it did not exit on SIGKILL" }, now);
            }
        }
    }

    private void Finish(WorkerGroup group, Incident incident, TimeSpan now)
    {
        _teller.End(incident);
        group.InProgress!.Worker.Dispose();
        group.InProgress = null;
        group.RecoveringUntil = now + WorkerGroup.Recovery;
    }

    private void ForOutage(TrackedConnection connection)
    {
        var path = connection.Path;
        if (_outages.ContainsKey(path) || connection.SilenceStart is not { } stallStart)
        {
            return;
        }

        var memory = new ConnectionCase(stallStart);
        var incident = Incident(connection, memory, Remedy.Recycle, _owners.Find(connection.Last.Inode).First, _teller.Now) with
        {
            Cause = Verdict.Outage.ToName(),
            Outcome = "withheld",
            WithheldBy = Guardrail.PathDown.ToName(),
        };
        _outages[path] = incident;
        _teller.Log(LogLevel.Error, $"{connection.Upstream.Name}: fresh connections to {path.Key.Destination} fail; nothing is closed or ended until they succeed", MessageIds.OutageBegan);
        _teller.Withheld(connection.Upstream.Name, Remedy.Recycle, Guardrail.PathDown);
        _teller.Record(incident, connection.Cookie);
    }

    private void FollowOutages(IReadOnlyCollection<TrackedConnection> all)
    {
        if (_outages.Count == 0)
        {
            return;
        }

        foreach (var (path, incident) in _outages.ToList())
        {
            if (path.Last?.Up == true || !all.Any(connection => connection.Path == path && connection.Judged.Verdict == Verdict.Outage))
            {
                _outages.Remove(path);
                if (path.Last?.Up == true)
                {
                    _teller.Log(LogLevel.Warning, $"{incident.Upstream}: fresh connections to {path.Key.Destination} succeed again", MessageIds.OutageEnded);
                }

                _teller.End(incident with
                {
                    Outcome = path.Last?.Up == true ? "recovered" : "withheld",
                    ReleaseSeconds = incident.StuckSeconds is { } stuck ? Math.Round(stuck + (DateTimeOffset.UtcNow - incident.Time).TotalSeconds, 3) : null,
                });
            }
        }
    }

    private void Withhold(TrackedConnection connection, ConnectionCase memory, Remedy remedy, Guardrail guardrail, OwnerInfo? owner, TimeSpan now, string? why = null)
    {
        if (memory.Terminating || !memory.IsNew(remedy, guardrail))
        {
            return;
        }

        var incident = Incident(connection, memory, remedy, owner, now) with { Outcome = "withheld", WithheldBy = guardrail.ToName() };
        if (guardrail == Guardrail.Unknown && why is not null)
        {
            incident = incident with { Why = $"{incident.Why}; {why}" };
        }

        _teller.Withheld(connection.Upstream.Name, remedy, guardrail);
        _teller.Record(incident, connection.Cookie);
        if (remedy == Remedy.Recycle && guardrail == Guardrail.Observe)
        {
            _releaser.Withhold(connection, incident, now);
        }

        if (guardrail == Guardrail.Budget && owner?.Workers is { } workers && _groups[workers.Name] is { StandDownTold: false } group)
        {
            group.StandDownTold = true;
            _teller.Log(LogLevel.Critical, $"workers {workers.Name}: the budget of {workers.Budget.Count} terminations is used up; standing down. Workers hang and nothing more will be done about it", MessageIds.StoodDown);
        }
    }

    private Incident Incident(TrackedConnection connection, ConnectionCase memory, Remedy remedy, OwnerInfo? owner, TimeSpan now)
    {
        var info = connection.Last.Info;
        var evidence = connection.Evidence(now);
        var silence = evidence.Stall ?? evidence.Probing;
        var path = connection.Path;
        return new Incident
        {
            Id = _teller.NextId(),
            Time = DateTimeOffset.UtcNow,
            Upstream = connection.Upstream.Name,
            Cause = (connection.Judged.Verdict is Verdict.Expired or Verdict.Aging ? Verdict.Expired : Verdict.Stuck).ToName(),
            Remedy = remedy.ToName(),
            Outcome = "pending",
            Pid = owner?.Identity.Pid,
            Executable = owner?.Executable,
            Unit = owner?.Unit,
            Workers = owner?.Workers?.Name,
            WithheldBy = null,
            Local = connection.Key.Local.ToString(),
            Peer = connection.Key.Peer.ToString(),
            Namespace = _namespaces.Find(connection.NamespaceInode)?.Name,
            Why = Explanation.Of(connection, now),
            StuckSeconds = Round(now - memory.StallStart),
            Evidence = new Dictionary<string, string>(StringComparer.Ordinal)
            {
                ["cookie"] = connection.Cookie.ToString(),
                ["idle_before_seconds"] = silence?.IdleBefore is { } gap ? Seconds(gap) : "unknown",
                ["failed_transmissions"] = Number(silence?.FailedTransmissions ?? 0),
                ["confirmed_failures"] = Number(silence?.ConfirmedFailures ?? 0),
                ["timeouts"] = Number(info.Retransmits),
                ["unacked_segments"] = Number(info.Unacked),
                ["segs_in"] = Number(info.SegmentsIn),
                ["segs_out"] = Number(info.SegmentsOut),
                ["bytes_acked"] = info.BytesAcked.ToString(CultureInfo.InvariantCulture),
                ["last_ack_recv_ms"] = Number(info.LastAckReceivedMilliseconds),
                ["rto_us"] = Number(info.RtoMicroseconds),
                ["transmission_failure_rate"] = path.Loss.RateAt(now).ToString("0.###", CultureInfo.InvariantCulture),
                ["odds"] = connection.Judged.Odds.ToString("0.###e0", CultureInfo.InvariantCulture),
                ["fresh_connection"] = path.Last is { } last
                    ? $"{last.Result.Outcome.ToString().ToLowerInvariant()} in {last.Result.Elapsed.TotalMilliseconds.ToString("0.0", CultureInfo.InvariantCulture)} ms"
                    : "none",
            },
        };
    }

    private static string Describe(TrackedConnection connection) =>
        $"{connection.Upstream.Name}: {connection.Key.Local} -> {connection.Key.Peer}";

    private static string Number(long value) => value.ToString(CultureInfo.InvariantCulture);

    private static string Seconds(TimeSpan value) => value.TotalSeconds.ToString("0.###", CultureInfo.InvariantCulture);

    private static double Round(TimeSpan value) => Math.Round(value.TotalSeconds, 3);
}
