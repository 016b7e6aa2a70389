namespace Sidecar.Agent.Core.Recordings;

/// <summary>Whether a recording, which anybody may have sent, is one that can be run.</summary>
public static class RecordingCheck
{
    /// <summary>Times beyond this, some thirty years, are none.</summary>
    private static readonly TimeSpan Longest = TimeSpan.FromSeconds(1e9);

    /// <summary>What is wrong with it, in words; null where nothing is.</summary>
    public static string? Of(Recording recording)
    {
        if (recording.Version != Recording.Form)
        {
            return $"its form is {recording.Version}, this version reads form {Recording.Form}";
        }

        if (recording is not { Start.Last: not null, Steps: { Count: > 0 and <= 4 * ConnectionRecorder.MostSteps } steps } || steps.Any(step => step is null) || recording.LeftOut < 0)
        {
            return "it has no start, no steps, or too many";
        }

        return Check(recording.Start) ?? steps.Select(Check).FirstOrDefault(wrong => wrong is not null);
    }

    private static string? Check(RecordedState state) =>
        Check(state.Last)
        ?? (AreTimes(state.FirstSeen, state.LastSeen, state.LastMoved, state.LastData, state.LastHeard, state.OutOfOrderSince) ? null : "a time of its start is out of range")
        ?? Check(state.Stall) ?? Check(state.Probing) ?? Check(state.Judged)
        ?? (state.WindowProbes is { } probes && !(AreTimes(probes.SentAt, probes.AnsweredAt) && IsCount(probes.AnsweredInStall) && IsCount(probes.AnsweredAfterRepeats)) ? "a number of its window probes is out of range" : null);

    private static string? Check(RecordedSilence? silence) => silence is null
        || (AreTimes(silence.Start, silence.IdleBefore, silence.LastRetransmission, silence.LastWindowProbe, silence.UpSince, silence.LastPending, silence.LatestPending)
            && IsCount(silence.Confirmed) && IsCount(silence.Clean) && IsCount(silence.KernelProbes) && IsCount(silence.WindowProbes) && IsCount(silence.Pending))
        ? null
        : "a number of its silence is out of range";

    private static string? Check(RecordedJudgement? judged) =>
        judged is null || (Enum.IsDefined(judged.Verdict) && Enum.IsDefined(judged.Reason) && IsNumber(judged.Odds)) ? null : "there is no such verdict, reason or odds";

    private static string? Check(RecordedSocket socket) =>
        Enum.IsDefined(socket.State) && Enum.IsDefined(socket.Timer) ? null : "a socket has no such state or timer";

    private static string? Check(RecordedStep step)
    {
        if (!AreTimes(step.At) || step.At < TimeSpan.Zero)
        {
            return "the time of a step is out of range";
        }

        if (step.ConnectProbe is { } probe && !AreTimes(probe.Started, probe.Ended))
        {
            return "the time of a connect probe is out of range";
        }

        return Check(step.Judged) ?? (step.Seen is { } seen ? Check(seen) : null) ?? (step.Path is { } path ? Check(path) : null) ?? (step.Plan is { } plan ? Check(plan) : null);
    }

    private static string? Check(RecordedPath path) =>
        Enum.IsDefined(path.State) && (path.Last is not { } last || Enum.IsDefined(last)) && IsShare(path.FailureRate) && IsShare(path.BlipRate) && IsShare(path.DeadLeg)
        && IsCount(path.SynRetransmissions) && AreTimes(path.IdleTimeoutLower, path.IdleTimeoutUpper, path.LastTook) && path.LastTook >= TimeSpan.Zero
            ? null
            : "a number of its path is out of range";

    private static string? Check(RecordedPlan plan) =>
        Enum.IsDefined(plan.Kind) && Enum.IsDefined(plan.Recycle) && Enum.IsDefined(plan.Remedy) && (plan.WithheldBy is not { } guardrail || Enum.IsDefined(guardrail))
        && (plan.Worker is not { } worker || Enum.IsDefined(worker.Blocked)) && AreTimes(plan.Silence, plan.TickPlanned, plan.TickStarted, plan.TickObserved)
        && IsCount(plan.Silent) && IsCount(plan.Total)
            ? null
            : "a value of a decision is out of range";

    private static bool AreTimes(params ReadOnlySpan<TimeSpan?> times)
    {
        foreach (var time in times)
        {
            if (time is { } value && (value > Longest || value < -Longest))
            {
                return false;
            }
        }

        return true;
    }

    private static bool IsCount(int value) => value is >= 0 and <= 1_000_000;

    private static bool IsShare(double value) => value is >= 0 and <= 1;

    private static bool IsNumber(double value) => double.IsFinite(value) && value >= 0;
}
