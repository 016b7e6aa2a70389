using System.Text.Json;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Telemetry.Systemd;

namespace Sidecar.Agent.Commands;

/// <summary><c>check-config</c>: every error at once, or what would be in force.</summary>
internal static class CheckConfigCommand
{
    public static int Execute(CommandEnvironment environment, string? configurationPath, bool json)
    {
        // As the first step of "systemctl reload" it may speak for the service: what systemctl then refers to shows the reason.
        if (!ConfigurationSource.TryLoad(environment, configurationPath, out var configuration, e => new SystemdNotifier().Status(e.ReloadRefused)))
        {
            return ExitCodes.BadConfiguration;
        }

        if (json)
        {
            environment.Out.WriteLine(JsonSerializer.Serialize(ConfigurationView.From(configuration), ConfigurationJson.Indented.ConfigurationView));
        }
        else
        {
            environment.Out.Write(ConfigurationText.Write(configuration));
        }

        return ExitCodes.Ok;
    }
}
