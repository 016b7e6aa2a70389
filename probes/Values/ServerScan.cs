namespace Sidecar.Probes.Values;

/// <summary>
/// One client back-end as pg_stat_activity shows it. Pid and start time together name it for good: a pid is reused, a
/// start time in microseconds is not.
/// </summary>
/// <param name="Pid">Process id on the server.</param>
/// <param name="Started">backend_start, UTC, in the server's microseconds.</param>
/// <param name="Client">client_addr and client_port: the client as the server sees it.</param>
/// <param name="State"><c>active</c>, <c>idle</c>, <c>idle in transaction</c> …; null where it may not be seen.</param>
/// <param name="Application">application_name, at most 64 characters.</param>
/// <param name="User">usename.</param>
/// <param name="Age">Time since backend_start, by the server's clock.</param>
/// <param name="QueryAge">Time since query_start; for a state other than <c>active</c> the query has ended already.</param>
/// <param name="StateAge">Time since state_change.</param>
/// <param name="TransactionAge">Time since xact_start; null outside a transaction.</param>
public sealed record ServerSession(
    int Pid,
    DateTime Started,
    TcpEndPoint Client,
    string? State,
    string Application,
    string User,
    TimeSpan Age,
    TimeSpan? QueryAge,
    TimeSpan? StateAge,
    TimeSpan? TransactionAge)
{
    /// <summary>
    /// It waits for notifications (its last statement was LISTEN) or holds advisory locks: it is in use although it idles.
    /// </summary>
    public bool HoldsState { get; init; }

    /// <summary>It works on something that its client waits for.</summary>
    public bool IsActive => State is "active" or "fastpath function call";
}

/// <summary>What one scan at a PostgreSQL server saw.</summary>
public sealed record ServerScan
{
    /// <summary>server_version.</summary>
    public required string Version { get; init; }

    /// <summary>The server's end of the agent's own session, as the server sees it; null over a Unix socket.</summary>
    public required TcpEndPoint? Server { get; init; }

    /// <summary>The agent's end of that session, as the server sees it; null over a Unix socket.</summary>
    public required TcpEndPoint? Self { get; init; }

    /// <summary>pg_is_in_recovery(): a standby, or a server that has not come up yet.</summary>
    public required bool IsInRecovery { get; init; }

    /// <summary>The role has pg_read_all_stats (through pg_monitor): it sees everybody's sessions.</summary>
    public required bool MaySeeAll { get; init; }

    /// <summary>The role has pg_signal_backend.</summary>
    public required bool MaySignal { get; init; }

    /// <summary>The role that the agent has logged in as, quoted for SQL where it needs that.</summary>
    public string Role { get; init; } = "";

    /// <summary>
    /// Connections that ordinary roles may have together: max_connections less what is reserved. Null where the server's
    /// answer makes no sense.
    /// </summary>
    public required int? ConnectionLimit { get; init; }

    /// <summary>Client sessions on the server now, from everywhere, the agent's own among them.</summary>
    public required int Connections { get; init; }

    /// <summary>What an operator wants to know beside it; null where the server cannot say.</summary>
    public ServerFacts? Facts { get; init; }

    /// <summary>Client back-ends whose client has one of the addresses that were asked for.</summary>
    public required IReadOnlyList<ServerSession> Sessions { get; init; }

    /// <summary>False where there were more of them than were read.</summary>
    public required bool IsComplete { get; init; }
}

/// <summary>What a server is and how it fares.</summary>
/// <param name="IsReadOnly">New transactions can only read: a standby, or a server that was told so.</param>
/// <param name="ReplicationLag">
/// Of a standby, how old the last transaction that it has replayed is, 0 where it has replayed all that it has received; of a
/// primary, the lag of its slowest standby. Null where there is none.
/// </param>
/// <param name="Standbys">Standbys that are connected to it.</param>
/// <param name="OldestTransaction">Age of the oldest open transaction of a client; null where there is none.</param>
public sealed record ServerFacts(bool IsReadOnly, TimeSpan? ReplicationLag, int Standbys, TimeSpan? OldestTransaction);

/// <summary>What came of ending a back-end.</summary>
public enum TerminateResult
{
    /// <summary>SIGTERM was sent to it.</summary>
    Signalled,

    /// <summary>No back-end has that pid, start time and client any more.</summary>
    Gone,

    /// <summary>The role has no pg_signal_backend, or the back-end is a superuser's.</summary>
    NotPermitted,

    /// <summary>The server answered that it could not.</summary>
    Failed,
}
