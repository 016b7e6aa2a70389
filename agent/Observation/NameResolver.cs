using System.Net;
using System.Net.Sockets;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Core.Tracking;

namespace Sidecar.Agent.Observation;

/// <summary>Resolves the host names of upstreams again and again, in the background. A name that fails keeps the addresses it had.</summary>
/// <param name="upstreams">Whose.</param>
internal sealed class NameResolver(IReadOnlyList<Upstream> upstreams)
{
    private static readonly TimeSpan Every = TimeSpan.FromSeconds(30);

    private readonly List<(Upstream Upstream, int Endpoint, Task<IPAddress[]> Addresses)> _running = [];
    private readonly Dictionary<(Upstream Upstream, int Endpoint), string?> _problems = [];
    private TimeSpan _next = TimeSpan.MinValue;

    /// <summary>The upstreams whose names have been asked for, each with what is wrong with the first that has no address.</summary>
    public IReadOnlyList<SourceStatus> Sources => [.. upstreams
        .Select(upstream => (upstream.Name, Problems: _problems.Where(asked => asked.Key.Upstream == upstream).OrderBy(asked => asked.Key.Endpoint).Select(asked => asked.Value).ToList()))
        .Where(upstream => upstream.Problems.Count > 0)
        .Select(upstream => new SourceStatus(SourceStatus.Resolution, upstream.Name, upstream.Problems.Find(problem => problem is not null)))];

    /// <summary>Takes what has been resolved since the last call, and asks again when it is time. Never waits.</summary>
    /// <param name="now">Monotonic time.</param>
    /// <param name="cancellation">Ends what is under way.</param>
    /// <returns>Whether an upstream has other addresses now.</returns>
    public bool Resolve(TimeSpan now, CancellationToken cancellation)
    {
        var changed = false;
        for (var i = _running.Count - 1; i >= 0; i--)
        {
            // One name that nobody answers for does not keep the others waiting.
            var (upstream, endpoint, addresses) = _running[i];
            if (!addresses.IsCompleted)
            {
                continue;
            }

            _running.RemoveAt(i);
            var host = upstream.Section.Endpoints[endpoint].Host;
            if (addresses.IsCompletedSuccessfully && addresses.Result.Any(address => upstream.CanBe(endpoint, address)))
            {
                changed |= upstream.Resolved(endpoint, addresses.Result);
                _problems[(upstream, endpoint)] = null;
            }
            else if (!addresses.IsCanceled)
            {
                var reason = addresses.Exception?.InnerException is { } failure ? Text(failure) : "no address that a server can have";
                var follows = upstream.HasAddresses(endpoint) ? "the addresses that it had are still watched" : "its connections are not watched";
                _problems[(upstream, endpoint)] = $"{upstream.Name}: {host} has no address ({reason}), so that {follows}; correct the name, or what answers \"getent hosts {host}\"";
            }
        }

        if (_running.Count == 0 && now >= _next)
        {
            _next = now + Every;
            foreach (var upstream in upstreams)
            {
                for (var i = 0; i < upstream.Section.Endpoints.Count; i++)
                {
                    if (upstream.Section.Endpoints[i].Host is { } host)
                    {
                        _running.Add((upstream, i, ResolveAsync(host, cancellation)));
                    }
                }
            }
        }

        return changed;
    }

    /// <summary>Whether a name is being resolved.</summary>
    public bool IsResolving => _running.Exists(running => !running.Addresses.IsCompleted);

    /// <summary>Waits for what is under way; for a single scan.</summary>
    public void Wait(TimeSpan atMost) => Task.WhenAny(Task.WhenAll(_running.Select(running => running.Addresses)), Task.Delay(atMost)).Wait();

    /// <summary>The runtime's own words for a name server that does not answer are those for a socket that would block.</summary>
    private static string Text(Exception failure) => failure is SocketException { SocketErrorCode: SocketError.TryAgain } ? "no name server answers for it" : failure.Message;

    private static async Task<IPAddress[]> ResolveAsync(string host, CancellationToken cancellation)
    {
        try
        {
            return await Dns.GetHostAddressesAsync(host, cancellation).ConfigureAwait(false);
        }
        catch (ArgumentException e)
        {
            throw new SocketException((int)SocketError.HostNotFound, e.Message);
        }
    }
}
