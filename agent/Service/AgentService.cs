using System.Runtime.InteropServices;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Agent.Observation;
using Sidecar.Agent.Telemetry;
using Sidecar.Agent.Telemetry.Systemd;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Service;

/// <summary>
/// The agent as a hosted service: starts an instance, tells the service manager when the first scan is done, reloads on
/// SIGHUP, ends in good order.
/// </summary>
internal sealed class AgentService(
    SidecarConfiguration configuration, Func<SidecarConfiguration> reread, SidecarMetrics metrics, JournalLog log, ILoggerFactory loggers, SystemdNotifier notifier)
    : BackgroundService
{
    /// <summary>A reload waits this long for an action that is under way.</summary>
    private static readonly TimeSpan SettleWithin = TimeSpan.FromSeconds(30);

    private readonly ILogger _log = log.CreateLogger("agent");
    private readonly Clock _clock = new(TimeProvider.System);
    private readonly SemaphoreSlim _reload = new(0);

    /// <summary>What ended the service before it was told to stop, or null.</summary>
    public Exception? Failure { get; private set; }

    public override void Dispose()
    {
        _reload.Dispose();
        base.Dispose();
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var hangup = PosixSignalRegistration.Create(PosixSignal.SIGHUP, context =>
        {
            context.Cancel = true;
            _reload.Release();
        });

        AgentInstance? instance = null;
        try
        {
            var inForce = configuration;
            instance = await StartAsync(inForce, null, stoppingToken).ConfigureAwait(false);
            metrics.ConfigurationTaken(_clock.UtcNow);
            _log.Started(ProductVersion.Text, Summary(inForce, instance));
            while (true)
            {
                await _reload.WaitAsync(stoppingToken).ConfigureAwait(false);
                notifier.Reloading();
                if (Reread(out var refused) is { } next)
                {
                    foreach (var difference in ConfigurationDifference.Between(inForce, next).DefaultIfEmpty("nothing has changed"))
                    {
                        _log.ReloadChanges(difference);
                    }

                    await instance.SettleAsync(SettleWithin, stoppingToken).ConfigureAwait(false);
                    var earlier = instance.World;
                    await instance.DisposeAsync().ConfigureAwait(false);
                    instance = null;
                    inForce = next;
                    instance = await StartAsync(inForce, earlier, stoppingToken).ConfigureAwait(false);
                    metrics.ConfigurationTaken(_clock.UtcNow);
                    _log.Reloaded(Summary(inForce, instance));
                }
                else
                {
                    metrics.ConfigurationRefused();
                    notifier.Ready($"{Summary(inForce, instance)}; {refused}");
                }
            }
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            notifier.Stopping("stopping");
            _log.Stopping();
        }
        catch (Exception e)
        {
            Failure = e;
            throw;
        }
        finally
        {
            if (instance is not null)
            {
                await instance.DisposeAsync().ConfigureAwait(false);
            }
        }
    }

    private static string Summary(SidecarConfiguration inForce, AgentInstance instance) =>
        $"mode {(inForce.Agent.Mode == AgentMode.Observe ? "observe" : "protect")}, {Quantity.Of(inForce.Upstreams.Count, "upstream")}, {Quantity.Of(instance.Watched, "connection")} watched";

    private async Task<AgentInstance> StartAsync(SidecarConfiguration next, World? earlier, CancellationToken stoppingToken)
    {
        var instance = await AgentInstance.StartAsync(next, metrics, log, loggers, notifier, _clock, earlier).ConfigureAwait(false);
        try
        {
            await instance.FirstScan.WaitAsync(stoppingToken).ConfigureAwait(false);
            notifier.Ready(Summary(next, instance));
            return instance;
        }
        catch
        {
            await instance.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    private SidecarConfiguration? Reread(out string refused)
    {
        refused = "";
        try
        {
            return reread();
        }
        catch (ConfigurationException e)
        {
            foreach (var error in e.Errors)
            {
                _log.ReloadRefused(error.ToString());
            }

            refused = e.ReloadRefused;
            _log.ReloadRefused("the new configuration was refused; the old one stays in force");
            return null;
        }
    }
}
