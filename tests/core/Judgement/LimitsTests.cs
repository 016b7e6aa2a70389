using FsCheck;
using FsCheck.Fluent;
using Shouldly;
using Sidecar.Agent.Core.Judgement;
using Xunit;

namespace Sidecar.CoreTests.Judgement;

/// <summary>Loss estimate, starvation gate, budget, brake.</summary>
public sealed class LimitsTests
{
    [Fact]
    public void A_path_of_which_nothing_is_known_is_held_to_fail_once_in_twenty() =>
        new LossEstimate().RateAt(TimeSpan.Zero).ShouldBe(0.05, 1e-9);

    [Fact]
    public void No_path_is_believed_to_be_perfect()
    {
        var estimate = new LossEstimate();
        estimate.Add(1_000_000, 0, TimeSpan.Zero);
        estimate.RateAt(TimeSpan.Zero).ShouldBe(LossEstimate.Floor);
    }

    [Fact]
    public void Nor_to_lose_more_than_the_ceiling()
    {
        var estimate = new LossEstimate();
        estimate.Add(1000, 1000, TimeSpan.Zero);
        estimate.RateAt(TimeSpan.Zero).ShouldBe(LossEstimate.Ceiling);
    }

    [Fact]
    public void Old_loss_fades()
    {
        var estimate = new LossEstimate();
        estimate.Add(1000, 300, TimeSpan.Zero);
        estimate.RateAt(TimeSpan.Zero).ShouldBeGreaterThan(0.3);
        estimate.RateAt(TimeSpan.FromHours(2)).ShouldBe(0.05, 0.001);
    }

    [Fact]
    public void A_silence_that_ended_by_itself_is_remembered_for_days()
    {
        var estimate = new LossEstimate();
        estimate.BlipRateAt(TimeSpan.Zero).ShouldBe(LossEstimate.LeastBlips);
        estimate.Add(800, 0, TimeSpan.Zero);
        estimate.AddBlip(TimeSpan.Zero);
        estimate.BlipRateAt(TimeSpan.Zero).ShouldBe(1e-3, 1e-9);
        estimate.BlipRateAt(TimeSpan.FromHours(24)).ShouldBe(0.5 / 600, 1e-6);
        estimate.BlipRateAt(TimeSpan.FromDays(30)).ShouldBe(LossEstimate.LeastBlips);
    }

    [Theory]
    [InlineData(0.01)]
    [InlineData(0.1)]
    [InlineData(0.19)]
    public void The_estimate_errs_upwards_on_a_path_that_is_in_use(double fails)
    {
        var random = new Random(7);
        var below = 0;
        for (var path = 0; path < 1000; path++)
        {
            var estimate = new LossEstimate();
            for (var i = 0; i < 200; i++)
            {
                estimate.Add(1, random.NextDouble() < fails ? 1 : 0, TimeSpan.FromSeconds(i));
            }

            below += estimate.RateAt(TimeSpan.FromSeconds(200)) < fails ? 1 : 0;
        }

        below.ShouldBeLessThan(100);
    }

    [Theory]
    [InlineData(0, 500, 500, false)]
    [InlineData(0, 501, 501, true)]
    [InlineData(0, 0, 2000, false)]
    [InlineData(0, 0, 2001, true)]
    [InlineData(1000, 900, 950, false)]
    public void A_look_is_late_when_it_began_late_or_took_long(int planned, int started, int finished, bool late) =>
        StarvationGate.IsLate(TimeSpan.FromMilliseconds(planned), TimeSpan.FromMilliseconds(started), TimeSpan.FromMilliseconds(finished)).ShouldBe(late);

    [Fact]
    public void A_budget_is_never_exceeded_in_any_window()
    {
        var cases =
            from count in Gen.Choose(0, 5)
            from period in Gen.Choose(1, 100)
            from steps in Gen.Choose(0, 40).ArrayOf(200)
            select (count, period, steps);
        Check.One(Config.QuickThrowOnFailure.WithMaxTest(2000), Prop.ForAll(cases.ToArbitrary(), given =>
        {
            var budget = new SlidingBudget(given.count, TimeSpan.FromSeconds(given.period));
            var spent = new List<int>();
            var now = 0;
            foreach (var step in given.steps)
            {
                now += step;
                if (budget.IsLeftAt(TimeSpan.FromSeconds(now)))
                {
                    budget.Spend(TimeSpan.FromSeconds(now));
                    spent.Add(now);
                }
            }

            return spent.TrueForAll(from => spent.Count(at => at >= from && at < from + given.period) <= given.count);
        }));
    }

    [Fact]
    public void A_budget_is_left_again_when_the_period_has_passed()
    {
        var budget = new SlidingBudget(1, TimeSpan.FromHours(1));
        budget.Spend(TimeSpan.Zero);
        budget.IsLeftAt(TimeSpan.FromMinutes(59.99)).ShouldBeFalse();
        budget.IsLeftAt(TimeSpan.FromHours(1)).ShouldBeTrue();
    }

    [Theory]
    [InlineData(2, 2, false)]
    [InlineData(3, 3, true)]
    [InlineData(3, 6, false)]
    [InlineData(4, 6, true)]
    [InlineData(0, 0, false)]
    public void The_brake_comes_on_when_most_connections_of_a_crowd_are_silent(int silent, int total, bool on)
    {
        var brake = new CommonModeBrake();
        brake.Update(silent, total, TimeSpan.Zero);
        brake.IsOn.ShouldBe(on);
        brake.Update(0, total, TimeSpan.Zero);
        brake.IsOn.ShouldBeFalse();
    }

    [Fact]
    public void The_brake_lets_ten_recycles_a_second_pass_at_first()
    {
        var brake = new CommonModeBrake();
        for (var i = 0; i < 10; i++)
        {
            brake.IsRateLeftAt(TimeSpan.Zero).ShouldBeTrue();
            brake.Recycled(TimeSpan.Zero);
        }

        brake.IsRateLeftAt(TimeSpan.FromMilliseconds(999)).ShouldBeFalse();
        brake.IsRateLeftAt(TimeSpan.FromSeconds(1)).ShouldBeTrue();
    }

    [Theory]
    [InlineData(5.0, 20)] // quick, whatever the ones before took
    [InlineData(90.0, 20)] // as quick as before
    [InlineData(150.0, 5)]
    [InlineData(null, 5)]
    public void The_rate_doubles_while_connect_probes_are_as_quick_as_before_and_halves_when_they_are_not(double? took, int rate)
    {
        var brake = Crowd();
        brake.Probed(TimeSpan.FromMilliseconds(50), TimeSpan.FromSeconds(100));
        brake.Recycled(TimeSpan.FromSeconds(100));
        brake.Probed(took is { } time ? TimeSpan.FromMilliseconds(time) : null, TimeSpan.FromSeconds(101));
        brake.Rate.ShouldBe(rate);
    }

    [Fact]
    public void The_rate_changes_once_a_second_and_stays_within_its_bounds()
    {
        var brake = Crowd();
        brake.Recycled(TimeSpan.FromSeconds(100));
        brake.Probed(TimeSpan.FromMilliseconds(1), TimeSpan.FromSeconds(101));
        brake.Probed(TimeSpan.FromMilliseconds(1), TimeSpan.FromSeconds(101.9));
        brake.Rate.ShouldBe(20);
        for (var second = 102; second < 120; second++)
        {
            brake.Recycled(TimeSpan.FromSeconds(second));
            brake.Probed(TimeSpan.FromMilliseconds(1), TimeSpan.FromSeconds(second));
        }

        brake.Rate.ShouldBe(CommonModeBrake.MostRate);
        for (var second = 120; second < 140; second++)
        {
            brake.Recycled(TimeSpan.FromSeconds(second));
            brake.Probed(null, TimeSpan.FromSeconds(second));
        }

        brake.Rate.ShouldBe(1);
    }

    [Fact]
    public void After_half_a_minute_of_rest_the_rate_begins_low_again()
    {
        var brake = Crowd();
        brake.Recycled(TimeSpan.FromSeconds(100));
        brake.Probed(TimeSpan.FromMilliseconds(1), TimeSpan.FromSeconds(101));
        brake.Update(0, 9, TimeSpan.FromSeconds(130));
        brake.Rate.ShouldBe(20);
        brake.Update(0, 9, TimeSpan.FromSeconds(131));
        brake.Rate.ShouldBe(CommonModeBrake.FirstRate);
    }

    private static CommonModeBrake Crowd()
    {
        var brake = new CommonModeBrake();
        brake.Update(9, 9, TimeSpan.FromSeconds(100));
        return brake;
    }
}
