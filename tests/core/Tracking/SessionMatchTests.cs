using System.Net;
using Shouldly;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.CoreTests.Tracking;

/// <summary>One test for each thing without which a back-end is not provably a connection's.</summary>
public sealed class SessionMatchTests
{
    private static readonly TcpEndPoint Client = TcpEndPoint.From(IPAddress.Parse("10.0.1.1"), 40000);
    private static readonly TcpEndPoint Server = TcpEndPoint.From(IPAddress.Parse("10.0.2.2"), 5432);

    private static readonly ServerSession Session = new(
        77, new DateTime(2026, 1, 1, 0, 0, 0, DateTimeKind.Utc), Client, "idle", "app", "web", TimeSpan.FromMinutes(10), null, null, null);

    private static readonly ServerScan Scan = new()
    {
        Version = "15.0",
        Server = Server,
        Self = TcpEndPoint.From(IPAddress.Parse("10.0.1.1"), 40001),
        IsInRecovery = false,
        MaySeeAll = true,
        MaySignal = true,
        ConnectionLimit = 97,
        Connections = 4,
        Sessions = [Session],
        IsComplete = true,
    };

    private static readonly SessionClaim Claim = new(UpstreamDirection.Outbound, Client, Server, TimeSpan.FromMinutes(1), true, 5);

    private static readonly TimeSpan Taken = TimeSpan.FromMinutes(10);

    [Theory]
    [InlineData("idle", null, true)]
    [InlineData("idle", 3.0, false)]
    [InlineData("idle in transaction", 3.0, false)]
    [InlineData("active", 3.0, false)]
    public void A_connection_rests_when_its_session_is_idle_outside_a_transaction(string state, double? transaction, bool rests)
    {
        var session = Session with { State = state, TransactionAge = transaction is { } age ? TimeSpan.FromSeconds(age) : null };
        SessionMatch.IsAtRest(new ServerView(Scan with { Sessions = [session] }, Taken, true), Claim, Taken - TimeSpan.FromSeconds(1), out _).ShouldBe(rests);
    }

    [Fact]
    public void Data_that_moved_since_the_server_was_asked_makes_its_word_void() =>
        SessionMatch.IsAtRest(new ServerView(Scan, Taken, true), Claim, Taken + TimeSpan.FromMilliseconds(1), out _).ShouldBeNull();

    [Fact]
    public void Whether_a_session_rests_that_is_not_proven_is_not_known()
    {
        SessionMatch.IsAtRest(new ServerView(Scan, Taken, isOwnEndSeen: false), Claim, TimeSpan.Zero, out var translated).ShouldBeNull();
        translated.ShouldNotBeNull().ShouldContain("source NAT");
        SessionMatch.IsAtRest(new ServerView(Scan with { Sessions = [] }, Taken, true), Claim, TimeSpan.Zero, out var gone).ShouldBeNull();
        gone.ShouldNotBeNull().ShouldContain("no such session");
    }

    [Fact]
    public void The_same_ends_on_both_sides_prove_it() => Identity(Scan, Claim).ShouldBe(SessionIdentity.Proven);

    [Fact]
    public void No_back_end_with_that_client_means_that_it_has_gone() => Identity(Scan with { Sessions = [] }, Claim).ShouldBe(SessionIdentity.Gone);

    [Fact]
    public void A_back_end_that_could_not_be_seen_may_be_there() =>
        Identity(Scan with { Sessions = [], MaySeeAll = false }, Claim).ShouldBe(SessionIdentity.Unknown);

    [Fact]
    public void A_list_that_broke_off_proves_no_absence() =>
        Identity(Scan with { Sessions = [], IsComplete = false }, Claim).ShouldBe(SessionIdentity.Unknown);

    [Fact]
    public void Address_translation_on_the_agents_own_way_proves_nothing() => Identity(Scan, Claim, isOwnEndSeen: false).ShouldBe(SessionIdentity.Unknown);

    [Fact]
    public void Another_source_address_than_the_agents_is_not_proven() =>
        Identity(Scan with { Self = TcpEndPoint.From(IPAddress.Parse("10.0.9.9"), 40001) }, Claim).ShouldBe(SessionIdentity.Unknown);

    [Fact]
    public void A_DSN_that_leads_to_another_server_proves_nothing() =>
        Identity(Scan with { Server = TcpEndPoint.From(IPAddress.Parse("10.0.2.3"), 5432) }, Claim).ShouldBe(SessionIdentity.Unknown);

    [Fact]
    public void A_DSN_over_a_Unix_socket_proves_nothing_about_outbound_connections() =>
        Identity(Scan with { Server = null, Self = null }, Claim).ShouldBe(SessionIdentity.Unknown);

    [Fact]
    public void A_server_in_recovery_proves_nothing() => Identity(Scan with { IsInRecovery = true }, Claim).ShouldBe(SessionIdentity.Unknown);

    [Fact]
    public void A_connection_in_another_namespace_proves_nothing() => Identity(Scan, Claim with { IsInOwnNamespace = false }).ShouldBe(SessionIdentity.Unknown);

    [Fact]
    public void Two_back_ends_with_the_same_client_prove_nothing() =>
        Identity(Scan with { Sessions = [Session, Session with { Pid = 78 }] }, Claim).ShouldBe(SessionIdentity.Unknown);

    [Fact]
    public void A_back_end_younger_than_the_connection_is_another_ones() =>
        Identity(Scan with { Sessions = [Session with { Age = TimeSpan.FromSeconds(3) }] }, Claim).ShouldBe(SessionIdentity.Unknown);

    [Fact]
    public void A_state_that_may_not_be_seen_proves_nothing() =>
        Identity(Scan with { Sessions = [Session with { State = null }] }, Claim).ShouldBe(SessionIdentity.Unknown);

    [Fact]
    public void On_the_servers_own_host_the_owner_of_the_socket_is_the_back_end()
    {
        var inbound = new SessionClaim(UpstreamDirection.Inbound, Server, Client, TimeSpan.FromMinutes(1), false, 77);

        Identity(Scan with { Server = null, Self = null }, inbound, isOwnEndSeen: false).ShouldBe(SessionIdentity.Proven);
        Identity(Scan, inbound with { OwnerPid = 78 }).ShouldBe(SessionIdentity.Unknown);
        Identity(Scan, inbound with { OwnerPid = null }).ShouldBe(SessionIdentity.Unknown);
    }

    [Theory]
    [InlineData(false, false, false, Guardrail.Unknown)]
    [InlineData(true, true, false, Guardrail.Unknown)]
    [InlineData(true, null, false, Guardrail.Unknown)]
    [InlineData(true, false, true, Guardrail.Observe)]
    public void A_back_end_is_ended_only_when_it_is_proven_and_its_client_has_gone(bool proven, bool? alive, bool observe, Guardrail withheld) =>
        RemedyPlanner.ForRelease(new ReleaseCase { IsProven = proven, IsClientAlive = alive, Observe = observe }).WithheldBy.ShouldBe(withheld);

    [Fact]
    public void A_proven_orphan_is_ended() =>
        RemedyPlanner.ForRelease(new ReleaseCase { IsProven = true, IsClientAlive = false, Observe = false }).IsAction.ShouldBeTrue();

    private static SessionIdentity Identity(ServerScan scan, SessionClaim claim, bool isOwnEndSeen = true)
    {
        var identity = SessionMatch.Find(new ServerView(scan, Taken, isOwnEndSeen), claim, out var session, out var why);
        (session is not null).ShouldBe(identity == SessionIdentity.Proven);
        (why is not null).ShouldBe(identity == SessionIdentity.Unknown);
        return identity;
    }
}
