using System.Globalization;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Recordings;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Remedies;

/// <summary>
/// Remedy 4: the back-end of a recycled connection is ended on the server, where a DSN is configured and the back-end
/// is provably that connection's, so that its locks and its transaction do not linger.
/// </summary>
internal sealed class Releases(World world, IncidentWriter incidents)
{
    /// <summary>Whoever carries a release out answers within seconds; one that has not after this long never will.</summary>
    private static readonly TimeSpan GivenUpAfter = TimeSpan.FromSeconds(30);

    private readonly Dictionary<string, (Incident Incident, TimeSpan Since)> _pending = new(StringComparer.Ordinal);
    private readonly Queue<ReleaseEnded> _ended = new();

    /// <summary>True while a result is awaited.</summary>
    internal bool IsFollowing => _pending.Count > 0;

    /// <summary>A release has ended.</summary>
    internal void Ended(ReleaseEnded ended) => _ended.Enqueue(ended);

    /// <summary>A connection was recycled.</summary>
    /// <param name="connection">The connection that is no more.</param>
    /// <param name="recycled">The incident that tells of it.</param>
    /// <param name="now">When, monotonic.</param>
    internal IEnumerable<Command> Begin(TrackedConnection connection, Incident recycled, TimeSpan now)
    {
        if (!HasServer(connection.Upstream.Section))
        {
            yield break;
        }

        var known = world.FindSession(connection, now, out _);
        var incident = About(connection, recycled, known);
        _pending[incident.Id] = (incident, now);
        yield return new IncidentReport(incident, IncidentStage.Begun);
        yield return new ReleaseSession(connection.Upstream.Name, world.Claim(connection), connection.Key.Interface, known, incident.Id);
    }

    /// <summary>In observe mode nothing is recycled and nothing ended; what would have been is told.</summary>
    internal IEnumerable<Command> Withhold(TrackedConnection connection, Incident recycle, TimeSpan now)
    {
        if (!HasServer(connection.Upstream.Section))
        {
            yield break;
        }

        var known = world.FindSession(connection, now, out _);
        var orphan = new ReleaseCase { IsProven = known is not null, IsClientAlive = false, Observe = true };
        var decision = RemedyPlanner.ForRelease(orphan);
        var by = decision.WithheldBy ?? Guardrail.Observe;
        yield return new WithheldReport(connection.Upstream.Name, Remedy.Release, by);
        yield return new IncidentReport(About(connection, recycle, known) with
        {
            Outcome = "withheld",
            WithheldBy = by.ToName(),
            Recording = recycle.Recording?.With(RecordedPlan.Of(orphan, decision)),
        }, IncidentStage.Recorded);
    }

    /// <summary>Tells what has come of releases meanwhile.</summary>
    internal IEnumerable<Command> Follow(TimeSpan now)
    {
        foreach (var (id, (_, since)) in _pending)
        {
            if (now - since > GivenUpAfter)
            {
                _ended.Enqueue(new ReleaseEnded(id, "failed", null, "nothing was heard of it", null));
            }
        }

        while (_ended.TryDequeue(out var ended))
        {
            if (!_pending.Remove(ended.Incident, out var pending))
            {
                continue;
            }

            var incident = pending.Incident with { Outcome = ended.Outcome };
            if (ended.Detail is { } detail)
            {
                incident = incident with { Why = $"{incident.Why}; {detail}" };
            }

            if (ended.Session is { } session)
            {
                incident = incident with { Evidence = Evidence(incident.Evidence, session) };
            }

            if (ended.Orphan is { } orphan && incident.Recording is { } recording)
            {
                incident = incident with { Recording = recording.With(RecordedPlan.Of(orphan, RemedyPlanner.ForRelease(orphan))) };
            }

            if (ended.WithheldBy is { } guardrail)
            {
                incident = incident with { WithheldBy = guardrail.ToName() };
                yield return new WithheldReport(incident.Upstream, Remedy.Release, guardrail);
            }

            yield return new IncidentReport(incident, IncidentStage.Ended);
        }
    }

    private static bool HasServer(UpstreamSection section) => section is { Protocol: UpstreamProtocol.PostgreSql, DsnFile: not null };

    private Incident About(TrackedConnection connection, Incident recycle, ServerSession? known) => recycle with
    {
        Id = incidents.NextId(),
        Time = incidents.NextTime(),
        Remedy = Remedy.Release.ToName(),
        Outcome = "pending",
        WithheldBy = null,
        Why = $"the connection {connection.Key.Local} -> {connection.Key.Peer} was recycled; its back-end must not keep its locks",
        StuckSeconds = null,
        ReleaseSeconds = null,
        Evidence = known is null ? new Dictionary<string, string>(StringComparer.Ordinal) : Evidence(new Dictionary<string, string>(StringComparer.Ordinal), known),
    };

    private static Dictionary<string, string> Evidence(IReadOnlyDictionary<string, string> before, ServerSession session)
    {
        var evidence = new Dictionary<string, string>(before, StringComparer.Ordinal)
        {
            ["backend_pid"] = session.Pid.ToString(CultureInfo.InvariantCulture),
            ["backend_start"] = session.Started.ToString("O", CultureInfo.InvariantCulture),
            ["session_state"] = session.State ?? "unknown",
            ["session_user"] = session.User,
            ["application_name"] = session.Application,
        };
        if (session.TransactionAge is { } transaction)
        {
            evidence["transaction_seconds"] = transaction.TotalSeconds.ToString("0.###", CultureInfo.InvariantCulture);
        }

        return evidence;
    }
}
