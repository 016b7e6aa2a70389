using System.Net;
using System.Net.Sockets;
using Sidecar.Agent.Core.Tracking;

namespace Sidecar.Agent.Observation;

/// <summary>Resolves the host names of upstreams again and again, in the background. A name that fails keeps the addresses it had.</summary>
/// <param name="upstreams">Whose.</param>
internal sealed class NameResolver(IReadOnlyList<Upstream> upstreams)
{
    private static readonly TimeSpan Every = TimeSpan.FromSeconds(30);

    private readonly List<(Upstream Upstream, int Endpoint, Task<IPAddress[]> Addresses)> _running = [];
    private TimeSpan _next = TimeSpan.MinValue;

    /// <summary>Takes what has been resolved since the last call, and asks again when it is time. Never waits.</summary>
    /// <param name="now">Monotonic time.</param>
    /// <param name="problems">What went wrong, one line each.</param>
    /// <param name="cancellation">Ends what is under way.</param>
    /// <returns>Whether an upstream has other addresses now.</returns>
    public bool Resolve(TimeSpan now, List<string> problems, CancellationToken cancellation)
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
            }
            else if (!addresses.IsCanceled)
            {
                problems.Add($"{host}: {addresses.Exception?.InnerException?.Message ?? "no address that a server can have"}");
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
