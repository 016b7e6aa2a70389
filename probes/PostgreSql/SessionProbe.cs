using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Npgsql;
using Sidecar.Probes.Sockets;
using Sidecar.Probes.Values;

namespace Sidecar.Probes.PostgreSql;

/// <summary>
/// A single session of the agent's own on a PostgreSQL server, through which it sees who is connected and ends
/// orphaned back-ends. It is kept open, so that a server whose connections are used up can still be asked, and every
/// question has a deadline, after which the session is given up. For one caller at a time.
/// </summary>
/// <param name="readDsn">Reads the connection string; called for every new session, so a changed password is found.</param>
public sealed class SessionProbe(Func<NpgsqlConnectionStringBuilder> readDsn) : IAsyncDisposable
{
    /// <summary>How the agent's session is called on the server.</summary>
    public const string ApplicationName = "conn-sidecar";

    /// <summary>How long a new session or an answer may take.</summary>
    public static readonly TimeSpan Deadline = TimeSpan.FromSeconds(3);

    /// <summary>How the driver's message begins where a Unix socket cannot be connected to; its path follows.</summary>
    private const string ConnectingToPath = "Failed to connect to /";

    /// <summary>More sessions from one host than this are not read.</summary>
    private const int MostSessions = 20_000;

    /// <summary>Ages beyond ten years either way are a server's error, and would overflow what is computed from them.</summary>
    private const double MostSeconds = 10 * 366 * 86400.0;

    /// <summary>Connections that ordinary roles may have together, and those that there are: two columns.</summary>
    /// <remarks>Sessions of other roles show their ids even to those who may not see more.</remarks>
    internal const string Slots = """
        current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
          - coalesce(current_setting('reserved_connections', true)::int, 0),
        (SELECT count(*)::int FROM pg_stat_activity WHERE datid IS NOT NULL AND usesysid IS NOT NULL)
        """;

    private const string Identify = $"""
        SELECT host(inet_server_addr()), inet_server_port(), host(inet_client_addr()), inet_client_port(), pg_is_in_recovery(),
          pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'), pg_has_role(current_user, 'pg_signal_backend', 'USAGE'),
          current_setting('server_version'), {Slots}, quote_ident(current_user)
        """;

    // Apart from what identifies the server: products that speak PostgreSQL may lack one of these functions.
    private const string ListFacts = """
        SELECT current_setting('transaction_read_only') = 'on',
          CASE WHEN NOT pg_is_in_recovery() THEN (SELECT max(extract(epoch FROM replay_lag))::float8 FROM pg_stat_replication)
            WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0::float8
            ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8 END,
          (SELECT count(*)::int FROM pg_stat_replication),
          (SELECT max(extract(epoch FROM clock_timestamp() - xact_start))::float8 FROM pg_stat_activity
            WHERE backend_type = 'client backend' AND pid <> pg_backend_pid())
        """;

    private const string ListSessions = """
        SELECT pid, backend_start, host(client_addr), client_port, state, left(application_name, 64), usename::text,
          extract(epoch from clock_timestamp() - backend_start)::float8, extract(epoch from clock_timestamp() - query_start)::float8,
          extract(epoch from clock_timestamp() - state_change)::float8, extract(epoch from clock_timestamp() - xact_start)::float8,
          coalesce(query ~* '^\s*listen\M', false) OR pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND pid IS NOT NULL)
        FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND client_port > 0 AND client_addr = ANY (string_to_array($1, ',')::inet[])
        LIMIT $2
        """;

    private const string ListSettings = """
        SELECT name, setting, coalesce(unit, ''), sourcefile, sourceline FROM pg_settings WHERE name IN ('tcp_keepalives_idle', 'tcp_keepalives_interval',
          'tcp_keepalives_count', 'tcp_user_timeout', 'client_connection_check_interval', 'idle_in_transaction_session_timeout',
          'statement_timeout', 'max_connections')
        """;

    // Identity and action in one statement: between a scan and the signal the pid may have become somebody else's.
    private const string Terminate = """
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE pid = $1 AND backend_start = $2 AND client_addr = $3::inet AND client_port = $4
          AND backend_type = 'client backend' AND pid <> pg_backend_pid()
        """;

    private const string IsThere = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2";

    private NpgsqlDataSource? _source;
    private NpgsqlConnection? _connection;

    /// <summary>Scans the server and at the sessions of clients at these addresses.</summary>
    /// <exception cref="ServerProbeException">It does not answer, not in time, or not with what was asked for.</exception>
    public Task<ServerScan> ScanAsync(IReadOnlyCollection<IPAddress> clients, CancellationToken cancellation) =>
        AskAsync(connection => ScanAsync(connection, string.Join(',', clients), cancellation), cancellation);

    /// <summary>Settings that decide when the server notices a dead client.</summary>
    /// <exception cref="ServerProbeException">As for <see cref="ScanAsync(IReadOnlyCollection{IPAddress}, CancellationToken)"/>.</exception>
    public Task<ServerSettings> ReadSettingsAsync(CancellationToken cancellation) => AskAsync(
        async connection =>
        {
            await using var command = Command(connection, ListSettings);
            await using var reader = await command.ExecuteReaderAsync(cancellation).ConfigureAwait(false);
            var values = new Dictionary<string, (double Value, string Unit)>(StringComparer.Ordinal);
            (string, int)? line = null;
            while (await reader.ReadAsync(cancellation).ConfigureAwait(false) && values.Count < 16)
            {
                if (double.TryParse(reader.GetString(1), NumberStyles.Float, CultureInfo.InvariantCulture, out var value) && value is >= 0 and < MostSeconds)
                {
                    values[reader.GetString(0)] = (value, reader.GetString(2));
                    if (reader.GetString(0) == "statement_timeout" && !reader.IsDBNull(3) && !reader.IsDBNull(4))
                    {
                        line = (reader.GetString(3), reader.GetInt32(4));
                    }
                }
            }

            TimeSpan? Duration(string name) => values.TryGetValue(name, out var setting)
                ? setting.Unit == "ms" ? TimeSpan.FromMilliseconds(setting.Value) : TimeSpan.FromSeconds(setting.Value)
                : null;

            return new ServerSettings
            {
                KeepalivesIdle = Duration("tcp_keepalives_idle"),
                KeepalivesInterval = Duration("tcp_keepalives_interval"),
                KeepalivesCount = values.TryGetValue("tcp_keepalives_count", out var count) ? (int)Math.Min(count.Value, 1000) : null,
                UserTimeout = Duration("tcp_user_timeout"),
                ConnectionCheckInterval = Duration("client_connection_check_interval"),
                IdleInTransactionTimeout = Duration("idle_in_transaction_session_timeout"),
                StatementTimeout = Duration("statement_timeout"),
                StatementTimeoutLine = line,
                MaxConnections = values.TryGetValue("max_connections", out var most) ? (int)Math.Min(most.Value, int.MaxValue) : null,
            };
        },
        cancellation);

    /// <summary>Ends exactly this back-end: pid, start time and client are compared once more in the statement that ends it.</summary>
    /// <exception cref="ServerProbeException">The server does not answer in time; whether it acted is not known.</exception>
    public Task<TerminateResult> TerminateAsync(ServerSession session, CancellationToken cancellation) => AskAsync(
        async connection =>
        {
            await using var command = Command(connection, Terminate);
            command.Parameters.Add(new NpgsqlParameter<int> { TypedValue = session.Pid });
            command.Parameters.Add(new NpgsqlParameter<DateTime> { TypedValue = session.Started });
            command.Parameters.Add(new NpgsqlParameter<string> { TypedValue = session.Client.ToIPAddress().ToString() });
            command.Parameters.Add(new NpgsqlParameter<int> { TypedValue = session.Client.Port });
            try
            {
                return await command.ExecuteScalarAsync(cancellation).ConfigureAwait(false) switch
                {
                    true => TerminateResult.Signalled,
                    null => TerminateResult.Gone,
                    _ => TerminateResult.Failed,
                };
            }
            catch (PostgresException e) when (e.SqlState == PostgresErrorCodes.InsufficientPrivilege)
            {
                return TerminateResult.NotPermitted;
            }
        },
        cancellation);

    /// <summary>The first column of the first row of a query as text, in a transaction that can only read; null where there is none.</summary>
    /// <exception cref="ServerProbeException">The server does not answer in time, or refuses the query.</exception>
    public Task<string?> ReadTextAsync(string query, CancellationToken cancellation) => AskAsync(
        async connection =>
        {
            await using var transaction = await connection.BeginTransactionAsync(cancellation).ConfigureAwait(false);
            await using (var readOnly = Command(connection, "SET TRANSACTION READ ONLY"))
            {
                await readOnly.ExecuteNonQueryAsync(cancellation).ConfigureAwait(false);
            }

            await using var command = Command(connection, query);
            var value = Convert.ToString(await command.ExecuteScalarAsync(cancellation).ConfigureAwait(false), CultureInfo.InvariantCulture);
            return string.IsNullOrWhiteSpace(value) ? null : value.Trim();
        },
        cancellation);

    /// <summary>Whether the back-end is still there.</summary>
    /// <exception cref="ServerProbeException">The server does not answer in time.</exception>
    public Task<bool> IsThereAsync(ServerSession session, CancellationToken cancellation) => AskAsync(
        async connection =>
        {
            await using var command = Command(connection, IsThere);
            command.Parameters.Add(new NpgsqlParameter<int> { TypedValue = session.Pid });
            command.Parameters.Add(new NpgsqlParameter<DateTime> { TypedValue = session.Started });
            return await command.ExecuteScalarAsync(cancellation).ConfigureAwait(false) is not 0L;
        },
        cancellation);

    public async ValueTask DisposeAsync() => await Task.WhenAny(CloseAsync(), Task.Delay(TimeSpan.FromSeconds(1))).ConfigureAwait(false);

    private static async Task<ServerFacts?> ReadFactsAsync(NpgsqlConnection connection, CancellationToken cancellation)
    {
        try
        {
            await using var command = Command(connection, ListFacts);
            await using var reader = await command.ExecuteReaderAsync(cancellation).ConfigureAwait(false);
            return await reader.ReadAsync(cancellation).ConfigureAwait(false)
                ? new ServerFacts(reader.GetBoolean(0), Seconds(reader, 1), reader.GetInt32(2), Seconds(reader, 3))
                : null;
        }
        catch (PostgresException)
        {
            return null; // outside a transaction, so the session is as good as before
        }
    }

    private static async Task<ServerScan> ScanAsync(NpgsqlConnection connection, string clients, CancellationToken cancellation)
    {
        TcpEndPoint? server;
        TcpEndPoint? self;
        bool isInRecovery, maySeeAll, maySignal;
        string version, role;
        int limit, connections;
        await using (var command = Command(connection, Identify))
        await using (var reader = await command.ExecuteReaderAsync(cancellation).ConfigureAwait(false))
        {
            if (!await reader.ReadAsync(cancellation).ConfigureAwait(false))
            {
                throw new ServerProbeException("the server's answer is empty");
            }

            server = EndPoint(reader, 0);
            self = EndPoint(reader, 2);
            isInRecovery = reader.GetBoolean(4);
            maySeeAll = reader.GetBoolean(5);
            maySignal = reader.GetBoolean(6);
            version = reader.GetString(7);
            limit = reader.GetInt32(8);
            connections = reader.GetInt32(9);
            role = reader.GetString(10);
        }

        var facts = await ReadFactsAsync(connection, cancellation).ConfigureAwait(false);
        var sessions = new List<ServerSession>();
        var complete = true;
        await using (var command = Command(connection, ListSessions))
        {
            command.Parameters.Add(new NpgsqlParameter<string> { TypedValue = clients });
            command.Parameters.Add(new NpgsqlParameter<int> { TypedValue = MostSessions + 1 });
            await using var reader = await command.ExecuteReaderAsync(cancellation).ConfigureAwait(false);
            while (await reader.ReadAsync(cancellation).ConfigureAwait(false))
            {
                if (sessions.Count == MostSessions)
                {
                    complete = false;
                    break;
                }

                // What cannot be true is left out: then nothing is known of that back-end, and nothing follows.
                if (EndPoint(reader, 2) is not { } client || reader.IsDBNull(1) || Seconds(reader, 7) is not { } age || age < TimeSpan.Zero)
                {
                    complete = false;
                    continue;
                }

                sessions.Add(new ServerSession(
                    reader.GetInt32(0),
                    reader.GetDateTime(1),
                    client,
                    reader.IsDBNull(4) ? null : reader.GetString(4),
                    reader.IsDBNull(5) ? "" : reader.GetString(5),
                    reader.IsDBNull(6) ? "" : reader.GetString(6),
                    age,
                    Seconds(reader, 8),
                    Seconds(reader, 9),
                    Seconds(reader, 10)) { HoldsState = reader.GetBoolean(11) });
            }

            if (!complete)
            {
                command.Cancel();
            }
        }

        return new ServerScan
        {
            Version = version,
            Server = server,
            Self = self,
            IsInRecovery = isInRecovery,
            MaySeeAll = maySeeAll,
            MaySignal = maySignal,
            Role = role,
            ConnectionLimit = limit > 0 ? limit : null,
            Connections = connections,
            Facts = facts,
            Sessions = sessions,
            IsComplete = complete,
        };
    }

    private static TcpEndPoint? EndPoint(NpgsqlDataReader reader, int column) =>
        !reader.IsDBNull(column) && !reader.IsDBNull(column + 1) && IPAddress.TryParse(reader.GetString(column), out var address)
            && reader.GetInt32(column + 1) is > 0 and <= ushort.MaxValue and var port
            ? TcpEndPoint.From(address, port)
            : null;

    private static TimeSpan? Seconds(NpgsqlDataReader reader, int column) =>
        !reader.IsDBNull(column) && reader.GetDouble(column) is > -MostSeconds and < MostSeconds and var seconds ? TimeSpan.FromSeconds(seconds) : null;

    private static NpgsqlCommand Command(NpgsqlConnection connection, string text)
    {
        var command = connection.CreateCommand();
#pragma warning disable CA2100 // the texts are the constants above; values go by parameters
        command.CommandText = text;
#pragma warning restore CA2100
        return command;
    }

    /// <summary>
    /// Asks on the open session, or on a new one. Whatever goes wrong ends the session, for its state is not known then,
    /// and becomes one kind of exception. The deadline holds even where the driver's own does not.
    /// </summary>
    private async Task<T> AskAsync<T>(Func<NpgsqlConnection, Task<T>> ask, CancellationToken cancellation)
    {
        try
        {
            _connection ??= await OpenAsync(cancellation).WaitAsync(Deadline + Deadline, cancellation).ConfigureAwait(false);
            return await ask(_connection).WaitAsync(Deadline + Deadline, cancellation).ConfigureAwait(false);
        }
        catch (Exception e) when (!cancellation.IsCancellationRequested)
        {
            _ = CloseAsync();
            throw e as ServerProbeException ?? new ServerProbeException(e switch
            {
                DsnFileException => e.Message,
                PostgresException server => $"the server says {server.SqlState}: {server.MessageText}",
                TimeoutException or { InnerException: TimeoutException } => "the server does not answer in time",
                NpgsqlException { InnerException: SocketException refused } when e.Message.StartsWith(ConnectingToPath, StringComparison.Ordinal) =>
                    UnixSocketError.Describe(e.Message[(ConnectingToPath.Length - 1)..], refused),
                NpgsqlException { InnerException: { } inner } => $"{e.Message}: {inner.Message}",
                NpgsqlException => e.Message,
                _ => $"the server's answer cannot be read ({e.GetType().Name})",
            });
        }
    }

    private async Task<NpgsqlConnection> OpenAsync(CancellationToken cancellation)
    {
        var dsn = readDsn();
        dsn.ApplicationName = ApplicationName;
        dsn.Pooling = false;
        dsn.Multiplexing = false;
        dsn.Enlist = false;
        dsn.Timeout = (int)Deadline.TotalSeconds;
        dsn.CommandTimeout = (int)Deadline.TotalSeconds;
        dsn.CancellationTimeout = -1;
        dsn.IncludeErrorDetail = false;
        var builder = new NpgsqlSlimDataSourceBuilder(dsn.ConnectionString);
        builder.EnableTransportSecurity();
        builder.EnableIntegratedSecurity();
        _source = builder.Build();
        return await _source.OpenConnectionAsync(cancellation).ConfigureAwait(false);
    }

    private async Task CloseAsync()
    {
        var (connection, source) = (_connection, _source);
        (_connection, _source) = (null, null);
        try
        {
            if (connection is not null)
            {
                await connection.DisposeAsync().ConfigureAwait(false);
            }

            if (source is not null)
            {
                await source.DisposeAsync().ConfigureAwait(false);
            }
        }
        catch (Exception e) when (e is not OutOfMemoryException)
        {
            // it was broken already
        }
    }
}
