using Microsoft.Extensions.Logging;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Telemetry;

/// <summary>
/// Tells of each action in all three places at once: the incident file, the metrics, the journal.
/// </summary>
/// <param name="store">Incidents.</param>
/// <param name="metrics">Instruments.</param>
/// <param name="journal">Journal or stderr, for incidents with their fields.</param>
/// <param name="timeline">What happens around the workers, for the chain of each incident.</param>
internal sealed class IncidentReporter(IncidentStore store, SidecarMetrics metrics, JournalLog journal, Timeline timeline)
{
    /// <summary>Incidents of connections that hang on, whose chain may grow, at most so many.</summary>
    private const int MostOpen = 64;

    private readonly ILogger _log = journal.CreateLogger("remedies");
    private readonly Dictionary<string, (SocketCookie Cookie, Incident Incident)> _open = new(StringComparer.Ordinal);
    private readonly IncidentFold _fold = new();
    private int _timelineVersion;

    /// <summary>Takes one report.</summary>
    public void Report(Report report)
    {
        switch (report)
        {
            case IncidentReport incident:
                Incident(incident);
                break;
            case WithheldReport withheld:
                metrics.Withheld(withheld.Upstream, Core.Judgement.RemedyNames.ToName(withheld.Remedy), Core.Judgement.GuardrailNames.ToName(withheld.Guardrail));
                break;
            case RecycledReport recycled:
                metrics.Recycled(recycled.Upstream, recycled.Reason);
                break;
            case ReleasedReport released:
                metrics.Released(released.Upstream, released.Stuck);
                break;
            case NudgedReport nudged:
                metrics.Nudged(nudged.Upstream, nudged.Outcome);
                break;
            case ResumedReport resumed:
                metrics.Resumed(resumed.Upstream);
                break;
            case ResumeRefusedReport refused:
                _log.ResumeRefused(refused.Outcome == ResumeOutcome.NotPermitted
                    ? "packet or raw sockets are not permitted (CAP_NET_RAW, RestrictAddressFamilies or a security module)"
                    : "the kernel takes no notice of an ICMP error sent from this host to itself");
                break;
            case TerminatedReport terminated:
                metrics.Terminated(terminated.Workers, terminated.Signal);
                break;
            case OutageReport { IsOver: false } outage:
                _log.OutageBegan(outage.Upstream, outage.Destination);
                break;
            case OutageReport outage:
                _log.OutageEnded(outage.Upstream, outage.Destination);
                break;
            case StoodDownReport stoodDown:
                _log.StoodDown(stoodDown.Workers, stoodDown.Budget);
                break;
            case RecycleDidNotHelpReport noHelp:
                _log.RecycleDidNotHelp(noHelp.Connection, noHelp.Pid);
                break;
            case EndedByItselfReport ended:
                _log.EndedByItself(ended.Connection, ended.Silence.TotalSeconds);
                break;
            case TouchRefusedReport refused:
                _log.TouchRefused(refused.Outcome switch
                {
                    TouchOutcome.NotPermitted => "pidfd_getfd is not permitted (CAP_SYS_PTRACE, Yama or a security module), or CAP_NET_ADMIN is missing",
                    TouchOutcome.NotSupported => "this kernel is older than 5.6",
                    _ => "a socket option was refused",
                });
                break;
            default:
                throw new ArgumentOutOfRangeException(nameof(report), report, "no such report");
        }
    }

    /// <summary>Adds what has happened since to the incidents of connections that still hang.</summary>
    /// <param name="hangs">Whether a connection is still silent.</param>
    public void FollowChains(Func<SocketCookie, bool> hangs)
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

    /// <summary>Tells of incidents that were folded, once their minute is over.</summary>
    public void EndTick(DateTimeOffset now)
    {
        foreach (var incident in _fold.TakeDue(now))
        {
            store.Record(incident);
            journal.Incident(incident);
        }
    }

    private void Incident(IncidentReport report)
    {
        var incident = Chained(report.Incident);
        if (report.Stage != IncidentStage.Ended)
        {
            metrics.IncidentRecorded(incident.Upstream, incident.Cause);
        }
        else
        {
            _open.Remove(incident.Id);
        }

        if (_fold.Folds(incident, isNew: report.Stage != IncidentStage.Ended))
        {
            return;
        }

        if (report.Hanging is { } cookie && _open.Count < MostOpen)
        {
            _open[incident.Id] = (cookie, incident);
        }

        store.Record(incident);
        if (report.Stage != IncidentStage.Begun)
        {
            journal.Incident(incident);
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
}
