using Microsoft.Extensions.Logging;
using Sidecar.Agent.Judgement;
using Sidecar.Agent.Stack;
using Sidecar.Agent.Telemetry;
using Sidecar.Probes.SockDiag;

namespace Sidecar.Agent.Remedies;

/// <summary>
/// Tells of each action in all three places at once: the incident file, the metrics, the journal.
/// </summary>
/// <param name="store">Incidents.</param>
/// <param name="metrics">Instruments.</param>
/// <param name="log">Journal or stderr.</param>
/// <param name="clock">Monotonic time since the agent's start.</param>
/// <param name="timeline">What happens around the workers, for the chain of each incident.</param>
internal sealed class Teller(IncidentStore store, SidecarMetrics metrics, JournalLog log, Func<TimeSpan> clock, Timeline timeline)
{
    /// <summary>Incidents of connections that hang on, whose chain may grow, at most so many.</summary>
    private const int MostOpen = 64;

    private readonly Dictionary<string, (SocketCookie Cookie, Incident Incident)> _open = new(StringComparer.Ordinal);
    private int _timelineVersion;

    /// <summary>Monotonic time, for durations that an action itself took.</summary>
    public TimeSpan Now => clock();

    public string NextId() => store.NextId();

    /// <summary>Writes an action down before it is carried out, outcome <c>pending</c>.</summary>
    public Incident Begin(Incident incident)
    {
        metrics.IncidentRecorded(incident.Upstream, incident.Cause);
        incident = Chained(incident);
        store.Record(incident);
        return incident;
    }

    /// <summary>Writes down what came of an incident that was begun or recorded.</summary>
    public void End(Incident incident)
    {
        incident = Chained(incident);
        _open.Remove(incident.Id);
        store.Record(incident);
        log.Incident(incident);
    }

    /// <summary>Writes down an incident that needs no second entry.</summary>
    /// <param name="incident">What was decided.</param>
    /// <param name="hanging">The connection that goes on hanging; what follows from it is added to the incident.</param>
    public void Record(Incident incident, SocketCookie? hanging = null)
    {
        metrics.IncidentRecorded(incident.Upstream, incident.Cause);
        incident = Chained(incident);
        if (hanging is { } cookie && _open.Count < MostOpen)
        {
            _open[incident.Id] = (cookie, incident);
        }

        store.Record(incident);
        log.Incident(incident);
    }

    /// <summary>Adds what has happened since to the incidents of connections that still hang.</summary>
    /// <param name="hangs">Whether a connection is still silent.</param>
    public void Follow(Func<SocketCookie, bool> hangs)
    {
        if (_open.Count == 0 || timeline.Version == _timelineVersion)
        {
            return;
        }

        _timelineVersion = timeline.Version;
        foreach (var (id, (cookie, incident)) in _open.ToList())
        {
            if (!hangs(cookie))
            {
                _open.Remove(id);
            }
            else if (Chained(incident) is var longer && longer.Chain.Count > incident.Chain.Count)
            {
                _open[id] = (cookie, longer);
                store.Record(longer);
            }
        }
    }

    private Incident Chained(Incident incident)
    {
        var began = incident.Time - TimeSpan.FromSeconds(incident.StuckSeconds ?? 0);
        var followed = timeline.Since(began);
        return followed.Count == 0
            ? incident
            : incident with { Chain = [new ChainLink { Time = began, What = $"the connection {incident.Local} -> {incident.Peer} hangs, and its worker{(incident.Pid is { } pid ? $" [{pid}]" : "")} with it" }, .. followed] };
    }

    public void Recycled(string upstream, string reason) => metrics.Recycled(upstream, reason);

    public void Nudged(string upstream, string outcome) => metrics.Nudged(upstream, outcome);

    public void Released(string upstream, TimeSpan stuck) => metrics.Released(upstream, stuck);

    public void Terminated(string workers, string signal) => metrics.Terminated(workers, signal);

    public void Withheld(string upstream, Remedy remedy, Guardrail guardrail) => metrics.Withheld(upstream, remedy.ToName(), guardrail.ToName());

    public void Log(LogLevel level, string message) => log.Write(level, message);

    public void Log(LogLevel level, string message, string messageId) => log.Write(level, message, messageId);
}
