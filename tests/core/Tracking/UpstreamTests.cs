using System.Net;
using Shouldly;
using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.CoreTests.Tracking;

public sealed class UpstreamTests
{
    [Theory]
    [InlineData("10.0.2.2:5432", "10.0.2.2", 5432, true)]
    [InlineData("10.0.2.2:5432", "10.0.2.3", 5432, false)]
    [InlineData("10.0.2.2:5432", "10.0.2.2", 5433, false)]
    [InlineData("10.0.0.0/16:5432", "10.0.255.255", 5432, true)]
    [InlineData("10.0.0.0/16:5432", "10.1.0.0", 5432, false)]
    [InlineData("[fd00::/64]:5432", "fd00::1", 5432, true)]
    [InlineData("[fd00::/64]:5432", "fd00:0:0:1::1", 5432, false)]
    [InlineData("10.0.2.2:5432", "::ffff:10.0.2.2", 5432, true)]
    public void An_endpoint_matches_the_peer_it_names(string declared, string peer, int port, bool matches) =>
        TestUpstream.Of(declared).Matches(End("192.168.0.1", 40000), End(peer, port)).ShouldBe(matches);

    [Theory]
    [InlineData("127.0.0.1:5432", "127.0.0.1", true)]
    [InlineData("127.0.0.0/8:5432", "127.0.0.2", true)]
    [InlineData("[::1]:5432", "::1", true)]
    [InlineData("0.0.0.0/0:5432", "127.0.0.1", false)]
    [InlineData("[::/0]:5432", "::1", false)]
    [InlineData("126.0.0.0/7:5432", "127.0.0.1", false)]
    [InlineData("0.0.0.0/0:5432", "10.0.0.1", true)]
    [InlineData("[::/0]:5432", "fd00::1", true)]
    public void Loopback_is_watched_only_where_an_endpoint_names_it(string declared, string peer, bool matches) =>
        TestUpstream.Of(declared).Matches(End(peer, 40000), End(peer, 5432)).ShouldBe(matches);

    [Fact]
    public void An_inbound_upstream_looks_at_the_local_end()
    {
        var upstream = TestUpstream.Of("10.0.2.2:5432", UpstreamDirection.Inbound);
        upstream.Matches(End("10.0.2.2", 5432), End("10.0.1.7", 40000)).ShouldBeTrue();
        upstream.Matches(End("10.0.1.7", 40000), End("10.0.2.2", 5432)).ShouldBeFalse();
    }

    private static TcpEndPoint End(string address, int port) => TcpEndPoint.From(IPAddress.Parse(address), port);
}
