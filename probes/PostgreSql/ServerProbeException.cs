namespace Sidecar.Probes.PostgreSql;

/// <summary>The server did not answer as it should, or not in time. The message never holds a secret.</summary>
public sealed class ServerProbeException : Exception
{
    public ServerProbeException(string message)
        : base(message)
    {
    }
}
