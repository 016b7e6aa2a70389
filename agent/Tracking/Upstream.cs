using System.Collections.Immutable;
using System.Net;
using System.Net.Sockets;
using Sidecar.Agent.Configuration;
using Sidecar.Probes.SockDiag;

namespace Sidecar.Agent.Tracking;

/// <summary>
/// A declared upstream with its addresses as they are at present: networks as declared, host names as last resolved.
/// </summary>
public sealed class Upstream
{
    private readonly UpstreamSection _section;
    private volatile ImmutableArray<FilterCondition>[] _conditions;

    public Upstream(UpstreamSection section)
    {
        _section = section;
        _conditions = [.. section.Endpoints.Select(endpoint => endpoint.Network is { } network
            ? ImmutableArray.Create(Condition(network.BaseAddress, network.PrefixLength, endpoint.Port))
            : [])];
    }

    public string Name => _section.Name;

    public UpstreamSection Section => _section;

    /// <summary>Its connections by verdict, as last judged.</summary>
    public UpstreamTally Tally { get; } = new();

    /// <summary>The conditions in force, for the kernel's filter and for <see cref="Matches"/>.</summary>
    public IEnumerable<FilterCondition> Conditions => _conditions.SelectMany(list => list);

    /// <summary>Guardrail 1: a connection of this upstream, and loopback only where an endpoint names it.</summary>
    public bool Matches(in TcpEndPoint local, in TcpEndPoint peer)
    {
        var lists = _conditions;
        for (var i = 0; i < lists.Length; i++)
        {
            foreach (var condition in lists[i])
            {
                if (condition.Matches(local, peer) && (!peer.IsLoopback || NamesLoopback(condition)))
                {
                    return true;
                }
            }
        }

        return false;
    }

    /// <summary>Resolves the host names again; a name that fails keeps the addresses it had. Returns what went wrong.</summary>
    public async Task<string?> ResolveAsync(CancellationToken cancellation)
    {
        string? problem = null;
        var next = _conditions.ToArray();
        for (var i = 0; i < next.Length; i++)
        {
            if (_section.Endpoints[i].Host is not { } host)
            {
                continue;
            }

            try
            {
                var addresses = await Dns.GetHostAddressesAsync(host, cancellation).ConfigureAwait(false);
                if (addresses.Length == 0)
                {
                    problem = $"{host}: no addresses";
                    continue;
                }

                // Connections to an address that a name no longer has are still connections of this upstream, so
                // addresses are added and the oldest ones dropped only beyond a generous number.
                var port = _section.Endpoints[i].Port;
                var found = addresses.Take(MaximumAddresses).Select(address => Condition(address, address.AddressFamily == AddressFamily.InterNetwork ? 32 : 128, port));
                next[i] = [.. found.Concat(next[i]).Distinct().Take(MaximumAddresses)];
                _conditions = [.. next];
            }
            catch (Exception e) when (e is SocketException or ArgumentException)
            {
                problem = $"{host}: {e.Message}";
            }
        }

        return problem;
    }

    /// <summary>Whether any endpoint is a host name.</summary>
    public bool HasHostNames => _section.Endpoints.Any(endpoint => endpoint.Host is not null);

    private const int MaximumAddresses = 64;

    private static bool NamesLoopback(in FilterCondition condition) =>
        condition.PrefixLength > 96 + 7 && new TcpEndPoint(condition.Network, 0).IsLoopback;

    private FilterCondition Condition(IPAddress address, int prefixLength, int port)
    {
        var mapped = TcpEndPoint.From(address, 0);
        var length = address.AddressFamily == AddressFamily.InterNetwork && prefixLength > 0 ? 96 + prefixLength : prefixLength;
        var end = _section.Direction == UpstreamDirection.Inbound ? FilterEnd.Local : FilterEnd.Peer;
        return new FilterCondition(end, mapped.Address, length, (ushort)port);
    }
}
