namespace Sidecar.Agent.Core.Judgement;

/// <summary>
/// What is known of one connection at one scan. Facts only, in the kernel's and RFC 9293's terms; ages and gaps are
/// durations, so nothing here needs a clock.
/// </summary>
public readonly record struct ConnectionEvidence
{
    /// <summary>False where the kernel gave no TCP_INFO: nothing can be judged.</summary>
    public required bool HasTcpInfo { get; init; }

    /// <summary>Time since segments last moved in either direction, keepalives of either end included.</summary>
    public required TimeSpan Idle { get; init; }

    /// <summary>Time since data last went either way; keepalives are none.</summary>
    public required TimeSpan WithoutData { get; init; }

    /// <summary>Segments sent and not acknowledged.</summary>
    public required uint Unacknowledged { get; init; }

    /// <summary>The peer's receive window is closed: it lives, and does not read.</summary>
    public required bool ZeroWindow { get; init; }

    /// <summary>Retransmission timeouts in a row for the oldest unacknowledged segment.</summary>
    public required int Timeouts { get; init; }

    /// <summary>The last data on the connection was sent by this end, and is acknowledged: an answer is awaited.</summary>
    public required bool AnswerAwaited { get; init; }

    /// <summary>Idle time at which the socket's keepalive timer sends a probe; null where no keepalive timer runs.</summary>
    public required TimeSpan? KeepaliveAt { get; init; }

    /// <summary>Window probes that were answered since data was last acknowledged, with data unacknowledged.</summary>
    public required int ProbesAnswered { get; init; }

    /// <summary>Data has arrived behind a hole, and for seconds nothing has filled it.</summary>
    public required bool OutOfOrder { get; init; }

    /// <summary>The stall in progress; null while nothing is unanswered.</summary>
    public required StallEvidence? Stall { get; init; }

    /// <summary>
    /// Probes that are out on a connection that has nothing in flight and have not been answered, keepalive, zero-window or window
    /// probes; null while there are none.
    /// </summary>
    public required StallEvidence? Probing { get; init; }
}

/// <summary>A send that has not been answered yet.</summary>
public readonly record struct StallEvidence
{
    /// <summary>Time since the first send that was never answered.</summary>
    public required TimeSpan Silence { get; init; }

    /// <summary>How long the connection had been idle before that send; null where not known.</summary>
    public required TimeSpan? IdleBefore { get; init; }

    /// <summary>Transmissions that brought no answer: data, the first time and again, tail-loss probes, window and keepalive probes.</summary>
    public required int FailedTransmissions { get; init; }

    /// <summary>Those of them that were sent after one connect probe had succeeded and before another did.</summary>
    public required int ConfirmedFailures { get; init; }

    /// <summary>Connect probes that succeeded at once during the silence and since the last that did not.</summary>
    public required int CleanConnections { get; init; }

    /// <summary>It had lasted when it was first seen: how the path was meanwhile nobody knows.</summary>
    public required bool FoundLate { get; init; }
}

/// <summary>What a path's connect probes say at this moment.</summary>
public enum PathState
{
    /// <summary>None was made since the stall began, or its answer is still out.</summary>
    Unknown,

    /// <summary>The latest one, made since the stall began, succeeded.</summary>
    Up,

    /// <summary>The latest one failed.</summary>
    Down,

    /// <summary>Some succeed and some do not, or they fail while neighbours are answered: one leg of a bundle, one server of several.</summary>
    Partly,

    /// <summary>None can be made here; neighbours on the path have been answered since the stall began.</summary>
    UpByNeighbours,

    /// <summary>None can be made: the peer is a client (inbound), or the attempt itself is not possible here.</summary>
    Unprovable,
}

/// <summary>What is known of the path from a worker's namespace and address to an endpoint.</summary>
public readonly record struct PathEvidence
{
    public required PathState State { get; init; }

    /// <summary>A connect probe failed at some time since the stall began.</summary>
    public required bool WasDownDuringStall { get; init; }

    /// <summary>
    /// SYNs that a connect probe had to send again which was under way when the stall began, or soon afterwards; 0 where none
    /// was or had to. Later ones that have to only reset what is confirmed.
    /// </summary>
    public required int SynRetransmissions { get; init; }

    /// <summary>Share of transmissions on this path that lately had to be repeated, 0 to 1; see <see cref="LossEstimate"/>.</summary>
    public required double TransmissionFailureRate { get; init; }

    /// <summary>Share of sends on this path that were followed by silence and an answer after all, 0 to 1; see <see cref="LossEstimate"/>.</summary>
    public required double BlipRate { get; init; }

    /// <summary>
    /// Probability that a leg of the path is dead while others carry what connect probes send, 0 to 1; 0 where probes and neighbours have
    /// never contradicted one another.
    /// </summary>
    public double DeadLeg { get; init; }

    /// <summary>Only data restarts the path's idle clock: keepalives do not keep a connection alive.</summary>
    public required bool CountsDataOnly { get; init; }

    /// <summary>Idle time the path is known to survive; null where unknown.</summary>
    public required TimeSpan? IdleTimeoutLower { get; init; }

    /// <summary>Idle time after which the path is known to have forgotten; null where unknown.</summary>
    public required TimeSpan? IdleTimeoutUpper { get; init; }
}
