using FsCheck;
using FsCheck.Fluent;
using Shouldly;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.CoreTests.Tracking;

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
        var sleeps = Enumerable.Range(0, 7).Select(_ => Scan(Before).TotalSeconds).ToArray();

        sleeps.ShouldBe([1, 2, 4, 5, 5, 5, 5]); // before the second scan it is not known what was counted
    }

    [Fact]
    public void Looks_do_not_drift()
    {
        Scan(Retransmitted, late: TimeSpan.FromMilliseconds(300));
        Scan(Before, late: TimeSpan.FromMilliseconds(200));

        _pacing.Next.ShouldBe(2 * Second);
    }

    [Fact]
    public void Looks_that_were_missed_are_left_out()
    {
        Scan(Before, late: 10 * Second);

        _pacing.Next.ShouldBe(11 * Second);
    }

    [Fact]
    public void Whatever_is_not_quiet_is_looked_at_after_an_interval()
    {
        Quieten();

        Scan(Before, isQuiet: false).ShouldBe(Second);
        Scan(Before).ShouldBe(2 * Second);
        Scan(Opened).ShouldBe(Second);
        Scan(Opened).ShouldBe(2 * Second);
        Scan(null).ShouldBe(Second);
        Scan(null).ShouldBe(Second);
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

        Targeted(Before, 2.0).ShouldBe(5);
        Targeted(Retransmitted, 2.2).ShouldBe(2.2);
    }

    [Fact]
    public void Traffic_and_new_connections_are_calm_enough_for_that()
    {
        Quieten();
        Scan(Opened, isQuiet: false);

        Targeted(Opened with { Opens = 12, Retransmissions = 4 }, 0.6).ShouldBe(0.6);
    }

    [Fact]
    public void It_is_looked_at_half_an_interval_after_the_last_look_at_the_soonest()
    {
        Quieten();

        Targeted(Retransmitted, 0.2).ShouldBe(0.5);
    }

    [Fact]
    public void Where_something_is_always_sent_again_looks_stay_an_interval_apart()
    {
        Quieten();
        Scan(Retransmitted);

        Targeted(Retransmitted with { Retransmissions = 5 }, 0.6).ShouldBe(1);
    }

    [Fact]
    public void Cheap_looks_follow_each_retransmission()
    {
        _took = TimeSpan.FromMilliseconds(1);
        Quieten();
        Scan(Retransmitted);

        Targeted(Retransmitted with { Retransmissions = 5 }, 0.1).ShouldBe(0.2);
        Scan(Retransmitted with { Retransmissions = 5 });
        Targeted(Retransmitted with { Retransmissions = 5, Opens = 12 }, 0.6).ShouldBe(1);
        Targeted(Retransmitted with { Retransmissions = 6, Opens = 12 }, 0.6).ShouldBe(0.6);
    }

    [Fact]
    public void Opened_and_closed_connections_and_counters_that_are_lost_end_the_sleep_an_interval_after_the_last_look()
    {
        foreach (var change in new TcpCounters?[] { Opened, Closed, null })
        {
            Quieten();

            Targeted(change, 0.4).ShouldBe(1);
            Scan(Before);
            Quieten();

            Targeted(change, 3.1).ShouldBe(3.1);
            Scan(Before);
        }
    }

    [Fact]
    public void Sixteen_looks_fall_within_the_shortest_timeout()
    {
        Enumerable.Range(0, 4).Select(_ => Scan(Before, timeout: 40 * Second)).ShouldBe([Second, 2 * Second, 2.5 * Second, 2.5 * Second]);
        Scan(Before, timeout: Second).ShouldBe(Second);
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
    public void Costly_checks_are_rare()
    {
        _pacing.Check(Before, Second, TimeSpan.FromMilliseconds(2));
        _pacing.CheckEvery.ShouldBe(Second);

        _pacing.Check(Before, Second, TimeSpan.FromMilliseconds(0.1));
        _pacing.CheckEvery.ShouldBe(TimeSpan.FromMilliseconds(200));

        for (var i = 0; i < 60; i++)
        {
            _pacing.Check(Before, Second, TimeSpan.FromMilliseconds(30));
        }

        _pacing.CheckEvery.ShouldBe(Second);
    }

    [Fact]
    public void One_that_was_held_up_does_not_blind_those_after_it()
    {
        _pacing.Check(Before, Second, TimeSpan.FromMilliseconds(0.1));
        for (var i = 0; i < 10; i++)
        {
            _pacing.Check(Before, Second, TimeSpan.FromMilliseconds(30));
            _pacing.CheckEvery.ShouldBe(TimeSpan.FromMilliseconds(200));
        }
    }

    [Fact]
    public void A_scan_that_was_held_up_is_cheap_all_the_same()
    {
        _took = TimeSpan.FromMilliseconds(1.5);
        Quieten();
        _took = Costly;
        Scan(Before);

        Targeted(Retransmitted, 0.1).ShouldBe(0.2);
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
                now += ScanPacing.CheckInterval;
                counters = (step % 5) switch
                {
                    0 => counters with { Opens = counters.Opens + 1 },
                    1 => counters with { Retransmissions = counters.Retransmissions + 1 },
                    _ => counters,
                };
                pacing.Check(counters, now, TimeSpan.Zero);
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

    /// <summary>A scan when it is due; returns how long the sleep after it is.</summary>
    private TimeSpan Scan(TcpCounters? counters, bool isQuiet = true, TimeSpan? timeout = null, TimeSpan late = default)
    {
        var began = _pacing.Next + late;
        _pacing.Begin(began, counters);
        _pacing.End(_took, !isQuiet, timeout);
        return _pacing.Next - began;
    }

    /// <summary>Scans until the sleep is the longest.</summary>
    private void Quieten()
    {
        for (var i = 0; i < 5; i++)
        {
            Scan(Before);
        }
    }

    /// <summary>A targeted scan some seconds after the last scan; returns when the next scan is due, in seconds after the last.</summary>
    private double Targeted(TcpCounters? counters, double after)
    {
        _pacing.Check(counters, _pacing.Began + TimeSpan.FromSeconds(after), TimeSpan.Zero);
        return (_pacing.Next - _pacing.Began).TotalSeconds;
    }
}
