namespace Sidecar.Agent.Core.Recordings;

/// <summary>
/// The observations that led to an incident: what was remembered of the connection at first, and each step since, up to the
/// decision. Bounded; immutable.
/// </summary>
public sealed record Recording
{
    /// <summary>The form of this document; a reader knows this one alone.</summary>
    public const int Form = 1;

    public int Version { get; init; }

    /// <summary>Version of the agent that recorded it; null where not known.</summary>
    public string? Agent { get; init; }

    /// <summary>Steps at the beginning of the silence that are kept no more.</summary>
    public int LeftOut { get; init; }

    public required RecordedState Start { get; init; }

    public required IReadOnlyList<RecordedStep> Steps { get; init; }

    /// <summary>The same, with a further decision at its end.</summary>
    internal Recording With(RecordedPlan plan) => this with { Steps = [.. Steps, new RecordedStep { At = Steps[^1].At, Plan = plan }] };
}
