using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Endpoints;
using Sidecar.Agent.Service;
using Sidecar.Agent.Telemetry;
using Sidecar.Agent.Telemetry.Systemd;
using Sidecar.Probes;

namespace Sidecar.Agent.Commands;

/// <summary><c>run</c>: the agent itself.</summary>
internal static class RunCommand
{
    /// <summary>Runs until <paramref name="stop"/> is cancelled (SIGTERM or SIGINT).</summary>
    /// <param name="configurationPath">As given with <c>--config</c>; null for the default.</param>
    /// <param name="stop">Cancelled when the agent is to end in good order.</param>
    /// <returns>One of <see cref="ExitCodes"/>.</returns>
    public static int Execute(string? configurationPath, CancellationToken stop)
    {
        var environment = CommandEnvironment.OfProcess();
        if (!ConfigurationSource.TryLoad(environment, configurationPath, out var configuration))
        {
            return ExitCodes.BadConfiguration;
        }

        using var log = new JournalLog();
        using var metrics = new SidecarMetrics(ProductVersion.Text, [.. Enum.GetValues<Guardrail>().Select(guardrail => guardrail.ToName())]);
        var builder = Host.CreateEmptyApplicationBuilder(new HostApplicationBuilderSettings { DisableDefaults = true });
        builder.Logging.ClearProviders();
        builder.Logging.AddProvider(log);
        builder.Logging.SetMinimumLevel(LogLevel.Warning);

        // What ends the service is told below, in one line and without the host's words around it.
        builder.Logging.AddFilter("Microsoft.Extensions.Hosting", LogLevel.None);
        builder.Services.AddSingleton<IHostLifetime, OuterLifetime>();
        AgentService? service = null;
        builder.Services.AddHostedService(services => service = new AgentService(
            configuration,
            () => configurationPath is null ? ConfigurationLoader.LoadOrBuiltIn(environment.DefaultConfiguration) : ConfigurationLoader.Load(configurationPath),
            metrics,
            log,
            services.GetRequiredService<ILoggerFactory>(),
            new SystemdNotifier()));
        using var host = builder.Build();
        try
        {
            host.RunAsync(stop).GetAwaiter().GetResult();
        }
        catch (Exception e) when (e is ControlException or KernelException)
        {
            // told below, from the service's own record
        }

        log.Flush(TimeSpan.FromSeconds(2));
        switch (service?.Failure)
        {
            case null:
                return ExitCodes.Ok;
            case ControlException e:
                environment.Error.WriteLine(e.Message);
                return ExitCodes.Failure;
            case KernelException e:
                environment.Error.WriteLine($"the kernel's socket table cannot be read: {e.Message}");
                return ExitCodes.Failure;
            case var e:
                environment.Error.WriteLine($"the agent ended: {e.Message}");
                return ExitCodes.Failure;
        }
    }

    /// <summary>Signals are the command line's business here; the host only starts and stops.</summary>
    private sealed class OuterLifetime : IHostLifetime
    {
        public Task WaitForStartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

        public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
    }
}
