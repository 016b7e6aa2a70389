using System.Net.Sockets;

namespace Sidecar.Probes.Sockets;

/// <summary>What is wrong with a Unix socket that cannot be connected to. The framework's words are those for network addresses.</summary>
public static class UnixSocketError
{
    /// <summary>One clause, with the path.</summary>
    public static string Describe(string path, SocketException e) => e.SocketErrorCode switch
    {
        // ENOENT
        SocketError.AddressNotAvailable => $"{path} is not there",
        SocketError.ConnectionRefused => $"nobody listens on {path}",
        SocketError.AccessDenied => $"{path} may not be used by this user",
        _ => $"{path}: {e.Message}",
    };
}
