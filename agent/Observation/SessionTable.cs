using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;

namespace Sidecar.Agent.Observation;

/// <summary>The sessions of all upstreams that have a DSN. Each is looked at in the background; nothing here waits.</summary>
internal sealed class SessionTable : IDisposable
{
    private readonly Dictionary<string, SessionWatch> _watches;
    private List<string> _told = [];

    public SessionTable(SidecarConfiguration configuration, Clock clock)
    {
        _watches = configuration.Upstreams
            .Where(upstream => upstream is { Protocol: UpstreamProtocol.PostgreSql, DsnFile: not null })
            .ToDictionary(upstream => upstream.Name, upstream => new SessionWatch(upstream, clock), StringComparer.Ordinal);
    }

    public SessionWatch? Find(string upstream) => _watches.GetValueOrDefault(upstream);

    /// <summary>What cannot be looked at and why, one line each.</summary>
    public IEnumerable<string> Problems => _watches
        .Where(pair => pair.Value.Problem is not null)
        .Select(pair => $"{pair.Key}: the sessions on the server are not seen, and none can be ended there (release): {pair.Value.Problem}");

    /// <summary>Those of the problems that have not been told yet.</summary>
    public IReadOnlyList<string> NewProblems()
    {
        var now = Problems.ToList();
        var untold = now.Except(_told, StringComparer.Ordinal).ToList();
        _told = now;
        return untold;
    }

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
