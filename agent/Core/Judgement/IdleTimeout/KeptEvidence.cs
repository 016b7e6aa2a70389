using System.Text.Json.Serialization;

namespace Sidecar.Agent.Core.Judgement.IdleTimeout;

/// <summary>Which path an idle timeout belongs to: two connections share one only when they take the same way.</summary>
/// <param name="Namespace">Network namespace: <c>own</c>, or <c>net:[inode]</c>.</param>
/// <param name="Source">Local address.</param>
/// <param name="Route">Outgoing interface and gateway, as far as known; empty otherwise.</param>
/// <param name="Destination">Address and port of the endpoint.</param>
public sealed record KeptPathKey(
    [property: JsonPropertyName("namespace")] string Namespace,
    [property: JsonPropertyName("source")] string Source,
    [property: JsonPropertyName("route")] string Route,
    [property: JsonPropertyName("destination")] string Destination);

/// <summary>The evidence of one path as it is kept between runs.</summary>
public sealed record KeptEvidence
{
    [JsonPropertyName("count")] public long Count { get; init; }

    /// <summary>Only data restarts the path's idle clock.</summary>
    [JsonPropertyName("counts_data_only")] public bool CountsDataOnly { get; init; }

    [JsonPropertyName("observations")] public IReadOnlyList<KeptGap> Observations { get; init; } = [];
}

/// <summary>One kept observation.</summary>
public sealed record KeptGap
{
    [JsonPropertyName("gap_seconds")] public double GapSeconds { get; init; }

    [JsonPropertyName("outcome")] public GapOutcome Outcome { get; init; }

    [JsonPropertyName("at")] public DateTimeOffset At { get; init; }

    [JsonPropertyName("source")] public EvidenceSource Source { get; init; }

    [JsonPropertyName("weight")] public double Weight { get; init; }
}
