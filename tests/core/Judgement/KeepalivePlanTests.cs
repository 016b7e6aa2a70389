using System.Globalization;
using FsCheck;
using FsCheck.Fluent;
using Shouldly;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.CoreTests.Judgement;

/// <summary>Over all option sets that the kernel admits, all bounds and all values of dead-after.</summary>
public sealed class KeepalivePlanTests
{
    private static readonly Config Thorough = Config.QuickThrowOnFailure.WithMaxTest(20_000);

    /// <summary>What the kernel admits: seconds from 1 to 32,767 and counts from 1 to 127 (net/ipv4/tcp.c).</summary>
    private static Gen<KeepaliveOptions> Options =>
        from enabled in ArbMap.Default.GeneratorFor<bool>()
        from idle in Gen.OneOf(Gen.Choose(1, 60), Gen.Choose(1, 32767), Gen.Constant(7200))
        from interval in Gen.OneOf(Gen.Choose(1, 60), Gen.Choose(1, 32767), Gen.Constant(75))
        from count in Gen.OneOf(Gen.Choose(1, 127), Gen.Constant(9))
        from userTimeout in Gen.OneOf(Gen.Constant(0), Gen.Choose(1, 600_000))
        select new KeepaliveOptions(enabled, TimeSpan.FromSeconds(idle), TimeSpan.FromSeconds(interval), count, TimeSpan.FromMilliseconds(userTimeout));

    private static Gen<TimeSpan?> Bounds =>
        Gen.OneOf(Gen.Constant<TimeSpan?>(null), Gen.Choose(1, 1000).Select(s => (TimeSpan?)TimeSpan.FromSeconds(s)), Gen.Choose(1, 432_000_000).Select(ms => (TimeSpan?)TimeSpan.FromMilliseconds(ms)));

    private static Gen<TimeSpan> DeadAfters => Gen.OneOf(Gen.Choose(1, 600), Gen.Choose(1, 86_400)).Select(s => TimeSpan.FromSeconds(s));

    private static Arbitrary<(KeepaliveOptions Present, TimeSpan? Lower, TimeSpan DeadAfter)> Cases =>
        (from present in Options from lower in Bounds from deadAfter in DeadAfters select (present, lower, deadAfter)).ToArbitrary();

    [Fact]
    public void What_the_application_set_is_never_loosened() =>
        Check(Cases, c =>
        {
            if (KeepalivePlan.For(c.Present, c.Lower, c.DeadAfter) is not { } wanted)
            {
                return;
            }

            wanted.Enabled.ShouldBeTrue();
            wanted.Idle.ShouldBeLessThanOrEqualTo(c.Present.Idle);
            wanted.UserTimeout.ShouldBe(c.Present.UserTimeout);
            if (c.Present.Enabled)
            {
                // Switched on by the application: asked no later and no less often, and not given up sooner than it wanted or than
                // dead-after.
                wanted.Interval.ShouldBeLessThanOrEqualTo(c.Present.Interval);
                wanted.Count.ShouldBeGreaterThanOrEqualTo(c.Present.Count);
                var givesUp = c.Present.Interval * c.Present.Count;
                (wanted.Interval * wanted.Count).ShouldBeGreaterThanOrEqualTo(givesUp < c.DeadAfter ? givesUp : c.DeadAfter);
                wanted.ShouldNotBe(c.Present);
            }
        });

    [Fact]
    public void Where_the_agent_armed_a_connection_it_is_not_given_up_before_dead_after() =>
        Check(Cases, c =>
        {
            if (!c.Present.Enabled && KeepalivePlan.For(c.Present, c.Lower, c.DeadAfter) is { } wanted)
            {
                (wanted.Interval * (wanted.Count - KeepalivePlan.CountForNudges)).ShouldBeGreaterThanOrEqualTo(c.DeadAfter);

                // TCP_USER_TIMEOUT takes the place of the count.
                (wanted.UserTimeout == TimeSpan.Zero || wanted.UserTimeout >= c.DeadAfter).ShouldBeTrue();
            }
        });

    [Fact]
    public void The_kernel_takes_every_value() =>
        Check(Cases, c =>
        {
            if (KeepalivePlan.For(c.Present, c.Lower, c.DeadAfter) is { } wanted)
            {
                IsWholeSeconds(wanted.Idle).ShouldBeTrue();
                IsWholeSeconds(wanted.Interval).ShouldBeTrue();
                wanted.Count.ShouldBeInRange(1, 127);
            }
        });

    [Fact]
    public void The_first_probe_comes_before_the_path_forgets() =>
        Check(Cases, c =>
        {
            // TCP_KEEPIDLE has no less than a second: a path that forgets sooner cannot be protected.
            if (c.Lower is { } lower && lower >= TimeSpan.FromSeconds(2) && KeepalivePlan.For(c.Present, c.Lower, c.DeadAfter) is { } wanted)
            {
                (wanted.Idle * 2).ShouldBeLessThanOrEqualTo(lower);
            }
        });

    /// <summary>An answered probe is followed by the next one after TCP_KEEPINTVL, and no sooner than TCP_KEEPIDLE.</summary>
    [Fact]
    public void So_does_every_further_probe_where_the_count_allows_it() =>
        Check(Cases, c =>
        {
            if (c.Lower is { } lower && lower >= TimeSpan.FromSeconds(2) && KeepalivePlan.For(c.Present, c.Lower, c.DeadAfter) is { } wanted
                && !(c.Present.Enabled && IsBeyondTheCount(c.Present, c.Lower, c.DeadAfter)))
            {
                (wanted.Interval * 2).ShouldBeLessThanOrEqualTo(lower);
            }
        });

    [Fact]
    public void Nothing_to_set_means_protected_already_or_a_reason_that_forbids_it() =>
        Check(Cases, c =>
        {
            if (KeepalivePlan.For(c.Present, c.Lower, c.DeadAfter) is null)
            {
                var idle = KeepalivePlan.TargetIdle(c.Lower);
                (c.Present.Enabled
                    ? c.Present.Idle <= idle && (c.Present.Interval <= idle || IsBeyondTheCount(c.Present, c.Lower, c.DeadAfter))
                    : (c.Present.UserTimeout > TimeSpan.Zero && c.Present.UserTimeout < c.DeadAfter)
                        || (c.Lower is not null && c.DeadAfter > idle * (127 - KeepalivePlan.CountForNudges))).ShouldBeTrue();
            }
        });

    [Fact]
    public void The_drivers_default_over_a_path_of_60_s_is_asked_every_half_minute_and_given_up_as_late_as_before()
    {
        // libpq switches keepalive on and leaves the rest to the system.
        var libpq = new KeepaliveOptions(true, TimeSpan.FromSeconds(7200), TimeSpan.FromSeconds(75), 9, TimeSpan.Zero);

        KeepalivePlan.For(libpq, TimeSpan.FromSeconds(60), TimeSpan.FromSeconds(120))
            .ShouldBe(libpq with { Idle = TimeSpan.FromSeconds(30), Interval = TimeSpan.FromSeconds(30), Count = 23 });
    }

    [Fact]
    public void Planning_twice_changes_nothing_more() =>
        Check(Cases, c =>
        {
            if (KeepalivePlan.For(c.Present, c.Lower, c.DeadAfter) is { } wanted)
            {
                KeepalivePlan.For(wanted, c.Lower, c.DeadAfter).ShouldBeNull();
                KeepalivePlan.Follow(wanted, c.Present, wanted, c.Lower, c.DeadAfter).ShouldBeNull();
            }
        });

    [Fact]
    public void When_the_bound_moves_the_options_follow_as_if_planned_anew() =>
        Check(
            (from c in Cases.Generator from moved in Bounds select (c.Present, c.Lower, c.DeadAfter, Moved: moved)).ToArbitrary(),
            c =>
            {
                if (KeepalivePlan.For(c.Present, c.Lower, c.DeadAfter) is not { } armed
                    || KeepalivePlan.Follow(armed, c.Present, armed, c.Moved, c.DeadAfter) is not { } followed)
                {
                    return;
                }

                followed.ShouldBe(KeepalivePlan.For(c.Present, c.Moved, c.DeadAfter)!.Value);
                followed.Idle.ShouldBeLessThanOrEqualTo(c.Present.Idle);
            });

    [Fact]
    public void Options_that_the_application_changed_since_are_its_own() =>
        Check(
            (from c in Cases.Generator from changed in Options from moved in Bounds select (c.Present, c.Lower, c.DeadAfter, Changed: changed, Moved: moved)).ToArbitrary(),
            c =>
            {
                if (KeepalivePlan.For(c.Present, c.Lower, c.DeadAfter) is { } armed && armed != c.Changed)
                {
                    KeepalivePlan.Follow(c.Changed, c.Present, armed, c.Moved, c.DeadAfter).ShouldBeNull();
                }
            });

    [Fact]
    public void A_connection_without_options_over_a_path_of_350_s_is_asked_at_175_s()
    {
        var untouched = new KeepaliveOptions(false, TimeSpan.FromSeconds(7200), TimeSpan.FromSeconds(75), 9, TimeSpan.Zero);

        var wanted = KeepalivePlan.For(untouched, TimeSpan.FromSeconds(350), TimeSpan.FromSeconds(120)).ShouldNotBeNull();

        wanted.Idle.TotalSeconds.ToString(CultureInfo.InvariantCulture).ShouldBe("175");
        (wanted.Interval * wanted.Count).ShouldBeGreaterThanOrEqualTo(TimeSpan.FromSeconds(120));
    }

    /// <summary>No count that the kernel takes makes up for asking so often.</summary>
    private static bool IsBeyondTheCount(in KeepaliveOptions present, TimeSpan? lower, TimeSpan deadAfter)
    {
        var givesUp = present.Interval * present.Count;
        return KeepalivePlan.TargetIdle(lower) * (127 - KeepalivePlan.CountForNudges) < (givesUp < deadAfter ? givesUp : deadAfter);
    }

    private static bool IsWholeSeconds(TimeSpan value) =>
        value.Ticks % TimeSpan.TicksPerSecond == 0 && value >= TimeSpan.FromSeconds(1) && value <= TimeSpan.FromSeconds(32767);

    private static void Check<T>(Arbitrary<T> cases, Action<T> body) => Prop.ForAll(cases, body).Check(Thorough);
}
