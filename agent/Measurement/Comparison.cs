using System.Diagnostics;
using Sidecar.Probes.Ladder;

namespace Sidecar.Agent.Measurement;

/// <summary>
/// The two connections that do not idle: one that only keepalives refresh, and one that application data refreshes. What
/// has become of them when others were lost says what the path counts.
/// </summary>
internal sealed class Comparison(LadderConnection keepaliveOnly) : IDisposable
{
    private static readonly TimeSpan ExchangePatience = TimeSpan.FromSeconds(3);
    private static readonly TimeSpan LastPatience = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan ServerFirstPatience = TimeSpan.FromSeconds(1.5);

    private readonly SemaphoreSlim _gate = new(1, 1);
    private LadderConnection? _refreshed;
    private TimeSpan _interval;
    private bool _refreshedLives;
    private long _refreshedAt;
    private Task _exchange = Task.CompletedTask;

    /// <summary>Whether the connection with keepalives only outlived the timeout; null when that was not seen.</summary>
    public bool? KeepaliveRefreshes { get; private set; }

    /// <summary>Whether the connection with application data outlived the timeout; null when that was not seen.</summary>
    public bool? PayloadRefreshes { get; private set; }

    /// <summary>The session by which the server can be made to speak on another one; null where there is none.</summary>
    public PostgreSqlLadderConnection? Speaker => _refreshedLives ? _refreshed as PostgreSqlLadderConnection : null;

    /// <summary>Switches the keepalives on, one a second until more is known to be survived.</summary>
    /// <param name="refreshed">The connection for application data; null where there is none to send.</param>
    public void Begin(LadderConnection? refreshed)
    {
        _interval = TimeSpan.FromSeconds(1);
        keepaliveOnly.Socket.KeepAliveEvery(_interval);
        (_refreshed, _refreshedLives, _refreshedAt) = (refreshed, refreshed is not null, Stopwatch.GetTimestamp());
    }

    /// <summary>Keeps the two refreshed, at a third of the shortest time that may matter.</summary>
    /// <param name="lower">Longest gap known to be survived.</param>
    public void Refresh(TimeSpan lower, CancellationToken cancellation)
    {
        var interval = TimeSpan.FromSeconds(Math.Max(1, Math.Floor(lower.TotalSeconds / 3)));
        if (interval > _interval * 2)
        {
            _interval = interval;
            keepaliveOnly.Socket.KeepAliveEvery(interval);
        }

        if (_refreshed is not null && _refreshedLives && Stopwatch.GetElapsedTime(_refreshedAt) >= _interval && _gate.Wait(0, cancellation))
        {
            _refreshedAt = Stopwatch.GetTimestamp();
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

    /// <summary>Tests both: what they have survived is longer than a gap that was lost.</summary>
    public async Task TestAsync(CancellationToken cancellation)
    {
        try
        {
            KeepaliveRefreshes = (await keepaliveOnly.TestAsync(cancellation)).Lost is null;
            if (_refreshed is not null)
            {
                PayloadRefreshes = _refreshedLives && await _refreshed.ExchangeAsync(LastPatience, cancellation) == ExchangeOutcome.Answered;
            }
        }
        catch (OperationCanceledException)
        {
            // Out of time: these two stay unknown.
        }
    }

    public async Task CloseAsync()
    {
        if (KeepaliveRefreshes == false)
        {
            keepaliveOnly.Socket.AbortOnClose();
        }

        await keepaliveOnly.DisposeAsync();
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
