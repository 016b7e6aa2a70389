using System.Net;
using Shouldly;
using Sidecar.Agent.Configuration;
using Xunit;

namespace Sidecar.UnitTests.Configuration;

public sealed class EndpointSyntaxTests
{
    [Theory]
    [InlineData("10.0.2.2:5432", "10.0.2.2/32", 5432)]
    [InlineData("10.0.2.0/24:5432", "10.0.2.0/24", 5432)]
    [InlineData("0.0.0.0/0:1", "0.0.0.0/0", 1)]
    [InlineData("[fd00::1]:5432", "fd00::1/128", 5432)]
    [InlineData("[fd00::/64]:65535", "fd00::/64", 65535)]
    [InlineData("[::/0]:5432", "::/0", 5432)]
    [InlineData("[::ffff:10.0.0.1]:5432", "10.0.0.1/32", 5432)]
    [InlineData("[::ffff:10.0.0.0/104]:5432", "10.0.0.0/8", 5432)]
    public void Addresses_and_networks_are_read(string text, string network, int port)
    {
        EndpointSyntax.TryParse(text, out var pattern, out _).ShouldBeTrue();
        pattern!.Network.ShouldBe(IPNetwork.Parse(network));
        pattern.Host.ShouldBeNull();
        pattern.Port.ShouldBe(port);
        pattern.Text.ShouldBe(text);
    }

    [Theory]
    [InlineData("db.example.org:5432", "db.example.org")]
    [InlineData("localhost:5432", "localhost")]
    [InlineData("db-1:5432", "db-1")]
    [InlineData("10.db.example.org.:5432", "10.db.example.org.")]
    public void Host_names_are_read(string text, string host)
    {
        EndpointSyntax.TryParse(text, out var pattern, out _).ShouldBeTrue();
        pattern!.Host.ShouldBe(host);
        pattern.Network.ShouldBeNull();
    }

    [Theory]
    [InlineData("")]
    [InlineData(":5432")]
    [InlineData("10.0.2.2")]
    [InlineData("10.0.2.2:")]
    [InlineData("10.0.2.2:0")]
    [InlineData("10.0.2.2:65536")]
    [InlineData("10.0.2.2:+1")]
    [InlineData("10.0.2.2: 5432")]
    [InlineData("10.0.2:5432")]
    [InlineData("10.0.2.256:5432")]
    [InlineData("10.0.2.010:5432")]
    [InlineData("0x0a.0.2.2:5432")]
    [InlineData("167772674:5432")]
    [InlineData("10.0.2.5/24:5432")]
    [InlineData("10.0.2.0/33:5432")]
    [InlineData("10.0.2.0/-1:5432")]
    [InlineData("10.0.2.0/:5432")]
    [InlineData("db.example.org/24:5432")]
    [InlineData("-db:5432")]
    [InlineData("db..org:5432")]
    [InlineData("db_é:5432")]
    [InlineData("fd00::1:5432")]
    [InlineData("[fd00::1]")]
    [InlineData("[fd00::1:5432")]
    [InlineData("[10.0.2.2]:5432")]
    [InlineData("[fe80::1%eth0]:5432")]
    [InlineData("[fd00::1/64]:5432")]
    [InlineData("[fd00::/129]:5432")]
    [InlineData("[]:5432")]
    public void Anything_else_is_refused_with_what_was_expected(string text)
    {
        EndpointSyntax.TryParse(text, out _, out var problem).ShouldBeFalse();
        problem.ShouldNotBeEmpty();
    }

    [Theory]
    [InlineData("10.0.0.1", "10.0.0.1:5432")]
    [InlineData("fd00::1", "[fd00::1]:5432")]
    [InlineData("::ffff:10.0.0.1", "10.0.0.1:5432")]
    public void End_points_print_the_way_they_are_written(string address, string text) =>
        EndpointSyntax.Format(new IPEndPoint(IPAddress.Parse(address), 5432)).ShouldBe(text);
}
