using FsCheck;
using FsCheck.Fluent;
using Shouldly;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.CoreTests.Remedies;

/// <summary>When window and connect probes go out, and what is done where they cannot.</summary>
public sealed class ProbingTests
{
    [Fact]
    public void Window_probes_begin_with_the_first_retransmission_and_never_come_faster_than_every_600_ms()
    {
        var bench = new Bench(with: section => section with { Recycle = false });
        bench.Hands.Blocked = BlockedOn.Other;
        var socket = bench.Open(idle: 1);
        socket.Send(bench.Now);
        var sent = bench.Now;
        bench.Run(10);
        var probes = bench.Hands.Log.Where(entry => entry.Command is WindowProbe).Select(entry => entry.At).ToList();
        (probes[0] - sent).ShouldBeInRange(TimeSpan.FromMilliseconds(200), TimeSpan.FromMilliseconds(400));
        probes.Zip(probes.Skip(1), (before, after) => after - before).ShouldAllBe(gap => gap >= TimeSpan.FromMilliseconds(600) && gap <= TimeSpan.FromMilliseconds(700));
    }

    [Fact]
    public void A_connection_at_rest_within_its_timeout_is_not_asked()
    {
        var bench = new Bench();
        bench.Open(idle: 5);
        bench.Run(20);
        bench.Hands.All<WindowProbe>().ShouldBeEmpty();
    }

    [Fact]
    public void A_slow_query_is_asked_every_ten_seconds()
    {
        var bench = new Bench();
        var socket = bench.Open(idle: 1);
        socket.Answers = true;
        socket.Send(bench.Now);
        socket.Acknowledge(bench.Now);
        bench.Run(60);
        bench.Hands.All<WindowProbe>().Count().ShouldBeInRange(5, 6);
        bench.Hands.All<Recycle>().ShouldBeEmpty();
    }

    [Fact]
    public void In_observe_mode_no_probe_goes_out_and_that_is_counted_once()
    {
        var bench = new Bench(AgentMode.Observe);
        bench.Open();
        bench.Run(10);
        bench.Hands.Acted.ShouldBeFalse();
        bench.Hands.Withheld.ShouldBe(["nudge observe"]);
    }

    [Theory]
    [InlineData(TouchOutcome.NotPermitted)]
    [InlineData(TouchOutcome.NotSupported)]
    public void Where_window_probes_are_refused_that_is_told_once_and_the_keepalive_timer_serves(TouchOutcome outcome)
    {
        var bench = new Bench();
        bench.Hands.Touch = outcome;
        bench.Open();
        bench.Run(20);
        bench.Hands.All<TouchRefusedReport>().Count(report => report.Outcome == outcome).ShouldBeInRange(1, 2);
        bench.Hands.All<WindowProbe>().Count().ShouldBe(1);
        bench.Hands.All<ChangeKeepalive>().ShouldNotBeEmpty();
    }

    [Fact]
    public void Connect_probes_are_one_for_a_path_however_many_are_silent()
    {
        var bench = new Bench { Path = null };
        foreach (var socket in Enumerable.Range(0, 5).Select(_ => bench.Open()).ToList())
        {
            socket.Send(bench.Now);
        }

        bench.Run(5);
        bench.Hands.All<ConnectProbe>().Count().ShouldBe(1);
    }

    [Fact]
    public void While_the_path_is_down_connect_probes_are_a_fifth_of_a_second_apart()
    {
        var bench = new Bench { Path = ConnectProbeOutcome.TimedOut };
        bench.Forget(bench.Open(), 20);
        var probes = bench.Hands.Log.Where(entry => entry.Command is ConnectProbe).Select(entry => entry.At).ToList();
        probes.Count.ShouldBeGreaterThan(10);
        probes.Zip(probes.Skip(1), (before, after) => after - before).Min().ShouldBeGreaterThanOrEqualTo(TimeSpan.FromSeconds(0.2));
    }

    [Fact]
    public void What_is_answered_again_and_again_while_the_data_is_not_is_a_black_hole_and_left_alone()
    {
        var bench = new Bench();
        var socket = bench.Open(idle: 1);
        (socket.Answers, socket.IsTooLarge) = (true, true);
        bench.Forget(socket, 15);
        bench.Connection(socket).Judged.ShouldSatisfyAllConditions(
            judged => judged.Verdict.ShouldBe(Verdict.BlackHole),
            judged => judged.Reason.ShouldBe(Reason.LargeSegmentsLost));
        bench.Hands.All<Recycle>().ShouldBeEmpty();
    }

    [Fact]
    public void A_silence_of_half_a_minute_on_a_path_that_is_not_known_is_asked_about_every_five_seconds()
    {
        var bench = new Bench { Path = null };
        bench.Forget(bench.Open(idle: 1), 35);
        bench.Hands.Log.Clear();
        bench.Run(30);
        bench.Hands.All<WindowProbe>().Count().ShouldBeInRange(5, 7);
    }

    [Fact]
    public void A_tick_sends_four_hundred_window_probes_at_most()
    {
        var bench = new Bench(with: section => section with { Recycle = false });
        var sockets = Enumerable.Range(0, 450).Select(_ => bench.Open(idle: 1)).ToList();
        sockets.ForEach(socket => socket.Send(bench.Now));
        while (!bench.Hands.All<WindowProbe>().Any())
        {
            bench.Tick();
        }

        bench.Hands.All<WindowProbe>().Count().ShouldBe(400);
        bench.Tick();
        bench.Hands.All<WindowProbe>().Count().ShouldBe(450, "the others follow in the next");
    }

    [Fact]
    public void A_connection_whose_owner_is_not_known_is_not_probed()
    {
        var bench = new Bench();
        var socket = bench.Open(idle: 1);
        bench.World.Owners.Forget(socket.Inode);
        bench.Forget(socket, 3);
        bench.Hands.All<WindowProbe>().ShouldBeEmpty();
    }

    [Fact]
    public void Where_the_descriptor_is_another_sockets_by_now_the_owner_is_looked_for_anew()
    {
        var bench = new Bench();
        bench.Hands.Touch = TouchOutcome.Gone;
        var socket = bench.Open(idle: 1);
        bench.Forget(socket, 3);
        bench.Hands.All<WindowProbe>().Count().ShouldBe(1);
        bench.World.Owners.IsKnown(socket.Inode).ShouldBeFalse();
        bench.World.IsOwnerWanted(bench.Connection(socket)).ShouldBeTrue();
    }

    [Fact]
    public void A_capability_that_was_missing_is_tried_again_after_a_minute()
    {
        var bench = new Bench(with: section => section with { Recycle = false });
        bench.Hands.Blocked = BlockedOn.Other;
        bench.Hands.TouchByProbe = TouchOutcome.NotPermitted;
        bench.Forget(bench.Open(idle: 1), 55);
        bench.Hands.All<WindowProbe>().Count().ShouldBe(1);
        bench.Hands.TouchByProbe = TouchOutcome.Done;
        bench.Run(15);
        bench.Hands.All<WindowProbe>().Count().ShouldBeGreaterThan(1);
    }

    /// <summary>A Linux peer answers one in 500 ms: however much is lost on the way, each probe comes when it could be answered.</summary>
    [Fact]
    public void A_living_peer_that_limits_its_answers_is_never_closed_whichever_probes_get_lost() => Prop.ForAll(
        Gen.Choose(0, 1 << 20).ToArbitrary(),
        pattern =>
        {
            // Never two in succession.
            var bench = new Bench();
            var isResting = pattern % 3 == 0;
            var socket = bench.Open(idle: isResting ? 100 : 1);
            (socket.Answers, socket.LimitsAnswers) = (true, true);
            socket.Loses = number => IsOut(number % 20) && (number % 20 == 0 || !IsOut((number % 20) - 1));
            if (!isResting)
            {
                socket.Send(bench.Now);
            }

            bench.Run(40);
            bool IsOut(int number) => (pattern >> number & 1) == 1;
            bench.Hands.All<Recycle>().ShouldBeEmpty();
            var probes = bench.Hands.Log.Where(entry => entry.Command is WindowProbe).Select(entry => entry.At).ToList();
            probes.Zip(probes.Skip(1), (before, after) => after - before).ShouldAllBe(gap => gap > TimeSpan.FromMilliseconds(500));
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(60));

    /// <summary>MySQL and MariaDB block a host after 100 handshakes in a row that were not completed.</summary>
    [Theory]
    [InlineData(UpstreamProtocol.MySql, 20)]
    [InlineData(UpstreamProtocol.PostgreSql, int.MaxValue)]
    public void A_server_that_counts_broken_handshakes_gets_twenty_connect_probes_in_ten_minutes(UpstreamProtocol protocol, int most)
    {
        var bench = new Bench(with: section => section with { Protocol = protocol, Recycle = false });
        bench.Hands.Blocked = BlockedOn.Other;
        bench.Forget(bench.Open(idle: 1), 300);
        bench.Hands.All<ConnectProbe>().Count().ShouldBeInRange(20, most);
        if (protocol == UpstreamProtocol.MySql)
        {
            bench.Run(310);
            bench.Hands.All<ConnectProbe>().Count().ShouldBeInRange(21, 40, "the budget slides");
        }
    }

    [Fact]
    public void A_reload_gives_no_new_budget_to_a_server_that_counts_broken_handshakes()
    {
        var bench = new Bench(with: section => section with { Protocol = UpstreamProtocol.MySql, Recycle = false });
        bench.Hands.Blocked = BlockedOn.Other;
        bench.Forget(bench.Open(idle: 1), 100);
        bench.Hands.All<ConnectProbe>().Count().ShouldBe(20);
        bench.Reload();
        bench.Run(100);
        bench.Hands.All<ConnectProbe>().Count().ShouldBe(20);
    }
}
