using Sidecar.Probes.Ladder;

namespace Sidecar.Agent.Measurement;

/// <summary>
/// Connections that do not idle: some that only keepalives refresh, and one that application data refreshes. What has become
/// of them when others were lost says what the path counts.
/// </summary>
/// <param name="clock">By which they are refreshed.</param>
internal sealed class Comparison(TimeProvider clock) : IDisposable
{
    private static readonly TimeSpan ExchangePatience = TimeSpan.FromSeconds(3);
    private static readonly TimeSpan Late = TimeSpan.FromSeconds(2.5);
    private static readonly TimeSpan ServerFirstPatience = TimeSpan.FromSeconds(1.5);

    private readonly SemaphoreSlim _gate = new(1, 1);
    private readonly List<LadderConnection> _keepaliveOnly = [];
    private readonly List<LossKind> _losses = [];
    private LadderConnection? _refreshed;
    private TimeSpan _interval = TimeSpan.FromSeconds(1);
    private bool _refreshedLives;
    private long _refreshedAt;
    private long _keptSince;
    private long _exchangedSince;
    private Task _exchange = Task.CompletedTask;

    /// <summary>Whether the connections with keepalives only outlived the timeout; null when that was not seen, or not of all alike.</summary>
    public bool? KeepaliveRefreshes { get; private set; }

    /// <summary>Whether a connection with application data outlived the timeout; null when that was not seen.</summary>
    public bool? PayloadRefreshes { get; private set; }

    /// <summary>How the connections with keepalives only were lost.</summary>
    public IReadOnlyList<LossKind> Losses => _losses;

    /// <summary>The session by which the server can be made to speak on another one; null where there is none.</summary>
    public PostgreSqlLadderConnection? Speaker => _refreshedLives ? _refreshed as PostgreSqlLadderConnection : null;

    /// <summary>Takes a connection for keepalives only; one a second until more is known to be survived.</summary>
    public void KeepAlive(LadderConnection connection)
    {
        _keepaliveOnly.Add(connection);
        _keptSince = clock.GetTimestamp();
        connection.Socket.KeepAliveEvery(_interval);
    }

    /// <summary>Takes the connection for application data.</summary>
    public void Exchange(LadderConnection connection)
    {
        (_refreshed, _refreshedLives) = (connection, true);
        _refreshedAt = _exchangedSince = clock.GetTimestamp();
    }

    /// <summary>A connection with keepalives only was lost while the path was up.</summary>
    public bool IsKeepaliveLost { get; private set; }

    /// <summary>Whether there is a connection for application data.</summary>
    public bool HasExchange => _refreshed is not null;

    /// <summary>After so long without an answer two keepalives are wanting.</summary>
    public TimeSpan Overdue => _interval + Late;

    /// <summary>Whether keepalives are answered; where they are not, and that connection has not ended, the path may be down.</summary>
    public bool IsHeard => _keepaliveOnly.TrueForAll(c => !c.Socket.TryReadInfo(out var info) || info.State != OwnSocketInfo.Established || info.SinceHeard < Overdue);

    /// <summary>
    /// Whether one of them lives, which no timeout ends, or was closed by its server: where none does, something else may have ended
    /// the others as well.
    /// </summary>
    public async Task<bool> LivesAsync(CancellationToken cancellation)
    {
        await RestAsync();
        if (_refreshed is not null && _refreshedLives)
        {
            _refreshedAt = clock.GetTimestamp();
            await _gate.WaitAsync(cancellation);
            await ExchangeAsync(_refreshed, cancellation);
        }

        var answers = await Task.WhenAll(_keepaliveOnly.Select(connection => connection.IsHeardAsync(cancellation)));
        _keepaliveOnly.ForEach(connection => connection.Socket.KeepAliveEvery(_interval));
        return _refreshedLives || answers.Any(isHeard => isHeard)
            || _keepaliveOnly.Exists(c => c.Socket.TryReadInfo(out var info) && info.State is not (OwnSocketInfo.Established or OwnSocketInfo.Closed));
    }

    /// <summary>Puts new ones in the place of all, which are lost.</summary>
    /// <param name="opener">Opens them.</param>
    /// <param name="isEvent">Something else than time has ended them: that says nothing about keepalives.</param>
    /// <exception cref="MeasurementException">For a guest: one could not be had.</exception>
    public async Task ReplaceAsync(LadderOpener opener, bool isEvent, CancellationToken cancellation)
    {
        IsKeepaliveLost |= !isEvent;
        var hasExchange = HasExchange;
        foreach (var lost in _keepaliveOnly.Append(_refreshed).OfType<LadderConnection>())
        {
            lost.Socket.AbortOnClose();
            opener.NoteLost(lost);
            await lost.DisposeAsync();
        }

        _keepaliveOnly.Clear();
        (_refreshed, _refreshedLives) = (null, false);
        try
        {
            KeepAlive(await opener.OpenFirstAsync(cancellation));
            if (hasExchange)
            {
                Exchange(await opener.OpenFirstAsync(cancellation));
            }
        }
        catch (MeasurementException) when (!opener.IsGuest)
        {
            // The path is down again: the ladder waits for it with what it has.
        }
    }

    /// <summary>Keeps them refreshed, at a third of the shortest time that may matter.</summary>
    /// <param name="lower">Longest gap known to be survived.</param>
    public void Refresh(TimeSpan lower, CancellationToken cancellation)
    {
        var interval = TimeSpan.FromSeconds(Math.Max(1, Math.Floor(lower.TotalSeconds / 3)));
        if (interval > _interval * 2)
        {
            _interval = interval;
            _keepaliveOnly.ForEach(connection => connection.Socket.KeepAliveEvery(interval));
        }

        if (_refreshed is not null && _refreshedLives && clock.GetElapsedTime(_refreshedAt) >= _interval && _gate.Wait(0, cancellation))
        {
            _refreshedAt = clock.GetTimestamp();
            _exchange = ExchangeAsync(_refreshed, cancellation);
        }
    }

    /// <summary>Lets the server speak first on an idle session.</summary>
    /// <returns>True: it arrived. False: it did not. Null: it could not be sent.</returns>
    public async Task<bool?> LetServerSpeakAsync(PostgreSqlLadderConnection speaker, PostgreSqlLadderConnection idle, CancellationToken cancellation)
    {
        await _gate.WaitAsync(cancellation);
        try
        {
            return await speaker.NotifyAsync(idle, ServerFirstPatience, cancellation);
        }
        finally
        {
            _gate.Release();
        }
    }

    /// <summary>Waits for an exchange that is under way.</summary>
    public Task RestAsync() => _exchange;

    /// <summary>Tests them, after a gap was lost. What has not lasted for longer says nothing.</summary>
    /// <param name="upper">The gap.</param>
    /// <param name="cancellation">Gives up.</param>
    public async Task TestAsync(TimeSpan upper, CancellationToken cancellation)
    {
        try
        {
            var tests = await Task.WhenAll(_keepaliveOnly.Select(connection => connection.TestAsync(cancellation)));
            _losses.AddRange(tests.Select(test => test.Loss).OfType<LossKind>());
            KeepaliveRefreshes = tests.Any(test => test.Disturbed) ? null
                : tests.Length == 0 ? IsKeepaliveLost ? false : null
                : tests.All(test => test.Lost is null) ? IsKeepaliveLost ? false : clock.GetElapsedTime(_keptSince) > upper ? true : null
                : tests.All(test => test.Lost is not null) ? false
                : null;
            if (_refreshed is not null)
            {
                var lives = _refreshedLives && await _refreshed.ExchangeAsync(ExchangePatience, cancellation) == ExchangeOutcome.Answered;
                PayloadRefreshes = !lives || clock.GetElapsedTime(_exchangedSince) > upper ? lives : null;
            }
        }
        catch (OperationCanceledException)
        {
            // Out of time: these stay unknown.
        }
    }

    /// <summary>Closes them.</summary>
    /// <param name="opener">Told of those that were lost.</param>
    public async Task CloseAsync(LadderOpener opener)
    {
        foreach (var connection in _keepaliveOnly)
        {
            if (_losses.Count > 0)
            {
                connection.Socket.AbortOnClose();
                opener.NoteLost(connection);
            }

            await connection.DisposeAsync();
        }

        if (_refreshed is not null)
        {
            await _refreshed.DisposeAsync();
        }
    }

    public void Dispose() => _gate.Dispose();

    private async Task ExchangeAsync(LadderConnection connection, CancellationToken cancellation)
    {
        try
        {
            _refreshedLives = await connection.ExchangeAsync(ExchangePatience, cancellation) == ExchangeOutcome.Answered;
        }
        finally
        {
            _gate.Release();
        }
    }
}
