using Shouldly;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.CoreTests.Remedies;

/// <summary>Outages, in which one connection asks for all of its path, and what lives goes on at once when they are over.</summary>
public sealed class ResumingTests
{
    private static readonly TimeSpan Half = TimeSpan.FromSeconds(0.5);

    [Fact]
    public void Whatever_lives_is_made_to_retransmit_within_half_a_second_after_the_path_is_back()
    {
        var (bench, sockets) = Outage(8, seconds: 40);
        var back = ComeBack(bench, sockets);
        bench.Run(1);
        var resumed = bench.Hands.Log.Where(entry => entry.Command is Resume).ToList();
        resumed.Count.ShouldBe(8);
        resumed.ShouldAllBe(entry => entry.At - back <= Half);
        bench.Hands.All<ResumedReport>().Count().ShouldBe(8);
        bench.Hands.All<Recycle>().ShouldBeEmpty();
    }

    [Fact]
    public void Nothing_is_made_to_retransmit_before_a_probe_on_that_very_connection_was_answered()
    {
        var (bench, sockets) = Outage(3, seconds: 30);
        bench.Hands.All<Resume>().ShouldBeEmpty();
        sockets[0].Answers = true;
        bench.Run(10);
        bench.Hands.All<Resume>().Select(resume => resume.Connection.Cookie).ShouldBe([sockets[0].Cookie]);
    }

    [Fact]
    public void In_an_outage_all_connections_of_a_path_together_are_probed_no_more_than_a_few_times_a_second()
    {
        var (bench, _) = Outage(1000, seconds: 12);
        bench.Hands.Log.Clear();
        bench.Run(10);

        // Five a second on behalf of the path, and each for itself now and then.
        bench.Hands.All<WindowProbe>().Count().ShouldBeInRange(40, 10 * 205);
        var each = bench.Hands.All<WindowProbe>().CountBy(probe => probe.Connection).Max(pair => pair.Value);
        each.ShouldBeLessThanOrEqualTo(4);
    }

    [Fact]
    public void Probes_that_come_so_soon_after_one_another_that_the_peer_may_answer_one_alone_are_no_evidence()
    {
        var (bench, sockets) = Outage(1, seconds: 20);
        var probes = bench.Hands.All<WindowProbe>().Count();
        probes.ShouldBeGreaterThan(40);
        bench.Connection(sockets[0]).Evidence(bench.Now).Stall!.Value.FailedTransmissions.ShouldBeLessThan(probes / 2);
    }

    [Fact]
    public void One_that_does_not_get_on_is_not_made_to_retransmit_again_until_another_outage_was_there()
    {
        var (bench, sockets) = Outage(1, seconds: 20);
        sockets[0].IsTooLarge = true;
        ComeBack(bench, sockets);
        bench.Run(30);
        bench.Hands.All<Resume>().Count().ShouldBe(1);

        bench.Path = ConnectProbeOutcome.TimedOut;
        sockets[0].Answers = false;
        bench.Run(30);
        sockets[0].IsTooLarge = false;
        ComeBack(bench, sockets);
        bench.Run(2);
        bench.Hands.All<Resume>().Count().ShouldBe(2);
    }

    [Fact]
    public void A_late_tick_makes_nothing_retransmit()
    {
        var (bench, sockets) = Outage(1, seconds: 20);
        bench.IsLate = true;
        ComeBack(bench, sockets);
        bench.Run(5);
        bench.Hands.All<Resume>().ShouldBeEmpty();
        bench.IsLate = false;
        bench.Run(1);
        bench.Hands.All<Resume>().Count().ShouldBe(1);
    }

    [Fact]
    public void After_a_failure_the_others_wait_for_the_next_tick()
    {
        var (bench, sockets) = Outage(5, seconds: 20);
        bench.Hands.Resumed = ResumeOutcome.Failed;
        ComeBack(bench, sockets);
        bench.Run(2);
        bench.Hands.Log.Where(entry => entry.Command is Resume).CountBy(entry => entry.At).ShouldAllBe(tick => tick.Value == 1);
    }

    [Fact]
    public void Where_it_fails_again_and_again_that_is_told_and_it_is_left_for_a_minute()
    {
        var (bench, sockets) = Outage(8, seconds: 20);
        bench.Hands.Resumed = ResumeOutcome.Failed;
        ComeBack(bench, sockets);
        bench.Run(20);
        bench.Hands.All<Resume>().Count().ShouldBe(3);
        bench.Hands.All<ResumeRefusedReport>().Single().Outcome.ShouldBe(ResumeOutcome.Failed);
    }

    [Fact]
    public void Where_it_is_not_permitted_that_is_told_once_and_the_kernels_timer_serves()
    {
        var (bench, sockets) = Outage(8, seconds: 20);
        bench.Hands.Resumed = ResumeOutcome.NotPermitted;
        ComeBack(bench, sockets);
        bench.Run(20);
        bench.Hands.All<Resume>().Count().ShouldBe(1);
        bench.Hands.All<ResumeRefusedReport>().Single().Outcome.ShouldBe(ResumeOutcome.NotPermitted);
        bench.Hands.All<ResumedReport>().ShouldBeEmpty();
        bench.Hands.All<Recycle>().ShouldBeEmpty();
    }

    [Fact]
    public void Where_the_probe_was_not_seen_to_leave_the_other_connections_of_the_path_are_left_to_the_kernel()
    {
        var (bench, sockets) = Outage(8, seconds: 20);
        bench.Hands.Resumed = ResumeOutcome.NotSeen;
        ComeBack(bench, sockets);
        bench.Run(20);
        bench.Hands.All<Resume>().Count().ShouldBe(1);
        bench.Hands.All<ResumeRefusedReport>().ShouldBeEmpty();
    }

    [Fact]
    public void One_whose_application_wants_to_be_told_of_errors_is_left_alone_and_the_others_go_on()
    {
        var (bench, sockets) = Outage(4, seconds: 20);
        bench.Hands.Resumed = ResumeOutcome.LeftAlone;
        ComeBack(bench, sockets);
        bench.Run(3);
        bench.Hands.All<Resume>().Select(resume => resume.Connection.Cookie).ShouldBe(sockets.Select(socket => socket.Cookie), ignoreOrder: true);
        bench.Hands.All<ResumedReport>().ShouldBeEmpty();
    }

    [Fact]
    public void An_owner_that_has_gone_is_looked_for_anew()
    {
        var (bench, sockets) = Outage(1, seconds: 20);
        bench.Hands.Resumed = ResumeOutcome.Gone;
        ComeBack(bench, sockets);
        bench.Run(1);
        bench.World.IsOwnerWanted(bench.Connection(sockets[0])).ShouldBeTrue();
    }

    [Fact]
    public void In_one_tick_it_goes_on_for_no_longer_than_a_tenth_of_a_second_and_nobody_is_forgotten()
    {
        var (bench, sockets) = Outage(60, seconds: 20);
        bench.Hands.ResumingTakes = TimeSpan.FromMilliseconds(30);
        ComeBack(bench, sockets);
        bench.Run(20);
        var ticks = bench.Hands.Log.Where(entry => entry.Command is Resume).CountBy(entry => entry.At).ToList();
        ticks.ShouldAllBe(tick => tick.Value <= 4);
        ticks.Sum(tick => tick.Value).ShouldBe(60);
    }

    [Fact]
    public void In_observe_mode_nothing_is_made_to_retransmit()
    {
        var (bench, sockets) = Outage(2, seconds: 20, AgentMode.Observe);
        ComeBack(bench, sockets);
        bench.Run(5);
        bench.Hands.Acted.ShouldBeFalse();
    }

    [Fact]
    public void A_connection_whose_timer_comes_soon_is_left_to_it()
    {
        var bench = new Bench();
        var socket = bench.Open(idle: 1);
        socket.Answers = true;
        socket.Send(bench.Now);
        bench.Run(0.5);
        bench.Hands.All<WindowProbe>().ShouldNotBeEmpty();
        bench.Hands.All<Resume>().ShouldBeEmpty();
    }

    [Fact]
    public void Forgotten_and_live_ones_are_told_apart_when_the_path_is_back()
    {
        var (bench, sockets) = Outage(6, seconds: 40);
        ComeBack(bench, sockets.Take(3));
        bench.Run(6);
        bench.Hands.All<Resume>().Select(resume => resume.Connection.Cookie).ShouldBe(sockets.Take(3).Select(socket => socket.Cookie), ignoreOrder: true);
        bench.Hands.All<Recycle>().Select(recycle => recycle.Connection.Cookie).ShouldBe(sockets.Skip(3).Select(socket => socket.Cookie), ignoreOrder: true);
    }

    private static (Bench Bench, IReadOnlyList<FakeSocket> Sockets) Outage(int connections, double seconds, AgentMode mode = AgentMode.Protect)
    {
        var bench = new Bench(mode) { Path = ConnectProbeOutcome.TimedOut };
        var sockets = Enumerable.Range(0, connections).Select(_ => bench.Open(idle: 1, tick: false)).ToList();
        bench.Tick();
        foreach (var socket in sockets)
        {
            socket.Send(bench.Now);
        }

        bench.Run(seconds);
        return (bench, sockets);
    }

    private static TimeSpan ComeBack(Bench bench, IEnumerable<FakeSocket> alive)
    {
        bench.Path = ConnectProbeOutcome.Connected;
        foreach (var socket in alive)
        {
            socket.Answers = true;
        }

        return bench.Now;
    }
}
