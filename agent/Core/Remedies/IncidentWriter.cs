using System.Globalization;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Tracking;

namespace Sidecar.Agent.Core.Remedies;

/// <summary>Makes incidents: the evidence as it stands, under an id that sorts by time.</summary>
internal sealed class IncidentWriter(World world)
{
    private int _number;
    private DateTimeOffset _last;

    /// <summary>Wall clock of the tick; incidents of one tick keep their order.</summary>
    internal DateTimeOffset NextTime() => _last = world.UtcNow > _last || _last - world.UtcNow > TimeSpan.FromSeconds(1) ? world.UtcNow : _last.AddTicks(1);

    /// <summary>Unique and sortable: UTC time to the millisecond and a counter.</summary>
    internal string NextId() => string.Create(CultureInfo.InvariantCulture, $"{world.UtcNow.UtcDateTime:yyyyMMdd'T'HHmmss.fff'Z'}-{++_number:D6}");

    internal Incident Write(TrackedConnection connection, ConnectionCase memory, Remedy remedy, OwnerInfo? owner, TimeSpan now)
    {
        var info = connection.Last.Info;
        var evidence = connection.Evidence(now);
        var silence = evidence.Stall ?? evidence.Probing;
        var path = connection.Path;
        return new Incident
        {
            Id = NextId(),
            Time = NextTime(),
            Upstream = connection.Upstream.Name,
            Cause = Cause(connection.Judged.Verdict).ToName(),
            Remedy = remedy.ToName(),
            Outcome = "pending",
            Pid = owner?.Identity.Pid,
            Executable = owner?.Executable,
            Unit = owner?.Unit,
            Workers = owner?.Workers?.Name,
            WithheldBy = null,
            Local = connection.Key.Local.ToString(),
            Peer = connection.Key.Peer.ToString(),
            Namespace = connection.NamespaceInode == world.OwnNamespace ? "own" : $"net:[{connection.NamespaceInode}]",
            Why = Explanation.Of(connection, now),
            StuckSeconds = Round(now - memory.StallStart),
            Evidence = new Dictionary<string, string>(StringComparer.Ordinal)
            {
                ["cookie"] = connection.Cookie.ToString(),
                ["idle_before_seconds"] = silence?.IdleBefore is { } gap ? Seconds(gap) : "unknown",
                ["failed_transmissions"] = Number(silence?.FailedTransmissions ?? 0),
                ["confirmed_failures"] = Number(silence?.ConfirmedFailures ?? 0),
                ["timeouts"] = Number(info.Retransmits),
                ["unacked_segments"] = Number(info.Unacked),
                ["segs_in"] = Number(info.SegmentsIn),
                ["segs_out"] = Number(info.SegmentsOut),
                ["bytes_acked"] = info.BytesAcked.ToString(CultureInfo.InvariantCulture),
                ["last_ack_recv_ms"] = Number(info.LastAckReceivedMilliseconds),
                ["rto_us"] = Number(info.RtoMicroseconds),
                ["snd_mss"] = Number(info.SendMss),
                ["pmtu"] = Number(info.PathMtu),
                ["last_probe_answer_seconds"] = connection.LastProbeAnswer is { } answer ? Seconds(now - answer) : "none",
                ["transmission_failure_rate"] = connection.User.Loss.RateAt(now).ToString("0.###", CultureInfo.InvariantCulture),
                ["odds"] = connection.Judged.Odds.ToString("0.###e0", CultureInfo.InvariantCulture),
                ["fresh_connection"] = path.Last is { } last
                    ? $"{last.Result.Outcome.ToString().ToLowerInvariant()} in {last.Result.Elapsed.TotalMilliseconds.ToString("0.0", CultureInfo.InvariantCulture)} ms"
                    : "none",
            },
            Recording = world.Recorder.Freeze(connection),
        };
    }

    internal static string Describe(TrackedConnection connection) =>
        $"{connection.Upstream.Name}: {connection.Key.Local} -> {connection.Key.Peer}";

    internal static double Round(TimeSpan value) => Math.Round(value.TotalSeconds, 3);

    internal static Verdict Cause(Verdict verdict) => verdict switch
    {
        Verdict.Expired or Verdict.Aging => Verdict.Expired,
        Verdict.Outage or Verdict.Partly or Verdict.BlackHole => verdict,
        _ => Verdict.Stuck,
    };

    private static string Number(long value) => value.ToString(CultureInfo.InvariantCulture);

    private static string Seconds(TimeSpan value) => value.TotalSeconds.ToString("0.###", CultureInfo.InvariantCulture);
}
