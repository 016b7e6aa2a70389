using Shouldly;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.CoreTests.Remedies;

/// <summary>Connections that live and that a path which counts only data is about to forget: closed only while provably nobody uses them.</summary>
public sealed class NearTheTimeoutTests
{
    [Theory]
    [InlineData(40, false)]
    [InlineData(46, true)]
    public void One_whose_session_rests_is_closed_in_the_last_quarter_of_the_timeout_and_nobody_is_called_hung(double idle, bool isClosed)
    {
        var bench = Bench();
        var socket = bench.Open(idle: idle);
        Say(bench, TestServer.Session(1));
        bench.Run(1);
        bench.Connection(socket)?.Judged.Reason.ShouldBe(isClosed ? Reason.NearTheTimeout : Reason.PastHalfTheTimeout);
        bench.Hands.All<Recycle>().Count().ShouldBe(isClosed ? 1 : 0);
        bench.Hands.All<RecycledReport>().Select(report => report.Reason).ShouldBe(isClosed ? ["expired"] : []);
        bench.Hands.All<ReleasedReport>().ShouldBeEmpty("nobody waited for it");
        bench.Hands.All<CheckWorker>().ShouldBeEmpty("nobody waited for it");
        bench.Hands.All<ReleaseSession>().Count().ShouldBe(isClosed ? 1 : 0);
    }

    [Theory]
    [InlineData("active", null)]
    [InlineData("idle in transaction", 3.0)]
    [InlineData("idle", 3.0)]
    public void One_that_is_used_is_left_alone_and_that_is_no_incident(string state, double? transaction)
    {
        var bench = Bench();
        bench.Open(idle: 46);
        Say(bench, TestServer.Session(1, state, transaction is { } age ? TimeSpan.FromSeconds(age) : null));
        bench.Run(10);
        bench.Hands.All<Recycle>().ShouldBeEmpty();
        bench.Hands.All<IncidentReport>().ShouldBeEmpty();
    }

    [Fact]
    public void Where_no_server_can_be_asked_nothing_is_closed_and_nothing_told()
    {
        var bench = Bench();
        bench.Open(idle: 46);
        bench.Run(10);
        bench.Hands.All<Recycle>().ShouldBeEmpty();
        bench.Hands.All<IncidentReport>().ShouldBeEmpty();
    }

    [Fact]
    public void A_server_that_was_asked_before_the_last_data_moved_says_nothing_yet()
    {
        var bench = Bench();
        var asked = bench.Now - TimeSpan.FromSeconds(50);
        bench.Open(idle: 46);
        bench.World.Server("db", TestServer.View(asked, TestServer.Session(1)));
        bench.Run(1);
        bench.Hands.All<Recycle>().ShouldBeEmpty();
        bench.Hands.All<IncidentReport>().ShouldBeEmpty();
    }

    [Fact]
    public void A_server_that_was_asked_long_ago_says_nothing_about_now()
    {
        var bench = Bench();
        bench.Open(idle: 25);
        Say(bench, TestServer.Session(1));
        bench.Run(25);
        bench.Hands.All<Recycle>().ShouldBeEmpty();
    }

    [Fact]
    public void A_session_that_is_not_provably_its_own_is_told_once_with_what_is_missing()
    {
        var bench = Bench();
        bench.Open(idle: 46);
        bench.World.Server("db", TestServer.View(bench.Now, TestServer.Session(1), isOwnEndSeen: false));
        bench.Run(10);
        bench.Hands.All<Recycle>().ShouldBeEmpty();
        bench.Hands.Withheld.ShouldBe(["recycle unknown"]);
        bench.Hands.All<IncidentReport>().Single().Incident.ShouldSatisfyAllConditions(
            incident => incident.WithheldBy.ShouldBe("unknown"), incident => incident.Cause.ShouldBe("expired"), incident => incident.Why.ShouldContain("source NAT"));
    }

    [Fact]
    public void It_is_closed_only_after_a_connect_probe_of_just_now_succeeded()
    {
        var bench = Bench();
        bench.Path = null;
        bench.Open(idle: 46);
        Say(bench, TestServer.Session(1));
        bench.Run(2);
        bench.Hands.All<ConnectProbe>().Count().ShouldBe(1);
        bench.Hands.All<Recycle>().ShouldBeEmpty();
        bench.Path = ConnectProbeOutcome.Connected;
        bench.Run(1);
        bench.Hands.All<Recycle>().Count().ShouldBe(1);
    }

    [Theory]
    [InlineData("late", "recycle late-tick")]
    [InlineData("observe", "recycle observe")]
    [InlineData("down", "recycle path-down")]
    public void Every_guardrail_of_a_close_holds_for_it(string what, string withheld)
    {
        var bench = Bench(what == "observe" ? AgentMode.Observe : AgentMode.Protect);
        bench.IsLate = what == "late";
        bench.Path = what == "down" ? ConnectProbeOutcome.TimedOut : ConnectProbeOutcome.Connected;
        if (what == "down")
        {
            bench.Forget(bench.Open(idle: 1), 3);
        }

        bench.Open(idle: 46);
        Say(bench, TestServer.Session(what == "down" ? 2 : 1));
        bench.Run(2);
        bench.Hands.All<Recycle>().ShouldBeEmpty();
        bench.Hands.Withheld.ShouldContain(withheld);
    }

    [Fact]
    public void With_recycling_off_nothing_is_closed()
    {
        var bench = Bench(with: section => section with { Recycle = false });
        bench.Open(idle: 46);
        Say(bench, TestServer.Session(1));
        bench.Run(10);
        bench.Hands.All<Recycle>().ShouldBeEmpty();
        bench.Hands.All<Terminate>().ShouldBeEmpty();
    }

    [Fact]
    public void One_that_moved_in_between_is_tried_again_since_it_is_near_its_end_all_the_same()
    {
        var bench = Bench();
        bench.Open(idle: 46);
        Say(bench, TestServer.Session(1));
        bench.Hands.Recycled = new RecycleOutcome(RecycleResult.Recovered, "it moved after it was judged", 7);
        bench.Run(1);
        bench.Hands.All<Recycle>().ShouldNotBeEmpty();
        bench.Hands.Log.Clear();
        bench.Hands.Recycled = new RecycleOutcome(RecycleResult.Released, null, 7);
        bench.Run(1);
        bench.Hands.All<Recycle>().Count().ShouldBe(1);
    }

    [Fact]
    public void A_pool_is_closed_ten_a_second()
    {
        var bench = Bench();
        var sockets = Enumerable.Range(0, 30).Select(_ => bench.Open(idle: 40)).ToList();
        while (!sockets.All(socket => bench.Connection(socket) is not { } still || still.Judged.Reason == Reason.NearTheTimeout))
        {
            bench.Tick();
        }

        bench.World.Server("db", TestServer.View(bench.Now, [.. Enumerable.Range(1, 30).Select(number => TestServer.Session(number))]));
        bench.Run(0.9);
        bench.Hands.All<Recycle>().Count().ShouldBe(10);
    }

    private static Bench Bench(AgentMode mode = AgentMode.Protect, Func<UpstreamSection, UpstreamSection>? with = null) => new(
        mode,
        section => (with ?? (same => same))(section with { Protocol = UpstreamProtocol.PostgreSql, DsnFile = "/etc/conn-sidecar/db.dsn", RefreshedBy = IdleClock.Data }));

    private static void Say(Bench bench, ServerSession session) => bench.World.Server("db", TestServer.View(bench.Now, session));
}
