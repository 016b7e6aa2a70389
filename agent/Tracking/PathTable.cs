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

    /// <summary>The shortest idle timeout that is known of a path; null where none is.</summary>
    internal TimeSpan? ShortestIdleTimeout => All.Min(path => path.IdleTimeout.Lower);

    /// <summary>Begins to track a connection, on the path that it takes.</summary>
    /// <param name="socket">The kernel's key for it.</param>
    /// <param name="upstream">What it belongs to.</param>
    /// <param name="namespaceInode">Its network namespace.</param>
    /// <param name="now">Monotonic time.</param>
    public TrackedConnection Track(in SocketKey socket, Upstream upstream, ulong namespaceInode, TimeSpan now)
    {
        var key = new PathKey(namespaceInode, socket.Local.Address, socket.Peer);
        if (upstream.Section.Direction == Configuration.UpstreamDirection.Inbound)
        {
            // Every client is a path of its own; its port says nothing.
            key = key with { Destination = new TcpEndPoint(socket.Peer.Address, 0) };
        }

        if (!_paths.TryGetValue(key, out var path))
        {
            _paths[key] = path = new PathTracker(key, upstream);
            Came?.Invoke(path);
        }

        return new TrackedConnection(socket, upstream, path, now);
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
