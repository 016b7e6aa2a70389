using Microsoft.Extensions.Logging;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Agent.Endpoints;
using Sidecar.Agent.Measurement;
using Sidecar.Agent.Observation;
using Sidecar.Agent.Telemetry;
using Sidecar.Agent.Telemetry.Systemd;

namespace Sidecar.Agent.Service;

/// <summary>
/// One configuration at work: the loop on its thread, the control socket, the HTTP endpoint, the incident store. A reload
/// ends one instance and begins another; metrics, journal and the service manager's view outlive it.
/// </summary>
internal sealed class AgentInstance : IAsyncDisposable
{
    private readonly SidecarConfiguration _configuration;
    private readonly IncidentStore _incidents;
    private readonly BackgroundMeasurement _measurement;
    private readonly Surroundings _surroundings;
    private readonly AgentRooms _rooms;
    private readonly AgentLoop _loop;
    private readonly ILogger _log;
    private readonly CancellationTokenSource _stopping = new();
    private readonly Thread _thread;
    private readonly TaskCompletionSource _firstScan = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly OtlpPush? _push;
    private ControlServer? _control;
    private HttpEndpoint? _http;

    private AgentInstance(SidecarConfiguration configuration, SidecarMetrics metrics, JournalLog log, SystemdNotifier notifier, Clock clock, World? earlier)
    {
        _configuration = configuration;
        _log = log.CreateLogger("agent");
        var selfCheck = SelfCheck.Run(configuration);
        foreach (var limitation in selfCheck.Limitations)
        {
            _log.Limitation(limitation);
        }

        _incidents = new IncidentStore(configuration.Agent.StateDirectory, log.CreateLogger("incidents"), clock.Time);
        // Before the counters are declared, so that their zeros are pushed too.
        _push = configuration.Agent.OtlpEndpoint is { } collector ? new OtlpPush(collector, OtlpPush.Interval) : null;
        metrics.Declare(configuration);
        _measurement = new BackgroundMeasurement(configuration.Agent.StateDirectory, new BackgroundSettings(), log.CreateLogger("measure"), clock.Time);
        _surroundings = new Surroundings(configuration, clock);
        _rooms = new AgentRooms(configuration, metrics, _incidents, log, selfCheck, clock, _measurement, _surroundings, earlier);
        _loop = new AgentLoop(_rooms);
        _thread = new Thread(() => _loop.Run(
            () =>
            {
                notifier.Alive();
                if (_loop.HasScanned)
                {
                    _firstScan.TrySetResult();
                }
            },
            _stopping.Token))
        {
            IsBackground = true,
            Name = "loop",
        };
    }

    /// <summary>Completes when the first scan is done.</summary>
    public Task FirstScan => _firstScan.Task;

    /// <summary>Connections that are watched.</summary>
    public int Watched => _loop.Watched;

    /// <summary>What it knows, for the instance that takes its place.</summary>
    public World World => _rooms.Core.World;

    /// <summary>Begins to work.</summary>
    /// <param name="configuration">What is in force.</param>
    /// <param name="metrics">Instruments.</param>
    /// <param name="log">Journal or stderr.</param>
    /// <param name="loggers">Loggers of the web server.</param>
    /// <param name="notifier">The service manager.</param>
    /// <param name="clock">The same for all instances.</param>
    /// <param name="earlier">What the instance before knew, or null.</param>
    /// <exception cref="ControlException">Another agent serves the runtime directory.</exception>
    /// <exception cref="Probes.KernelException">sock_diag cannot be had at all.</exception>
    public static async Task<AgentInstance> StartAsync(
        SidecarConfiguration configuration, SidecarMetrics metrics, JournalLog log, ILoggerFactory loggers, SystemdNotifier notifier, Clock clock, World? earlier)
    {
        var instance = new AgentInstance(configuration, metrics, log, notifier, clock, earlier);
        try
        {
            await instance.ServeAsync(metrics, loggers).ConfigureAwait(false);
            instance._surroundings.Start();
            instance._thread.Start();
            return instance;
        }
        catch
        {
            await instance.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Waits until no action is under way, so that a worker that was sent TERM is not left half way.</summary>
    public async Task SettleAsync(TimeSpan atMost, CancellationToken cancellation)
    {
        for (var until = _rooms.Eyes.Now + atMost; _loop.IsFollowing && _rooms.Eyes.Now < until;)
        {
            await Task.Delay(100, cancellation).ConfigureAwait(false);
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _stopping.CancelAsync().ConfigureAwait(false);
        var hasEnded = !_thread.IsAlive || _thread.Join(TimeSpan.FromSeconds(10));

        if (_http is not null)
        {
            await _http.DisposeAsync().ConfigureAwait(false);
        }

        if (_control is not null)
        {
            await _control.DisposeAsync().ConfigureAwait(false);
        }

        _push?.Dispose();
        await _measurement.DisposeAsync().ConfigureAwait(false);
        if (!hasEnded)
        {
            // What the thread still uses is not closed under it: a descriptor that is used again could be anybody's socket.
            _log.LoopDoesNotEnd();
            return;
        }

        _rooms.Dispose();
        _surroundings.Dispose();
        _incidents.Dispose();
        _stopping.Dispose();
    }

    private async Task ServeAsync(SidecarMetrics metrics, ILoggerFactory loggers)
    {
        try
        {
            _control = ControlServer.Start(_configuration.Agent.RuntimeDirectory, () => _rooms.Publisher.Last, _incidents.Recent, _rooms.Publisher.RefreshAsync);
        }
        catch (ControlException e) when (e.Failure != ControlFailure.AlreadyRunning)
        {
            // Without it `status` takes its own scan; protection does not depend on it.
            _log.NoControlSocket(e.Message);
        }

        if (_configuration.Agent.Listen is { } listen)
        {
            _http = new HttpEndpoint(
                listen,
                new HttpSources
                {
                    Snapshot = () => _rooms.Publisher.Last,
                    Refresh = _rooms.Publisher.RefreshAsync,
                    Health = Health,
                    Incidents = _incidents.Recent,
                    Metrics = metrics.Aggregator.Scrape,
                    Version = ProductVersion.Text,
                },
                loggers,
                hostNames: _configuration.Agent.HostNames);
            _rooms.EndpointProblem = () => _http?.Problem;
            await _http.StartAsync().ConfigureAwait(false);
        }
    }

    private LoopHealth Health() => new()
    {
        SinceLastTick = _rooms.Eyes.Now - _loop.LastTick,
        ScanInterval = _configuration.Agent.ScanInterval,
        FirstScanDone = _loop.HasScanned,
        NotPossible = _rooms.NotPossible,
    };
}
