using System.Diagnostics.CodeAnalysis;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Core.Settings;

namespace Sidecar.Agent.Commands;

/// <summary>How commands come by their configuration.</summary>
internal static class ConfigurationSource
{
    /// <summary>Loads what <c>--config</c> names or the default; errors and warnings go to stderr, all of them.</summary>
    /// <param name="environment">Where to.</param>
    /// <param name="path">As given with <c>--config</c>; null for the default.</param>
    /// <param name="configuration">What was loaded.</param>
    /// <param name="refused">Who else wants the errors.</param>
    public static bool TryLoad(
        CommandEnvironment environment, string? path, [NotNullWhen(true)] out SidecarConfiguration? configuration, Action<ConfigurationException>? refused = null)
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

            refused?.Invoke(e);
            configuration = null;
            return false;
        }
    }
}
