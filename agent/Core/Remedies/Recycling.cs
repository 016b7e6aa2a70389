using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Recordings;
using Sidecar.Agent.Core.Tracking;

namespace Sidecar.Agent.Core.Remedies;

/// <summary>
/// The cases of connections that hang, or are about to: from the verdict to the remedy, through every guardrail, to its outcome.
/// </summary>
internal sealed class Recycling(World world, IncidentWriter incidents, Terminations terminations, Releases releases)
{
    /// <summary>A recycled worker that has not run at all after this long was not helped.</summary>
    private static readonly TimeSpan HelpWithin = TimeSpan.FromSeconds(3);

    /// <summary>In the state <see cref="Verdict.Partly"/> nothing is closed before.</summary>
    private static readonly TimeSpan PatienceWhenPartly = TimeSpan.FromSeconds(30);

    private readonly bool _observe = world.Configuration.Agent.Mode == Settings.AgentMode.Observe;
    private readonly Brakes _brakes = new(world.Upstreams);
    private readonly List<TrackedConnection> _recycled = [];

    // When the latest command of this tick was done.
    private TimeSpan _latest;

    /// <summary>True while it is not known whether a worker was helped.</summary>
    internal bool IsFollowing => _recycled.Count > 0;

    /// <summary>A tick begins: the brakes are set by what has fallen silent.</summary>
    internal void BeginTick(TimeSpan now)
    {
        _latest = now;
        _brakes.Update(now);
    }

    /// <summary>A connect probe has ended: it tells how the server bears the rate.</summary>
    internal void NoteConnectProbe(PathTracker path, TimeSpan now)
    {
        if (path.Last is { Up: not null } last)
        {
            _brakes.Probed(path.Upstream, last.Up == true ? last.Result.Elapsed : null, now);
        }
    }

    /// <summary>Considers one connection that was judged in this tick.</summary>
    internal IEnumerable<Command> Consider(TrackedConnection connection, bool late, TimeSpan now) => connection.Judged switch
    {
        { Verdict: Verdict.Stuck } => ForStuck(connection, late, now),
        { Verdict: Verdict.Partly } => ForPartly(connection, late, now),
        { Verdict: Verdict.Expired } => ForExpired(connection, late, now),
        { Reason: Reason.NearTheTimeout } => ForNearTheTimeout(connection, late, now),
        _ => [],
    };

    /// <summary>Follows recycled connections until it is known whether that helped.</summary>
    internal IEnumerable<Command> Follow(bool late, TimeSpan now)
    {
        for (var i = _recycled.Count - 1; i >= 0; i--)
        {
            var connection = _recycled[i];
            var memory = connection.Case!;
            if (memory.Terminating || memory.RecycledFrom?.First is not { } owner)
            {
                _recycled.RemoveAt(i);
                continue;
            }

            var check = new CheckWorker(owner);
            yield return check;

            // Where it cannot be seen whether the worker ran, it counts as helped: no process is ended on a guess.
            var (alive, switches) = check.Outcome;
            if (!alive || memory.SwitchesBefore is not { } before || switches != before)
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
                yield return new RecycleDidNotHelpReport(IncidentWriter.Describe(connection), owner.Identity.Pid);
            }

            if (!connection.Path.IsUpSince(memory.RecycledAt, now))
            {
                connection.Path.IsProbeWanted = true;
                continue;
            }

            foreach (var command in Plan(connection, memory, late, now))
            {
                yield return command;
            }
        }
    }

    private IEnumerable<Command> ForStuck(TrackedConnection connection, bool late, TimeSpan now) =>
        connection.SilenceStart is { } start ? Plan(connection, CaseOf(connection, start), late, now) : [];

    /// <summary>
    /// Connect probes or neighbours contradict one another. A leg of a bundle may be away, and come back; what is silent for half
    /// a minute, probes and all, is closed all the same. Nobody is terminated.
    /// </summary>
    private IEnumerable<Command> ForPartly(TrackedConnection connection, bool late, TimeSpan now)
    {
        if (connection.SilenceStart is not { } start)
        {
            return [];
        }

        var memory = CaseOf(connection, start);
        if (!IsTooSoonWhenPartly(now - start, connection.Judged.Odds))
        {
            // Its leg may have come back since it was last asked: the next probe, or what the kernel sends again, tells.
            return connection.IsUnansweredJustNow(now) ? Plan(connection, memory, late, now) : [];
        }

        world.Recorder.Planned(connection, RecordedPlan.Of(PlanKind.Partly, default, CircumstancesOf(connection, late, now), Decision.Withhold(Remedy.Recycle, Guardrail.Partly)) with { Silence = now - start }, now);
        return Withhold(connection, memory, Remedy.Recycle, Guardrail.Partly, world.Owners.Find(connection.Last.Inode).First, now);
    }

    /// <summary>Whether a connection whose path is up in part has not been silent for long enough, or not beyond doubt.</summary>
    internal static bool IsTooSoonWhenPartly(TimeSpan silence, double odds) => silence < PatienceWhenPartly || odds < ForgottenOdds.Conclusive;

    /// <summary>Closes an expired pooled connection before its worker uses it.</summary>
    private IEnumerable<Command> ForExpired(TrackedConnection connection, bool late, TimeSpan now)
    {
        if (connection.ProbingStart is not { } probingStart)
        {
            return [];
        }

        var memory = CaseOf(connection, probingStart);
        var resting = Resting(connection, memory, connection.User.IsUpSince(probingStart, now));
        var circumstances = Unhurried(connection, late, now);
        var decision = RemedyPlanner.ForExpired(resting, connection.Judged.Reason == Reason.ProbesUnanswered, circumstances);
        world.Recorder.Planned(connection, RecordedPlan.Of(PlanKind.Expired, resting, circumstances, decision), now);
        return CloseResting(connection, memory, decision, null, now);
    }

    /// <summary>
    /// Closes a pooled connection that lives and that its path is about to forget, where no keepalive prevents that and the
    /// server shows that nobody uses it. Where no server can be asked there is nothing to decide on: that is advice.
    /// </summary>
    private IEnumerable<Command> ForNearTheTimeout(TrackedConnection connection, bool late, TimeSpan now)
    {
        var path = connection.Path;
        if (path.Unprovable || world.ServerAt(connection.Upstream.Name, now) is not { } view)
        {
            yield break;
        }

        var isAtRest = SessionMatch.IsAtRest(view, world.Claim(connection), connection.LastData, out var why);
        if (isAtRest is null && why is null)
        {
            yield break; // the server's answer is not here yet
        }

        var memory = CaseOf(connection, connection.LastData);
        var resting = Resting(connection, memory, path.Last?.Up != false);
        var circumstances = Unhurried(connection, late, now);
        var decision = RemedyPlanner.ForNearTheTimeout(resting, isAtRest, circumstances);
        world.Recorder.Planned(connection, RecordedPlan.Of(PlanKind.NearTheTimeout, resting, circumstances, decision) with { IsAtRest = isAtRest }, now);
        foreach (var command in CloseResting(connection, memory, decision, why, now))
        {
            yield return command;
            if (command is Recycle { Outcome.Result: RecycleResult.Recovered })
            {
                connection.Case = null; // a keepalive came in between: it is near its end all the same
            }
        }
    }

    /// <summary>Carries out what was planned for a resting connection.</summary>
    private IEnumerable<Command> CloseResting(TrackedConnection connection, ConnectionCase memory, Decision decision, string? why, TimeSpan now)
    {
        if (decision.Remedy == Remedy.None)
        {
            return [];
        }

        if (decision.WithheldBy is { } guardrail)
        {
            return Withhold(connection, memory, decision.Remedy, guardrail, world.Owners.Find(connection.Last.Inode).First, now, why);
        }

        if (UpUntil(connection, now) is not { } until)
        {
            (connection.Path.IsProbeWanted, memory.ProbeWantedAt) = (true, now); // and then, at the next tick
            return [];
        }

        return Close(connection, memory, isHanging: false, until, now);
    }

    private IEnumerable<Command> Plan(TrackedConnection connection, ConnectionCase memory, bool late, TimeSpan now)
    {
        var section = connection.Upstream.Section;
        var circumstances = CircumstancesOf(connection, late, now);
        var willTerminate = !section.Recycle || memory.Recycle is RecycleProgress.Refused or RecycleProgress.DidNotHelp;

        // A socket that is gone has the owners that it had when it was recycled.
        var ownership = memory.RecycledFrom ?? world.Owners.Find(connection.Last.Inode);
        if (!section.Recycle && memory.Recycle == RecycleProgress.NotTried && memory.IsNew(Remedy.Recycle, Guardrail.SwitchedOff))
        {
            // Counted, and no incident of its own: the one that follows tells what was done instead.
            yield return new WithheldReport(connection.Upstream.Name, Remedy.Recycle, Guardrail.SwitchedOff);
        }

        var stuck = new StuckCase
        {
            Declared = connection.Upstream.Matches(connection.Key.Local, connection.Key.Peer),
            PathUp = connection.User.IsUpSince(memory.RecycledFrom is null ? memory.StallStart : memory.RecycledAt, now),
            Partly = connection.Judged.Verdict == Verdict.Partly,
            EndToEnd = connection.Path.Last is { Up: true, Result.ServerAnswered: true },
            RecycleEnabled = section.Recycle,
            Recycle = memory.Recycle,
            Worker = willTerminate ? terminations.Evidence(ownership, memory.StallStart, now) : default,
        };
        var decision = RemedyPlanner.ForStuck(stuck, circumstances);
        if (decision is { Remedy: Remedy.Terminate, WithheldBy: null or Guardrail.Observe } && stuck.PathUp)
        {
            if (now < memory.NextInspection)
            {
                yield break;
            }

            // All that is cheap lets it pass: now the process itself is looked into.
            var inspect = new InspectWorker(connection, now - memory.StallStart, world.Owners);
            yield return inspect;
            _latest = inspect.At;
            memory.NextInspection = inspect.At + Terminations.BetweenInspections;
            ownership = memory.RecycledFrom is { IsSole: false } shared ? shared : inspect.Outcome.Ownership;
            stuck = stuck with { Worker = terminations.Evidence(ownership, memory.StallStart, now, inspect.Outcome) };
            decision = RemedyPlanner.ForStuck(stuck, circumstances);
        }

        world.Recorder.Planned(connection, RecordedPlan.Of(PlanKind.Stuck, stuck, circumstances, decision), now);
        if (decision.Remedy == Remedy.None)
        {
            yield break;
        }

        IEnumerable<Command> commands = [];
        if (decision.WithheldBy is { } guardrail)
        {
            commands = Withhold(connection, memory, decision.Remedy, guardrail, ownership.First, now);
        }
        else if (UpUntil(connection, now) is not { } until)
        {
            connection.Path.IsProbeWanted = true; // and then, at the next tick
            memory.NextInspection = TimeSpan.Zero;
        }
        else if (decision.Remedy == Remedy.Recycle)
        {
            commands = Close(connection, memory, isHanging: true, until, now);
        }
        else
        {
            commands = terminations.Begin(connection, memory, ownership, now);
        }

        foreach (var command in commands)
        {
            yield return command;
        }
    }

    private IEnumerable<Command> Close(TrackedConnection connection, ConnectionCase memory, bool isHanging, TimeSpan until, TimeSpan now)
    {
        var upstream = connection.Upstream.Name;
        var ownership = world.Owners.Find(connection.Last.Inode);
        var incident = incidents.Write(connection, memory, Remedy.Recycle, ownership.First, now);
        yield return new IncidentReport(incident, IncidentStage.Begun);
        var recycle = new Recycle(connection, ownership.First, until);
        yield return recycle;
        _latest = recycle.At;
        world.Recorder.Told(connection, $"recycle: {recycle.Outcome.Result.ToString().ToLowerInvariant()}", recycle.At);
        memory.RecycledAt = now;
        memory.SwitchesBefore = recycle.Outcome.SwitchesBefore;
        var detail = recycle.Outcome.Detail;
        switch (recycle.Outcome.Result)
        {
            case RecycleResult.Released:
                _brakes.Of(connection).Recycled(now);
                incident = incident with { Outcome = "released" };
                yield return new RecycledReport(upstream, isHanging ? "stuck" : "expired");

                // Where nobody was waiting for it there is no worker to see going on.
                memory.Recycle = isHanging ? RecycleProgress.Settling : RecycleProgress.Helped;
                if (isHanging)
                {
                    memory.RecycledFrom = ownership;
                    incident = incident with { ReleaseSeconds = IncidentWriter.Round(recycle.At - memory.StallStart) };
                    yield return new ReleasedReport(upstream, recycle.At - memory.StallStart);
                    _recycled.Add(connection);
                }

                break;
            case RecycleResult.Refused:
                memory.Recycle = RecycleProgress.Refused;
                yield return new WithheldReport(upstream, Remedy.Recycle, Guardrail.NotPermitted);
                incident = incident with { Outcome = "refused", Why = $"{incident.Why}; {detail}" };
                break;
            case RecycleResult.Failed:
                // Refused for a reason of its own: not tried again for this stall.
                memory.Recycle = RecycleProgress.Refused;
                incident = incident with { Outcome = "failed", Why = $"{incident.Why}; {detail}" };
                break;
            case RecycleResult.Late:
                yield return new WithheldReport(upstream, Remedy.Recycle, Guardrail.LateTick);
                incident = incident with { Outcome = "failed", Why = $"{incident.Why}; not done: {detail}" };
                break;
            case RecycleResult.Vanished:
                memory.Recycle = RecycleProgress.Helped;
                incident = incident with { Outcome = "vanished" };
                break;
            case RecycleResult.Recovered:
                // Alive after all: this stall is over, and a new one is a new case.
                memory.Recycle = RecycleProgress.Helped;
                incident = incident with { Outcome = "recovered" };
                break;
        }

        yield return new IncidentReport(incident, IncidentStage.Ended);
        if (recycle.Outcome.Result == RecycleResult.Released)
        {
            foreach (var command in releases.Begin(connection, incident, now))
            {
                yield return command;
            }
        }
    }

    private IEnumerable<Command> Withhold(TrackedConnection connection, ConnectionCase memory, Remedy remedy, Guardrail guardrail, OwnerInfo? owner, TimeSpan now, string? why = null)
    {
        if (memory.Terminating || !memory.IsNew(remedy, guardrail))
        {
            yield break;
        }

        var incident = incidents.Write(connection, memory, remedy, owner, now) with { Outcome = "withheld", WithheldBy = guardrail.ToName() };
        if (guardrail == Guardrail.Unknown && why is not null)
        {
            incident = incident with { Why = $"{incident.Why}; {why}" };
        }

        yield return new WithheldReport(connection.Upstream.Name, remedy, guardrail);
        memory.Withheld = incident with { Recording = null };
        yield return new IncidentReport(incident, IncidentStage.Recorded, connection.Cookie);
        if (remedy == Remedy.Recycle && guardrail == Guardrail.Observe)
        {
            foreach (var command in releases.Withhold(connection, incident, now))
            {
                yield return command;
            }
        }

        if (guardrail == Guardrail.Budget && terminations.StandDown(owner) is { } told)
        {
            yield return told;
        }
    }

    private static ConnectionCase CaseOf(TrackedConnection connection, TimeSpan start)
    {
        if (connection.Case is null || connection.Case.StallStart != start)
        {
            connection.Case = new ConnectionCase(start);
        }

        return connection.Case;
    }

    /// <summary>Until when the path is proven up; null: it is not. A tick in which the agent was held up has more than one now.</summary>
    private TimeSpan? UpUntil(TrackedConnection connection, TimeSpan now) => connection.User.UpUntil(connection.LastRetransmission, _latest > now ? _latest : now);

    private static StuckCase Resting(TrackedConnection connection, ConnectionCase memory, bool pathUp) => new()
    {
        Declared = connection.Upstream.Matches(connection.Key.Local, connection.Key.Peer),
        PathUp = pathUp,
        Partly = false,
        EndToEnd = false,
        RecycleEnabled = connection.Upstream.Section.Recycle,
        Recycle = memory.Recycle,
        Worker = default,
    };

    /// <summary>Nobody waits for a resting connection: always at a bounded rate.</summary>
    private Circumstances Unhurried(TrackedConnection connection, bool late, TimeSpan now) => CircumstancesOf(connection, late, now) with { CommonMode = true };

    private Circumstances CircumstancesOf(TrackedConnection connection, bool late, TimeSpan now)
    {
        var brake = _brakes.Of(connection);
        return new Circumstances
        {
            Observe = _observe,
            TickLate = late,
            CommonMode = brake.IsOn,
            RecycleRateLeft = brake.IsRateLeftAt(now),
        };
    }
}
