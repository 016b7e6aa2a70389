using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Recordings;
using Sidecar.Agent.Core.Tracking;

namespace Sidecar.Agent.Core.Remedies;

/// <summary>
/// Silent connections that have ended without a remedy of this moment: by the keepalive that the agent set on them earlier, or by
/// the kernel or their application. Each is an incident, with the time that it was silent.
/// </summary>
internal sealed class Endings(World world, IncidentWriter incidents, Outages outages)
{
    /// <summary>What ends sooner was not given up by the kernel: somebody has stopped waiting.</summary>
    private static readonly TimeSpan Hang = TimeSpan.FromSeconds(3);

    /// <summary>A connection has gone.</summary>
    internal IEnumerable<Command> Consider(TrackedConnection connection, TimeSpan now)
    {
        if (connection.SilenceStart is not { } start || connection.Case is { Recycle: not RecycleProgress.NotTried } or { Terminating: true })
        {
            yield break;
        }

        var silence = now - start;
        var memory = connection.Case?.StallStart == start ? connection.Case : null;
        var owner = world.Owners.Find(connection.Last.Inode).First;
        if (IsEndOfArmed(connection, now))
        {
            world.Recorder.Planned(connection, RecordedPlan.Of(PlanKind.Ended, default, default, Decision.Act(Remedy.Keepalive)), now);
            var incident = incidents.Write(connection, new ConnectionCase(start), Remedy.Keepalive, owner, now);
            yield return new IncidentReport(
                incident with { Outcome = "released", ReleaseSeconds = IncidentWriter.Round(silence), Why = $"{incident.Why}; the keepalive that the agent set has ended it" },
                IncidentStage.Recorded);
            if (connection.IsAnswerAwaited)
            {
                yield return new ReleasedReport(connection.Upstream.Name, silence);
            }

            yield break;
        }

        if (connection.Judged.Verdict is not (Verdict.Stuck or Verdict.Suspect or Verdict.Outage or Verdict.Partly))
        {
            yield break;
        }

        yield return new EndedByItselfReport(IncidentWriter.Describe(connection), silence);
        if (outages.Knows(connection))
        {
            yield break; // that incident tells of it
        }

        if (memory?.Withheld is { } withheld)
        {
            yield return new IncidentReport(withheld with { ReleaseSeconds = IncidentWriter.Round(silence) }, IncidentStage.Ended);
        }
        else if (silence >= Hang)
        {
            world.Recorder.Planned(connection, RecordedPlan.Of(PlanKind.Ended, default, default, Decision.Nothing), now);
            var incident = incidents.Write(connection, new ConnectionCase(start), Remedy.None, owner, now);
            yield return new IncidentReport(
                incident with { Outcome = "vanished", ReleaseSeconds = IncidentWriter.Round(silence), Why = $"{incident.Why}; it ended by itself" }, IncidentStage.Recorded);
        }
    }

    /// <summary>As many probes as the agent has set were out, or the time that the application allows them had passed.</summary>
    private static bool IsEndOfArmed(TrackedConnection connection, TimeSpan now) =>
        connection.Protection is { Armed: { Enabled: true } armed, IsForTestOnly: false, IsApplications: false } && connection.KernelProbes is > 0 and var probes
        && (probes >= armed.Count - 1 || (armed.UserTimeout > TimeSpan.Zero && now - connection.LastHeard >= armed.UserTimeout));
}
