using System.Net;
using Shouldly;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.CoreTests.Remedies;

/// <summary>The back-end of a closed connection: asked for once, followed to an end whatever becomes of it.</summary>
public sealed class ReleaseTests
{
    private static readonly ServerSession Backend = new(
        77, new DateTime(1970, 1, 1, 0, 0, 0, DateTimeKind.Utc), TcpEndPoint.From(IPAddress.Parse("10.1.0.2"), 40_001), "active", "app", "web", TimeSpan.FromHours(5), null, null, TimeSpan.FromSeconds(3));

    [Fact]
    public void The_backend_of_a_closed_connection_is_asked_for_after_it_was_written_down_as_pending()
    {
        var bench = Closed();
        var commands = bench.Hands.Log.Select(entry => entry.Command).ToList();
        var release = commands.FindIndex(command => command is ReleaseSession);
        var begun = commands[release - 1].ShouldBeOfType<IncidentReport>();
        (begun.Stage, begun.Incident.Remedy, begun.Incident.Outcome).ShouldBe((IncidentStage.Begun, "release", "pending"));
        ((ReleaseSession)commands[release]).ShouldSatisfyAllConditions(
            asked => asked.Incident.ShouldBe(begun.Incident.Id),
            asked => asked.Upstream.ShouldBe("db"),
            asked => asked.Claim.Client.ToString().ShouldBe("10.1.0.2:40001"),
            asked => asked.Claim.IsInOwnNamespace.ShouldBeTrue());
        commands.FindIndex(command => command is Recycle).ShouldBeLessThan(release);
        bench.Hands.All<ReleaseSession>().Count().ShouldBe(1);
    }

    [Fact]
    public void Its_incident_is_one_of_its_own()
    {
        var bench = Closed();
        var begun = bench.Hands.All<IncidentReport>().Where(report => report.Stage == IncidentStage.Begun).Select(report => report.Incident).ToList();
        begun.Select(incident => incident.Remedy).ShouldBe(["recycle", "release"]);
        begun[1].Id.ShouldNotBe(begun[0].Id);
        begun[1].Time.ShouldBeGreaterThan(begun[0].Time);
        begun[1].ShouldSatisfyAllConditions(incident => incident.StuckSeconds.ShouldBeNull(), incident => incident.ReleaseSeconds.ShouldBeNull());
    }

    [Theory]
    [InlineData(UpstreamProtocol.Tcp, "/etc/dsn")]
    [InlineData(UpstreamProtocol.MySql, "/etc/dsn")]
    [InlineData(UpstreamProtocol.PostgreSql, null)]
    public void Where_no_server_can_be_asked_nothing_is_released(UpstreamProtocol protocol, string? dsn)
    {
        var bench = Closed(section => section with { Protocol = protocol, DsnFile = dsn });
        bench.Hands.All<Recycle>().Count().ShouldBe(1);
        bench.Hands.All<ReleaseSession>().ShouldBeEmpty();
        bench.Engine.IsFollowing.ShouldBeFalse();
    }

    [Theory]
    [InlineData(RecycleResult.Vanished)]
    [InlineData(RecycleResult.Recovered)]
    [InlineData(RecycleResult.Refused)]
    [InlineData(RecycleResult.Failed)]
    public void The_backend_of_a_connection_that_was_not_closed_is_left_alone(RecycleResult result)
    {
        var bench = Bench();
        bench.Hands.Recycled = new RecycleOutcome(result, "why", 7);
        bench.Hands.Blocked = BlockedOn.Other;
        bench.Forget(bench.Open());
        bench.Hands.All<Recycle>().ShouldNotBeEmpty();
        bench.Hands.All<ReleaseSession>().ShouldBeEmpty();
    }

    [Theory]
    [InlineData("released", null, null)]
    [InlineData("vanished", null, null)]
    [InlineData("failed", null, "the server could not end it")]
    [InlineData("withheld", Guardrail.Unknown, "source NAT")]
    [InlineData("withheld", Guardrail.NotPermitted, "pg_signal_backend")]
    public void What_came_of_it_stands_in_the_incident(string outcome, Guardrail? guardrail, string? detail)
    {
        var bench = Closed();
        var id = bench.Hands.All<ReleaseSession>().Single().Incident;
        bench.Engine.IsFollowing.ShouldBeTrue();
        bench.Engine.ReleaseEnded(new ReleaseEnded(id, outcome, guardrail, detail, outcome == "released" ? Backend : null));
        bench.Tick();

        var ended = Ended(bench).Single();
        (ended.Id, ended.Outcome, ended.WithheldBy).ShouldBe((id, outcome, guardrail?.ToName()));
        ended.Why.ShouldEndWith(detail ?? "locks");
        ended.Evidence.ContainsKey("backend_pid").ShouldBe(outcome == "released");
        bench.Hands.Withheld.ShouldBe(guardrail is { } by ? [$"release {by.ToName()}"] : []);
        bench.Engine.IsFollowing.ShouldBeFalse();
    }

    [Fact]
    public void The_evidence_names_the_backend_that_was_ended()
    {
        var bench = Closed();
        bench.Engine.ReleaseEnded(new ReleaseEnded(bench.Hands.All<ReleaseSession>().Single().Incident, "released", null, null, Backend));
        bench.Tick();
        Ended(bench).Single().Evidence.ShouldSatisfyAllConditions(
            evidence => evidence["backend_pid"].ShouldBe("77"),
            evidence => evidence["session_state"].ShouldBe("active"),
            evidence => evidence["transaction_seconds"].ShouldBe("3"));
    }

    [Fact]
    public void One_of_which_nothing_is_heard_ends_as_failed_after_half_a_minute_and_what_comes_later_changes_nothing()
    {
        var bench = Closed();
        var id = bench.Hands.All<ReleaseSession>().Single().Incident;
        bench.Run(29 - (bench.Now - bench.Hands.Log.Single(entry => entry.Command is ReleaseSession).At).TotalSeconds);
        Ended(bench).ShouldBeEmpty();
        bench.Run(2);
        Ended(bench).Single().ShouldSatisfyAllConditions(incident => incident.Outcome.ShouldBe("failed"), incident => incident.Why.ShouldContain("nothing was heard of it"));
        bench.Engine.IsFollowing.ShouldBeFalse();

        bench.Engine.ReleaseEnded(new ReleaseEnded(id, "released", null, null, null));
        bench.Run(1);
        Ended(bench).Count().ShouldBe(1);
    }

    [Fact]
    public void The_end_of_a_release_that_nobody_asked_for_is_no_incident()
    {
        var bench = Bench();
        bench.Engine.ReleaseEnded(new ReleaseEnded("20260101T000000.000Z-000001", "released", null, null, Backend));
        bench.Run(1);
        bench.Hands.All<IncidentReport>().ShouldBeEmpty();
    }

    [Fact]
    public void A_backend_that_was_known_before_is_named_in_the_command_so_that_another_in_its_place_is_left_alone()
    {
        var bench = Bench();
        var socket = bench.Open(idle: 1);
        bench.Run(1);
        bench.World.Server("db", View(bench, Backend));
        bench.Forget(socket, 12);
        bench.Hands.All<ReleaseSession>().Single().Known.ShouldBe(Backend);
        bench.Hands.All<IncidentReport>().First(report => report.Incident.Remedy == "release").Incident.Evidence["backend_pid"].ShouldBe("77");
    }

    [Theory]
    [InlineData("another client")]
    [InlineData("taken before the connection was seen")]
    [InlineData("stale")]
    [InlineData("younger")]
    [InlineData("translated")]
    public void A_backend_that_is_not_proven_is_not_named(string how)
    {
        var bench = Bench();
        var early = View(bench, Backend);
        var socket = bench.Open(idle: 1);
        bench.Run(how == "younger" ? 10 : 1);
        bench.World.Server("db", how switch
        {
            "another client" => View(bench, Backend with { Client = TcpEndPoint.From(IPAddress.Parse("10.1.0.2"), 40_002) }),
            "taken before the connection was seen" => early,
            "younger" => View(bench, Backend with { Age = TimeSpan.FromSeconds(1) }),
            "translated" => View(bench, Backend, isOwnEndSeen: false),
            _ => View(bench, Backend),
        });
        if (how == "stale")
        {
            bench.Run(16);
        }

        bench.Forget(socket, 12);
        bench.Hands.All<ReleaseSession>().Single().Known.ShouldBeNull();
    }

    [Theory]
    [InlineData(true, "release observe")]
    [InlineData(false, "release unknown")]
    public void In_observe_mode_nothing_is_asked_for_and_what_would_have_been_is_told_once(bool isKnown, string withheld)
    {
        var bench = Bench(AgentMode.Observe);
        var socket = bench.Open(idle: 1);
        bench.Run(1);
        bench.World.Server("db", isKnown ? View(bench, Backend) : null);
        bench.Forget(socket, 14);
        bench.Hands.Acted.ShouldBeFalse();
        bench.Hands.Withheld.Where(by => by.StartsWith("release", StringComparison.Ordinal)).ShouldBe([withheld]);
        var told = bench.Hands.All<IncidentReport>().Single(report => report.Incident.Remedy == "release");
        (told.Stage, told.Incident.Outcome).ShouldBe((IncidentStage.Recorded, "withheld"));
    }

    [Fact]
    public void In_common_mode_no_more_backends_are_asked_for_than_connections_were_closed()
    {
        var bench = Bench();
        var sockets = Enumerable.Range(0, 40).Select(_ => bench.Open()).ToList();
        sockets.ForEach(socket => socket.Send(bench.Now));
        bench.Run(30);
        bench.Hands.All<Recycle>().Count().ShouldBe(40);
        bench.Hands.All<ReleaseSession>().Count().ShouldBe(40);
        bench.Hands.All<ReleaseSession>().Select(release => release.Incident).Distinct().Count().ShouldBe(40);
    }

    private static Bench Bench(AgentMode mode = AgentMode.Protect, Func<UpstreamSection, UpstreamSection>? with = null) =>
        new(mode, section => (with ?? (changed => changed))(section with { Protocol = UpstreamProtocol.PostgreSql, DsnFile = "/etc/conn-sidecar/db.dsn" }));

    private static Bench Closed(Func<UpstreamSection, UpstreamSection>? with = null)
    {
        var bench = Bench(with: with);
        bench.Forget(bench.Open());
        return bench;
    }

    private static IEnumerable<Incident> Ended(Bench bench) =>
        bench.Hands.All<IncidentReport>().Where(report => report is { Stage: IncidentStage.Ended, Incident.Remedy: "release" }).Select(report => report.Incident);

    private static ServerView View(Bench bench, ServerSession session, bool isOwnEndSeen = true) => TestServer.View(bench.Now, session, isOwnEndSeen);
}
