using Sidecar.Agent.Core.Judgement;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Remedies;

/// <summary>Something to be told, in its place among the commands: an incident is written down before its action.</summary>
public abstract class Report : Command;

/// <summary>What is to be done with an incident.</summary>
public enum IncidentStage
{
    /// <summary>An action is about to be carried out; it is written down as pending.</summary>
    Begun,

    /// <summary>What came of it is known.</summary>
    Ended,

    /// <summary>It needs no second entry.</summary>
    Recorded,
}

/// <summary>An incident, or its new state.</summary>
/// <param name="incident">The record.</param>
/// <param name="stage">What is to be done with it.</param>
/// <param name="hanging">A connection that goes on hanging: what follows from it is added to the incident.</param>
public sealed class IncidentReport(Incident incident, IncidentStage stage, SocketCookie? hanging = null) : Report
{
    public Incident Incident { get; } = incident;

    public IncidentStage Stage { get; } = stage;

    public SocketCookie? Hanging { get; } = hanging;
}

/// <summary>A guardrail withheld a remedy; counted once for each case.</summary>
public sealed class WithheldReport(string upstream, Remedy remedy, Guardrail guardrail) : Report
{
    public string Upstream { get; } = upstream;

    public Remedy Remedy { get; } = remedy;

    public Guardrail Guardrail { get; } = guardrail;
}

/// <summary>A connection was recycled.</summary>
public sealed class RecycledReport(string upstream, string reason) : Report
{
    public string Upstream { get; } = upstream;

    /// <summary><c>stuck</c> or <c>expired</c>.</summary>
    public string Reason { get; } = reason;
}

/// <summary>A worker is free again, this long after its first unanswered send.</summary>
public sealed class ReleasedReport(string upstream, TimeSpan stuck) : Report
{
    public string Upstream { get; } = upstream;

    public TimeSpan Stuck { get; } = stuck;
}

/// <summary>A resting connection was tested.</summary>
public sealed class NudgedReport(string upstream, string outcome) : Report
{
    public string Upstream { get; } = upstream;

    /// <summary><c>answered</c>, <c>unanswered</c> or <c>failed</c>.</summary>
    public string Outcome { get; } = outcome;
}

/// <summary>A live connection was made to retransmit what it had in flight.</summary>
public sealed class ResumedReport(string upstream) : Report
{
    public string Upstream { get; } = upstream;
}

/// <summary>Live connections cannot be made to retransmit; told once. They go on when the kernel's own timer says so.</summary>
public sealed class ResumeRefusedReport(ResumeOutcome outcome) : Report
{
    public ResumeOutcome Outcome { get; } = outcome;
}

/// <summary>A worker was sent a signal.</summary>
public sealed class TerminatedReport(string workers, string signal) : Report
{
    public string Workers { get; } = workers;

    /// <summary><c>TERM</c> or <c>KILL</c>.</summary>
    public string Signal { get; } = signal;
}

/// <summary>Connect probes to an endpoint began to fail, or succeed again.</summary>
public sealed class OutageReport(string upstream, TcpEndPoint destination, bool isOver) : Report
{
    public string Upstream { get; } = upstream;

    public TcpEndPoint Destination { get; } = destination;

    public bool IsOver { get; } = isOver;
}

/// <summary>The budget of a worker group is used up.</summary>
public sealed class StoodDownReport(string workers, int budget) : Report
{
    public string Workers { get; } = workers;

    public int Budget { get; } = budget;
}

/// <summary>A connection was closed, and its worker has not run since.</summary>
public sealed class RecycleDidNotHelpReport(string connection, int pid) : Report
{
    public string Connection { get; } = connection;

    public int Pid { get; } = pid;
}

/// <summary>A silent connection ended without the agent.</summary>
public sealed class EndedByItselfReport(string connection, TimeSpan silence) : Report
{
    public string Connection { get; } = connection;

    public TimeSpan Silence { get; } = silence;
}

/// <summary>Sockets of other processes cannot be touched; told once.</summary>
public sealed class TouchRefusedReport(TouchOutcome outcome) : Report
{
    public TouchOutcome Outcome { get; } = outcome;
}
