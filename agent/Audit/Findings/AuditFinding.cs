using Sidecar.Agent.Audit.Reading;

namespace Sidecar.Agent.Audit.Findings;

/// <summary>How bad a finding is, the worst first.</summary>
internal enum Severity
{
    /// <summary>It loses requests under a load or a duration that is to be expected.</summary>
    High,

    /// <summary>It makes an incident worse, or hides it.</summary>
    Medium,

    /// <summary>It is worth a scan.</summary>
    Low,
}

/// <summary>A line to change.</summary>
/// <param name="Place">Where.</param>
/// <param name="Text">What is to stand there; <c>…</c> is what stands there already.</param>
/// <param name="IsNew">There is no such line yet: it is to be added below that place.</param>
internal sealed record Change(Place Place, string Text, bool IsNew);

/// <summary>One thing that is not right. Texts hold names, addresses, numbers and times only, nothing else of any file.</summary>
internal sealed record AuditFinding
{
    /// <summary>A fixed name, such as <c>chain-order</c>; append-only.</summary>
    public required string Id { get; init; }

    public required Severity Severity { get; init; }

    public required string Program { get; init; }

    /// <summary>Where it is set, or the process it is about.</summary>
    public required Place Place { get; init; }

    /// <summary>What is set.</summary>
    public required string What { get; init; }

    /// <summary>What follows from it.</summary>
    public required string Consequence { get; init; }

    /// <summary>What fixes it, all of it together; a line has the same value in all findings. Empty: no line of a file does.</summary>
    public IReadOnlyList<Change> Changes { get; init; } = [];
}
