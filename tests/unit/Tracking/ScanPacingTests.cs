using FsCheck;
using FsCheck.Fluent;
using Shouldly;
using Sidecar.Agent.Tracking;
using Sidecar.Probes.Namespaces;
using Xunit;

namespace Sidecar.UnitTests.Tracking;

public sealed class ScanPacingTests
{
    private static readonly TimeSpan Second = TimeSpan.FromSeconds(1);

    private static readonly TcpCounters Before = new(10, 5, 3);
    private static readonly TcpCounters Retransmitted = Before with { Retransmissions = 4 };
    private static readonly TcpCounters Opened = Before with { Opens = 11 };
    private static readonly TcpCounters Closed = Before with { Established = 4 };

    private static readonly TimeSpan Costly = TimeSpan.FromMilliseconds(20);

    private readonly ScanPacing _pacing = new(Second, TimeSpan.Zero);
    private TimeSpan _took = Costly;

    [Fact]
    public void Sleeps_grow_up_to_five_seconds_where_all_is_quiet()
    {
        var sleeps = Enumerable.Range(0, 7).Select(_ => Look(Before).TotalSeconds).ToArray();

        sleeps.ShouldBe([1, 2, 4, 5, 5, 5, 5]); // before the second look it is not known what was counted
    }

    [Fact]
    public void Looks_do_not_drift()
    {
        Look(Retransmitted, late: TimeSpan.FromMilliseconds(300));
        Look(Before, late: TimeSpan.FromMilliseconds(200));

        _pacing.Next.ShouldBe(2 * Second);
    }

    [Fact]
    public void Looks_that_were_missed_are_left_out()
    {
        Look(Before, late: 10 * Second);

        _pacing.Next.ShouldBe(11 * Second);
    }

    [Fact]
    public void Whatever_is_not_quiet_is_looked_at_after_an_interval()
    {
        Quieten();

        Look(Before, isQuiet: false).ShouldBe(Second);
        Look(Before).ShouldBe(2 * Second);
        Look(Opened).ShouldBe(Second);
        Look(Opened).ShouldBe(2 * Second);
        Look(null).ShouldBe(Second);
        Look(null).ShouldBe(Second);
    }

    [Fact]
    public void Data_on_a_watched_connection_is_not_quiet()
    {
        Quieten();
        double LookAt(params double[] lastData)
        {
            var began = _pacing.Next;
            _pacing.Begin(began, Before);
            Array.ForEach(lastData, at => _pacing.Saw(TimeSpan.FromSeconds(at)));
            _pacing.End(_took, isBusy: false, null);
            return (_pacing.Next - began).TotalSeconds;
        }

        LookAt(3, 7).ShouldBe(1);
        LookAt(7, 3).ShouldBe(2);
        LookAt(7, 7.5).ShouldBe(1);
    }

    [Fact]
    public void A_retransmission_after_calm_is_looked_at_at_once()
    {
        Quieten();

        Glance(Before, 2.0).ShouldBe(5);
        Glance(Retransmitted, 2.2).ShouldBe(2.2);
    }

    [Fact]
    public void Traffic_and_new_connections_are_calm_enough_for_that()
    {
        Quieten();
        Look(Opened, isQuiet: false);

        Glance(Opened with { Opens = 12, Retransmissions = 4 }, 0.6).ShouldBe(0.6);
    }

    [Fact]
    public void It_is_looked_at_half_an_interval_after_the_last_look_at_the_soonest()
    {
        Quieten();

        Glance(Retransmitted, 0.2).ShouldBe(0.5);
    }

    [Fact]
    public void Where_something_is_always_sent_again_looks_stay_an_interval_apart()
    {
        Quieten();
        Look(Retransmitted);

        Glance(Retransmitted with { Retransmissions = 5 }, 0.6).ShouldBe(1);
    }

    [Fact]
    public void Cheap_looks_follow_each_retransmission()
    {
        _took = TimeSpan.FromMilliseconds(1);
        Quieten();
        Look(Retransmitted);

        Glance(Retransmitted with { Retransmissions = 5 }, 0.1).ShouldBe(0.2);
        Look(Retransmitted with { Retransmissions = 5 });
        Glance(Retransmitted with { Retransmissions = 5, Opens = 12 }, 0.6).ShouldBe(1);
        Glance(Retransmitted with { Retransmissions = 6, Opens = 12 }, 0.6).ShouldBe(0.6);
    }

    [Fact]
    public void Opened_and_closed_connections_and_counters_that_are_lost_end_the_sleep_an_interval_after_the_last_look()
    {
        foreach (var change in new TcpCounters?[] { Opened, Closed, null })
        {
            Quieten();

            Glance(change, 0.4).ShouldBe(1);
            Look(Before);
            Quieten();

            Glance(change, 3.1).ShouldBe(3.1);
            Look(Before);
        }
    }

    [Fact]
    public void Sixteen_looks_fall_within_the_shortest_timeout()
    {
        Enumerable.Range(0, 4).Select(_ => Look(Before, timeout: 40 * Second)).ShouldBe([Second, 2 * Second, 2.5 * Second, 2.5 * Second]);
        Look(Before, timeout: Second).ShouldBe(Second);
    }

    [Fact]
    public void An_interval_of_a_minute_is_not_stretched()
    {
        var pacing = new ScanPacing(60 * Second, TimeSpan.Zero);
        for (var i = 1; i < 4; i++)
        {
            pacing.Begin(pacing.Next, Before);
            pacing.End(Costly, isBusy: false, null);
            pacing.Next.ShouldBe(i * 60 * Second);
        }
    }

    [Fact]
    public void Costly_glances_are_rare()
    {
        _pacing.Glance(Before, Second, TimeSpan.FromMilliseconds(0.1));
        _pacing.GlanceEvery.ShouldBe(TimeSpan.FromMilliseconds(200));

        _pacing.Glance(Before, Second, TimeSpan.FromMilliseconds(2));
        _pacing.GlanceEvery.ShouldBe(Second);

        _pacing.Glance(Before, Second, TimeSpan.FromMilliseconds(30));
        _pacing.GlanceEvery.ShouldBe(Second);
    }

    [Fact]
    public void However_the_counters_go_looks_are_half_an_interval_to_five_apart() =>
        Prop.ForAll(ArbMap.Default.ArbFor<byte[]>(), steps =>
        {
            var pacing = new ScanPacing(Second, TimeSpan.Zero);
            var now = TimeSpan.Zero;
            var last = -Second;
            var counters = Before;
            foreach (var step in steps)
            {
                now += ScanPacing.GlanceInterval;
                counters = (step % 5) switch
                {
                    0 => counters with { Opens = counters.Opens + 1 },
                    1 => counters with { Retransmissions = counters.Retransmissions + 1 },
                    _ => counters,
                };
                pacing.Glance(counters, now, TimeSpan.Zero);
                if (pacing.Next <= now)
                {
                    (now - last).ShouldBeGreaterThanOrEqualTo(Second / 2);
                    last = now;
                    pacing.Begin(now, counters);
                    pacing.End(Costly, step % 7 == 0, null);
                }

                (pacing.Next - last).ShouldBeLessThanOrEqualTo(5 * Second);
            }
        }).QuickCheckThrowOnFailure();

    /// <summary>A look when it is due; returns how long the sleep after it is.</summary>
    private TimeSpan Look(TcpCounters? counters, bool isQuiet = true, TimeSpan? timeout = null, TimeSpan late = default)
    {
        var began = _pacing.Next + late;
        _pacing.Begin(began, counters);
        _pacing.End(_took, !isQuiet, timeout);
        return _pacing.Next - began;
    }

    /// <summary>Looks until the sleep is the longest.</summary>
    private void Quieten()
    {
        for (var i = 0; i < 5; i++)
        {
            Look(Before);
        }
    }

    /// <summary>A glance some seconds after the last look; returns when the next look is due, in seconds after the last.</summary>
    private double Glance(TcpCounters? counters, double after)
    {
        _pacing.Glance(counters, _pacing.Began + TimeSpan.FromSeconds(after), TimeSpan.Zero);
        return (_pacing.Next - _pacing.Began).TotalSeconds;
    }
}
