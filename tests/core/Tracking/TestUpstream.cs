using System.Net;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;

namespace Sidecar.CoreTests.Tracking;

/// <summary>Upstreams as a configuration would make them.</summary>
internal static class TestUpstream
{
    /// <summary>An upstream of one endpoint.</summary>
    /// <param name="endpoint">Address or CIDR, and port: <c>10.0.0.0/8:5432</c>.</param>
    /// <param name="direction">Which end is watched.</param>
    /// <param name="idleTimeout">As declared; null where it is to be measured.</param>
    internal static Upstream Of(string endpoint, UpstreamDirection direction = UpstreamDirection.Outbound, TimeSpan? idleTimeout = null)
    {
        var colon = endpoint.LastIndexOf(':');
        var network = endpoint[..colon].Trim('[', ']');
        return new Upstream(new UpstreamSection
        {
            Name = "db",
            Direction = direction,
            IdleTimeout = idleTimeout is { } declared ? new(IdleTimeoutSource.Declared, declared) : new(IdleTimeoutSource.Measure, TimeSpan.Zero),
            Endpoints =
            [
                new EndpointPattern(
                    endpoint,
                    null,
                    network.Contains('/') ? IPNetwork.Parse(network) : new IPNetwork(IPAddress.Parse(network), network.Contains(':') ? 128 : 32),
                    int.Parse(endpoint[(colon + 1)..])),
            ],
        });
    }
}
