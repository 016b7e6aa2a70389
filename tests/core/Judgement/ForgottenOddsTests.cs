using FsCheck;
using FsCheck.Fluent;
using Shouldly;
using Sidecar.Agent.Core.Judgement;
using Xunit;

namespace Sidecar.CoreTests.Judgement;

public sealed class ForgottenOddsTests
{
    private static readonly PathEvidence CleanPath = new()
    {
        State = PathState.Up,
        WasDownDuringStall = false,
        SynRetransmissions = 0,
        TransmissionFailureRate = LossEstimate.Floor,
        BlipRate = LossEstimate.LeastBlips,
        CountsDataOnly = false,
        IdleTimeoutLower = TimeSpan.FromSeconds(350),
        IdleTimeoutUpper = TimeSpan.FromSeconds(350),
    };

    private static readonly TimeSpan Expired = TimeSpan.FromSeconds(400);
    private static readonly TimeSpan Idle = TimeSpan.FromSeconds(60);

    [Fact]
    public void On_a_clean_path_an_expired_connection_is_condemned_at_its_first_timeout()
    {
        // The first transmission, the tail-loss probe, and the first timeout's retransmission.
        IsConclusive(Expired, failed: 2, confirmed: 0).ShouldBeFalse();
        IsConclusive(Expired, failed: 3, confirmed: 0).ShouldBeTrue();
    }

    [Fact]
    public void One_that_may_have_been_idle_for_too_long_needs_three_timeouts_and_a_confirmed_one()
    {
        IsConclusive(Idle, failed: 4, confirmed: 1).ShouldBeFalse();
        IsConclusive(Idle, failed: 5, confirmed: 0).ShouldBeFalse();
        IsConclusive(Idle, failed: 5, confirmed: 1).ShouldBeTrue();
    }

    /// <summary>The simulator closed live connections so: each of four fresh connections had taken the other leg of a bundle.</summary>
    [Fact]
    public void On_a_path_with_several_legs_fresh_connections_must_have_had_the_chance_to_take_the_dead_one()
    {
        var bundle = CleanPath with { DeadLeg = 1e-2 };
        var stall = Stall(Idle, failed: 8, confirmed: 5);
        ForgottenOdds.Of(stall with { CleanConnections = 4 }, bundle).ShouldBeLessThan(ForgottenOdds.Conclusive);
        ForgottenOdds.Of(stall with { CleanConnections = 16 }, bundle).ShouldBeGreaterThan(ForgottenOdds.Conclusive);
        ForgottenOdds.Of(stall with { CleanConnections = 0 }, bundle with { State = PathState.Partly }).ShouldBeGreaterThan(ForgottenOdds.Conclusive);
    }

    /// <summary>The simulator closed five live connections so: the path came back, and one leg of it a while later.</summary>
    [Fact]
    public void And_longer_after_an_outage_whose_end_the_legs_need_not_have_seen_together()
    {
        var bundle = CleanPath with { DeadLeg = 1e-2, WasDownDuringStall = true };
        var stall = Stall(Idle, failed: 90, confirmed: 4);
        ForgottenOdds.Of(stall with { CleanConnections = 10 }, bundle).ShouldBeLessThan(ForgottenOdds.Conclusive);
        ForgottenOdds.Of(stall with { CleanConnections = 14 }, bundle).ShouldBeGreaterThan(ForgottenOdds.Conclusive);
        ForgottenOdds.Of(stall with { CleanConnections = 10 }, bundle with { DeadLeg = 0 }).ShouldBeGreaterThan(ForgottenOdds.Conclusive, "a path that never showed several legs");
    }

    [Fact]
    public void And_two_confirmed_on_a_path_of_which_nothing_is_known()
    {
        var unknown = CleanPath with { TransmissionFailureRate = new LossEstimate().RateAt(TimeSpan.Zero) };
        ForgottenOdds.Of(Stall(Idle, failed: 5, confirmed: 1), unknown).ShouldBeLessThan(ForgottenOdds.Conclusive);
        ForgottenOdds.Of(Stall(Idle, failed: 5, confirmed: 2), unknown).ShouldBeGreaterThan(ForgottenOdds.Conclusive);
    }

    [Fact]
    public void A_path_on_which_silence_has_ended_by_itself_before_is_given_more_time()
    {
        var bursty = CleanPath with { BlipRate = 4e-3 };
        ForgottenOdds.Of(Stall(Idle, failed: 5, confirmed: 2), bursty).ShouldBeLessThan(ForgottenOdds.Conclusive);
        ForgottenOdds.Of(Stall(Expired, failed: 3, confirmed: 0), bursty).ShouldBeLessThan(ForgottenOdds.Conclusive);
        ForgottenOdds.Of(Stall(Idle, failed: 8, confirmed: 5), bursty).ShouldBeGreaterThan(ForgottenOdds.Conclusive);
    }

    /// <summary>
    /// The simulator closed a live connection so: the agent started in the second after an outage of 100 s that it had not
    /// seen, and its first fresh connection succeeded.
    /// </summary>
    [Fact]
    public void What_was_silent_before_anybody_looked_needs_a_failure_that_was_seen()
    {
        var late = Stall(Expired, failed: 9, confirmed: 0) with { FoundLate = true };
        ForgottenOdds.Of(late, CleanPath).ShouldBeLessThan(ForgottenOdds.Conclusive);
        ForgottenOdds.Of(late with { ConfirmedFailures = 1, CleanConnections = 2 }, CleanPath).ShouldBeGreaterThan(ForgottenOdds.Conclusive);
        ForgottenOdds.Of(late with { IdleBefore = Idle, ConfirmedFailures = 2, CleanConnections = 3 }, CleanPath).ShouldBeLessThan(ForgottenOdds.Conclusive);
        ForgottenOdds.Of(late with { IdleBefore = Idle, ConfirmedFailures = 3, CleanConnections = 4 }, CleanPath).ShouldBeGreaterThan(ForgottenOdds.Conclusive);
    }

    /// <summary>
    /// The simulator closed a live connection so: its first three transmissions fell into an outage that a fresh connection
    /// sat through, whose third SYN was answered; the next one then succeeded at once.
    /// </summary>
    [Fact]
    public void A_fresh_connection_that_had_to_repeat_its_SYN_may_have_sat_through_an_outage()
    {
        var after = CleanPath with { SynRetransmissions = 2 };
        ForgottenOdds.Of(Stall(Expired, failed: 3, confirmed: 0), after).ShouldBeLessThan(ForgottenOdds.Conclusive);
        ForgottenOdds.Of(Stall(Expired, failed: 4, confirmed: 1), after).ShouldBeLessThan(ForgottenOdds.Conclusive);
        ForgottenOdds.Of(Stall(Expired, failed: 5, confirmed: 2), after).ShouldBeGreaterThan(ForgottenOdds.Conclusive);

        // Where packets are lost anyway, it says next to nothing.
        var lossy = CleanPath with { TransmissionFailureRate = 0.3 };
        (ForgottenOdds.Of(Stall(Expired, failed: 9, confirmed: 4), lossy) / ForgottenOdds.Of(Stall(Expired, failed: 9, confirmed: 4), lossy with { SynRetransmissions = 1 })).ShouldBe(1, 0.1);
    }

    [Fact]
    public void More_blips_never_raise_the_odds() => Holds((stall, path) =>
        ForgottenOdds.Of(stall, path with { BlipRate = Math.Min(1, path.BlipRate * 3) }) <= ForgottenOdds.Of(stall, path));

    [Fact]
    public void A_connection_that_was_active_just_before_needs_five_timeouts()
    {
        IsConclusive(TimeSpan.Zero, failed: 6, confirmed: 3).ShouldBeFalse();
        IsConclusive(TimeSpan.Zero, failed: 7, confirmed: 4).ShouldBeTrue();
    }

    [Theory]
    [InlineData(400.0)]
    [InlineData(60.0)]
    [InlineData(0.0)]
    [InlineData(null)]
    public void With_ten_percent_loss_each_way_nothing_is_condemned_before_nine_failures(double? idleBefore)
    {
        var gap = idleBefore is { } seconds ? TimeSpan.FromSeconds(seconds) : (TimeSpan?)null;
        var lossy = CleanPath with { TransmissionFailureRate = RateAfter(0.1) };
        for (var failed = 1; failed < 9; failed++)
        {
            ForgottenOdds.Of(Stall(gap, failed, failed - 2), lossy).ShouldBeLessThan(gap >= lossy.IdleTimeoutUpper && failed >= 7 ? double.MaxValue : ForgottenOdds.Conclusive, $"{failed} failures");
        }
    }

    [Fact]
    public void For_a_resting_connection_there_is_time()
    {
        bool IsExpired(TimeSpan gap, int probes, int confirmed) => ForgottenOdds.OfResting(Stall(gap, probes, confirmed), CleanPath) >= ForgottenOdds.Conclusive;
        IsExpired(Expired, probes: 4, confirmed: 3).ShouldBeFalse();
        IsExpired(Expired, probes: 5, confirmed: 4).ShouldBeTrue();
        IsExpired(Idle, probes: 8, confirmed: 7).ShouldBeFalse();
        IsExpired(Idle, probes: 9, confirmed: 8).ShouldBeTrue();
    }

    [Fact]
    public void After_an_outage_only_transmissions_sent_while_the_path_was_up_count()
    {
        var after = CleanPath with { WasDownDuringStall = true };
        ForgottenOdds.Of(Stall(Expired, failed: 12, confirmed: 0), after).ShouldBeLessThan(ForgottenOdds.Conclusive);
        ForgottenOdds.Of(Stall(Expired, failed: 15, confirmed: 3), after).ShouldBeGreaterThan(ForgottenOdds.Conclusive);
    }

    [Fact]
    public void More_failures_never_lower_the_odds() => Holds((stall, path) =>
        ForgottenOdds.Of(stall with { FailedTransmissions = stall.FailedTransmissions + 1 }, path) >= ForgottenOdds.Of(stall, path));

    /// <summary>Window probes that go unanswered, more of them or fewer, confirmed by a connect probe or not.</summary>
    [Fact]
    public void Unanswered_window_probes_never_lower_the_odds() => Holds((stall, path) => Enumerable.Range(1, 5).All(probes =>
        ForgottenOdds.Of(stall with { FailedTransmissions = stall.FailedTransmissions + probes }, path) >= ForgottenOdds.Of(stall, path)
        && ForgottenOdds.OfResting(stall with { FailedTransmissions = stall.FailedTransmissions + probes }, path) >= ForgottenOdds.OfResting(stall, path)
        && ForgottenOdds.Of(stall with { FailedTransmissions = stall.FailedTransmissions + probes, ConfirmedFailures = stall.ConfirmedFailures + probes }, path) >= ForgottenOdds.Of(stall, path)));

    [Fact]
    public void A_resting_connection_is_never_condemned_sooner_than_one_on_which_somebody_waits() => Holds((stall, path) => ForgottenOdds.OfResting(stall, path) <= ForgottenOdds.Of(stall, path));

    [Fact]
    public void More_confirmed_failures_never_lower_the_odds() => Holds((stall, path) =>
        ForgottenOdds.Of(
            stall with
            {
                ConfirmedFailures = stall.ConfirmedFailures + 1,
                FailedTransmissions = stall.FailedTransmissions + 1,
                CleanConnections = stall.CleanConnections + 1,
            },
            path) >= ForgottenOdds.Of(stall, path));

    [Fact]
    public void A_lossier_path_never_raises_the_odds() => Holds((stall, path) =>
        ForgottenOdds.Of(stall, path with { TransmissionFailureRate = Math.Min(LossEstimate.Ceiling, path.TransmissionFailureRate * 1.3) })
            <= ForgottenOdds.Of(stall, path));

    [Fact]
    public void A_longer_gap_never_lowers_the_odds() => Holds((stall, path) =>
        stall.IdleBefore is not { } gap
        || ForgottenOdds.Of(stall with { IdleBefore = gap + TimeSpan.FromSeconds(100) }, path) >= ForgottenOdds.Of(stall, path));

    [Fact]
    public void The_odds_are_always_a_positive_number() => Holds((stall, path) => ForgottenOdds.Of(stall, path) is > 0 and var odds && double.IsFinite(odds));

    private static bool IsConclusive(TimeSpan gap, int failed, int confirmed) =>
        ForgottenOdds.Of(Stall(gap, failed, confirmed), CleanPath) >= ForgottenOdds.Conclusive;

    private static StallEvidence Stall(TimeSpan? gap, int failed, int confirmed) => new()
    {
        Silence = TimeSpan.FromSeconds(0.22 + (0.21 * ((1 << Math.Max(0, Math.Min(failed, 20) - 2)) - 1))),
        IdleBefore = gap,
        FailedTransmissions = failed,
        ConfirmedFailures = Math.Max(0, confirmed),
        CleanConnections = Math.Max(0, confirmed) + 1,
        FoundLate = false,
    };

    /// <summary>The failure rate that the estimate comes to on a path with this loss each way.</summary>
    private static double RateAfter(double loss)
    {
        var estimate = new LossEstimate();
        var fails = 1 - ((1 - loss) * (1 - loss));
        for (var second = 0; second < 600; second++)
        {
            estimate.Add(1, fails, TimeSpan.FromSeconds(second));
        }

        return estimate.RateAt(TimeSpan.FromSeconds(600));
    }

    private static void Holds(Func<StallEvidence, PathEvidence, bool> property)
    {
        var cases =
            from gap in Gen.OneOf(Gen.Constant((double?)null), Gen.Choose(0, 1_000_000).Select(seconds => (double?)(seconds / 100.0)))
            from failed in Gen.Choose(1, 20)
            from confirmed in Gen.Choose(0, 20)
            from rate in Gen.Choose((int)(LossEstimate.Floor * 1000), (int)(LossEstimate.Ceiling * 1000))
            from blips in Gen.Choose(0, 5)
            from down in Gen.Elements(true, false)
            from timeout in Gen.Elements<double?>(null, 10, 350)
            select (
                Stall(gap is { } seconds ? TimeSpan.FromSeconds(seconds) : null, failed, Math.Min(confirmed, failed)),
                CleanPath with
                {
                    TransmissionFailureRate = rate / 1000.0,
                    BlipRate = Math.Pow(10, -blips),
                    WasDownDuringStall = down,
                    SynRetransmissions = 0,
                    IdleTimeoutUpper = timeout is { } value ? TimeSpan.FromSeconds(value) : null,
                });
        Check.One(Config.QuickThrowOnFailure.WithMaxTest(20_000), Prop.ForAll(cases.ToArbitrary(), pair => property(pair.Item1, pair.Item2)));
    }
}
