using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Recordings;
using Sidecar.Agent.Core.Tracking;

namespace Sidecar.Agent.Core.Remedies;

/// <summary>
/// Connections that are silent while connect probes fail: nothing is done, and one incident for each path tells of it until
/// every one of them has moved again or gone.
/// </summary>
internal sealed class Outages(World world, IncidentWriter incidents)
{
    /// <summary>What is decided on each of its connections, whatever else is known of it.</summary>
    internal static readonly Decision Decision = Decision.Withhold(Remedy.Recycle, Guardrail.PathDown);

    private readonly Dictionary<PathTracker, Outage> _outages = [];

    /// <summary>A connection was judged.</summary>
    internal IEnumerable<Command> Consider(TrackedConnection connection, TimeSpan now) =>
        connection.Judged.Verdict == Verdict.Outage && connection.SilenceStart is { } start ? Hangs(connection, start, now) : [];

    private IEnumerable<Command> Hangs(TrackedConnection connection, TimeSpan start, TimeSpan now)
    {
        var path = connection.Path;
        if (_outages.TryGetValue(path, out var known))
        {
            known.Add(connection, start);
            if (known.IsPathUp)
            {
                known.IsPathUp = false;
                yield return new OutageReport(connection.Upstream.Name, path.Key.Destination, isOver: false);
            }

            yield break;
        }

        world.Recorder.Planned(connection, RecordedPlan.Of(PlanKind.Outage, default, default, Decision), now);
        var incident = incidents.Write(connection, new ConnectionCase(start), Remedy.Recycle, world.Owners.Find(connection.Last.Inode).First, now) with
        {
            Cause = Verdict.Outage.ToName(),
            Outcome = "withheld",
            WithheldBy = Guardrail.PathDown.ToName(),
        };
        _outages[path] = known = new Outage(incident);
        known.Add(connection, start);
        yield return new OutageReport(connection.Upstream.Name, path.Key.Destination, isOver: false);
        yield return new WithheldReport(connection.Upstream.Name, Remedy.Recycle, Guardrail.PathDown);
        yield return new IncidentReport(incident, IncidentStage.Recorded, connection.Cookie);
    }

    /// <summary>Follows each outage to its end.</summary>
    internal IEnumerable<Command> Follow(TimeSpan now) => _outages.Count > 0 ? FollowAll(now) : [];

    private IEnumerable<Command> FollowAll(TimeSpan now)
    {
        foreach (var (path, outage) in _outages.ToList())
        {
            if (!outage.IsPathUp && path.Last?.Up == true)
            {
                outage.IsPathUp = true;
                yield return new OutageReport(outage.Incident.Upstream, path.Key.Destination, isOver: true);
            }

            foreach (var (connection, silence) in outage.Connections.ToList())
            {
                if (connection.IsGone || silence.HasEnded(connection))
                {
                    outage.HasMoved |= !connection.IsGone;
                    outage.Connections.Remove(connection);
                }
            }

            if (outage.Connections.Count == 0)
            {
                _outages.Remove(path);
                yield return new IncidentReport(
                    outage.Incident with
                    {
                        Outcome = outage.HasMoved || outage.IsPathUp ? "recovered" : "withheld",
                        ReleaseSeconds = IncidentWriter.Round(now - outage.Start),
                    },
                    IncidentStage.Ended);
            }
        }
    }

    /// <summary>Whether an outage's incident tells of a connection.</summary>
    internal bool Knows(TrackedConnection connection) => _outages.TryGetValue(connection.Path, out var outage) && outage.Connections.ContainsKey(connection);

    /// <summary>What was unanswered.</summary>
    /// <param name="Start">Since when.</param>
    /// <param name="OfData">Data was; else probes.</param>
    /// <param name="Acknowledged">bytes_acked at that time.</param>
    private readonly record struct Unanswered(TimeSpan Start, bool OfData, ulong Acknowledged)
    {
        /// <summary>Data has moved, which an answer to a probe is not; or the probes were answered.</summary>
        internal bool HasEnded(TrackedConnection connection) => OfData
            ? connection.StallStart is null || connection.BytesAcknowledged != Acknowledged
            : connection.SilenceStart != Start;
    }

    private sealed class Outage(Incident incident)
    {
        public Incident Incident { get; } = incident;

        /// <summary>When the first of its connections fell silent.</summary>
        public TimeSpan Start { get; private set; } = TimeSpan.MaxValue;

        /// <summary>Its connections and what they wait for.</summary>
        public Dictionary<TrackedConnection, Unanswered> Connections { get; } = [];

        public bool IsPathUp { get; set; }

        public bool HasMoved { get; set; }

        public void Add(TrackedConnection connection, TimeSpan start)
        {
            Start = start < Start ? start : Start;
            if (!Connections.TryGetValue(connection, out var known) || known.HasEnded(connection))
            {
                Connections[connection] = new Unanswered(start, connection.StallStart is not null, connection.BytesAcknowledged);
            }
        }
    }
}
