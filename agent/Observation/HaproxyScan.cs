using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Probes.Haproxy;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Observation;

/// <summary>What one HAProxy says of its backends, every second, through its stats socket.</summary>
internal sealed class HaproxyScan(HaproxySection section)
{
    /// <summary>Time between two scans.</summary>
    public static readonly TimeSpan Interval = TimeSpan.FromSeconds(1);

    /// <summary>Backends beyond are left out.</summary>
    internal const int MostBackends = 256;

    /// <summary>Names of servers that are down, of one backend; those beyond are counted alone.</summary>
    private const int MostDown = 64;

    private readonly Dictionary<string, Counted> _counted = new(StringComparer.Ordinal);

    /// <summary>Scans once; what cannot be had is said in <see cref="HaproxyStatus.Problem"/>, and the backends are those of before.</summary>
    public async Task<HaproxyStatus> ScanAsync(HaproxyStatus? last, CancellationToken cancellation)
    {
        try
        {
            return Describe(await HaproxySocket.ReadAsync(section.Socket, cancellation).ConfigureAwait(false));
        }
        catch (HaproxyException e)
        {
            return new HaproxyStatus { Name = section.Name, Version = null, Problem = e.Message, Sessions = 0, SessionLimit = 0, Backends = last?.Backends ?? [] };
        }
    }

    internal HaproxyStatus Describe(HaproxyStats stats)
    {
        var servers = stats.Rows.Where(row => row.Kind == HaproxyRowKind.Server).ToLookup(row => row.Proxy, StringComparer.Ordinal);
        var backends = stats.Rows.Where(row => row.Kind == HaproxyRowKind.Backend).DistinctBy(row => row.Proxy, StringComparer.Ordinal).ToList();
        var described = backends.Take(MostBackends).Select(row => Describe(row, [.. servers[row.Proxy]])).ToList();

        // A backend that comes back is a new one: names that come and go leave nothing behind.
        var present = described.Select(backend => backend.Name).ToHashSet(StringComparer.Ordinal);
        foreach (var name in _counted.Keys.Where(name => !present.Contains(name)).ToList())
        {
            _counted.Remove(name);
        }

        return new HaproxyStatus
        {
            Name = section.Name,
            Version = stats.Version,
            Problem = stats.LeftOut > 0 || backends.Count > described.Count
                ? $"left out: {Quantity.Of(backends.Count - described.Count, "backend")} and {Quantity.Of(stats.LeftOut, "further row")}, beyond {MostBackends} backends and {HaproxyStats.MostRows} rows or with names that HAProxy does not give"
                : null,
            Sessions = stats.Sessions,
            SessionLimit = stats.SessionLimit,
            Backends = described,
        };
    }

    private BackendStatus Describe(HaproxyRow backend, List<HaproxyRow> servers)
    {
        if (!_counted.TryGetValue(backend.Proxy, out var counted))
        {
            _counted[backend.Proxy] = counted = new Counted();
        }

        var up = servers.Where(server => server.IsUp).ToList();
        return new BackendStatus
        {
            Name = backend.Proxy,
            ServersUp = up.Count,
            ServersDown = servers.Count(server => server.IsDown),
            ServersOther = servers.Count(server => !server.IsUp && !server.IsDown),
            Down = [.. servers.Where(server => server.IsDown).Select(server => server.Name).Take(MostDown)],
            Queue = (backend.Queue ?? 0) + servers.Sum(server => server.Queue ?? 0),
            Sessions = servers.Sum(server => server.Sessions),
            SessionLimit = up.Count > 0 && up.TrueForAll(server => server.SessionLimit is > 0) ? up.Sum(server => server.SessionLimit) : null,
            Downs = counted.Downs.Count(servers.Sum(server => server.Downs)),

            // What the servers did not answer with 5xx themselves, HAProxy did.
            OwnErrors = counted.Errors.Count(backend.ServerErrors is { } errors
                ? Math.Max(0, errors - servers.Sum(server => server.ServerErrors ?? 0))
                : backend.ConnectErrors),
        };
    }

    private sealed class Counted
    {
        public Growth Downs { get; } = new();

        public Growth Errors { get; } = new();
    }

    /// <summary>Follows a counter of somebody else's, who may be restarted and begin anew at zero.</summary>
    internal sealed class Growth
    {
        private long? _last;
        private long _sum;

        /// <summary>By how much it has grown since it was first seen.</summary>
        public long Count(long value)
        {
            _sum += _last is not { } last ? 0 : value >= last ? value - last : value;
            _last = value;
            return _sum;
        }
    }
}
