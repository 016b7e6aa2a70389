using System.Globalization;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Tracking;

/// <summary>Verdicts in words: one line that an operator understands at three in the morning.</summary>
public static class Explanation
{
    /// <summary>Why the connection has the verdict it has.</summary>
    public static string Of(TrackedConnection connection, TimeSpan now)
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
            Reason.ProtectedByKeepalive => Keepalive(connection),
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
            Reason.PeerAnswersProbes => $"data unacknowledged; the peer lives: it answers window probes ({evidence.ProbesAnswered})",
            Reason.LargeSegmentsLost => $"the peer answers window probes ({evidence.ProbesAnswered}), segments of up to {Number(connection.Last.Info.SendMss)} bytes are not acknowledged (path MTU held to be {Number(connection.Last.Info.PathMtu)}): {BlackHoleRemedy}",
            Reason.LargeAnswersLost => $"data arrives behind a hole that is not filled: large segments of the peer are dropped on their way here (our MSS {Number(connection.Last.Info.SendMss)}, path MTU held to be {Number(connection.Last.Info.PathMtu)}): {BlackHoleRemedy}",
            Reason.AnswerAwaitedProbesOut => $"answer awaited; {Probes(evidence)}",
            Reason.AnswerLost => $"answer awaited; {Probes(evidence)}; {Fresh(connection)}: the answer was lost and none will come",
            Reason.SilentAndPathPartly => $"{Stall(evidence)}; {Fresh(connection)}, others contradict it: one leg of a bundle or one server of several may be away",
            Reason.ProbesAndPathPartly => $"{Probes(evidence)}; {Fresh(connection)}, others contradict it: one leg of a bundle or one server of several may be away",
            Reason.SilentWhileNeighboursAnswered => $"{Stall(evidence)}; other connections of the path are answered",
            var other => other.ToString(),
        };
    }

    /// <summary>
    /// By the options that are known. Not by the kernel's timer: it runs on while data moves and is set anew only when it fires, so
    /// that what it shows changes from one scan to the next.
    /// </summary>
    private static string Keepalive(TrackedConnection connection) => connection.Protection switch
    {
        { Armed: { } armed, IsApplications: false } => $"keepalive probes after {Text(armed.Idle)} of idling",
        { Original: { Enabled: true } original, IsApplications: false } => $"keepalive probes after {Text(original.Idle)} of idling, as the application has set",
        _ => "a keepalive timer of the application runs",
    };

    private const string BlackHoleRemedy = "the network drops large packets without telling; net.ipv4.tcp_mtu_probing = 1 or MSS clamping on the router fixes it, closing does not";

    private static string Number(int value) => value.ToString(CultureInfo.InvariantCulture);

    private static string Stall(in ConnectionEvidence evidence)
    {
        if (evidence.Stall is not { } stall)
        {
            return "silent";
        }

        var before = stall.IdleBefore is { } gap ? $" after {Text(gap)} idle" : "";
        return $"{Quantity.Of(stall.FailedTransmissions, "send")} unanswered for {Text(stall.Silence)}{before}";
    }

    private static string Probes(in ConnectionEvidence evidence) => evidence.Probing is { } probing
        ? $"{Quantity.Of(probing.FailedTransmissions, "probe")} unanswered for {Text(probing.Silence)} after {Text(probing.IdleBefore ?? TimeSpan.Zero)} idle"
        : "probes unanswered";

    private static string Fresh(TrackedConnection connection) => connection.Path?.Last is { } last
        ? last.Result.Outcome switch
        {
            ConnectProbeOutcome.Connected => $"fresh connection ok in {last.Result.Elapsed.TotalMilliseconds.ToString("0.#", CultureInfo.InvariantCulture)} ms",
            ConnectProbeOutcome.Refused => "fresh connection refused",
            ConnectProbeOutcome.TimedOut => "fresh connection not answered",
            ConnectProbeOutcome.Unreachable => "fresh connection unreachable",
            ConnectProbeOutcome.NoAnswer => "fresh connection accepted, the server does not answer",
            _ => "fresh connection not possible here",
        }
        : "no fresh connection yet";

    /// <summary>Two digits that matter: 0.43 s, 15 s, 5.8 min, 2.1 h.</summary>
    public static string Text(TimeSpan value) => value.TotalSeconds switch
    {
        < 10 => value.TotalSeconds.ToString("0.##", CultureInfo.InvariantCulture) + " s",
        < 600 => value.TotalSeconds.ToString("0", CultureInfo.InvariantCulture) + " s",
        < 7200 => value.TotalMinutes.ToString("0.#", CultureInfo.InvariantCulture) + " min",
        _ => value.TotalHours.ToString("0.#", CultureInfo.InvariantCulture) + " h",
    };
}
