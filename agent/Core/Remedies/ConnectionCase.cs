using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Remedies;

/// <summary>What the remedies remember of one stall of one connection, from the first decision to the outcome.</summary>
/// <param name="stallStart">When the stall began, monotonic.</param>
internal sealed class ConnectionCase(TimeSpan stallStart)
{
    private readonly HashSet<(Remedy, Guardrail)> _recorded = [];

    /// <summary>The stall this case is about; a later stall of the same connection is another case.</summary>
    public TimeSpan StallStart { get; } = stallStart;

    public RecycleProgress Recycle { get; set; }

    /// <summary>When it was recycled.</summary>
    public TimeSpan RecycledAt { get; set; }

    /// <summary>Who held the socket at that time, all of them: one that was inherited over fork has no sole owner afterwards either.</summary>
    public Ownership? RecycledFrom { get; set; }

    /// <summary>Context switches of the first of them just before; null where they could not be read.</summary>
    public long? SwitchesBefore { get; set; }

    /// <summary>Its worker was sent SIGTERM on its account.</summary>
    public bool Terminating { get; set; }

    /// <summary>The next time that a worker may be inspected on its account: doing so is expensive.</summary>
    public TimeSpan NextInspection { get; set; }

    /// <summary>
    /// When closing it waited for a connect probe, monotonic; null: it never did. What the probe shows holds for a short time, so the
    /// connection is rechecked at the next tick and not at the next full scan.
    /// </summary>
    public TimeSpan? ProbeWantedAt { get; set; }

    /// <summary>The last incident that tells of a remedy that was withheld; null where none was.</summary>
    public Incident? Withheld { get; set; }

    /// <summary>True the first time a remedy is withheld by a guardrail: an incident is written once, not at every tick.</summary>
    public bool IsNew(Remedy remedy, Guardrail guardrail) => _recorded.Add((remedy, guardrail));
}

/// <summary>A termination in progress.</summary>
internal sealed class Termination(ProcessIdentity process, string upstream, Incident incident, TimeSpan stallStart, TimeSpan termAt)
{
    public ProcessIdentity Process { get; } = process;

    public string Upstream { get; } = upstream;

    public Incident Incident { get; } = incident;

    public TimeSpan StallStart { get; } = stallStart;

    public TimeSpan TermAt { get; } = termAt;

    /// <summary>When SIGKILL followed; null while the grace lasts.</summary>
    public TimeSpan? KillAt { get; set; }
}
