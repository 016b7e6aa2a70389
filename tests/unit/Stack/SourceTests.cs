using System.Net.Sockets;
using Npgsql;
using Shouldly;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Agent.Observation;
using Sidecar.Probes.PostgreSql;
using Sidecar.Probes.Sockets;
using Xunit;

namespace Sidecar.UnitTests.Stack;

/// <summary>What the configuration names and is not there: each is told with what to do.</summary>
public sealed class SourceTests : IDisposable
{
    private readonly TemporaryDirectory _root = new();

    public SourceTests()
    {
        _root.Write("usr/lib/systemd/system/uwsgi.service", "");
        _root.Write("etc/systemd/system/shop@.service", "");
        _root.Write("usr/bin/uwsgi-core", "");
    }

    public void Dispose() => _root.Dispose();

    [Theory]
    [InlineData("uwsg.service", null, null, "this host has no unit uwsg.service; did you mean uwsgi.service?")]
    [InlineData("something-else-entirely.service", null, null, "this host has no unit something-else-entirely.service; systemctl list-units shows those that it has")]
    [InlineData("uwsgi.service", null, null, "unit uwsgi.service has no process; systemctl status uwsgi.service says why")]
    [InlineData("shop@eu.service", null, null, "unit shop@eu.service has no process; systemctl status shop@eu.service says why")]
    [InlineData(null, "no-such-user", null, "this host has no user no-such-user in /etc/passwd; write one that it has, or a number")]
    [InlineData(null, null, "/usr/bin/uwsgi", "this host has no file /usr/bin/uwsgi; ls -l /proc/PID/exe shows the one that a worker runs")]
    [InlineData(null, "root", "/usr/bin/uwsgi-core", "no process has user = root and executable = /usr/bin/uwsgi-core; are the workers started?")]
    public void A_group_without_a_process_is_explained(string? unit, string? user, string? executable, string why) =>
        GroupAbsence.Explain(new WorkersSection { Name = "web", Unit = unit, User = user, Executable = executable }, _root.Path).ShouldBe(why);

    [Fact]
    public void Where_no_systemd_is_no_unit_is_missing() =>
        GroupAbsence.Explain(new WorkersSection { Name = "web", Unit = "uwsgi.service" }, _root.File("nowhere")).ShouldStartWith("unit uwsgi.service has no process;");

    [Fact]
    public void A_name_without_an_address_stays_told_until_it_has_one()
    {
        var upstream = new Upstream(new UpstreamSection { Name = "db", Endpoints = [new EndpointPattern("no..such:5432", "no..such", null, 5432), new EndpointPattern("localhost:5432", "localhost", null, 5432)] });
        var names = new NameResolver([upstream]);
        names.Sources.ShouldBeEmpty();
        names.Resolve(TimeSpan.Zero, default);
        names.Wait(TimeSpan.FromSeconds(60));
        for (var second = 1; second < 30; second++)
        {
            names.Resolve(TimeSpan.FromSeconds(second), default);
            var source = names.Sources.ShouldHaveSingleItem();
            source.ShouldSatisfyAllConditions(s => s.Kind.ShouldBe(SourceStatus.Resolution), s => s.Name.ShouldBe("db"));
            source.Problem.ShouldNotBeNull().ShouldMatch(@"^db: no\.\.such has no address \(.+\), so that its connections are not watched; correct the name, or what answers ""getent hosts no\.\.such""$");
        }
    }

    [Fact]
    public async Task A_server_that_is_reached_by_a_Unix_socket_is_described_in_those_words_too()
    {
        await using var probe = new SessionProbe(() => new NpgsqlConnectionStringBuilder($"Host={_root.Path};Username=nobody"));
        (await Should.ThrowAsync<ServerProbeException>(() => probe.ReadTextAsync("SELECT 1", default))).Message.ShouldBe(_root.File(".s.PGSQL.5432") + " is not there");
    }

    [Fact]
    public void A_Unix_socket_that_cannot_be_had_is_described_in_its_own_words()
    {
        Describe(_root.File("none.sock")).ShouldBe($"{_root.File("none.sock")} is not there");
        File.WriteAllText(_root.File("file.sock"), "");
        Describe(_root.File("file.sock")).ShouldBe($"nobody listens on {_root.File("file.sock")}");

        static string Describe(string path)
        {
            using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            return UnixSocketError.Describe(path, Should.Throw<SocketException>(() => socket.Connect(new UnixDomainSocketEndPoint(path))));
        }
    }
}
