using System.Globalization;
using System.Net;
using Npgsql;
using Sidecar.Probes.Ladder;
using Sidecar.Probes.Namespaces;

namespace Sidecar.Probes.PostgreSql;

/// <summary>How many of the server's connection slots are free.</summary>
/// <param name="Free">Slots that an ordinary session may still take, the asking session's own not counted.</param>
/// <param name="Total">Slots for ordinary sessions.</param>
/// <param name="Limit">What sets the limit: <c>max_connections</c>, or the role's or database's own limit.</param>
public sealed record ServerSlots(int Free, int Total, string Limit);

/// <summary>A session of a ladder as the server knows it.</summary>
/// <param name="Process">Process id of its back-end.</param>
/// <param name="Start">backend_start: with the process id its identity.</param>
/// <param name="Channel">The channel on which it listens.</param>
public readonly record struct LadderSession(int Process, DateTime Start, string Channel)
{
    public static LadderSession Of(PostgreSqlLadderConnection connection) => new(connection.BackendProcess, connection.BackendStart, connection.Channel);
}

/// <summary>Opens the ladder's PostgreSQL sessions, counts what the server can spare, and leaves nothing behind.</summary>
public sealed class LadderSessions
{
    /// <summary>What the sessions call themselves in pg_stat_activity.</summary>
    public const string ApplicationName = "conn-sidecar";

    private readonly string _connectionString;
    private readonly NetworkNamespace? _network;
    private readonly List<LadderSession> _opened = [];

    /// <summary>Prepares; nothing is opened yet.</summary>
    /// <param name="network">Where the sessions are opened; null: where this process lives.</param>
    /// <param name="dsn">Credentials and database; host and port are replaced by <paramref name="endpoint"/>.</param>
    /// <param name="host">The host as the operator named it, for certificate verification.</param>
    public LadderSessions(NetworkNamespace? network, NpgsqlConnectionStringBuilder dsn, string host, IPEndPoint endpoint)
    {
        _network = network;
        Endpoint = endpoint;
        // Only verify-full compares the name; anything else must reach the address that is being measured.
        var builder = new NpgsqlConnectionStringBuilder(dsn.ConnectionString)
        {
            Host = dsn.SslMode == SslMode.VerifyFull ? host : endpoint.Address.ToString(),
            Port = endpoint.Port,
            ApplicationName = ApplicationName,
            Pooling = false,
            KeepAlive = 0,
            TcpKeepAlive = false,
            Timeout = 10,
            CommandTimeout = 10,
            CancellationTimeout = -1,
            IncludeErrorDetail = false,
            Multiplexing = false,
            Enlist = false,
        };
        _connectionString = builder.ConnectionString;
    }

    public IPEndPoint Endpoint { get; }

    /// <summary>Opens one session.</summary>
    /// <exception cref="NpgsqlException">The server refuses, or does not answer.</exception>
    public async Task<PostgreSqlLadderConnection> OpenAsync(CancellationToken cancellation)
    {
        var session = await PostgreSqlLadderConnection.OpenAsync(_network, _connectionString, Endpoint, cancellation);
        _opened.Add(LadderSession.Of(session));
        return session;
    }

    /// <summary>Asks how many slots are free: of the server, of the role and of the database, whichever is least.</summary>
    /// <exception cref="NpgsqlException">The server does not answer.</exception>
    public static async Task<ServerSlots> CountSlotsAsync(PostgreSqlLadderConnection session, CancellationToken cancellation)
    {
        const string sql = $"""
            SELECT {SessionProbe.Slots},
                   (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user),
                   (SELECT count(*)::int FROM pg_stat_activity WHERE datid IS NOT NULL AND usename = current_user),
                   (SELECT datconnlimit FROM pg_database WHERE datname = current_database()),
                   (SELECT count(*)::int FROM pg_stat_activity WHERE usesysid IS NOT NULL AND datname = current_database())
            """;
        await using var command = new NpgsqlCommand(sql, session.Session);
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        await reader.ReadAsync(cancellation);
        var limits = new List<ServerSlots> { new(reader.GetInt32(0) - reader.GetInt32(1), reader.GetInt32(0), "max_connections") };
        if (reader.GetInt32(2) >= 0)
        {
            limits.Add(new ServerSlots(reader.GetInt32(2) - reader.GetInt32(3), reader.GetInt32(2), "the role's connection limit"));
        }

        if (reader.GetInt32(4) >= 0)
        {
            limits.Add(new ServerSlots(reader.GetInt32(4) - reader.GetInt32(5), reader.GetInt32(4), "the database's connection limit"));
        }

        var least = limits.MinBy(l => l.Free)!;
        return least with { Free = Math.Max(0, least.Free) };
    }

    /// <summary>
    /// Ends the sessions that the server still holds because the path forgot them, and waits until none is left.
    /// Call it when the ladder's connections are closed.
    /// </summary>
    /// <param name="gently">Rather wait for some seconds than have the server log an ended session as FATAL.</param>
    /// <param name="patience">How long it may take.</param>
    /// <returns>Sessions of ours that are still there (0 when all is as before), or null when the server could not be asked.</returns>
    public async Task<int?> LeaveNothingAsync(bool gently, TimeSpan patience)
    {
        if (_opened.Count == 0)
        {
            return 0;
        }

        using var limit = new CancellationTokenSource(patience);
        try
        {
            return await EndAsync(await OpenForEndingAsync(limit.Token), [.. _opened], gently, limit.Token);
        }
        catch (Exception e) when (e is OperationCanceledException or NpgsqlException)
        {
            return null;
        }
    }

    /// <summary>A session through which others are ended: it shows that the path is up as well.</summary>
    /// <exception cref="NpgsqlException">The server refuses, or does not answer.</exception>
    public async Task<NpgsqlConnection> OpenForEndingAsync(CancellationToken cancellation)
    {
        var session = new NpgsqlConnection(_connectionString);
        try
        {
            await PostgreSqlLadderConnection.OpenInsideAsync(_network, session, cancellation);
            return session;
        }
        catch
        {
            await session.DisposeAsync();
            throw;
        }
    }

    /// <summary>
    /// Ends those sessions, as far as they are still there. Asked to be gentle it first notifies them: nobody acknowledges that,
    /// and their kernel gives them up after tcp_user_timeout, which they have set.
    /// </summary>
    /// <param name="session">From <see cref="OpenForEndingAsync"/>; it is closed in the end.</param>
    /// <param name="which">Sessions that are lost or closed.</param>
    /// <param name="gently">See above.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <returns>How many are left: 0.</returns>
    /// <exception cref="NpgsqlException">The server does not answer any more.</exception>
    public static async Task<int> EndAsync(NpgsqlConnection session, IReadOnlyList<LadderSession> which, bool gently, CancellationToken cancellation)
    {
        // The process id may belong to somebody else by now: the start time and the name must fit as well.
        const string ours = """
            FROM pg_stat_activity s JOIN unnest($1::int[], $2::timestamptz[], $4::text[]) AS o(pid, started, channel)
              ON s.pid = o.pid AND s.backend_start = o.started
            WHERE s.application_name = $3 AND s.usename = current_user AND s.pid <> pg_backend_pid()
            """;
        const int notifyAt = 2;
        var terminateAt = gently ? 100 : notifyAt;
        await using (session)
        {
            var left = await CountAsync(session, "SELECT count(*)::int " + ours, which, cancellation);
            for (var round = 0; left > 0; round++)
            {
                // Those that were closed properly go of their own accord in a moment.
                if (round == terminateAt)
                {
                    await CountAsync(session, "SELECT count(pg_terminate_backend(s.pid))::int " + ours, which, cancellation);
                }
                else if (round == notifyAt)
                {
                    await CountAsync(session, "SELECT count(pg_notify(o.channel, '')::text)::int " + ours, which, cancellation);
                }

                await Task.Delay(100, cancellation);
                left = await CountAsync(session, "SELECT count(*)::int " + ours, which, cancellation);
            }

            return left;
        }
    }

    private static async Task<int> CountAsync(NpgsqlConnection session, string sql, IReadOnlyList<LadderSession> which, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(sql, session);
        command.Parameters.Add(new NpgsqlParameter<int[]> { TypedValue = [.. which.Select(o => o.Process)] });
        command.Parameters.Add(new NpgsqlParameter<DateTime[]> { TypedValue = [.. which.Select(o => o.Start)] });
        command.Parameters.Add(new NpgsqlParameter<string> { TypedValue = ApplicationName });
        command.Parameters.Add(new NpgsqlParameter<string[]> { TypedValue = [.. which.Select(o => o.Channel)] });
        return Convert.ToInt32(await command.ExecuteScalarAsync(cancellation), CultureInfo.InvariantCulture);
    }
}
