using FsCheck;
using FsCheck.Fluent;
using Shouldly;
using Sidecar.Agent.Core.Judgement.IdleTimeout;
using Xunit;

namespace Sidecar.CoreTests.IdleTimeout;

public sealed class LadderPlanTests
{
    /// <summary>Each round of lost connections has its test to wait for, which counts beside a short timeout.</summary>
    private static readonly TimeSpan LossRounds = TimeSpan.FromSeconds(15);

    private static readonly LadderSettings Settings = new();

    public static TheoryData<int> CommonTimeouts => [60, 240, 300, 350, 600, 900, 1200, 3600, 7440];

    [Theory]
    [MemberData(nameof(CommonTimeouts))]
    public void A_common_timeout_is_known_within_five_percent_after_1_2_times_its_length(int seconds)
    {
        var timeout = TimeSpan.FromSeconds(seconds);

        var ladder = new SimulatedLadder(timeout, Settings).Run();

        ShouldBracket(ladder, timeout);
        ladder.Elapsed.ShouldBeLessThan((timeout * 1.2) + TimeSpan.FromSeconds(5));
        ladder.Opened.ShouldBeLessThanOrEqualTo(30);
    }

    [Theory]
    [MemberData(nameof(CommonTimeouts))]
    public void Twelve_slots_are_enough_for_that(int seconds)
    {
        var timeout = TimeSpan.FromSeconds(seconds);

        var ladder = new SimulatedLadder(timeout, Settings with { Slots = 12 }).Run();

        ShouldBracket(ladder, timeout);
        ladder.Elapsed.ShouldBeLessThan((timeout * 1.2) + TimeSpan.FromSeconds(5));
    }

    [Theory]
    [InlineData(10)]
    [InlineData(12)]
    [InlineData(14)]
    public void Some_slots_fewer_keep_within_three_times_any_timeout(int slots) =>
        Prop.ForAll(Timeouts(5, 7000), timeout =>
        {
            var ladder = new SimulatedLadder(timeout, Settings with { Slots = slots }).Run();

            ShouldBracket(ladder, timeout);
            ladder.Elapsed.ShouldBeLessThan((timeout * 3) + LossRounds);
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(1000));

    [Fact]
    public void Any_timeout_is_known_within_three_times_its_length() =>
        Prop.ForAll(Timeouts(5, 7000), timeout =>
        {
            var ladder = new SimulatedLadder(timeout, Settings).Run();

            ShouldBracket(ladder, timeout);
            ladder.Elapsed.ShouldBeLessThan((timeout * 3) + LossRounds);
            ladder.MostAtOnce.ShouldBeLessThanOrEqualTo(Settings.Slots);
            ladder.Opened.ShouldBeLessThanOrEqualTo(30);
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(1000));

    [Fact]
    public void Seven_slots_keep_the_time_too() =>
        Prop.ForAll(Timeouts(5, 7000), timeout =>
        {
            var ladder = new SimulatedLadder(timeout, Settings with { Slots = 7 }).Run();

            ShouldBracket(ladder, timeout);
            ladder.Elapsed.ShouldBeLessThan((timeout * 3) + LossRounds);
            ladder.Opened.ShouldBeLessThanOrEqualTo(10);
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(1000));

    [Fact]
    public void Two_slots_are_enough_to_find_any_timeout() =>
        Prop.ForAll(Timeouts(3, 7000), timeout =>
        {
            var settings = Settings with { Slots = 2 };

            var ladder = new SimulatedLadder(timeout, settings).Run();

            ShouldBracket(ladder, timeout);
            ladder.MostAtOnce.ShouldBeLessThanOrEqualTo(2);
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(1000));

    [Theory]
    [InlineData(1, 11)]
    [InlineData(2, 6.5)]
    [InlineData(3, 5)]
    public void A_guest_with_few_connections_takes_some_times_the_timeout(int slots, double times) =>
        Prop.ForAll(Timeouts(12, 7000), timeout =>
        {
            var ladder = new SimulatedLadder(timeout, Settings with { Slots = slots }).Run();

            ShouldBracket(ladder, timeout);
            ladder.MostAtOnce.ShouldBeLessThanOrEqualTo(slots);
            ladder.Elapsed.ShouldBeLessThan((timeout * times) + (LossRounds * 2));
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(1000));

    [Fact]
    public void A_path_that_forgets_nothing_is_left_after_the_longest_gap()
    {
        var settings = Settings with { Max = TimeSpan.FromSeconds(30) };

        var ladder = new SimulatedLadder(TimeSpan.MaxValue, settings).Run();

        ladder.Upper.ShouldBeNull();
        ladder.Lower.ShouldBeGreaterThanOrEqualTo(settings.Max);
        ladder.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(31));
    }

    [Fact]
    public void A_finer_precision_is_reached_when_it_is_asked_for() =>
        Prop.ForAll(Timeouts(5, 7000), timeout =>
        {
            var settings = Settings with { Precision = 0.01 };

            var ladder = new SimulatedLadder(timeout, settings).Run();

            LadderPlan.IsFinished(ladder.Lower, ladder.Upper, settings).ShouldBeTrue();
            ladder.Lower.ShouldBeLessThanOrEqualTo(timeout);
            ladder.Upper!.Value.ShouldBeGreaterThanOrEqualTo(timeout);
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(1000));

    [Fact]
    public void A_known_lower_bound_is_where_the_scale_starts()
    {
        var scale = LadderPlan.Scale(TimeSpan.FromSeconds(100), Settings);

        scale[0].ShouldBe(TimeSpan.FromSeconds(105));
        scale[^1].ShouldBe(Settings.Max);
    }

    [Fact]
    public void The_scale_never_steps_more_than_1_8_fold() =>
        LadderPlan.Scale(TimeSpan.Zero, Settings).Zip(LadderPlan.Scale(TimeSpan.Zero, Settings).Skip(1), (a, b) => b / a).Max().ShouldBeLessThan(1.8);

    [Fact]
    public void A_connection_older_than_a_lost_gap_is_useless()
    {
        var step = LadderPlan.Next(TimeSpan.FromSeconds(10), TimeSpan.FromSeconds(20), [new Idler(1, TimeSpan.FromSeconds(21))], 1, Settings);

        step.Useless.ShouldBe([1]);
        step.Open.ShouldBeGreaterThan(0);
    }

    [Fact]
    public void Bounds_are_tried_again_a_little_outside_by_the_connections_that_are_there_first()
    {
        var step = LadderPlan.Repeat(
            TimeSpan.FromSeconds(10), TimeSpan.FromSeconds(11), (2, 2), [new Idler(1, TimeSpan.FromSeconds(9)), new Idler(2, TimeSpan.FromSeconds(12)), new Idler(3, TimeSpan.FromSeconds(11), TimeSpan.FromSeconds(11))], Settings);

        step.Targets.ShouldBe([new LadderTarget(1, TimeSpan.FromSeconds(11.1))]);
        step.Useless.ShouldBe([2]);
        step.Open.ShouldBe(2);
    }

    [Fact]
    public void A_survey_reaches_a_quarter_beyond_what_was_seen()
    {
        var gaps = LadderPlan.Survey(TimeSpan.FromSeconds(16), TimeSpan.FromSeconds(24), Settings);

        (gaps[0].TotalSeconds, gaps[^1].TotalSeconds, gaps.Count).ShouldBe((12, 31, 12));
        LadderPlan.Try(gaps, [], Settings).Open.ShouldBe(12);
    }

    private static void ShouldBracket(SimulatedLadder ladder, TimeSpan timeout)
    {
        ladder.Upper.ShouldNotBeNull();
        ladder.Lower.ShouldBeLessThanOrEqualTo(timeout);
        ladder.Upper.Value.ShouldBeGreaterThanOrEqualTo(timeout);
        (ladder.Upper.Value - ladder.Lower).ShouldBeLessThanOrEqualTo(Settings.WidthAt(ladder.Lower));
    }

    private static Arbitrary<TimeSpan> Timeouts(double from, double to) =>
        Gen.Choose(0, 100_000)
            .Select(i => TimeSpan.FromSeconds(from * Math.Pow(to / from, i / 100_000.0)))
            .ToArbitrary();
}
