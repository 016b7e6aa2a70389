using System.Globalization;
using Sidecar.Agent.Judgement;
using Sidecar.Probes.Paths;

namespace Sidecar.Agent.Tracking;

/// <summary>Verdicts in words: one line that an operator understands at three in the morning.</summary>
internal static class Explanation
{
    /// <summary>Why the connection has the verdict it has.</summary>
    internal static string Of(TrackedConnection connection, TimeSpan now)
    {
        var evidence = connection.Evidence(now);
        var path = connection.Path;
        var idle = path.CountsDataOnly ? $"without data for {Text(evidence.WithoutData)}" : $"idle {Text(evidence.Idle)}";
        var (lower, _) = path.IdleTimeout;
        return connection.Judged.Reason switch
        {
            Reason.NoTcpInfo => "the kernel gave no TCP_INFO; nothing can be judged",
            Reason.InFlight => "data in flight, no timeout so far",
            Reason.Active => "in use",
            Reason.ProtectedByKeepalive => $"keepalive probes at {Text(evidence.KeepaliveAt ?? TimeSpan.Zero)} idle",
            Reason.NoTimeoutKnown => $"{idle}; the path's idle timeout is not known",
            Reason.YoungerThanHalfTheTimeout => $"{idle} of {Text(lower ?? TimeSpan.Zero)}",
            Reason.PastHalfTheTimeout => $"{idle} of {Text(lower ?? TimeSpan.Zero)}, {(path.CountsDataOnly ? "keepalives do not count" : "no keepalive in time")}",
            Reason.NearTheTimeout => $"{idle}, the path forgets at {Text(lower ?? TimeSpan.Zero)} and counts only data",
            Reason.PastTheTimeout => $"{idle}, the path forgets at {Text(lower ?? TimeSpan.Zero)}",
            Reason.AnswerAwaited => $"all sent data acknowledged, answer awaited for {Text(TimeSpan.FromMilliseconds(connection.Last.Info.LastDataSentMilliseconds))}",
            Reason.PeerWindowClosed => "zero window: the peer lives and does not read",
            Reason.RetransmittingPathUnknown => $"{Stall(evidence)}; fresh connection not answered yet",
            Reason.RetransmittingPathUp => $"{Stall(evidence)}; {Fresh(connection)}; more silence needed",
            Reason.RetransmittingUnprovable => $"{Stall(evidence)}; no fresh connection can be made to tell why",
            Reason.SilentWhilePathUp => $"{Stall(evidence)}; {Fresh(connection)}",
            Reason.SilentAndPathDown => $"{Stall(evidence)}; {Fresh(connection)}: path or server down",
            Reason.ProbesOut => Probes(evidence),
            Reason.ProbesUnanswered => $"{Probes(evidence)}; {Fresh(connection)}",
            Reason.ProbesAndPathDown => $"{Probes(evidence)}; {Fresh(connection)}: path or server down",
            var other => other.ToString(),
        };
    }

    private static string Stall(in ConnectionEvidence evidence)
    {
        if (evidence.Stall is not { } stall)
        {
            return "silent";
        }

        var before = stall.IdleBefore is { } gap ? $" after {Text(gap)} idle" : "";
        return $"{stall.FailedTransmissions} sends unanswered for {Text(stall.Silence)}{before}";
    }

    private static string Probes(in ConnectionEvidence evidence) => evidence.Probing is { } probing
        ? $"{probing.FailedTransmissions} keepalive probes unanswered for {Text(probing.Silence)} after {Text(probing.IdleBefore ?? TimeSpan.Zero)} idle"
        : "keepalive probes unanswered";

    private static string Fresh(TrackedConnection connection) => connection.Path?.Last is { } last
        ? last.Result.Outcome switch
        {
            FreshConnectOutcome.Connected => $"fresh connection ok in {last.Result.Elapsed.TotalMilliseconds.ToString("0.#", CultureInfo.InvariantCulture)} ms",
            FreshConnectOutcome.Refused => "fresh connection refused",
            FreshConnectOutcome.TimedOut => "fresh connection not answered",
            FreshConnectOutcome.Unreachable => "fresh connection unreachable",
            _ => "fresh connection not possible here",
        }
        : "no fresh connection yet";

    /// <summary>Two digits that matter: 0.43 s, 15 s, 5.8 min, 2.1 h.</summary>
    internal static string Text(TimeSpan value) => value.TotalSeconds switch
    {
        < 10 => value.TotalSeconds.ToString("0.##", CultureInfo.InvariantCulture) + " s",
        < 600 => value.TotalSeconds.ToString("0", CultureInfo.InvariantCulture) + " s",
        < 7200 => value.TotalMinutes.ToString("0.#", CultureInfo.InvariantCulture) + " min",
        _ => value.TotalHours.ToString("0.#", CultureInfo.InvariantCulture) + " h",
    };
}
