using System.Net.Sockets;
using Npgsql;
using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Ladder;
using Sidecar.Probes.PostgreSql;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Measurement;

/// <summary>Opens the connections of a ladder and counts them; tells a lost connection from an outage by a fresh one.</summary>
internal sealed class LadderOpener
{
    private static readonly TimeSpan OutagePause = TimeSpan.FromSeconds(3);

    /// <summary>Ending sessions gently takes tcp_user_timeout and a retransmission beyond it.</summary>
    private static readonly TimeSpan EndPatience = TimeSpan.FromSeconds(15);
    private static readonly TimeSpan FreshPatience = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan FreshValidity = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan OutagePatience = TimeSpan.FromMinutes(2);

    /// <summary>A guest connects no more often than this.</summary>
    private static readonly TimeSpan GuestPace = TimeSpan.FromSeconds(1);

    private readonly MeasurementTarget _target;
    private readonly LadderSessions? _sessions;
    private readonly ILadderWire _wire;
    private readonly bool _isGuest;
    private readonly List<LadderSession> _lost = [];
    private readonly Queue<int> _lostPorts = [];
    private int _opened;
    private long _connectedAt;
    private Task _ending = Task.CompletedTask;
    private long _freshAt;
    private long? _outageSince;

    /// <summary>Prepares; nothing is opened yet.</summary>
    /// <param name="target">What is connected to.</param>
    /// <param name="isGuest">No more than one SYN a second, and one that is refused or not answered ends all.</param>
    /// <param name="wire">What it is opened over; null: the network.</param>
    /// <exception cref="MeasurementException">PostgreSQL without credentials.</exception>
    public LadderOpener(MeasurementTarget target, bool isGuest = false, ILadderWire? wire = null)
    {
        _target = target;
        _isGuest = isGuest;
        if (target.Protocol == UpstreamProtocol.PostgreSql)
        {
            var dsn = target.Dsn ?? throw new MeasurementException("protocol postgresql needs a DSN file: an unauthenticated session is closed by the server");
            _sessions = new LadderSessions(target.Network, dsn, target.Host, target.Endpoint);
        }

        _wire = wire ?? new NetworkWire(target, _sessions);
    }

    /// <summary>The clock by which connections idle.</summary>
    public TimeProvider Clock => _wire.Clock;

    /// <summary>The first connection that cannot be had ends all.</summary>
    public bool IsGuest => _isGuest;

    /// <summary>Connections opened to idle or to compare with.</summary>
    public int Opened => _opened;

    /// <summary>Connections opened and closed at once.</summary>
    public int FreshConnects { get; private set; }

    /// <summary>Opens a connection without which nothing can be measured.</summary>
    /// <exception cref="MeasurementException">It cannot be had; the message says why.</exception>
    public async Task<LadderConnection> OpenFirstAsync(CancellationToken cancellation)
    {
        try
        {
            return await OpenAsync(cancellation);
        }
        catch (SocketException e)
        {
            throw new MeasurementException($"{_target}: cannot connect: {e.Message}");
        }
        catch (NpgsqlException e)
        {
            throw new MeasurementException($"{_target}: cannot open a session: {e.InnerException?.Message ?? e.Message}");
        }
    }

    /// <summary>Opens so many connections side by side; those that could not be had are missing in the result.</summary>
    /// <exception cref="MeasurementException">The server is at its connection limit; for a guest any that cannot be had.</exception>
    public async Task<IReadOnlyList<LadderConnection>> OpenAsync(int count, CancellationToken cancellation)
    {
        if (_isGuest)
        {
            // One for each step: those that have come are idling while the next one waits for its second.
            return [await OpenFirstAsync(cancellation)];
        }

        var opened = await Task.WhenAll(Enumerable.Range(0, count).Select(_ => TryOpenAsync(cancellation)));
        return [.. opened.OfType<LadderConnection>()];
    }

    /// <summary>A plain connection, to be compared with a lost one.</summary>
    /// <exception cref="SocketException">It cannot be had.</exception>
    public async Task<LadderConnection> OpenPlainAsync(CancellationToken cancellation)
    {
        await PaceAsync(cancellation);
        var connection = await _wire.OpenPlainAsync(cancellation);
        Interlocked.Increment(ref _opened);
        return connection;
    }

    /// <summary>Where the state of a connection is lost.</summary>
    public Task<HopFinding> FindHopAsync(LadderConnection forgotten, LadderConnection living, CancellationToken cancellation) =>
        _wire.FindHopAsync(forgotten, living, cancellation);

    /// <summary>Waits a little while nothing can be opened and nothing idles.</summary>
    /// <exception cref="MeasurementException">It has lasted too long.</exception>
    public async Task WaitOutAsync(CancellationToken cancellation)
    {
        _outageSince ??= Clock.GetTimestamp();
        if (Clock.GetElapsedTime(_outageSince.Value) > OutagePatience)
        {
            throw new MeasurementException($"{_target}: cannot be reached any more; given up after {Duration.ForPeople(OutagePatience)}");
        }

        await Task.Delay(OutagePause, Clock, cancellation);
    }

    /// <summary>The endpoint can be reached again.</summary>
    public void EndOutage() => _outageSince = null;

    /// <summary>True while lost sessions are being ended on the server: a guest opens no others meanwhile.</summary>
    public bool IsEnding => !_ending.IsCompleted;

    /// <summary>A connection was closed that the path has forgotten: the server may still hold it.</summary>
    public void NoteLost(LadderConnection connection)
    {
        if (_isGuest && connection is PostgreSqlLadderConnection session)
        {
            _lost.Add(LadderSession.Of(session));
        }
        else if (_sessions is null)
        {
            _lostPorts.Enqueue(connection.Socket.LocalPort);
        }
    }

    /// <summary>Whether a fresh connection can be made, now or within the last second. Lost sessions are ended by it.</summary>
    /// <exception cref="MeasurementException">For a guest: it cannot.</exception>
    public async Task<bool> PathIsUpAsync(CancellationToken cancellation)
    {
        if (_lost.Count > 0)
        {
            await EndLostAsync(cancellation);
            return true;
        }

        if (_freshAt != 0 && _lostPorts.Count == 0 && Clock.GetElapsedTime(_freshAt) < FreshValidity)
        {
            return true;
        }

        if (await TryConnectAsync(_lostPorts.TryDequeue(out var port) ? port : 0, cancellation))
        {
            _freshAt = Clock.GetTimestamp();
            return true;
        }

        return _isGuest ? throw new MeasurementException($"{_target}: cannot be reached any more") : false;
    }

    /// <summary>Ends the lost sessions that the server may still hold.</summary>
    /// <exception cref="MeasurementException">It cannot be reached.</exception>
    public async Task EndLostAsync(CancellationToken cancellation)
    {
        await FreeAsync(cancellation);
        if (_lost.Count == 0)
        {
            return;
        }

        await _ending.WaitAsync(cancellation);
        await PaceAsync(cancellation);
        FreshConnects++;
        LadderSession[] lost = [.. _lost];
        _lost.Clear();
        try
        {
            _ending = EndAsync(await _sessions!.OpenForEndingAsync(cancellation), lost, cancellation);
        }
        catch (NpgsqlException e)
        {
            throw new MeasurementException($"{_target}: cannot be reached any more: {e.InnerException?.Message ?? e.Message}");
        }
    }

    /// <summary>Sees to it that no session is left on the server; call it when all connections are closed.</summary>
    /// <param name="gently">There is time to spare the server's log.</param>
    /// <returns>False where the server could not be asked, or still holds one.</returns>
    public async Task<bool> LeaveNothingAsync(bool gently)
    {
        await _ending.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await FreeAsync(CancellationToken.None);
        return _sessions is null || await _sessions.LeaveNothingAsync(_isGuest && gently, EndPatience) is 0;
    }

    /// <summary>Has the server give up connections that the path has forgotten; where an address translator stands between, it may not.</summary>
    private async Task FreeAsync(CancellationToken cancellation)
    {
        for (var start = Clock.GetTimestamp(); _lostPorts.TryDequeue(out var port) && Clock.GetElapsedTime(start) < EndPatience;)
        {
            // Where the path is down the others would wait in vain, too.
            if (!await TryConnectAsync(port, cancellation))
            {
                return;
            }
        }
    }

    /// <summary>Two tries: a single SYN may be lost, and its retransmission.</summary>
    private async Task<bool> TryConnectAsync(int port, CancellationToken cancellation)
    {
        var isUp = false;
        for (var attempt = 0; attempt < 2 && !isUp; attempt++)
        {
            await PaceAsync(cancellation);
            FreshConnects++;
            isUp = await _wire.CanConnectAsync(port, FreshPatience, cancellation);
        }

        return isUp;
    }

    private static async Task EndAsync(NpgsqlConnection session, LadderSession[] lost, CancellationToken cancellation)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        limit.CancelAfter(EndPatience);
        try
        {
            await LadderSessions.EndAsync(session, lost, gently: true, limit.Token);
        }
        catch (Exception e) when (e is OperationCanceledException or NpgsqlException)
        {
            // Asked again in the end.
        }
    }

    private async Task<LadderConnection?> TryOpenAsync(CancellationToken cancellation)
    {
        try
        {
            return await OpenAsync(cancellation);
        }
        catch (Exception e) when (e is SocketException or NpgsqlException)
        {
            return null;
        }
    }

    private async Task<LadderConnection> OpenAsync(CancellationToken cancellation)
    {
        try
        {
            await PaceAsync(cancellation);
            var connection = await _wire.OpenAsync(cancellation);
            Interlocked.Increment(ref _opened);
            return connection;
        }
        catch (PostgresException e) when (e.SqlState is "53300" or "08004")
        {
            throw new MeasurementException($"{_target}: no ladder: the server is at its connection limit ({e.MessageText})");
        }
    }

    private async Task PaceAsync(CancellationToken cancellation)
    {
        if (!_isGuest)
        {
            return;
        }

        if (_connectedAt != 0 && GuestPace - Clock.GetElapsedTime(_connectedAt) is var left && left > TimeSpan.Zero)
        {
            await Task.Delay(left, Clock, cancellation);
        }

        _connectedAt = Clock.GetTimestamp();
    }
}
