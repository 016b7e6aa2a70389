using Sidecar.Agent.Judgement;
using Sidecar.Agent.Telemetry;
using Sidecar.Agent.Tracking;
using Sidecar.Probes.Processes;

namespace Sidecar.Agent.Remedies;

/// <summary>What the remedies remember of one stall of one connection, from the first decision to the outcome.</summary>
public sealed class ConnectionCase(TimeSpan stallStart)
{
    private readonly HashSet<(Remedy, Guardrail)> _recorded = [];

    /// <summary>The stall this case is about; a later stall of the same connection is another case.</summary>
    public TimeSpan StallStart { get; } = stallStart;

    public RecycleProgress Recycle { get; set; }

    /// <summary>When it was recycled.</summary>
    public TimeSpan RecycledAt { get; set; }

    /// <summary>The owner at that time.</summary>
    public OwnerInfo? RecycledOwner { get; set; }

    /// <summary>Its context switches just before; null where they could not be read.</summary>
    public long? SwitchesBefore { get; set; }

    /// <summary>Its worker was sent SIGTERM on its account.</summary>
    public bool Terminating { get; set; }

    /// <summary>The incident that tells of it, for its outcome.</summary>
    public Incident? Incident { get; set; }

    /// <summary>True the first time a remedy is withheld by a guardrail: an incident is written once, not at every look.</summary>
    public bool IsNew(Remedy remedy, Guardrail guardrail) => _recorded.Add((remedy, guardrail));
}

/// <summary>A termination in progress.</summary>
public sealed class Termination(ProcessHandle worker, TrackedConnection connection, Incident incident, TimeSpan stallStart, TimeSpan termAt)
{
    public ProcessHandle Worker { get; } = worker;

    public TrackedConnection Connection { get; } = connection;

    public Incident Incident { get; } = incident;

    public TimeSpan StallStart { get; } = stallStart;

    public TimeSpan TermAt { get; } = termAt;

    /// <summary>When SIGKILL followed; null while the grace lasts.</summary>
    public TimeSpan? KillAt { get; set; }
}
