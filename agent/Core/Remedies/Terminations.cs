using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Tracking;

namespace Sidecar.Agent.Core.Remedies;

/// <summary>Remedy 5: one worker at a time is ended and its group's recovery awaited, within a budget.</summary>
internal sealed class Terminations(World world, IncidentWriter incidents)
{
    /// <summary>Least time between two inspections of workers on account of the same connection.</summary>
    internal static readonly TimeSpan BetweenInspections = TimeSpan.FromSeconds(1);

    /// <summary>A process that SIGKILL does not end within this long is held by the kernel; nothing more can be done.</summary>
    private static readonly TimeSpan KillWithin = TimeSpan.FromSeconds(10);

    private readonly Dictionary<string, WorkerGroup> _groups =
        world.Configuration.Workers.ToDictionary(workers => workers.Name, workers => new WorkerGroup(workers), StringComparer.Ordinal);

    private readonly Progress _progress = new();

    /// <summary>A connection has gone: what it said of its worker is remembered.</summary>
    internal void NoteGone(TrackedConnection connection, TimeSpan now)
    {
        if (world.Owners.Find(connection.Last.Inode) is { IsSole: true, First: { Workers: not null } owner })
        {
            _progress.NoteGone(owner.Identity, connection, now);
        }
    }

    /// <summary>True while a termination is in progress.</summary>
    internal bool IsFollowing => _groups.Values.Any(group => group.InProgress is not null);

    /// <summary>Takes over what a restarted or reloaded agent must not forget: terminations that count against the budgets.</summary>
    /// <param name="recorded">Incidents as recorded.</param>
    /// <param name="utcNow">Wall clock.</param>
    /// <param name="now">Monotonic time.</param>
    internal void Remember(IEnumerable<Incident> recorded, DateTimeOffset utcNow, TimeSpan now)
    {
        foreach (var incident in recorded.Where(incident => incident is { Remedy: "terminate", WithheldBy: null, Workers: not null }).OrderBy(incident => incident.Time))
        {
            // A clock that was stepped back makes an incident's age negative: it counts as just now.
            var age = utcNow - incident.Time;
            if (_groups.TryGetValue(incident.Workers!, out var group) && age < group.Section.Budget.Period)
            {
                group.Budget.Spend(now - (age < TimeSpan.Zero ? TimeSpan.Zero : age));
            }
        }
    }

    /// <summary>What speaks for and against ending the worker; without an inspection, as if that found nothing against it.</summary>
    internal WorkerEvidence Evidence(in Ownership ownership, TimeSpan stallStart, TimeSpan now, WorkerInspection? inspection = null)
    {
        var owner = ownership.First;
        var group = owner?.Workers is { } section ? _groups.GetValueOrDefault(section.Name) : null;
        return new WorkerEvidence
        {
            SoleOwnerKnown = ownership.IsSole,
            Protected = owner is not null && (owner.Identity.Pid == 1 || owner.Identity.Pid == world.AgentPid || owner.IsKernelThread),
            NamedForTermination = group?.Section.Terminate == true,
            Blocked = inspection is { } seen ? seen.Blocked : BlockedOn.Socket,
            OtherProgress = inspection is not { } found ? false : owner is not null && HasMovedSince(owner, stallStart) ? true : found.OtherProgress,
            HungFirst = group is not null && IsFirstHung(stallStart, group),
            GroupBusy = group?.IsBusyAt(now) ?? false,
            BudgetLeft = group?.Budget.IsLeftAt(now) ?? false,
        };
    }

    /// <summary>The budget has withheld a termination: that is said aloud once, until there is budget again.</summary>
    internal StoodDownReport? StandDown(OwnerInfo? owner)
    {
        if (owner?.Workers is not { } workers || _groups[workers.Name] is not { StandDownTold: false } group)
        {
            return null;
        }

        group.StandDownTold = true;
        return new StoodDownReport(workers.Name, workers.Budget.Count);
    }

    /// <summary>Ends the worker that holds a connection.</summary>
    internal IEnumerable<Command> Begin(TrackedConnection connection, ConnectionCase memory, Ownership ownership, TimeSpan now)
    {
        var owner = ownership.First!;
        var group = _groups[owner.Workers!.Name];
        var incident = incidents.Write(connection, memory, Remedy.Terminate, owner, now);
        yield return new IncidentReport(incident, IncidentStage.Begun);
        var terminate = new Terminate(connection, ownership, memory.RecycledFrom is not null);
        yield return terminate;
        if (terminate.Outcome == SignalOutcome.Sent)
        {
            memory.Terminating = true;
            group.Budget.Spend(now);
            group.InProgress = new Termination(owner.Identity, connection.Upstream.Name, incident, memory.StallStart, now);
            yield return new TerminatedReport(group.Section.Name, "TERM");
            yield break;
        }

        group.RecoveringUntil = now + (terminate.Outcome == SignalOutcome.Gone ? WorkerGroup.Recovery : WorkerGroup.Recovery * 3);
        yield return new IncidentReport(
            incident with
            {
                Outcome = terminate.Outcome == SignalOutcome.Gone ? "vanished" : "refused",
                Why = terminate.Outcome == SignalOutcome.NotPermitted ? incident.Why + "; the signal needs CAP_KILL" : incident.Why,
            },
            IncidentStage.Ended);
    }

    /// <summary>Follows terminations to the exit, through SIGKILL after the grace.</summary>
    internal IEnumerable<Command> Follow(TimeSpan now)
    {
        foreach (var group in _groups.Values)
        {
            group.StandDownTold &= !group.Budget.IsLeftAt(now);
            if (group.InProgress is not { } termination)
            {
                continue;
            }

            var exit = new CheckExit(termination.Process);
            yield return exit;
            var incident = termination.Incident;
            if (exit.Outcome)
            {
                var released = now - termination.StallStart;
                yield return new ReleasedReport(termination.Upstream, released);
                incident = incident with { Outcome = termination.KillAt is null ? "exited" : "killed", ReleaseSeconds = IncidentWriter.Round(released) };
            }
            else if (termination.KillAt is { } killed && now - killed >= KillWithin)
            {
                incident = incident with { Outcome = "failed", Why = incident.Why + "; it did not exit on SIGKILL" };
            }
            else
            {
                if (termination.KillAt is null && now - termination.TermAt >= group.Section.Grace)
                {
                    termination.KillAt = now;
                    var kill = new Kill(termination.Process);
                    yield return kill;
                    if (kill.Outcome == SignalOutcome.Sent)
                    {
                        yield return new TerminatedReport(group.Section.Name, "KILL");
                    }
                }

                continue;
            }

            yield return new IncidentReport(incident, IncidentStage.Ended);
            yield return new LetGo(termination.Process);
            group.InProgress = null;
            group.RecoveringUntil = now + WorkerGroup.Recovery;
        }
    }

    /// <summary>On a connection that has gone, or as last seen on one that may have gone since. The one that hangs shows nothing later than its stall.</summary>
    private bool HasMovedSince(OwnerInfo owner, TimeSpan stallStart) => _progress.MovedSince(owner.Identity, stallStart)
        || world.Connections.All.Any(other => Progress.MovedSince(other, stallStart) && world.Owners.Find(other.Last.Inode).First?.Identity == owner.Identity);

    private bool IsFirstHung(TimeSpan stallStart, WorkerGroup group)
    {
        foreach (var other in world.Silent)
        {
            if (other.Judged.Verdict is Verdict.Suspect or Verdict.Stuck && other.SilenceStart < stallStart
                && world.Owners.Find(other.Last.Inode).First?.Workers?.Name == group.Section.Name)
            {
                return false;
            }
        }

        return true;
    }
}
