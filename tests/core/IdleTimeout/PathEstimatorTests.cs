using FsCheck;
using FsCheck.Fluent;
using Shouldly;
using Sidecar.Agent.Core.Judgement.IdleTimeout;
using Xunit;

namespace Sidecar.CoreTests.IdleTimeout;

public sealed class PathEstimatorTests
{
    private static readonly DateTimeOffset Start = new(2026, 1, 1, 0, 0, 0, TimeSpan.Zero);

    [Fact]
    public void Nothing_is_known_of_a_path_that_was_never_seen_idle()
    {
        var estimate = new PathEstimator().Estimate(Start);

        estimate.Lower.ShouldBe(TimeSpan.Zero);
        estimate.Upper.ShouldBeNull();
        estimate.Confidence.ShouldBe(0);
    }

    [Fact]
    public void The_interval_runs_from_the_longest_survived_gap_to_the_shortest_lost_one()
    {
        var estimator = Feed(Survived(5), Lost(40), Survived(12), Lost(25), Survived(9));

        var estimate = estimator.Estimate(Start + TimeSpan.FromSeconds(64));

        estimate.Lower.ShouldBe(TimeSpan.FromSeconds(12));
        estimate.Upper.ShouldBe(TimeSpan.FromSeconds(25));
        estimate.Contradicted.ShouldBeFalse();
        estimate.Count.ShouldBe(5);
        estimate.Age.ShouldBe(TimeSpan.FromMinutes(1));
    }

    [Fact]
    public void A_truthful_path_has_its_timeout_inside_the_interval() =>
        Prop.ForAll(TruthfulHistories(), history =>
        {
            var estimator = new PathEstimator();
            foreach (var observation in history.Observations)
            {
                Next(estimator, observation);
                var estimate = estimator.Estimate(observation.At);

                estimate.Lower.ShouldBeLessThanOrEqualTo(history.Timeout);
                (estimate.Upper is null || estimate.Upper >= history.Timeout).ShouldBeTrue();
                estimate.Contradicted.ShouldBeFalse();
            }
        }).QuickCheckThrowOnFailure();

    [Fact]
    public void The_interval_of_a_truthful_path_only_narrows() =>
        Prop.ForAll(TruthfulHistories(), history =>
        {
            var estimator = new PathEstimator();
            var before = estimator.Estimate(Start);
            foreach (var observation in history.Observations)
            {
                Next(estimator, observation);
                var after = estimator.Estimate(observation.At);

                after.Lower.ShouldBeGreaterThanOrEqualTo(before.Lower);
                (after.Upper ?? TimeSpan.MaxValue).ShouldBeLessThanOrEqualTo(before.Upper ?? TimeSpan.MaxValue);
                before = after;
            }
        }).QuickCheckThrowOnFailure();

    [Fact]
    public void One_lie_among_truths_never_shuts_the_timeout_out() =>
        Prop.ForAll(LyingHistories(), history =>
        {
            var estimator = new PathEstimator();
            foreach (var observation in history.Observations)
            {
                Next(estimator, observation);
            }

            var estimate = estimator.Estimate(Start);

            // A lie that nothing else speaks about cannot be told from the truth.
            if (!history.Observations.Any(o => o.Contradicts(history.Lie)))
            {
                return;
            }

            estimate.Lower.ShouldBeLessThanOrEqualTo(history.Timeout);
            (estimate.Upper is null || estimate.Upper >= history.Timeout).ShouldBeTrue();
        }).QuickCheckThrowOnFailure();

    [Fact]
    public void One_lie_is_worn_out_by_the_truths_that_follow() =>
        Prop.ForAll(LyingHistories(), history =>
        {
            var estimator = new PathEstimator();
            foreach (var observation in history.Observations)
            {
                Next(estimator, observation);
            }

            for (var i = 0; i < 8; i++)
            {
                Next(estimator, Survived(history.Timeout.TotalSeconds * 0.98));
                Next(estimator, Lost(history.Timeout.TotalSeconds * 1.02));
            }

            var estimate = estimator.Estimate(Start);

            // What lies within 2 % of the truth does no harm and may stay.
            var error = Math.Abs(history.Lie.Gap / history.Timeout - 1);
            if (error <= 0.02)
            {
                return;
            }

            estimate.Contradicted.ShouldBeFalse();
            estimate.Lower.ShouldBeGreaterThanOrEqualTo(history.Timeout * 0.97);
            estimate.Upper!.Value.ShouldBeLessThanOrEqualTo(history.Timeout * 1.03);
        }).QuickCheckThrowOnFailure();

    [Theory]
    [InlineData(20, 8)]
    [InlineData(8, 20)]
    [InlineData(350, 60)]
    public void A_changed_router_is_noticed_at_once_and_followed_after_a_few_gaps(int before, int after)
    {
        var estimator = new PathEstimator();
        for (var round = 0; round < 200; round++)
        {
            for (var share = 0.1; share < 1; share += 0.05)
            {
                Next(estimator, Survived(before * share));
            }

            Next(estimator, Lost(before * 1.02));
        }

        if (after < before)
        {
            Next(estimator, Lost(after * 1.1));
        }
        else
        {
            Next(estimator, Survived(after * 0.9));
        }

        estimator.Estimate(Start).Contradicted.ShouldBeTrue();

        for (var i = 0; i < 8; i++)
        {
            Next(estimator, Survived(after * 0.97));
            Next(estimator, Lost(after * 1.03));
        }

        var estimate = estimator.Estimate(Start);
        estimate.Lower.ShouldBeInRange(TimeSpan.FromSeconds(after * 0.97), TimeSpan.FromSeconds(after));
        estimate.Upper!.Value.ShouldBeInRange(TimeSpan.FromSeconds(after), TimeSpan.FromSeconds(after * 1.03));
        estimate.Contradicted.ShouldBeFalse();
    }

    [Fact]
    public void Two_ladders_settle_what_a_changed_router_has_put_in_dispute()
    {
        var estimate = Feed(
            Tried(Survived(10)), Tried(Survived(10)), Tried(Survived(19.7)), Tried(Lost(20.3)), Lost(9),
            Tried(Survived(7.5)), Tried(Lost(10.1)), Tried(Lost(8.4)),
            Tried(Survived(7.5)), Tried(Lost(10.1)), Tried(Lost(8.4))).Estimate(Start);

        (estimate.Lower.TotalSeconds, estimate.Upper?.TotalSeconds, estimate.Contradicted).ShouldBe((7.5, 8.4, false));
    }

    [Fact]
    public void Contradiction_widens_the_interval_instead_of_breaking_it()
    {
        var estimate = Feed(Survived(5), Lost(12), Survived(10), Lost(8)).Estimate(Start);

        estimate.Contradicted.ShouldBeTrue();
        estimate.Lower.ShouldBeLessThanOrEqualTo(TimeSpan.FromSeconds(8));
        (estimate.Upper is null || estimate.Upper >= TimeSpan.FromSeconds(10)).ShouldBeTrue();
    }

    [Fact]
    public void Kept_evidence_gives_the_same_interval_when_taken_up_again() =>
        Prop.ForAll(LyingHistories(), history =>
        {
            var estimator = new PathEstimator();
            foreach (var observation in history.Observations)
            {
                Next(estimator, observation);
            }

            new PathEstimator(estimator.Keep()).Estimate(Start).ShouldBe(estimator.Estimate(Start));
        }).QuickCheckThrowOnFailure();

    [Fact]
    public void Evidence_is_bounded_however_much_is_seen()
    {
        var random = new Random(7);
        var estimator = new PathEstimator();
        for (var i = 0; i < 5000; i++)
        {
            var gap = Math.Exp(random.NextDouble() * 9);
            Next(estimator, gap < 300 ? Survived(gap) : Lost(gap));
        }

        estimator.Keep().Observations.Count.ShouldBeLessThanOrEqualTo(PathEstimator.Capacity);
        estimator.Keep().Count.ShouldBe(5000);
    }

    [Fact]
    public void Nonsense_in_kept_evidence_is_left_out()
    {
        var kept = new KeptEvidence
        {
            Count = -4,
            Observations =
            [
                new KeptGap { GapSeconds = double.NaN, Weight = 1 },
                new KeptGap { GapSeconds = -1, Weight = 1 },
                new KeptGap { GapSeconds = 3, Weight = double.PositiveInfinity },
                new KeptGap { GapSeconds = 3, Weight = 1, Outcome = (GapOutcome)9 },
                new KeptGap { GapSeconds = 4, Weight = 1, Outcome = GapOutcome.Survived },
            ],
        };

        var estimate = new PathEstimator(kept).Estimate(Start);

        estimate.Lower.ShouldBe(TimeSpan.FromSeconds(4));
        estimate.Count.ShouldBe(1);
    }

    [Fact]
    public void What_was_survived_before_a_router_changed_says_nothing_of_it_afterwards()
    {
        // 20 s become 8 s: one connection has just survived 8.5 s when another is lost after 8.7 s.
        var estimate = Feed(Tried(Survived(5)), Tried(Survived(19)), Tried(Lost(20)), Survived(8.5), Evident(Lost(8.7)), Survived(7.6), Evident(Lost(11))).Estimate(Start);

        (estimate.Lower.TotalSeconds, estimate.Upper?.TotalSeconds, estimate.Contradicted).ShouldBe((7.6, 8.7, false));
    }

    [Fact]
    public void What_was_lost_before_a_router_changed_says_nothing_of_it_afterwards()
    {
        // 8 s become 60 s: that 12 s were too long is an old story, although nothing has yet survived them.
        var estimate = Feed(Tried(Survived(7.5)), Tried(Lost(8.4)), Lost(12), Evident(Survived(9)), Evident(Survived(10.5))).Estimate(Start);

        (estimate.Lower.TotalSeconds, estimate.Upper?.TotalSeconds, estimate.Contradicted).ShouldBe((10.5, null, false));
    }

    [Fact]
    public void A_ladder_that_sees_it_twice_settles_what_a_ladder_saw_while_the_router_changed()
    {
        var estimate = Feed(
            Tried(Survived(7.5)), Tried(Survived(10.6)), Tried(Lost(19.19)), Tried(Lost(19.19)),
            Tried(Survived(10)), Tried(Survived(19.2)), Tried(Survived(19.2)), Tried(Lost(20.03))).Estimate(Start);

        (estimate.Lower.TotalSeconds, estimate.Upper?.TotalSeconds, estimate.Contradicted).ShouldBe((19.2, 20.03, false));
    }

    [Fact]
    public void A_lie_that_is_worn_out_is_no_change_of_the_router()
    {
        var estimate = Feed(Tried(Lost(62)), Tried(Survived(55)), Survived(30), Lost(6), Evident(Survived(20)), Evident(Survived(20))).Estimate(Start);

        (estimate.Lower.TotalSeconds, estimate.Upper?.TotalSeconds, estimate.Contradicted).ShouldBe((55, 62, false));
    }

    private static PathEstimator Feed(params GapObservation[] observations)
    {
        var estimator = new PathEstimator();
        foreach (var observation in observations)
        {
            Next(estimator, observation);
        }

        return estimator;
    }

    /// <summary>One second after the one before.</summary>
    private static void Next(PathEstimator estimator, GapObservation observation) =>
        estimator.Add(observation with { At = Start + TimeSpan.FromSeconds(estimator.Estimate(Start).Count) });

    private static GapObservation Evident(GapObservation observation) => observation with { Weight = 4 };

    private static GapObservation Survived(double seconds) => new(TimeSpan.FromSeconds(seconds), GapOutcome.Survived, Start, EvidenceSource.Passive);

    private static GapObservation Lost(double seconds) => new(TimeSpan.FromSeconds(seconds), GapOutcome.Lost, Start, EvidenceSource.Passive);

    private static GapObservation Tried(GapObservation observation) => observation with { Source = EvidenceSource.Ladder, Weight = GapObservation.LadderWeight };

    private sealed record History(TimeSpan Timeout, GapObservation[] Observations, GapObservation Lie);

    private static Gen<GapObservation> Truth(double timeout) =>
        from share in Gen.Choose(10, 3000)
        from ladder in Gen.Elements(true, false)
        let gap = timeout * share / 1000.0
        select new GapObservation(
            TimeSpan.FromSeconds(gap),
            gap < timeout ? GapOutcome.Survived : GapOutcome.Lost,
            Start,
            ladder ? EvidenceSource.Ladder : EvidenceSource.Passive,
            ladder ? GapObservation.LadderWeight : 1);

    private static Arbitrary<History> TruthfulHistories() =>
        (from timeout in Gen.Choose(2, 8000)
         from observations in Truth(timeout).ArrayOf(200)
         select new History(TimeSpan.FromSeconds(timeout), observations, default)).ToArbitrary();

    private static Arbitrary<History> LyingHistories() =>
        (from timeout in Gen.Choose(2, 8000)
         from observations in Truth(timeout).ArrayOf(30)
         from truth in Truth(timeout)
         from at in Gen.Choose(0, 30)
         let lie = truth with { Outcome = truth.Outcome == GapOutcome.Survived ? GapOutcome.Lost : GapOutcome.Survived }
         select new History(TimeSpan.FromSeconds(timeout), [.. observations[..at], lie, .. observations[at..]], lie)).ToArbitrary();
}
