using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Recordings;
using Sidecar.Agent.Core.Tracking;

namespace Sidecar.Agent.Core.Remedies;

/// <summary>Connections of which the network drops the large segments: left alone, since closing would not help, and told once each.</summary>
internal sealed class BlackHoles(World world, IncidentWriter incidents)
{
    private readonly HashSet<TrackedConnection> _told = [];

    /// <summary>Some are remembered as told: they are forgotten when they are judged otherwise.</summary>
    internal bool HasTold => _told.Count > 0;

    /// <summary>A connection was judged.</summary>
    internal IEnumerable<Command> Consider(TrackedConnection connection, TimeSpan now)
    {
        if (connection.Judged.Verdict != Verdict.BlackHole)
        {
            if (_told.Count > 0)
            {
                _told.Remove(connection);
            }

            return [];
        }

        if (_told.Add(connection))
        {
            return [Tell(connection, now)];
        }

        return [];
    }

    private IncidentReport Tell(TrackedConnection connection, TimeSpan now)
    {
        var memory = new ConnectionCase(connection.LastData < now ? connection.LastData : now);
        world.Recorder.Planned(connection, RecordedPlan.Of(PlanKind.BlackHole, default, default, Decision.Nothing), now);
        var incident = incidents.Write(connection, memory, Remedy.None, world.Owners.Find(connection.Last.Inode).First, now) with { Outcome = "withheld" };
        return new IncidentReport(incident, IncidentStage.Recorded, connection.Cookie);
    }

    /// <summary>A connection has gone.</summary>
    internal void Forget(TrackedConnection connection) => _told.Remove(connection);
}
