using System.Net;
using Sidecar.Agent.Core.Judgement;

namespace Sidecar.Agent.Core.Snapshots;

/// <summary>
/// What one scan saw, immutable, published by the loop by one reference assignment. Status, metrics and the HTTP
/// endpoint read it without ever waiting for a scan.
/// </summary>
public sealed record AgentSnapshot
{
    /// <summary>UTC wall-clock time at which the scan ended.</summary>
    public required DateTimeOffset Time { get; init; }

    /// <summary>Number of the scan, from 1.</summary>
    public required long Scan { get; init; }

    /// <summary>How long the scan took.</summary>
    public required TimeSpan Duration { get; init; }

    /// <summary><c>observe</c> or <c>protect</c>, as in force.</summary>
    public required string Mode { get; init; }

    /// <summary>Watched sockets, each with its verdict.</summary>
    public required IReadOnlyList<ConnectionStatus> Connections { get; init; }

    /// <summary>Per-upstream findings, in configuration order; built-in upstreams once they are used.</summary>
    public required IReadOnlyList<UpstreamStatus> Upstreams { get; init; }

    /// <summary>Findings per worker process of the [workers:…] groups, a few seconds old at most.</summary>
    public IReadOnlyList<WorkerStatus> Workers { get; init; } = [];

    /// <summary>The accept queues of the [workers:…] groups, a second or two old.</summary>
    public IReadOnlyList<ListenerStatus> Listeners { get; init; } = [];

    /// <summary>All processes of each [workers:…] group, a few seconds old.</summary>
    public IReadOnlyList<GroupStatus> Groups { get; init; } = [];

    /// <summary>Times that a connection found a full accept queue, in all network namespaces of the groups, since the agent's start.</summary>
    public long ListenOverflows { get; init; }

    /// <summary>Findings per [haproxy:…] section, a second or two old.</summary>
    public IReadOnlyList<HaproxyStatus> Haproxies { get; init; } = [];

    /// <summary>Results of the [check:…] sections.</summary>
    public IReadOnlyList<CheckStatus> Checks { get; init; } = [];

    /// <summary>What the configuration names and the agent reads, each as it was found last.</summary>
    public IReadOnlyList<SourceStatus> Sources { get; init; } = [];

    /// <summary>What the agent cannot do here and why (missing capability, kernel option …); empty when all is possible.</summary>
    public required IReadOnlyList<string> Limitations { get; init; }
}

/// <summary>Something that the configuration names and that the agent reads.</summary>
/// <param name="Kind">Of <see cref="Kinds"/>.</param>
/// <param name="Name">Name of the section.</param>
/// <param name="Problem">What follows from its absence, why it is absent, and what to do: one line. Null where it is there.</param>
public sealed record SourceStatus(string Kind, string Name, string? Problem)
{
    public const string Check = "check";
    public const string Haproxy = "haproxy";

    /// <summary>The addresses of an upstream's host names.</summary>
    public const string Resolution = "resolution";

    /// <summary>The sessions on an upstream's database server.</summary>
    public const string Sessions = "sessions";
    public const string Workers = "workers";

    /// <summary>All kinds.</summary>
    public static IReadOnlyList<string> Kinds { get; } = [Check, Haproxy, Resolution, Sessions, Workers];
}

/// <summary>One watched connection as an operator sees it.</summary>
public sealed record ConnectionStatus
{
    public required IPEndPoint Local { get; init; }
    public required IPEndPoint Peer { get; init; }

    /// <summary>Owner, or null where it is not known (not permitted, or the process has just gone).</summary>
    public required int? Pid { get; init; }

    /// <summary>Path of the owner's executable, or null.</summary>
    public required string? Executable { get; init; }

    /// <summary>systemd unit of the owner, or null.</summary>
    public required string? Unit { get; init; }
    public required string Upstream { get; init; }

    /// <summary>Network namespace: <c>own</c>, or <c>net:[inode]</c>.</summary>
    public required string Namespace { get; init; }

    /// <summary>Time since segments last moved in either direction.</summary>
    public required TimeSpan Idle { get; init; }
    public required Verdict Verdict { get; init; }

    /// <summary>One line for people: the evidence that led to the verdict.</summary>
    public required string Why { get; init; }

    /// <summary>Time since the first send that was never answered; null unless suspect, stuck or outage.</summary>
    public required TimeSpan? StuckFor { get; init; }

    /// <summary>Whether a keepalive timer runs on the socket; null where unknown.</summary>
    public required bool? KeepaliveArmed { get; init; }

    /// <summary>The kernel's cookie of the socket, 64 bits.</summary>
    public required ulong Cookie { get; init; }

    /// <summary>The server's side, where it is known for certain; else null.</summary>
    public SessionStatus? Session { get; init; }
}

/// <summary>One worker process as an operator sees it.</summary>
public sealed record WorkerStatus
{
    /// <summary>Name of its [workers:…] section.</summary>
    public required string Workers { get; init; }

    /// <summary>Its number in the group, from 0; kept while it lives, then given to the next one.</summary>
    public required int Index { get; init; }

    public required int Pid { get; init; }

    /// <summary>Watched connections that it holds.</summary>
    public required int Connections { get; init; }

    /// <summary>Those of them on which an answer is awaited.</summary>
    public required int RequestsInFlight { get; init; }

    /// <summary>Its share of the group's bytes on watched connections over the last minute, 0 to 1; null where the group had none.</summary>
    public required double? TrafficShare { get; init; }

    /// <summary>CPU time per time since the last scan of it, 1 being one core; null at the first.</summary>
    public required double? CpuShare { get; init; }

    public required long ResidentBytes { get; init; }

    /// <summary>Slope of the resident memory over the last ten minutes, bytes per second; null in the first minute.</summary>
    public required double? ResidentGrowth { get; init; }
}

/// <summary>One upstream as an operator sees it.</summary>
public sealed record UpstreamStatus
{
    public required string Name { get; init; }

    /// <summary>Endpoints as declared.</summary>
    public required string Endpoint { get; init; }

    /// <summary>True: the last fresh connection succeeded; false: it failed; null: none was needed yet.</summary>
    public required bool? PathUp { get; init; }

    /// <summary>Round-trip time of the last fresh connection; null where none succeeded.</summary>
    public required TimeSpan? PathRoundTrip { get; init; }

    /// <summary>Whether the server itself answered the last fresh connection; false where the handshake was all there was to see.</summary>
    public bool PathServerAnswered { get; init; }

    /// <summary>Bounds of the path's idle timeout; null where unknown.</summary>
    public required TimeSpan? IdleTimeoutLower { get; init; }
    public required TimeSpan? IdleTimeoutUpper { get; init; }

    /// <summary>Why the last measurement of it has no result (the server refused, for one); null where it has one, or there was none.</summary>
    public string? NotMeasured { get; init; }

    /// <summary>Connections that the server allows ordinary roles together; null where it was not asked.</summary>
    public int? ConnectionLimit { get; init; }

    /// <summary>Connections that the server has, from everywhere; null where it was not asked.</summary>
    public int? ServerConnections { get; init; }

    /// <summary>What the server is and how it fares; null where it was not asked.</summary>
    public ServerStatus? Server { get; init; }

    /// <summary>Lines of advice for the operator; empty where there is none.</summary>
    public required IReadOnlyList<string> Advice { get; init; }
}

/// <summary>A database server as an operator sees it.</summary>
public sealed record ServerStatus
{
    /// <summary><c>primary</c>, <c>standby</c>, or <c>read-only</c>: a primary whose transactions can only read.</summary>
    public required string Role { get; init; }

    /// <summary>Whether that is the role that the configuration asks for; null where it asks for none.</summary>
    public required bool? IsRoleAsDeclared { get; init; }

    /// <summary>Of a standby its own, of a primary that of its slowest standby; null where there is none.</summary>
    public required TimeSpan? ReplicationLag { get; init; }

    /// <summary>Standbys that are connected to it.</summary>
    public required int Standbys { get; init; }

    /// <summary>Age of the oldest open transaction; null where there is none.</summary>
    public required TimeSpan? OldestTransaction { get; init; }
}
