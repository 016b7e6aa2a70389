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
        if (!ConfigurationSource.TryLoad(environment, configurationPath, out _))
        {
            return ExitCodes.BadConfiguration;
        }

        stop.WaitHandle.WaitOne();
        return ExitCodes.Ok;
    }
}
