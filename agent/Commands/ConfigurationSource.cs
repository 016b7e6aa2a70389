using System.Diagnostics.CodeAnalysis;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Core.Settings;

namespace Sidecar.Agent.Commands;

/// <summary>How commands come by their configuration.</summary>
internal static class ConfigurationSource
{
    /// <summary>Loads what <c>--config</c> names or the default; errors and warnings go to stderr, all of them.</summary>
    public static bool TryLoad(CommandEnvironment environment, string? path, [NotNullWhen(true)] out SidecarConfiguration? configuration)
    {
        try
        {
            configuration = path is null
                ? ConfigurationLoader.LoadOrBuiltIn(environment.DefaultConfiguration)
                : ConfigurationLoader.Load(path);
            foreach (var warning in configuration.Warnings)
            {
                environment.Error.WriteLine($"warning: {warning}");
            }

            return true;
        }
        catch (ConfigurationException e)
        {
            foreach (var error in e.Errors)
            {
                environment.Error.WriteLine(error.ToString());
            }

            configuration = null;
            return false;
        }
    }
}
