using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Core.Tracking;

namespace Sidecar.Agent.Observation;

/// <summary>The sessions of all upstreams that have a DSN. Each is looked at in the background; nothing here waits.</summary>
internal sealed class SessionTable : IDisposable
{
    private readonly Dictionary<string, SessionWatch> _watches;

    public SessionTable(SidecarConfiguration configuration, Clock clock)
    {
        _watches = configuration.Upstreams
            .Where(upstream => upstream is { Protocol: UpstreamProtocol.PostgreSql, DsnFile: not null })
            .ToDictionary(upstream => upstream.Name, upstream => new SessionWatch(upstream, clock), StringComparer.Ordinal);
    }

    public SessionWatch? Find(string upstream) => _watches.GetValueOrDefault(upstream);

    /// <summary>The servers that have been asked.</summary>
    public IEnumerable<SourceStatus> Sources => _watches.Values.Select(watch => watch.Source).OfType<SourceStatus>();

    /// <summary>Tells the watches which connections they are about.</summary>
    public void Attend(IReadOnlyCollection<TrackedConnection> connections)
    {
        foreach (var (name, watch) in _watches)
        {
            watch.Attend(connections.Where(connection => connection.Upstream.Name == name));
        }
    }

    /// <summary>Hands the world the last view of each server.</summary>
    public void Show(World world, TimeSpan now)
    {
        foreach (var (name, watch) in _watches)
        {
            world.Server(name, watch.ViewAt(now));
        }
    }

    public void Dispose()
    {
        foreach (var watch in _watches.Values)
        {
            watch.Dispose();
        }
    }
}
