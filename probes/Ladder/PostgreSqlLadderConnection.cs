using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Npgsql;
using Sidecar.Probes.Namespaces;

namespace Sidecar.Probes.Ladder;

/// <summary>An authenticated PostgreSQL session that idles. Its application data is <c>SELECT 1</c>.</summary>
public sealed class PostgreSqlLadderConnection : LadderConnection
{
    // Finding out which socket belongs to a new session compares the sockets before and after: one at a time.
    private static readonly SemaphoreSlim Opening = new(1, 1);

    // How long a loaded server may take for SELECT 1 once it has acknowledged it.
    private static readonly TimeSpan ServerPatience = TimeSpan.FromSeconds(10);

    private readonly NpgsqlConnection _session;
    private readonly string _channel;

    private PostgreSqlLadderConnection(NpgsqlConnection session, OwnSocket socket, string channel, bool canListen)
        : base(socket, TimeProvider.System)
    {
        _session = session;
        _channel = channel;
        CanListen = canListen;
    }

    public override bool HasPayload => true;

    /// <summary>Process id of the server's backend.</summary>
    public int BackendProcess { get; private init; }

    /// <summary>When the backend started, by the server's clock: with the process id, the session's identity.</summary>
    public DateTime BackendStart { get; private init; }

    /// <summary>Whether the server can be made to speak first on this session (not on a standby).</summary>
    public bool CanListen { get; }

    /// <summary>The channel on which it listens, a name of its own.</summary>
    public string Channel => _channel;

    /// <summary>The session, for the questions that the ladder asks before and after.</summary>
    internal NpgsqlConnection Session => _session;

    /// <summary>Opens a session and settles.</summary>
    /// <exception cref="NpgsqlException">The server refuses, or does not answer.</exception>
    /// <exception cref="InvalidOperationException">The session's socket could not be told from others to the same server.</exception>
    public static async Task<PostgreSqlLadderConnection> OpenAsync(
        NetworkNamespace? network, string connectionString, IPEndPoint endpoint, CancellationToken cancellation)
    {
        var session = new NpgsqlConnection(connectionString);
        try
        {
            var socket = await ConnectAsync(network, session, endpoint, cancellation);
            var channel = string.Create(CultureInfo.InvariantCulture, $"conn_sidecar_{session.ProcessID}_{Random.Shared.Next():x}");
            var start = (DateTime)(await ScalarAsync(session, "SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()", cancellation))!;
            var canListen = await TryListenAsync(session, channel, cancellation);
            var connection = new PostgreSqlLadderConnection(session, socket, channel, canListen) { BackendProcess = session.ProcessID, BackendStart = start };
            await connection.SettleAsync(cancellation);
            return connection;
        }
        catch
        {
            await session.DisposeAsync();
            throw;
        }
    }

    public override async Task<ExchangeOutcome> ExchangeAsync(TimeSpan patience, CancellationToken cancellation)
    {
        var query = ScalarAsync(_session, "SELECT 1", CancellationToken.None);
        try
        {
            await query.WaitAsync(patience, cancellation);
            return ExchangeOutcome.Answered;
        }
        catch (TimeoutException)
        {
            // Acknowledged but not answered: the path is there, and the server takes its time.
            if (Socket.TryReadInfo(out var info) && info.State == OwnSocketInfo.Established && info.Unacknowledged == 0
                && await IsAnsweredAsync(query, cancellation))
            {
                return ExchangeOutcome.Answered;
            }

            await GiveUpAsync(query);
            return ExchangeOutcome.Silent;
        }
        catch (OperationCanceledException)
        {
            await GiveUpAsync(query);
            throw;
        }
        catch (PostgresException e)
        {
            // 57P05 idle_session_timeout; 57P01..57P04: an administrator or a crash ended it.
            return e.SqlState switch
            {
                "57P05" => ExchangeOutcome.PeerAnnounced,
                _ => ExchangeOutcome.Disturbed,
            };
        }
        catch (Exception e) when (e is NpgsqlException or IOException or InvalidOperationException)
        {
            for (var cause = (Exception?)e; cause is not null; cause = cause.InnerException)
            {
                if (cause is SocketException { SocketErrorCode: SocketError.ConnectionReset })
                {
                    return ExchangeOutcome.Reset;
                }

                if (cause is SocketException { SocketErrorCode: SocketError.TimedOut or SocketError.HostUnreachable or SocketError.NetworkUnreachable })
                {
                    return ExchangeOutcome.Silent;
                }
            }

            return ExchangeOutcome.PeerClosed;
        }
    }

    /// <summary>
    /// Lets the server speak first on <paramref name="idle"/>, by a notification sent from this session.
    /// </summary>
    /// <returns>True: it arrived. False: it did not within <paramref name="patience"/>. Null: it could not be sent.</returns>
    public async Task<bool?> NotifyAsync(PostgreSqlLadderConnection idle, TimeSpan patience, CancellationToken cancellation)
    {
        if (!idle.CanListen || !idle.Socket.TryReadInfo(out var before))
        {
            return null;
        }

        try
        {
            await using var command = new NpgsqlCommand("SELECT pg_notify($1, '')", _session);
            command.Parameters.Add(new NpgsqlParameter<string> { TypedValue = idle._channel });
            await command.ExecuteNonQueryAsync(cancellation);
        }
        catch (NpgsqlException)
        {
            return null;
        }

        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        limit.CancelAfter(patience);
        try
        {
            while (idle.Socket.TryReadInfo(out var now) && now.BytesReceived == before.BytesReceived)
            {
                await Task.Delay(20, limit.Token);
            }

            return idle.Socket.TryReadInfo(out var end) && end.BytesReceived > before.BytesReceived;
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            return false;
        }
    }

    protected override async ValueTask CloseAsync()
    {
        try
        {
            await _session.DisposeAsync();
        }
        catch (Exception e) when (e is NpgsqlException or IOException or SocketException)
        {
            // It was lost; there is nobody to say goodbye to.
        }
    }

    internal static async Task<object?> ScalarAsync(NpgsqlConnection session, string sql, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(sql, session) { CommandTimeout = 0 };
        return await command.ExecuteScalarAsync(cancellation);
    }

    private static async Task<bool> IsAnsweredAsync(Task query, CancellationToken cancellation)
    {
        try
        {
            await query.WaitAsync(ServerPatience, cancellation);
            return true;
        }
        catch (Exception e) when (e is TimeoutException or NpgsqlException)
        {
            return false;
        }
    }

    /// <summary>Ends a query that will not be answered, without the cancel request that the library would make.</summary>
    private async Task GiveUpAsync(Task query)
    {
        Socket.AbortOnClose();
        Socket.Shutdown();
        await ((Task)query.ContinueWith(static t => t.Exception, TaskScheduler.Default)).WaitAsync(TimeSpan.FromSeconds(1)).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
    }

    private static async Task<OwnSocket> ConnectAsync(
        NetworkNamespace? network, NpgsqlConnection session, IPEndPoint endpoint, CancellationToken cancellation)
    {
        await Opening.WaitAsync(cancellation);
        try
        {
            var known = OwnSocket.ConnectedTo(endpoint).Select(s => s.Cookie).ToHashSet();
            await OpenInsideAsync(network, session, cancellation);
            var candidates = OwnSocket.ConnectedTo(endpoint).Where(s => !known.Contains(s.Cookie)).ToArray();
            return candidates.Length == 1 ? candidates[0] : await TellApartAsync(session, candidates, cancellation);
        }
        finally
        {
            Opening.Release();
        }
    }

    internal static Task OpenInsideAsync(NetworkNamespace? network, NpgsqlConnection session, CancellationToken cancellation)
    {
        if (network is null || network.IsOwn)
        {
            return session.OpenAsync(cancellation);
        }

        // The blocking way to open makes the socket on the calling thread, which is what setns moves.
        return Task.Run(
            () => network.Run(() =>
            {
                session.Open();
                return true;
            }),
            cancellation);
    }

    private static async Task<bool> TryListenAsync(NpgsqlConnection session, string channel, CancellationToken cancellation)
    {
        try
        {
            // Once the path has forgotten it, a notification that nobody acknowledges ends it, without a FATAL in the server's log.
            await ScalarAsync(session, "SELECT set_config(name, '5000', false) FROM pg_settings WHERE name = 'tcp_user_timeout'", cancellation);
            await using var command = new NpgsqlCommand("LISTEN " + channel, session);
            await command.ExecuteNonQueryAsync(cancellation);
            return true;
        }
        catch (PostgresException)
        {
            return false; // a standby, or a pooler that refuses
        }
    }

    /// <summary>Another session of this process to the same server began at the same moment: an answer of known length tells them apart.</summary>
    private static async Task<OwnSocket> TellApartAsync(NpgsqlConnection session, OwnSocket[] candidates, CancellationToken cancellation)
    {
        const int length = 3000;
        var before = candidates.Select(c => c.TryReadInfo(out var info) ? info.BytesReceived : ulong.MaxValue).ToArray();
        await ScalarAsync(session, "SELECT repeat('x', 3000)", cancellation);
        var moved = candidates.Where((c, i) => c.TryReadInfo(out var info) && before[i] != ulong.MaxValue && info.BytesReceived - before[i] >= length).ToArray();
        return moved.Length == 1
            ? moved[0]
            : throw new InvalidOperationException($"the session's socket could not be found among {candidates.Length} new ones");
    }
}
