using Shouldly;
using Sidecar.Agent.Core.Judgement.IdleTimeout;
using Xunit;

namespace Sidecar.CoreTests.IdleTimeout;

public sealed class LadderEvidenceTests
{
    private static readonly TimeSpan Width = TimeSpan.FromSeconds(1);

    private readonly LadderEvidence _evidence = new();
    private double _now;

    [Fact]
    public void Each_bound_is_to_be_seen_three_times_more()
    {
        Try(19.5, true);
        Try(20.3, false);
        _evidence.Wanting(Width).ShouldBe((3, 3));

        Try(19.4, true);
        Try(20.4, false);
        Try(20.4, false);

        _evidence.Wanting(Width).ShouldBe((2, 1));
        Bounds(_evidence.Result()).ShouldBe((19.5, 20.3, false));
    }

    [Fact]
    public void A_loss_that_three_later_ones_contradict_does_not_steer_and_still_counts()
    {
        Try(15, true);
        Try(18, false);
        Try(20, true);
        Try(20, true);
        Bounds(_evidence.Search()).ShouldBe((15, 18, true));

        Try(20, true);
        Try(22, false);

        Bounds(_evidence.Search()).ShouldBe((20, 22, false));
        Bounds(_evidence.Result()).ShouldBe((15, 22, true));
    }

    [Fact]
    public void What_is_lost_again_is_not_contradicted_by_what_is_longer()
    {
        Try(15, true);
        Try(18, false);
        Try(18.5, false);
        Try(20, true);
        Try(20, true);
        Try(20, true);

        _evidence.Search().Upper.ShouldBe(TimeSpan.FromSeconds(18));
    }

    [Fact]
    public void Far_below_what_is_survived_again_and_again_a_loss_is_a_lost_packet()
    {
        Try(1, true);
        Try(3, false);
        Try(20, true);
        Try(20, true);
        Try(20, true);
        Try(21, false);

        Bounds(_evidence.Result()).ShouldBe((20, 21, false));
    }

    [Fact]
    public void One_contradiction_clears_all_losses_of_an_occasion_on_which_everything_was_forgotten()
    {
        Try(15, true);
        var both = _now;
        Try(18, false, occasion: 1);
        _now = both;
        Try(24, false, occasion: 1);
        Bounds(_evidence.Search()).ShouldBe((15, 18, false));
        Try(18.1, true);
        Try(30, false);

        Bounds(_evidence.Search()).ShouldBe((18.1, 30, false));
        Bounds(_evidence.Result()).ShouldBe((18.1, 30, false));
    }

    [Fact]
    public void A_suspect_loss_is_no_bound_until_it_is_seen_on_another_occasion()
    {
        Try(15, true);
        Try(18, false, occasion: 1);
        _evidence.Result().Upper.ShouldBeNull();

        Try(18.1, false, occasion: 2);

        Bounds(_evidence.Result()).ShouldBe((15, 18, false));
    }

    [Fact]
    public void The_safe_end_keeps_half_of_what_the_time_varies_by_below_the_shortest_loss()
    {
        foreach (var gap in new[] { 12, 13.5, 15, 15.9 })
        {
            Try(gap, true);
        }

        Try(16, false);
        Try(20, true);
        Try(24, false);

        Bounds(_evidence.Result()).ShouldBe((13.5, 24, true));
    }

    private static (double Lower, double? Upper, bool Varies) Bounds(LadderBounds bounds) => (bounds.Lower.TotalSeconds, bounds.Upper?.TotalSeconds, bounds.Varies);

    /// <summary>Tries follow one another.</summary>
    private void Try(double gap, bool survived, int occasion = 0)
    {
        var begun = TimeSpan.FromSeconds(_now);
        _now += gap + 1;
        _evidence.Add(new LadderTrial(TimeSpan.FromSeconds(gap), survived, begun, TimeSpan.FromSeconds(_now), occasion));
    }
}
