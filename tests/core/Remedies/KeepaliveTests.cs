using Shouldly;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Judgement.IdleTimeout;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.CoreTests.Remedies;

/// <summary>What is set on sockets, and what is left alone.</summary>
public sealed class KeepaliveTests
{
    [Fact]
    public void A_connection_without_keepalive_is_armed_once_and_written_down()
    {
        var bench = new Bench(with: Armed);
        bench.Open(idle: 1);
        bench.Run(20);
        bench.Hands.All<ChangeKeepalive>().Count().ShouldBe(1);
        bench.Hands.Options.ShouldSatisfyAllConditions(options => options.Enabled.ShouldBeTrue(), options => options.Idle.ShouldBe(Bench.IdleTimeout / 2));
        bench.Engine.ChangedKeepalives.ShouldNotBeNull().Single().Original.Enabled.ShouldBeFalse();
        bench.Engine.KeepalivesSaved(TimeSpan.FromHours(1));
        bench.Engine.ChangedKeepalives.ShouldBeNull();
    }

    [Fact]
    public void Its_reason_names_the_time_that_was_set_wherever_the_kernels_lazy_timer_stands()
    {
        var bench = new Bench(with: Armed);
        var socket = bench.Open(idle: 1);
        bench.Run(20);
        var reasons = new HashSet<string>();
        socket.ShowsKeepalive = true;
        foreach (var remaining in new[] { 29, 12.3, 0.5 })
        {
            socket.TimerShown = TimeSpan.FromSeconds(remaining);
            bench.Run(5);
            bench.Connection(socket).Judged.Reason.ShouldBe(Reason.ProtectedByKeepalive);
            reasons.Add(Explanation.Of(bench.Connection(socket), bench.Now));
        }

        reasons.ShouldHaveSingleItem().ShouldBe("keepalive probes after 30 s of idling");
    }

    [Fact]
    public void While_no_loss_is_known_they_come_later_as_connections_of_our_own_survive_more_and_not_as_the_applications_do()
    {
        var bench = new Bench(with: section => Armed(section) with { IdleTimeout = new(IdleTimeoutSource.Measure, TimeSpan.Zero) });
        var socket = bench.Open(idle: 1);
        socket.Answers = true;
        bench.Run(5);
        See(300, GapOutcome.Survived, EvidenceSource.Passive);
        bench.Hands.Options.Idle.ShouldBe(KeepalivePlan.IdleWhenUnknown);

        See(85, GapOutcome.Survived, EvidenceSource.Ladder);
        bench.Hands.Options.Idle.ShouldBe(TimeSpan.FromSeconds(40), "a power of two times twenty, halved");

        See(60, GapOutcome.Lost, EvidenceSource.Ladder);
        bench.Hands.Options.Idle.ShouldBe(KeepalivePlan.IdleWhenUnknown, "what contradicts itself is not known");

        void See(double seconds, GapOutcome outcome, EvidenceSource source)
        {
            bench.Connection(socket).Path.Note(new GapObservation(TimeSpan.FromSeconds(seconds), outcome, DateTimeOffset.UnixEpoch + bench.Now, source));
            bench.Tick();
        }
    }

    [Fact]
    public void Options_that_the_application_has_changed_since_are_its_own()
    {
        var bench = new Bench(with: Armed);
        bench.Open(idle: 1).Answers = true;
        bench.Hands.Options = bench.Hands.Options with { Idle = TimeSpan.FromSeconds(7) };
        bench.Run(200);
        bench.Hands.Options.Idle.ShouldBe(TimeSpan.FromSeconds(7));
        bench.Engine.ChangedKeepalives.ShouldNotBeNull().ShouldBeEmpty();
    }

    [Fact]
    public void A_restarted_agent_knows_what_it_has_set_before()
    {
        var bench = new Bench(with: Armed);
        var set = new KeepaliveOptions(true, TimeSpan.FromSeconds(30), TimeSpan.FromSeconds(6), 25, TimeSpan.Zero);
        var original = bench.Hands.Options;
        bench.Hands.Options = set;
        bench.Engine.Recall([new KeepaliveEntry(1, 1, "", original, set)]);
        bench.Open(idle: 1);
        bench.Connection(bench.Of(bench.World.Connections.All.Single())).Protection.ShouldNotBeNull().Original.ShouldBe(original);
    }

    [Fact]
    public void In_observe_mode_nothing_is_set_and_that_is_counted_once()
    {
        var bench = new Bench(AgentMode.Observe, Armed);
        bench.Open(idle: 1);
        bench.Run(30);
        bench.Hands.All<ChangeKeepalive>().ShouldBeEmpty();
        bench.Hands.Withheld.ShouldBe(["keepalive observe"]);
    }

    [Fact]
    public void What_the_application_set_tighter_is_left_and_what_it_set_looser_is_tightened()
    {
        var tight = new Bench(with: Armed);
        tight.Hands.Options = new(true, TimeSpan.FromSeconds(5), TimeSpan.FromSeconds(2), 3, TimeSpan.Zero);
        tight.Open(idle: 1).Answers = true;
        tight.Run(200);
        tight.Hands.Options.ShouldBe(new KeepaliveOptions(true, TimeSpan.FromSeconds(5), TimeSpan.FromSeconds(2), 3, TimeSpan.Zero));
        tight.Engine.ChangedKeepalives.ShouldBeNull("nothing was set");

        var loose = new Bench(with: Armed);
        loose.Hands.Options = new(true, TimeSpan.FromSeconds(7200), TimeSpan.FromSeconds(20), 9, TimeSpan.Zero);
        loose.Open(idle: 1).Answers = true;
        loose.Run(1);
        loose.Hands.Options.ShouldBe(new KeepaliveOptions(true, TimeSpan.FromSeconds(30), TimeSpan.FromSeconds(20), 9, TimeSpan.Zero));
    }

    [Theory]
    [InlineData(null)]
    [InlineData(120.0)]
    public void A_connection_is_not_given_up_sooner_than_the_kernel_would_but_where_that_is_configured(double? deadAfter)
    {
        var bench = new Bench(with: section => Armed(section) with { DeadAfter = deadAfter is { } seconds ? TimeSpan.FromSeconds(seconds) : null });
        bench.Open(idle: 1);
        var lasts = bench.Hands.Options.Interval * bench.Hands.Options.Count;
        if (deadAfter is { } within)
        {
            lasts.ShouldBeInRange(TimeSpan.FromSeconds(within), TimeSpan.FromSeconds(within * 1.5));
        }
        else
        {
            lasts.ShouldBeGreaterThanOrEqualTo(KeepalivePlan.KernelGivesUp);
        }
    }

    [Fact]
    public void When_the_paths_bound_moves_the_options_follow_at_once()
    {
        var bench = new Bench(with: section => Armed(section) with { IdleTimeout = new(IdleTimeoutSource.Measure, TimeSpan.Zero) });
        var socket = bench.Open(idle: 1);
        socket.Answers = true;
        bench.Hands.Options.Idle.ShouldBe(KeepalivePlan.IdleWhenUnknown);
        bench.Run(5);
        Learn(bench, socket, survived: 40, lost: 48);
        bench.Tick();
        bench.Hands.Options.Idle.ShouldBe(TimeSpan.FromSeconds(20));
        bench.Hands.All<ChangeKeepalive>().Count().ShouldBe(2);
    }

    [Fact]
    public void Options_that_the_application_has_changed_since_do_not_follow()
    {
        var bench = new Bench(with: section => Armed(section) with { IdleTimeout = new(IdleTimeoutSource.Measure, TimeSpan.Zero) });
        var socket = bench.Open(idle: 1);
        bench.Run(1);
        var own = bench.Hands.Options = bench.Hands.Options with { Idle = TimeSpan.FromSeconds(7200) };
        Learn(bench, socket, survived: 20, lost: 24);
        bench.Run(200);
        bench.Hands.Options.ShouldBe(own);
    }

    [Theory]
    [InlineData(false, 5, 9)]
    [InlineData(true, 0, 0)]
    public void Options_are_reviewed_about_every_minute_unless_the_kernels_timer_shows_that_they_hold(bool shows, int least, int most)
    {
        var bench = new Bench(with: Armed);
        var socket = bench.Open(idle: 1);
        (socket.Answers, socket.ShowsKeepalive) = (true, shows);
        bench.Run(1);
        bench.Hands.Log.Clear();
        for (var i = 0; i < 20; i++)
        {
            bench.Run(20);
            socket.Receive(bench.Now);
        }

        bench.Hands.All<ChangeKeepalive>().Count().ShouldBeInRange(least, most);
    }

    [Fact]
    public void The_kernels_timer_saves_ten_reviews_and_no_more_since_it_does_not_show_all()
    {
        var bench = new Bench(with: Armed);
        var socket = bench.Open(idle: 1);
        (socket.Answers, socket.ShowsKeepalive) = (true, true);
        bench.Run(1);
        bench.Hands.Log.Clear();
        for (var i = 0; i < 30; i++)
        {
            bench.Run(20);
            socket.Receive(bench.Now);
        }

        bench.Hands.All<ChangeKeepalive>().Count().ShouldBe(1);
    }

    [Fact]
    public void A_timer_that_was_loosened_is_seen_and_reviewed()
    {
        var bench = new Bench(with: Armed);
        var socket = bench.Open(idle: 1);
        (socket.Answers, socket.ShowsKeepalive) = (true, true);
        bench.Run(1);
        bench.Hands.Log.Clear();
        socket.KeepaliveChanged(bench.Now, bench.Hands.Options with { Idle = TimeSpan.FromSeconds(7200) });
        bench.Run(70);
        bench.Hands.All<ChangeKeepalive>().Count().ShouldBe(1);
    }

    [Fact]
    public void Where_the_path_forgets_nothing_nothing_is_set()
    {
        var bench = new Bench(with: section => Armed(section) with { IdleTimeout = new(IdleTimeoutSource.None, TimeSpan.Zero) });
        bench.Open(idle: 1);
        bench.Run(100);
        bench.Hands.All<ChangeKeepalive>().ShouldBeEmpty();
    }

    [Theory]
    [InlineData(TouchOutcome.NotPermitted, "keepalive not-permitted")]
    [InlineData(TouchOutcome.NotSupported, "keepalive not-permitted")]
    [InlineData(TouchOutcome.Failed, "keepalive unknown")]
    public void What_cannot_be_armed_is_counted_once_told_once_and_tried_every_quarter_of_a_minute(TouchOutcome outcome, string withheld)
    {
        var bench = new Bench(with: Armed);
        bench.Hands.Touch = outcome;
        bench.Open(idle: 1).Answers = true;
        bench.Run(50);
        bench.Hands.Withheld.ShouldBe([withheld]);
        bench.Hands.All<TouchRefusedReport>().Single().Outcome.ShouldBe(outcome);
        bench.Hands.All<ChangeKeepalive>().Count().ShouldBeInRange(4, 5);
    }

    [Fact]
    public void Where_the_owner_is_no_longer_who_it_was_it_is_looked_for_anew()
    {
        var bench = new Bench(with: Armed);
        bench.Hands.Touch = TouchOutcome.Gone;
        var socket = bench.Open(idle: 1);
        var owner = bench.World.Owners.Processes.Single().Identity;
        bench.World.IsOwnerWanted(bench.Connection(socket)).ShouldBeTrue();
        bench.World.Owners.IsKnown(socket.Inode).ShouldBeFalse();
        bench.Hands.Withheld.ShouldBeEmpty();

        bench.Hands.Touch = TouchOutcome.Done;
        bench.World.Owners.Found(socket.Inode, owner, 5, 1);
        bench.Tick();
        bench.Hands.Options.Enabled.ShouldBeTrue();
    }

    [Fact]
    public void Ten_thousand_connections_are_not_armed_in_one_tick()
    {
        var bench = new Bench(with: section => Armed(section) with { Keepalive = true });
        bench.Hands.ChangeTakes = TimeSpan.FromMilliseconds(150);
        bench.Hands.Touch = TouchOutcome.Gone;
        foreach (var socket in Enumerable.Range(0, 8).Select(_ => bench.Open(idle: 1)).ToList())
        {
            socket.Answers = true;
        }

        for (var inode = 1001u; inode <= 1008; inode++)
        {
            bench.World.Owners.Found(inode, bench.World.Owners.Processes.First().Identity, 5, 1);
        }

        bench.Hands.Touch = TouchOutcome.Done;
        bench.Hands.Log.Clear();
        bench.Tick();
        bench.Hands.All<ChangeKeepalive>().Count().ShouldBe(3, "they take 150 ms each, and a tick spends 400 ms");
        bench.Engine.IsArming.ShouldBeTrue();
        bench.Tick();
        bench.Tick();
        bench.Hands.All<ChangeKeepalive>().Count().ShouldBe(8);
        bench.Engine.IsArming.ShouldBeFalse();
    }

    [Theory]
    [InlineData(true, "answered")]
    [InlineData(false, "unanswered")]
    public void Where_window_probes_are_not_permitted_the_timer_tests_an_old_connection_and_is_put_back(bool answers, string outcome)
    {
        var bench = new Bench();
        var original = bench.Hands.Options;
        bench.Hands.TouchByProbe = TouchOutcome.NotPermitted;
        var socket = bench.Open(idle: 100);
        socket.Answers = answers;
        bench.Tick();
        bench.Hands.Options.ShouldSatisfyAllConditions(options => options.Enabled.ShouldBeTrue(), options => options.Idle.ShouldBe(TimeSpan.FromSeconds(1)));
        bench.Engine.ChangedKeepalives.ShouldBeNull("what is set for a test is not written down");
        bench.Run(10);
        bench.Hands.All<NudgedReport>().First().Outcome.ShouldBe(outcome);
        bench.Hands.Options.ShouldBe(original);
        var nudges = bench.Hands.Log.Where(entry => entry.Command is ChangeKeepalive { Force: true }).Select(entry => entry.At).ToList();
        nudges.Count.ShouldBe(answers ? 1 : KeepalivePlan.CountForNudges - 1, "the first probe found nobody who answers");
        nudges.Zip(nudges.Skip(1), (before, after) => after - before).ShouldAllBe(gap => gap >= TimeSpan.FromMilliseconds(250));
    }

    [Fact]
    public void Options_that_the_application_sets_during_a_test_are_not_put_back()
    {
        var bench = new Bench();
        bench.Hands.TouchByProbe = TouchOutcome.NotPermitted;
        bench.Open(idle: 100);
        bench.Tick();
        bench.Hands.Options = bench.Hands.Options with { Idle = TimeSpan.FromSeconds(7) };
        bench.Run(10);
        bench.Hands.Options.Idle.ShouldBe(TimeSpan.FromSeconds(7));
    }

    [Fact]
    public void An_agent_that_ends_during_a_test_puts_the_options_back()
    {
        var bench = new Bench();
        var original = bench.Hands.Options;
        bench.Hands.TouchByProbe = TouchOutcome.NotPermitted;
        bench.Open(idle: 100);
        bench.Tick();
        bench.Hands.Options.ShouldNotBe(original);
        foreach (var command in bench.Engine.Stop())
        {
            bench.Hands.Carry(command);
        }

        bench.Hands.Options.ShouldBe(original);
    }

    [Fact]
    public void An_agent_that_ends_leaves_what_protects_in_place()
    {
        var bench = new Bench(with: Armed);
        bench.Open(idle: 1);
        bench.Engine.Stop().ShouldBeEmpty();
    }

    [Fact]
    public void A_test_that_finds_the_connection_in_use_says_nothing()
    {
        var bench = new Bench();
        bench.Hands.TouchByProbe = TouchOutcome.NotPermitted;
        var original = bench.Hands.Options;
        var socket = bench.Open(idle: 100);
        bench.Tick();
        socket.Send(bench.Now);
        bench.Tick();
        bench.Hands.All<NudgedReport>().ShouldBeEmpty();
        bench.Hands.Options.ShouldBe(original);
    }

    [Fact]
    public void The_ledger_forgets_a_connection_that_has_closed()
    {
        var bench = new Bench(with: Armed);
        var socket = bench.Open(idle: 1);
        bench.Engine.KeepalivesSaved(bench.Now);
        socket.IsClosed = true;
        bench.Run(1);
        bench.Engine.ChangedKeepalives.ShouldNotBeNull().ShouldBeEmpty();
    }

    [Fact]
    public void What_an_earlier_run_set_is_kept_until_its_connections_had_time_to_be_seen()
    {
        var bench = new Bench(with: Armed);
        var set = new KeepaliveOptions(true, TimeSpan.FromSeconds(30), TimeSpan.FromSeconds(6), 25, TimeSpan.Zero);
        bench.Engine.Recall([new KeepaliveEntry(1, 99, "", bench.Hands.Options, set)]);
        bench.Open(idle: 1);
        bench.Engine.ChangedKeepalives.ShouldNotBeNull().Select(entry => entry.Cookie).ShouldBe([1ul, 99ul], ignoreOrder: true);
        bench.Engine.KeepalivesSaved(TimeSpan.FromMinutes(11));
        bench.Hands.Options = default(KeepaliveOptions) with { Idle = TimeSpan.FromHours(2), Interval = TimeSpan.FromSeconds(75), Count = 9 };
        bench.Open(idle: 1);
        bench.Engine.ChangedKeepalives.ShouldNotBeNull().Select(entry => entry.Cookie).ShouldBe([1ul, 2ul], ignoreOrder: true);
    }

    private static void Learn(Bench bench, FakeSocket socket, double survived, double lost)
    {
        var path = bench.Connection(socket).Path;
        foreach (var (gap, outcome) in new[] { (survived, GapOutcome.Survived), (lost, GapOutcome.Lost), (lost, GapOutcome.Lost) })
        {
            path.Note(new GapObservation(TimeSpan.FromSeconds(gap), outcome, DateTimeOffset.UnixEpoch + bench.Now, EvidenceSource.Ladder));
        }

        path.IdleTimeout.Lower.ShouldBe(TimeSpan.FromSeconds(survived));
    }

    private static UpstreamSection Armed(UpstreamSection section) => section with { Keepalive = true };
}
