using Microsoft.Extensions.Logging;
using Sidecar.Agent.Judgement;
using Sidecar.Agent.Telemetry;

namespace Sidecar.Agent.Remedies;

/// <summary>
/// Tells of each action in all three places at once: the incident file, the metrics, the journal.
/// </summary>
/// <param name="store">Incidents.</param>
/// <param name="metrics">Instruments.</param>
/// <param name="log">Journal or stderr.</param>
/// <param name="clock">Monotonic time since the agent's start.</param>
internal sealed class Teller(IncidentStore store, SidecarMetrics metrics, JournalLog log, Func<TimeSpan> clock)
{
    /// <summary>Monotonic time, for durations that an action itself took.</summary>
    public TimeSpan Now => clock();

    public string NextId() => store.NextId();

    /// <summary>Writes an action down before it is carried out, outcome <c>pending</c>.</summary>
    public Incident Begin(Incident incident)
    {
        metrics.IncidentRecorded(incident.Upstream, incident.Cause);
        store.Record(incident);
        return incident;
    }

    /// <summary>Writes down what came of an incident that was begun or recorded.</summary>
    public void End(Incident incident)
    {
        store.Record(incident);
        log.Incident(incident);
    }

    /// <summary>Writes down an incident that needs no second entry.</summary>
    public void Record(Incident incident)
    {
        metrics.IncidentRecorded(incident.Upstream, incident.Cause);
        store.Record(incident);
        log.Incident(incident);
    }

    public void Recycled(string upstream, string reason) => metrics.Recycled(upstream, reason);

    public void Nudged(string upstream, string outcome) => metrics.Nudged(upstream, outcome);

    public void Released(string upstream, TimeSpan stuck) => metrics.Released(upstream, stuck);

    public void Terminated(string workers, string signal) => metrics.Terminated(workers, signal);

    public void Withheld(string upstream, Remedy remedy, Guardrail guardrail) => metrics.Withheld(upstream, remedy.ToName(), guardrail.ToName());

    public void Log(LogLevel level, string message) => log.Write(level, message);

    public void Log(LogLevel level, string message, string messageId) => log.Write(level, message, messageId);
}
