using System.Runtime.InteropServices;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Telemetry;
using Sidecar.Agent.Telemetry.Systemd;

namespace Sidecar.Agent;

/// <summary>
/// The agent as a hosted service: starts an instance, tells the service manager when the first look is done, reloads on
/// SIGHUP, ends in good order.
/// </summary>
internal sealed class AgentService(
    SidecarConfiguration configuration, Func<SidecarConfiguration> reread, SidecarMetrics metrics, JournalLog log, ILoggerFactory loggers, SystemdNotifier notifier)
    : BackgroundService
{
    /// <summary>A reload waits this long for an action that is under way.</summary>
    private static readonly TimeSpan SettleWithin = TimeSpan.FromSeconds(30);

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
            instance = await StartAsync(inForce, stoppingToken).ConfigureAwait(false);
            log.Write(LogLevel.Information, $"conn-sidecar {ProductVersion.Text} started: {Summary(inForce, instance)}", MessageIds.Started);
            while (true)
            {
                await _reload.WaitAsync(stoppingToken).ConfigureAwait(false);
                notifier.Reloading();
                if (Reread() is { } next)
                {
                    await instance.SettleAsync(SettleWithin, stoppingToken).ConfigureAwait(false);
                    await instance.DisposeAsync().ConfigureAwait(false);
                    instance = null;
                    inForce = next;
                    instance = await StartAsync(inForce, stoppingToken).ConfigureAwait(false);
                    log.Write(LogLevel.Information, $"configuration reloaded: {Summary(inForce, instance)}", MessageIds.Reloaded);
                }
                else
                {
                    notifier.Ready(Summary(inForce, instance));
                }
            }
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            notifier.Stopping("stopping");
            log.Write(LogLevel.Information, "stopping; keepalives that were set stay in the kernel", MessageIds.Stopping);
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
        $"mode {(inForce.Agent.Mode == AgentMode.Observe ? "observe" : "protect")}, {inForce.Upstreams.Count} upstreams, {instance.Watched} connections watched";

    private async Task<AgentInstance> StartAsync(SidecarConfiguration next, CancellationToken stoppingToken)
    {
        var instance = await AgentInstance.StartAsync(next, metrics, log, loggers, notifier).ConfigureAwait(false);
        try
        {
            await instance.FirstLook.WaitAsync(stoppingToken).ConfigureAwait(false);
            notifier.Ready(Summary(next, instance));
            return instance;
        }
        catch
        {
            await instance.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    private SidecarConfiguration? Reread()
    {
        try
        {
            return reread();
        }
        catch (ConfigurationException e)
        {
            foreach (var error in e.Errors)
            {
                log.Write(LogLevel.Error, error.ToString(), MessageIds.ReloadRefused);
            }

            log.Write(LogLevel.Error, "the new configuration was refused; the old one stays in force", MessageIds.ReloadRefused);
            return null;
        }
    }
}
