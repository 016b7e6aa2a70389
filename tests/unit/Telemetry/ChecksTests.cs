using Shouldly;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Endpoints;
using Xunit;

namespace Sidecar.UnitTests.Telemetry;

public sealed class ChecksTests
{
    private static readonly LoopHealth Well = Samples.Health();

    [Fact]
    public void A_reachable_database_is_OK_with_its_round_trip_time() =>
        Checks.Database(Samples.Snapshot(), Well, null).ShouldBe((200, "ServiceOK orders-db 0.8 ms"));

    [Fact]
    public void A_failing_fresh_connection_is_KO() =>
        Checks.Database(Samples.Snapshot(upstreams: [Samples.Upstream(), Samples.Upstream("cache", up: false)]), Well, null)
            .ShouldBe((503, "ServiceKO orders-db 0.8 ms, cache a fresh connection fails"));

    [Fact]
    public void One_upstream_can_be_asked_for() =>
        Checks.Database(Samples.Snapshot(upstreams: [Samples.Upstream(), Samples.Upstream("cache", up: false)]), Well, "orders-db")
            .ShouldBe((200, "ServiceOK orders-db 0.8 ms"));

    [Fact]
    public void An_unknown_upstream_is_not_found_and_its_name_is_made_harmless() =>
        Checks.Database(Samples.Snapshot(), Well, "x\r\ny").ShouldBe((404, "ServiceKO no upstream is named x\\x0d\\x0ay"));

    [Fact]
    public void Connections_in_an_outage_are_KO() =>
        Checks.Database(Samples.Snapshot([Samples.Connection(Verdict.Outage)], [Samples.Upstream(up: null)]), Well, null)
            .ShouldBe((503, "ServiceKO orders-db 1 connection in an outage"));

    [Fact]
    public void Without_a_fresh_connection_a_living_one_says_enough() =>
        Checks.Database(Samples.Snapshot(upstreams: [Samples.Upstream(up: null)]), Well, null).ShouldBe((200, "ServiceOK orders-db in use"));

    /// <summary>Of the well-known ports none is told of before something has connected to it.</summary>
    [Fact]
    public void A_host_on_which_nothing_is_used_is_OK()
    {
        Checks.Database(Samples.Snapshot([], []), Well, null).ShouldBe((200, "ServiceOK no upstream is in use"));
        Checks.Pool(Samples.Snapshot([], []), Well, null).ShouldBe((200, "ServiceOK no upstream is in use"));
        Checks.Version(Samples.Snapshot([], []), Well, null).ShouldBe((200, "ServiceOK no check is declared"));
        Checks.Workers(Samples.Snapshot([], []), Well, null).ShouldBe((200, "ServiceOK no group of workers is declared"));
        Checks.Database(Samples.Snapshot([], []), Well, "postgresql").Status.ShouldBe(404);
        Checks.Workers(Samples.Snapshot([], []), Well, "web").ShouldBe((404, "ServiceKO no group of workers is named web"));
    }

    [Fact]
    public void What_is_not_known_is_not_OK() =>
        Checks.Database(Samples.Snapshot([], [Samples.Upstream(up: null)]), Well, null)
            .ShouldBe((503, "ServiceKO orders-db not known: no connection shows it"));

    [Fact]
    public void A_loop_that_stands_still_vouches_for_nothing()
    {
        Checks.Database(Samples.Snapshot(), Samples.Health(silence: 60), null).ShouldBe((503, "ServiceKO the agent's loop stands still"));
        Checks.Pool(Samples.Snapshot(), Samples.Health(silence: 60), null).ShouldBe((503, "ServiceKO the agent's loop stands still"));
    }

    [Fact]
    public void Pool_use_is_the_share_of_open_connections_in_use() =>
        Checks.Pool(Samples.Snapshot([Samples.Connection(Verdict.Waiting), Samples.Connection(), Samples.Connection(Verdict.Aging), Samples.Connection()]), Well, null)
            .ShouldBe((200, "ServiceOK orders-db 25% (1 of 4 open connections in use)"));

    [Fact]
    public void Against_the_servers_limit_every_connection_counts_also_other_hosts()
    {
        var connections = Enumerable.Range(0, 12).Select(_ => Samples.Connection()).ToList();
        Checks.Pool(Samples.Snapshot(connections, [Samples.Upstream(server: (19, 38))]), Well, null)
            .ShouldBe((200, "ServiceOK orders-db 50% (19 of 38 on the server, 12 from here, 0 in use)"));
        Checks.Pool(Samples.Snapshot(connections, [Samples.Upstream(server: (19, 20))]), Well, null)
            .ShouldBe((503, "ServiceKO orders-db 95% (19 of 20 on the server, 12 from here, 0 in use)"));
    }

    [Fact]
    public void A_hanging_connection_is_KO() =>
        Checks.Pool(Samples.Snapshot([Samples.Connection(Verdict.Stuck), Samples.Connection()]), Well, null)
            .ShouldBe((503, "ServiceKO orders-db 50% (1 of 2 open connections in use, 1 hanging)"));

    [Fact]
    public void An_upstream_without_connections_uses_nothing() =>
        Checks.Pool(Samples.Snapshot([]), Well, null).ShouldBe((200, "ServiceOK orders-db 0% (0 of 0 open connections in use)"));

    [Fact]
    public void Versions_that_are_the_same_are_OK() =>
        Checks.Version(Samples.Snapshot() with { Checks = [Samples.Check()] }, Well, null).ShouldBe((200, "ServiceOK app 3.2.1"));

    [Fact]
    public void A_version_that_differs_is_KO_with_both() =>
        Checks.Version(Samples.Snapshot() with { Checks = [Samples.Check(expected: "3.3.0"), Samples.Check("schema")] }, Well, null)
            .ShouldBe((503, "ServiceKO app 3.2.1, expected 3.3.0, schema 3.2.1"));

    [Fact]
    public void A_version_that_is_not_known_is_KO_with_the_reason() =>
        Checks.Version(Samples.Snapshot() with { Checks = [Samples.Check(actual: null, problem: "actual: exit status 1")] }, Well, "app")
            .ShouldBe((503, "ServiceKO app not known: actual: exit status 1"));

    [Fact]
    public void Without_a_check_of_that_name_there_is_nothing_to_say() =>
        Checks.Version(Samples.Snapshot() with { Checks = [Samples.Check()] }, Well, "x\ny").ShouldBe((404, "ServiceKO no check is named x\\x0ay"));

    [Fact]
    public void A_server_that_is_not_in_its_declared_role_is_KO()
    {
        var upstream = Samples.Upstream();
        Checks.Database(Samples.Snapshot(upstreams: [upstream with { Server = upstream.Server! with { Role = "standby", IsRoleAsDeclared = false } }]), Well, null)
            .ShouldBe((503, "ServiceKO orders-db the server is a standby"));
        Checks.Database(Samples.Snapshot(upstreams: [upstream with { Server = upstream.Server! with { Role = "standby", IsRoleAsDeclared = null } }]), Well, null).Status.ShouldBe(200);
    }

    [Theory]
    [InlineData(0, 0.1, 200, "ServiceOK web 5 processes, 0 of 5 wait, imbalance 0.10")]
    [InlineData(3, 0.1, 200, "ServiceOK web 5 processes, 3 of 5 wait, imbalance 0.10")]
    [InlineData(4, 0.1, 503, "ServiceKO web 5 processes, 4 of 5 wait, imbalance 0.10")]
    [InlineData(0, 0.8, 503, "ServiceKO web 5 processes, 0 of 5 wait, imbalance 0.80")]
    public void A_full_queue_and_one_process_for_all_are_KO(long waiting, double imbalance, int status, string line) =>
        Checks.Workers(Samples.Snapshot() with { Listeners = [Samples.Listener(0, waiting), Samples.Listener(1, 0)], Groups = [Samples.Group(imbalance: imbalance)] }, Well, null).ShouldBe((status, line));

    [Fact]
    public void A_group_without_a_process_is_KO() =>
        Checks.Workers(Samples.Snapshot() with { Groups = [Samples.Group(imbalance: null) with { Processes = 0 }] }, Well, "web").ShouldBe((503, "ServiceKO web 0 processes"));
}
