using System.Text.Json.Serialization;
using Sidecar.Agent.Core.Recordings;

namespace Sidecar.Agent.Core.Remedies;

/// <summary>
/// The record of one action, or of one that a guardrail withheld: the evidence before, what was done, what came of
/// it. One JSON object on a line of <c>incidents.jsonl</c> in the state directory; field names are fixed.
/// </summary>
public sealed record Incident
{
    /// <summary>Unique and sortable: UTC time to the millisecond and a counter.</summary>
    [JsonPropertyName("id")] public required string Id { get; init; }

    /// <summary>When it was decided, UTC.</summary>
    [JsonPropertyName("time")] public required DateTimeOffset Time { get; init; }

    [JsonPropertyName("upstream")] public required string Upstream { get; init; }

    /// <summary>The verdict's name that led here: <c>stuck</c>, <c>expired</c>, <c>outage</c>, <c>partly</c>, <c>black-hole</c>.</summary>
    [JsonPropertyName("cause")] public required string Cause { get; init; }

    /// <summary><c>recycle</c>, <c>terminate</c>, <c>keepalive</c>, <c>nudge</c>, <c>release</c>, or <c>none</c>.</summary>
    [JsonPropertyName("remedy")] public required string Remedy { get; init; }

    /// <summary>
    /// <c>released</c>, <c>failed</c>, <c>refused</c> (the kernel said no), <c>vanished</c> (gone before we acted, or by itself),
    /// <c>exited</c>, <c>killed</c>, <c>withheld</c>, <c>recovered</c>, <c>pending</c>, <c>interrupted</c> (the agent ended
    /// before it saw what came of it).
    /// </summary>
    [JsonPropertyName("outcome")] public required string Outcome { get; init; }

    [JsonPropertyName("pid")] public required int? Pid { get; init; }

    [JsonPropertyName("executable")] public string? Executable { get; init; }

    [JsonPropertyName("unit")] public string? Unit { get; init; }

    /// <summary>Name of the <c>[workers:…]</c> section the owner belongs to, or null.</summary>
    [JsonPropertyName("workers")] public string? Workers { get; init; }

    /// <summary>The guardrail that withheld the remedy (its short name), or null where nothing was withheld.</summary>
    [JsonPropertyName("withheld_by")] public required string? WithheldBy { get; init; }

    [JsonPropertyName("local")] public string? Local { get; init; }

    [JsonPropertyName("peer")] public string? Peer { get; init; }

    [JsonPropertyName("namespace")] public string? Namespace { get; init; }

    /// <summary>One line for people.</summary>
    [JsonPropertyName("why")] public required string Why { get; init; }

    /// <summary>First unanswered send to decision, seconds; null where not applicable.</summary>
    [JsonPropertyName("stuck_seconds")] public double? StuckSeconds { get; init; }

    /// <summary>First unanswered send to release, seconds; null until released.</summary>
    [JsonPropertyName("release_seconds")] public double? ReleaseSeconds { get; init; }

    /// <summary>What followed around the workers while the connection hung, oldest first; empty where nothing was seen.</summary>
    [JsonPropertyName("chain")] public IReadOnlyList<ChainLink> Chain { get; init; } = [];

    /// <summary>Free-form evidence: kernel counters, fresh-connection results, odds. Keys are snake_case.</summary>
    [JsonPropertyName("evidence")] public IReadOnlyDictionary<string, string> Evidence { get; init; } = new Dictionary<string, string>(StringComparer.Ordinal);

    /// <summary>
    /// The observations that led to the decision, for a replay. Written beside the other fields by whoever keeps incidents, and read by
    /// whoever replays one: no list and no journal has it.
    /// </summary>
    [JsonIgnore] public Recording? Recording { get; init; }
}

/// <summary>One event in the chain that a hung connection sets off.</summary>
public sealed record ChainLink
{
    [JsonPropertyName("time")] public required DateTimeOffset Time { get; init; }

    [JsonPropertyName("what")] public required string What { get; init; }
}
