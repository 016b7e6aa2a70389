namespace Sidecar.Agent.Core.Recordings;

/// <summary>What was remembered of a connection when its recording begins, the observation of the first step included. Times are monotonic.</summary>
public sealed record RecordedState
{
    public required RecordedSocket Last { get; init; }

    /// <summary>The endpoint is a server on this host.</summary>
    public bool Inbound { get; init; }

    public TimeSpan FirstSeen { get; init; }

    public TimeSpan LastSeen { get; init; }

    public TimeSpan LastMoved { get; init; }

    public TimeSpan LastData { get; init; }

    public TimeSpan LastHeard { get; init; }

    /// <summary>Null: not known.</summary>
    public bool? AnswerAwaited { get; init; }

    public uint DecidedIn { get; init; }

    public uint DecidedOut { get; init; }

    public uint OutOfOrderBefore { get; init; }

    public TimeSpan? OutOfOrderSince { get; init; }

    public RecordedSilence? Stall { get; init; }

    public RecordedSilence? Probing { get; init; }

    public RecordedWindowProbes? WindowProbes { get; init; }

    /// <summary>As it was judged last; null in a recording of an earlier version.</summary>
    public RecordedJudgement? Judged { get; init; }
}

/// <summary>A silence in progress; names are those of <see cref="Tracking.Silence"/>.</summary>
public sealed record RecordedSilence
{
    public TimeSpan Start { get; init; }

    public TimeSpan? IdleBefore { get; init; }

    public uint RetransmissionsAtStart { get; init; }

    public bool FirstSendCounts { get; init; }

    public bool FoundLate { get; init; }

    public TimeSpan? LastRetransmission { get; init; }

    public int Confirmed { get; init; }

    public int Clean { get; init; }

    public int KernelProbes { get; init; }

    public int WindowProbes { get; init; }

    public TimeSpan? LastWindowProbe { get; init; }

    public TimeSpan? UpSince { get; init; }

    public int Pending { get; init; }

    public TimeSpan LastPending { get; init; }

    public TimeSpan? LatestPending { get; init; }
}

/// <summary>The window probes of a connection so far.</summary>
public sealed record RecordedWindowProbes
{
    public TimeSpan SentAt { get; init; }

    public TimeSpan? AnsweredAt { get; init; }

    public uint SegsIn { get; init; }

    public bool IsOut { get; init; }

    public int AnsweredInStall { get; init; }

    public int AnsweredAfterRepeats { get; init; }

    public uint Repeats { get; init; }

    public uint DataMoved { get; init; }

    public uint SegsOut { get; init; }

    public bool WasAlone { get; init; }
}
