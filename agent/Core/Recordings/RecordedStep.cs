using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Recordings;

/// <summary>One step of a recording: something was seen and judged, a probe went out or ended, a remedy was considered, or a command was carried out.</summary>
public sealed record RecordedStep
{
    /// <summary>When, monotonic.</summary>
    public TimeSpan At { get; init; }

    /// <summary>The connection was observed. That of the first step is part of the state that the recording starts with.</summary>
    public RecordedSocket? Seen { get; init; }

    /// <summary>A window probe was sent on it.</summary>
    public bool WindowProbe { get; init; }

    /// <summary>A connect probe on its path, or what takes its place, has ended.</summary>
    public RecordedConnectProbe? ConnectProbe { get; init; }

    /// <summary>The server has told whether an answer is awaited.</summary>
    public bool? AnswerAwaited { get; init; }

    /// <summary>What was known of the path; null: the same as before.</summary>
    public RecordedPath? Path { get; init; }

    public RecordedJudgement? Judged { get; init; }

    public RecordedPlan? Plan { get; init; }

    /// <summary>What came of a command, in words.</summary>
    public string? Outcome { get; init; }
}

/// <summary>A connect probe that has ended.</summary>
public sealed record RecordedConnectProbe
{
    /// <summary>It succeeded at the first SYN.</summary>
    public bool Clean { get; init; }

    public TimeSpan Started { get; init; }

    public TimeSpan Ended { get; init; }
}

/// <summary>A verdict as it was given.</summary>
public sealed record RecordedJudgement
{
    public Verdict Verdict { get; init; }

    public Reason Reason { get; init; }

    /// <summary>Forgotten to alive; 0 where none were weighed.</summary>
    public double Odds { get; init; }
}

/// <summary>What was known of a path: the <see cref="PathEvidence"/> that the judge was handed, and what the words for it need.</summary>
public sealed record RecordedPath
{
    public PathState State { get; init; }

    public bool WasDown { get; init; }

    public int SynRetransmissions { get; init; }

    public double FailureRate { get; init; }

    public double BlipRate { get; init; }

    public double DeadLeg { get; init; }

    public bool CountsDataOnly { get; init; }

    public TimeSpan? IdleTimeoutLower { get; init; }

    public TimeSpan? IdleTimeoutUpper { get; init; }

    public bool AnswersProbes { get; init; }

    /// <summary>How the last connect probe had ended; null before the first.</summary>
    public ConnectProbeOutcome? Last { get; init; }

    /// <summary>And how long it had taken.</summary>
    public TimeSpan LastTook { get; init; }

    internal static RecordedPath Of(PathUser user, in PathEvidence evidence) => new()
    {
        State = evidence.State,
        WasDown = evidence.WasDownDuringStall,
        SynRetransmissions = evidence.SynRetransmissions,
        FailureRate = evidence.TransmissionFailureRate,
        BlipRate = evidence.BlipRate,
        DeadLeg = evidence.DeadLeg,
        CountsDataOnly = evidence.CountsDataOnly,
        IdleTimeoutLower = evidence.IdleTimeoutLower,
        IdleTimeoutUpper = evidence.IdleTimeoutUpper,
        AnswersProbes = user.AnswersProbes,
        Last = user.Path.Last?.Result.Outcome,
        LastTook = user.Path.Last?.Result.Elapsed ?? TimeSpan.Zero,
    };

    internal PathEvidence ToEvidence() => new()
    {
        State = State,
        WasDownDuringStall = WasDown,
        SynRetransmissions = SynRetransmissions,
        TransmissionFailureRate = FailureRate,
        BlipRate = BlipRate,
        DeadLeg = DeadLeg,
        CountsDataOnly = CountsDataOnly,
        IdleTimeoutLower = IdleTimeoutLower,
        IdleTimeoutUpper = IdleTimeoutUpper,
    };

    /// <summary>Whether nothing but rates, which change with time, has changed since an earlier one.</summary>
    internal bool IsAs(RecordedPath earlier) => State == earlier.State && WasDown == earlier.WasDown && SynRetransmissions == earlier.SynRetransmissions
        && AnswersProbes == earlier.AnswersProbes && CountsDataOnly == earlier.CountsDataOnly && IdleTimeoutUpper == earlier.IdleTimeoutUpper && Last == earlier.Last;
}
