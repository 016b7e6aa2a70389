using Shouldly;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.CoreTests.Remedies;

/// <summary>Connect probes or neighbours contradict one another: one leg of a bundle is away, or one server of several.</summary>
public sealed class PartlyTests
{
    [Fact]
    public void Nothing_is_closed_in_the_first_half_minute_of_silence_and_the_incident_says_why()
    {
        var (bench, hung) = Contradicted();
        bench.Run(29 - Silence(bench, hung));
        bench.Connection(hung).Judged.Verdict.ShouldBe(Verdict.Partly);
        bench.Hands.All<Recycle>().ShouldBeEmpty();
        bench.Hands.Withheld.ShouldBe(["recycle partly"]);
        bench.Hands.All<IncidentReport>().Single().Incident.ShouldSatisfyAllConditions(
            incident => incident.Cause.ShouldBe("partly"), incident => incident.Outcome.ShouldBe("withheld"), incident => incident.WithheldBy.ShouldBe("partly"));
    }

    [Fact]
    public void What_is_silent_for_longer_probes_and_all_is_closed_all_the_same()
    {
        var (bench, hung) = Contradicted();
        var sent = bench.Connection(hung).SilenceStart!.Value;
        bench.Run(45 - Silence(bench, hung));
        (bench.Hands.Log.Single(entry => entry.Command is Recycle).At - sent).ShouldBeInRange(TimeSpan.FromSeconds(30), TimeSpan.FromSeconds(40));
        bench.Hands.Ended.ShouldContain("recycle released");
    }

    /// <summary>The simulator closed live ones whose leg had come back since they were asked, seconds before.</summary>
    [Fact]
    public void It_is_asked_as_often_after_half_a_minute_as_before()
    {
        var (bench, _) = Contradicted(section => section with { Recycle = false });
        bench.Run(60);
        bench.Hands.Log.Count(entry => entry.Command is WindowProbe && entry.At > bench.Now - TimeSpan.FromSeconds(10)).ShouldBeGreaterThan(8);
    }

    /// <summary>The simulator closed one so whose leg had come back 0.17 s before, and that was asked a second before.</summary>
    [Fact]
    public void Nothing_is_closed_on_what_was_asked_a_while_ago()
    {
        var (bench, hung) = Contradicted();
        bench.Hands.TouchByProbe = TouchOutcome.NotPermitted; // the kernel's own retransmissions alone: 25 s after the silence began, and again after 51 s
        var sent = bench.Connection(hung).SilenceStart!.Value;
        bench.Run(50.5 - Silence(bench, hung));
        bench.Hands.All<Recycle>().ShouldBeEmpty();
        bench.Run(5);
        (bench.Hands.Log.Single(entry => entry.Command is Recycle).At - sent).ShouldBeInRange(TimeSpan.FromSeconds(51), TimeSpan.FromSeconds(51.5));
    }

    [Fact]
    public void One_that_answers_a_window_probe_meanwhile_is_alive_and_stays()
    {
        var (bench, hung) = Contradicted();
        bench.Run(10);
        hung.Answers = true;
        bench.Run(60);
        bench.Hands.All<Recycle>().ShouldBeEmpty();
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Nobody_is_terminated(bool recycle)
    {
        var (bench, _) = Contradicted(section => section with { Recycle = recycle });
        bench.Hands.Recycled = new RecycleOutcome(RecycleResult.Refused, "no", 7);
        bench.Run(120);
        bench.Hands.All<Terminate>().ShouldBeEmpty();
        bench.Hands.All<InspectWorker>().ShouldBeEmpty();
        bench.Hands.Withheld.ShouldContain(recycle ? "recycle partly" : "terminate partly");
    }

    /// <summary>connect() takes the port of a leg that is away: from other ports all goes well.</summary>
    [Fact]
    public void A_port_that_gets_no_answer_while_others_do_is_a_contradiction_too()
    {
        var bench = new Bench { Path = ConnectProbeOutcome.TimedOut };
        var hung = bench.Open(idle: 1);
        hung.Send(bench.Now);
        bench.Run(1.5);
        bench.Hands.All<ConnectProbe>().ShouldContain(probe => probe.LocalPort == 0);
        bench.Path = ConnectProbeOutcome.Connected;
        bench.PathFrom[50_000] = ConnectProbeOutcome.TimedOut;
        bench.Run(15);
        bench.Hands.All<ConnectProbe>().Select(probe => probe.LocalPort).Distinct().ShouldBe([0, 50_000], ignoreOrder: true, "the port that failed is tried again in turn with others");
        bench.Connection(hung).Judged.Verdict.ShouldBe(Verdict.Partly);
        bench.Hands.All<Recycle>().ShouldBeEmpty();
        bench.PathFrom.Clear();
        bench.Run(3);
        bench.Connection(hung)?.Judged.Verdict.ShouldNotBe(Verdict.Partly, "once that port is answered the path is up");
    }

    /// <summary>Connect probes succeed, and a connection of an hour goes on, while one that was in use a moment ago has fallen silent.</summary>
    private static (Bench Bench, FakeSocket Hung) Contradicted(Func<UpstreamSection, UpstreamSection>? with = null)
    {
        var bench = new GoingOn(with);
        var (older, hung) = (bench.Open(idle: 1), bench.Open(idle: 1));
        (older.Answers, hung.Answers) = (true, true);
        bench.Older = older;
        bench.Run(62);
        hung.Receive(bench.Now);
        bench.Tick();
        hung.Answers = false;
        hung.Send(bench.Now);
        bench.Run(5);
        return (bench, hung);
    }

    private static double Silence(Bench bench, FakeSocket hung) => (bench.Now - bench.Connection(hung).SilenceStart!.Value).TotalSeconds;
}

/// <summary>A bench on which one connection has something acknowledged all the time.</summary>
internal sealed class GoingOn(Func<UpstreamSection, UpstreamSection>? with) : Bench(with: with)
{
    internal FakeSocket? Older { get; set; }

    internal override void Tick()
    {
        Older?.Receive(Now + Short);
        base.Tick();
    }
}
