using Sidecar.Probes.SockDiag;

namespace Sidecar.Agent.Tracking;

/// <summary>All paths in use.</summary>
public sealed class PathTable
{
    private static readonly TimeSpan ForgetAfter = TimeSpan.FromMinutes(10);

    private readonly Dictionary<PathKey, PathTracker> _paths = [];

    public IReadOnlyCollection<PathTracker> All => _paths.Values;

    /// <summary>Called for each path that comes into use.</summary>
    internal Action<PathTracker>? Came { get; set; }

    /// <summary>The path a connection takes.</summary>
    public PathTracker For(TrackedConnection connection)
    {
        var key = new PathKey(connection.NamespaceInode, connection.Key.Local.Address, connection.Key.Peer);
        if (connection.Upstream.Section.Direction == Configuration.UpstreamDirection.Inbound)
        {
            // Every client is a path of its own; its port says nothing.
            key = key with { Destination = new TcpEndPoint(connection.Key.Peer.Address, 0) };
        }

        if (!_paths.TryGetValue(key, out var path))
        {
            _paths[key] = path = new PathTracker(key, connection.Upstream);
            Came?.Invoke(path);
        }

        return path;
    }

    /// <summary>Drops paths that no connection has used for a while.</summary>
    public void Prune(TimeSpan now)
    {
        foreach (var path in _paths.Values.Where(path => !path.IsRunning && now - path.LastUsed > ForgetAfter).ToList())
        {
            _paths.Remove(path.Key);
        }
    }
}
