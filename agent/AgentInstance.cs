using Microsoft.Extensions.Logging;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Control;
using Sidecar.Agent.Measurement;
using Sidecar.Agent.Stack;
using Sidecar.Agent.Telemetry;
using Sidecar.Agent.Telemetry.Systemd;

namespace Sidecar.Agent;

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
    private readonly SidecarLoop _loop;
    private readonly Func<TimeSpan> _clock = SidecarLoop.MonotonicClock();
    private readonly CancellationTokenSource _stopping = new();
    private readonly Thread _thread;
    private readonly TaskCompletionSource _firstLook = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly OtlpPush? _push;
    private ControlServer? _control;
    private HttpEndpoint? _http;

    private AgentInstance(SidecarConfiguration configuration, SidecarMetrics metrics, JournalLog log, SystemdNotifier notifier)
    {
        _configuration = configuration;
        var selfCheck = SelfCheck.Run(configuration);
        foreach (var limitation in selfCheck.Limitations)
        {
            log.Write(LogLevel.Warning, limitation, MessageIds.Limitation);
        }

        _incidents = new IncidentStore(configuration.Agent.StateDirectory, log.CreateLogger("incidents"), TimeProvider.System);
        // Before the counters are declared, so that their zeros are pushed too.
        _push = configuration.Agent.OtlpEndpoint is { } collector ? new OtlpPush(collector, OtlpPush.Interval) : null;
        metrics.Declare(configuration);
        _measurement = new BackgroundMeasurement(configuration.Agent.StateDirectory, new BackgroundSettings(), log.CreateLogger("measure"), TimeProvider.System);
        _surroundings = new Surroundings(configuration, _clock);
        _loop = new SidecarLoop(configuration, metrics, _incidents, log, selfCheck, _clock, _measurement, _surroundings);
        _thread = new Thread(() => _loop.Run(
            () =>
            {
                notifier.Alive();
                if (_loop.HasLooked)
                {
                    _firstLook.TrySetResult();
                }
            },
            _stopping.Token))
        {
            IsBackground = true,
            Name = "loop",
        };
    }

    /// <summary>Completes when the first look is done.</summary>
    public Task FirstLook => _firstLook.Task;

    /// <summary>Connections that are watched.</summary>
    public int Watched => _loop.Watched;

    /// <summary>Begins to work.</summary>
    /// <exception cref="ControlException">Another agent serves the runtime directory.</exception>
    /// <exception cref="Probes.KernelException">sock_diag cannot be had at all.</exception>
    public static async Task<AgentInstance> StartAsync(
        SidecarConfiguration configuration, SidecarMetrics metrics, JournalLog log, ILoggerFactory loggers, SystemdNotifier notifier)
    {
        var instance = new AgentInstance(configuration, metrics, log, notifier);
        try
        {
            await instance.ServeAsync(metrics, log, loggers).ConfigureAwait(false);
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
        for (var until = _clock() + atMost; _loop.IsFollowing && _clock() < until;)
        {
            await Task.Delay(100, cancellation).ConfigureAwait(false);
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _stopping.CancelAsync().ConfigureAwait(false);
        if (_thread.IsAlive)
        {
            _thread.Join(TimeSpan.FromSeconds(10));
        }

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
        _loop.Dispose();
        _surroundings.Dispose();
        _incidents.Dispose();
        _stopping.Dispose();
    }

    private async Task ServeAsync(SidecarMetrics metrics, JournalLog log, ILoggerFactory loggers)
    {
        try
        {
            _control = ControlServer.Start(_configuration.Agent.RuntimeDirectory, () => _loop.Snapshot, _incidents.Recent);
        }
        catch (ControlException e) when (e.Failure != ControlFailure.AlreadyRunning)
        {
            // Without it `status` takes its own look; protection does not depend on it.
            log.Write(LogLevel.Error, e.Message);
        }

        if (_configuration.Agent.Listen is { } listen)
        {
            _http = new HttpEndpoint(
                listen,
                new HttpSources
                {
                    Snapshot = () => _loop.Snapshot,
                    Health = Health,
                    Incidents = _incidents.Recent,
                    Metrics = metrics.Aggregator.Scrape,
                    Version = ProductVersion.Text,
                },
                loggers);
            _loop.EndpointProblem = () => _http?.Problem;
            await _http.StartAsync().ConfigureAwait(false);
        }
    }

    private LoopHealth Health() => new()
    {
        SinceLastTurn = _clock() - _loop.LastTurn,
        ScanInterval = _configuration.Agent.ScanInterval,
        FirstLookDone = _loop.HasLooked,
        NotPossible = _loop.NotPossible,
    };
}
