using System.Text.Json.Serialization;
using Sidecar.Agent.Core.Judgement.IdleTimeout;

namespace Sidecar.Agent.Measurement;

/// <summary>How a path treats idle connections.</summary>
internal enum PathClass
{
    /// <summary>Nothing was lost up to the longest gap tried.</summary>
    NoneSeen,

    /// <summary>Forgotten without a word; keepalives prevent it.</summary>
    SilentDrop,

    /// <summary>Answered by RST after the timeout; keepalives prevent it.</summary>
    Reset,

    /// <summary>The far end closes idle connections of its own accord; keepalives do not count.</summary>
    PeerCloses,

    /// <summary>Something between counts application data only; keepalives do not count.</summary>
    PayloadOnly,

    /// <summary>Lost, but not each time in the same way, or once while something else was wrong.</summary>
    NotKnown,
}

/// <summary>One gap that was tried, for the picture.</summary>
/// <param name="Gap">Idle time.</param>
/// <param name="Survived">Whether the connection lived.</param>
/// <param name="Counts">False for a loss that was contradicted again and again.</param>
internal readonly record struct TriedGap(TimeSpan Gap, bool Survived, bool Counts = true);

/// <summary>What a ladder found out.</summary>
internal sealed record MeasurementReport
{
    public required string Endpoint { get; init; }

    /// <summary>Longest gap survived; zero when none was.</summary>
    public required TimeSpan Lower { get; init; }

    /// <summary>Shortest gap lost; null when none was.</summary>
    public required TimeSpan? Upper { get; init; }

    /// <summary>The path forgets at varying times, somewhere between the bounds: gaps between them were survived and lost.</summary>
    public bool Varies { get; init; }

    /// <summary>Whether each bound was seen again; no single survived and lost gap shows that a path keeps to its timeout.</summary>
    public bool Confirmed { get; init; }

    public required PathClass Class { get; init; }

    public required TimeSpan Elapsed { get; init; }

    /// <summary>Connections opened to idle or to compare with; the short fresh ones are <see cref="FreshConnects"/>.</summary>
    public required int ConnectionsUsed { get; init; }

    /// <summary>Connections opened and closed at once, to tell a lost connection from an outage.</summary>
    public required int FreshConnects { get; init; }

    /// <summary>Whether a connection with keepalives only outlived the timeout; null when that was not seen.</summary>
    public required bool? KeepaliveRefreshes { get; init; }

    /// <summary>Whether a connection with application data outlived the timeout; null when that was not seen.</summary>
    public required bool? PayloadRefreshes { get; init; }

    /// <summary>Whether data from the server's side still arrives after the timeout (true), or not (false); null when that was not seen.</summary>
    public required bool? ServerFirstPasses { get; init; }

    /// <summary>The hop behind which the state is lost; null when it is not known.</summary>
    public required string? Hop { get; init; }

    /// <summary>What the answer about the hop rests on, or why there is none; null when it was not asked.</summary>
    public string? HopReason { get; init; }

    /// <summary>The peer's own keepalives restart the path's clock this often; longer gaps do not occur. Null when it sends none.</summary>
    public required TimeSpan? PeerKeepalive { get; init; }

    /// <summary>True when it was stopped before it had finished.</summary>
    public required bool Interrupted { get; init; }

    /// <summary>Why it could not go on; null where it was not that.</summary>
    public string? Failure { get; init; }

    /// <summary>The gaps tried, in the order of their verdicts.</summary>
    public required IReadOnlyList<TriedGap> Gaps { get; init; }

    /// <summary>The evidence for the path's estimate.</summary>
    public required IReadOnlyList<GapObservation> Observations { get; init; }

    /// <summary>What an operator should know besides.</summary>
    public required IReadOnlyList<string> Notes { get; init; }

    /// <summary>The class as it is written: <c>silent-drop</c>, <c>reset</c>, <c>peer-closes</c>, <c>payload-only</c>, <c>not-known</c>, <c>none-seen</c>.</summary>
    public string ClassName => Class switch
    {
        PathClass.SilentDrop => "silent-drop",
        PathClass.Reset => "reset",
        PathClass.PeerCloses => "peer-closes",
        PathClass.PayloadOnly => "payload-only",
        PathClass.NotKnown => "not-known",
        _ => "none-seen",
    };
}

/// <summary>The report as <c>measure --json</c> prints it.</summary>
internal sealed record MeasurementDocument
{
    [JsonPropertyName("endpoint")] public required string Endpoint { get; init; }

    [JsonPropertyName("lower_seconds")] public required double LowerSeconds { get; init; }

    [JsonPropertyName("upper_seconds")] public required double? UpperSeconds { get; init; }

    [JsonPropertyName("varies")] public required bool Varies { get; init; }

    [JsonPropertyName("confirmed")] public required bool Confirmed { get; init; }

    [JsonPropertyName("class")] public required string Class { get; init; }

    [JsonPropertyName("elapsed_seconds")] public required double ElapsedSeconds { get; init; }

    [JsonPropertyName("connections_used")] public required int ConnectionsUsed { get; init; }

    [JsonPropertyName("fresh_connects")] public required int FreshConnects { get; init; }

    [JsonPropertyName("hop")] public required string? Hop { get; init; }

    [JsonPropertyName("hop_reason")] public required string? HopReason { get; init; }

    [JsonPropertyName("keepalive_refreshes")] public required bool? KeepaliveRefreshes { get; init; }

    [JsonPropertyName("payload_refreshes")] public required bool? PayloadRefreshes { get; init; }

    [JsonPropertyName("server_first_passes")] public required bool? ServerFirstPasses { get; init; }

    [JsonPropertyName("peer_keepalive_seconds")] public required double? PeerKeepaliveSeconds { get; init; }

    [JsonPropertyName("interrupted")] public required bool Interrupted { get; init; }

    [JsonPropertyName("gaps")] public required IReadOnlyList<GapDocument> Gaps { get; init; }

    [JsonPropertyName("configuration")] public required IReadOnlyList<string> Configuration { get; init; }

    [JsonPropertyName("notes")] public required IReadOnlyList<string> Notes { get; init; }

    public static MeasurementDocument From(MeasurementReport report) => new()
    {
        Endpoint = report.Endpoint,
        LowerSeconds = Seconds(report.Lower),
        UpperSeconds = report.Upper is { } upper ? Seconds(upper) : null,
        Varies = report.Varies,
        Confirmed = report.Confirmed,
        Class = report.ClassName,
        ElapsedSeconds = Seconds(report.Elapsed),
        ConnectionsUsed = report.ConnectionsUsed,
        FreshConnects = report.FreshConnects,
        Hop = report.Hop,
        HopReason = report.HopReason,
        KeepaliveRefreshes = report.KeepaliveRefreshes,
        PayloadRefreshes = report.PayloadRefreshes,
        ServerFirstPasses = report.ServerFirstPasses,
        PeerKeepaliveSeconds = report.PeerKeepalive is { } every ? Seconds(every) : null,
        Interrupted = report.Interrupted,
        Gaps = [.. report.Gaps.Select(g => new GapDocument { Seconds = Seconds(g.Gap), Survived = g.Survived, Counts = g.Counts })],
        Configuration = Advice.ConfigurationLines(report),
        Notes = report.Notes,
    };

    private static double Seconds(TimeSpan value) => Math.Round(value.TotalSeconds, 3);
}

/// <summary>One gap in <c>measure --json</c>.</summary>
internal sealed record GapDocument
{
    [JsonPropertyName("seconds")] public required double Seconds { get; init; }

    [JsonPropertyName("survived")] public required bool Survived { get; init; }

    [JsonPropertyName("counts")] public required bool Counts { get; init; }
}

[JsonSerializable(typeof(MeasurementDocument))]
[JsonSourceGenerationOptions(WriteIndented = true)]
internal sealed partial class MeasurementJson : JsonSerializerContext;
