using System.Net;
using Shouldly;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.UnitTests.Hostile;

/// <summary>A name server that gives what no server has.</summary>
public sealed class NameServerTests
{
    private static readonly IPAddress Real = IPAddress.Parse("10.0.2.2");

    [Theory]
    [InlineData("127.0.0.1")]
    [InlineData("127.9.9.9")]
    [InlineData("::1")]
    [InlineData("::ffff:127.0.0.1")]
    [InlineData("0.0.0.0")]
    [InlineData("0.1.2.3")]
    [InlineData("::")]
    [InlineData("224.0.0.1")]
    [InlineData("255.255.255.255")]
    [InlineData("ff02::1")]
    public void Addresses_that_no_server_has_are_not_watched(string address)
    {
        var upstream = Named("db.example");
        upstream.Resolved(0, [IPAddress.Parse(address)]).ShouldBeFalse();
        upstream.Conditions.ShouldBeEmpty();
        upstream.CanBe(0, IPAddress.Parse(address)).ShouldBeFalse();
        upstream.Resolved(0, [IPAddress.Parse(address), Real]).ShouldBeTrue();
        upstream.Conditions.Count().ShouldBe(1);
    }

    [Fact]
    public void The_name_localhost_is_this_host()
    {
        var upstream = Named("localhost");
        upstream.Resolved(0, [IPAddress.Loopback]).ShouldBeTrue();
        upstream.Matches(Point("127.0.0.1", 40000), Point("127.0.0.1", 5432)).ShouldBeTrue();
    }

    [Fact]
    public void However_many_addresses_come_those_that_were_known_stay_watched()
    {
        var upstream = Named("db.example");
        upstream.Resolved(0, [Real]);
        for (var answer = 0; answer < 20; answer++)
        {
            upstream.Resolved(0, Enumerable.Range(1, 250).Select(i => IPAddress.Parse($"192.0.{answer}.{i}")));
            upstream.Conditions.Count().ShouldBeLessThanOrEqualTo(64);
            upstream.Matches(Point("10.0.1.1", 40000), Point("10.0.2.2", 5432)).ShouldBeTrue();
        }

        // What the name has now is watched too.
        upstream.Matches(Point("10.0.1.1", 40000), Point("192.0.19.1", 5432)).ShouldBeTrue();
        upstream.Resolved(0, Enumerable.Range(1, 250).Select(i => IPAddress.Parse($"192.0.19.{i}"))).ShouldBeFalse("the same again changes nothing");
    }

    private static TcpEndPoint Point(string address, int port) => TcpEndPoint.From(IPAddress.Parse(address), port);

    private static Upstream Named(string host) => new(new UpstreamSection { Name = "db", Endpoints = [new EndpointPattern($"{host}:5432", host, null, 5432)] });
}
