using System.Diagnostics;
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
    public static readonly TimeSpan ConnectPatience = TimeSpan.FromSeconds(3);
    private static readonly TimeSpan FreshPatience = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan FreshValidity = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan OutagePatience = TimeSpan.FromMinutes(2);

    private readonly MeasurementTarget _target;
    private readonly LadderSessions? _sessions;
    private int _opened;
    private long _freshAt;
    private long? _outageSince;

    /// <exception cref="MeasurementException">PostgreSQL without credentials.</exception>
    public LadderOpener(MeasurementTarget target)
    {
        _target = target;
        if (target.Protocol == UpstreamProtocol.PostgreSql)
        {
            var dsn = target.Dsn ?? throw new MeasurementException("protocol postgresql needs a DSN file: an unauthenticated session is closed by the server");
            _sessions = new LadderSessions(target.Network, dsn, target.Host, target.Endpoint);
        }
    }

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
    /// <exception cref="MeasurementException">The server is at its connection limit.</exception>
    public async Task<IReadOnlyList<LadderConnection>> OpenAsync(int count, CancellationToken cancellation)
    {
        var opened = await Task.WhenAll(Enumerable.Range(0, count).Select(_ => TryOpenAsync(cancellation)));
        return [.. opened.OfType<LadderConnection>()];
    }

    /// <summary>A plain connection, to be compared with a lost one.</summary>
    /// <exception cref="SocketException">It cannot be had.</exception>
    public async Task<LadderConnection> OpenPlainAsync(CancellationToken cancellation)
    {
        var connection = await TcpLadderConnection.OpenAsync(_target.Network, _target.Endpoint, default, ConnectPatience, cancellation);
        Interlocked.Increment(ref _opened);
        return connection;
    }

    /// <summary>Waits a little while nothing can be opened and nothing idles.</summary>
    /// <exception cref="MeasurementException">It has lasted too long.</exception>
    public async Task WaitOutAsync(CancellationToken cancellation)
    {
        _outageSince ??= Stopwatch.GetTimestamp();
        if (Stopwatch.GetElapsedTime(_outageSince.Value) > OutagePatience)
        {
            throw new MeasurementException($"{_target}: cannot be reached any more; given up after {Duration.ForPeople(OutagePatience)}");
        }

        await Task.Delay(ConnectPatience, cancellation);
    }

    /// <summary>The endpoint can be reached again.</summary>
    public void EndOutage() => _outageSince = null;

    /// <summary>Whether a fresh connection can be made, now or within the last second.</summary>
    public async Task<bool> PathIsUpAsync(CancellationToken cancellation)
    {
        if (_freshAt != 0 && Stopwatch.GetElapsedTime(_freshAt) < FreshValidity)
        {
            return true;
        }

        // Two tries: a single SYN may be lost.
        for (var attempt = 0; attempt < 2; attempt++)
        {
            FreshConnects++;
            if (await TcpLadderConnection.CanConnectAsync(_target.Network, _target.Endpoint, FreshPatience, cancellation))
            {
                _freshAt = Stopwatch.GetTimestamp();
                return true;
            }
        }

        return false;
    }

    /// <summary>Sees to it that no session is left on the server; call it when all connections are closed.</summary>
    /// <returns>False where the server could not be asked, or still holds one after <paramref name="patience"/>.</returns>
    public async Task<bool> LeaveNothingAsync(TimeSpan patience) => _sessions is null || await _sessions.LeaveNothingAsync(patience) is 0;

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
            LadderConnection connection = _sessions is null
                ? await TcpLadderConnection.OpenAsync(_target.Network, _target.Endpoint, _target.Payload, ConnectPatience, cancellation)
                : await _sessions.OpenAsync(cancellation);
            Interlocked.Increment(ref _opened);
            return connection;
        }
        catch (PostgresException e) when (e.SqlState is "53300" or "08004")
        {
            throw new MeasurementException($"{_target}: no ladder: the server is at its connection limit ({e.MessageText})");
        }
    }
}
