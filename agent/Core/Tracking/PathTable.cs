using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Tracking;

/// <summary>All paths in use.</summary>
public sealed class PathTable
{
    private static readonly TimeSpan ForgetAfter = TimeSpan.FromMinutes(10);

    private readonly Dictionary<PathKey, PathTracker> _paths = [];

    public IReadOnlyCollection<PathTracker> All => _paths.Values;

    /// <summary>Called for each path that comes into use.</summary>
    public Action<PathTracker>? Came { get; set; }

    /// <summary>The shortest idle timeout that is known of a path; null where none is.</summary>
    public TimeSpan? ShortestIdleTimeout => All.Min(path => path.IdleTimeout.Lower);

    /// <summary>Begins to track a connection, on the path that it takes.</summary>
    /// <param name="socket">The kernel's key for it.</param>
    /// <param name="upstream">What it belongs to.</param>
    /// <param name="namespaceInode">Its network namespace.</param>
    /// <param name="uid">Who owns it.</param>
    /// <param name="now">Monotonic time.</param>
    public TrackedConnection Track(in SocketKey socket, Upstream upstream, ulong namespaceInode, uint uid, TimeSpan now)
    {
        var key = new PathKey(namespaceInode, socket.Local.Address, socket.Peer);
        if (upstream.Section.Direction == UpstreamDirection.Inbound)
        {
            // Every client is a path of its own; its port says nothing.
            key = key with { Destination = new TcpEndPoint(socket.Peer.Address, 0) };
        }

        if (!_paths.TryGetValue(key, out var path))
        {
            path = new PathTracker(key, upstream);
            if (path is { Budget: not null, Unprovable: false })
            {
                path.Budget = _paths.Values.FirstOrDefault(other => other.Key.Destination == key.Destination)?.Budget ?? path.Budget;
            }

            _paths[key] = path;
            Came?.Invoke(path);
        }

        return new TrackedConnection(socket, path.User(uid), now);
    }

    /// <summary>Takes a path in that was known before.</summary>
    internal void Adopt(PathTracker path) => _paths[path.Key] = path;

    /// <summary>Drops paths that no connection has used for a while.</summary>
    public void Prune(TimeSpan now)
    {
        foreach (var path in _paths.Values)
        {
            path.Prune(now - ForgetAfter);
        }

        foreach (var path in _paths.Values.Where(path => !path.IsProbing && now - path.LastUsed > ForgetAfter).ToList())
        {
            _paths.Remove(path.Key);
        }
    }
}
