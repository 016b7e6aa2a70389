namespace Sidecar.Probes.Values;

/// <summary>
/// Settings of a server that decide when it notices a dead client, as in force on the agent's own session. Null: the
/// server is too old to have it, or did not say. Zero means off, or the kernel's default.
/// </summary>
public sealed record ServerSettings
{
    /// <summary>tcp_keepalives_idle.</summary>
    public TimeSpan? KeepalivesIdle { get; init; }

    /// <summary>tcp_keepalives_interval.</summary>
    public TimeSpan? KeepalivesInterval { get; init; }

    /// <summary>tcp_keepalives_count.</summary>
    public int? KeepalivesCount { get; init; }

    /// <summary>tcp_user_timeout.</summary>
    public TimeSpan? UserTimeout { get; init; }

    /// <summary>client_connection_check_interval (PostgreSQL 14 and later).</summary>
    public TimeSpan? ConnectionCheckInterval { get; init; }

    /// <summary>idle_in_transaction_session_timeout.</summary>
    public TimeSpan? IdleInTransactionTimeout { get; init; }

    /// <summary>statement_timeout, as in force for the agent's own role.</summary>
    public TimeSpan? StatementTimeout { get; init; }

    /// <summary>The server's file and line that set statement_timeout; null where a role, a database or nobody does.</summary>
    public (string File, int Line)? StatementTimeoutLine { get; init; }

    /// <summary>max_connections.</summary>
    public int? MaxConnections { get; init; }
}
