using System.Collections.Immutable;
using System.Net;
using System.Net.Sockets;
using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Tracking;

/// <summary>
/// A declared upstream with its addresses as they are at present: networks as declared, host names as last resolved.
/// </summary>
public sealed class Upstream
{
    private readonly UpstreamSection _section;
    private readonly ImmutableArray<FilterCondition>[] _conditions;

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

    /// <summary>Whether it is told of: a declared one always, a built-in one from its first connection on.</summary>
    public bool IsTold => !_section.IsBuiltIn || Tally.WasUsed;

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

    /// <summary>
    /// Takes what a host name has been resolved to. Connections to an address that a name no longer has are still connections of
    /// this upstream: those that are known stay, and new ones are added while there is room. Of an answer with more addresses than
    /// a service has, only the first count; a name server can make no address watched that no name should have.
    /// </summary>
    /// <param name="endpoint">Index of the endpoint in its section.</param>
    /// <param name="addresses">As the name server gave them.</param>
    /// <returns>Whether that changed anything.</returns>
    public bool Resolved(int endpoint, IEnumerable<IPAddress> addresses)
    {
        var port = _section.Endpoints[endpoint].Port;
        var found = addresses.Where(address => CanBe(endpoint, address)).Take(MaximumAnswer)
            .Select(address => Condition(address, address.AddressFamily == AddressFamily.InterNetwork ? 32 : 128, port)).Distinct().ToList();

        // An address that the name has now is younger than one that it had, so those that it no longer has make room first.
        var known = _conditions[endpoint];
        var room = found.Where(condition => !known.Contains(condition)).ToList();
        var kept = known.Where(found.Contains).Concat(known.Where(condition => !found.Contains(condition)).Take(Math.Max(0, MaximumAddresses - found.Count))).ToHashSet();
        ImmutableArray<FilterCondition> next = [.. known.Where(kept.Contains), .. room];
        if (next.SequenceEqual(known))
        {
            return false;
        }

        _conditions[endpoint] = next;
        return true;
    }

    /// <summary>
    /// Whether a name server may give that address: not this host (but for the name localhost), not everybody's, nobody's or many's.
    /// </summary>
    public bool CanBe(int endpoint, IPAddress address) =>
        IsOfAHost(address) || (_section.Endpoints[endpoint].Host is "localhost" && IPAddress.IsLoopback(address));

    private static bool IsOfAHost(IPAddress address)
    {
        var plain = address.IsIPv4MappedToIPv6 ? address.MapToIPv4() : address;
        return !IPAddress.IsLoopback(plain) && !plain.IsIPv6Multicast && !plain.Equals(IPAddress.IPv6Any)
            && (plain.AddressFamily != AddressFamily.InterNetwork || plain.GetAddressBytes()[0] is > 0 and < 224);
    }

    /// <summary>Whether an address is known for the endpoint.</summary>
    /// <param name="endpoint">Its index.</param>
    public bool HasAddresses(int endpoint) => !_conditions[endpoint].IsEmpty;

    /// <summary>Whether any endpoint is a host name.</summary>
    public bool HasHostNames => _section.Endpoints.Any(endpoint => endpoint.Host is not null);

    private const int MaximumAddresses = 64;

    private const int MaximumAnswer = 16;

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
