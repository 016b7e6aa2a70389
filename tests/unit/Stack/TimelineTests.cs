using Shouldly;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Telemetry;
using Sidecar.UnitTests.Telemetry;
using Xunit;

namespace Sidecar.UnitTests.Stack;

/// <summary>From a hung connection to a balancer that takes the server out.</summary>
public sealed class TimelineTests
{
    private readonly Timeline _timeline = new();
    private double _second;

    [Fact]
    public void What_follows_from_a_hang_is_noted_in_its_order()
    {
        Scan(waiting: 0);
        Scan(waiting: 1);
        Scan(waiting: 2);
        Scan(waiting: 4);
        Scan(waiting: 5, drops: 3);
        Scan(waiting: 5, drops: 3, down: ["web1"]);
        Scan(waiting: 5, drops: 3, down: ["web1"], errors: 9);
        Scan(waiting: 0, drops: 3, errors: 9);
        _timeline.Since(Samples.Noon).Select(link => ((link.Time - Samples.Noon).TotalSeconds, link.What)).ShouldBe(
        [
            (3, "all workers of web are busy: 2 connections wait at 127.0.0.1:8000"),
            (4, "the accept queue at 127.0.0.1:8000 fills: 4 of 5"),
            (5, "the accept queue at 127.0.0.1:8000 is full: 3 connections dropped"),
            (6, "HAProxy edge marks web1 of www down"),
            (7, "HAProxy edge answers 9 requests to www with errors of its own"),
            (8, "HAProxy edge has web1 of www back"),
        ]);
        _timeline.Version.ShouldBe(6);
        _timeline.Since(Samples.Noon.AddSeconds(6.5)).Count.ShouldBe(2);
    }

    [Fact]
    public void A_connection_that_is_just_being_accepted_says_nothing()
    {
        for (var i = 0; i < 10; i++)
        {
            Scan(waiting: i % 2);
        }

        _timeline.Version.ShouldBe(0);
    }

    [Fact]
    public void The_same_look_in_two_snapshots_counts_once()
    {
        IReadOnlyList<ListenerStatus> queues = [Samples.Listener(0, waiting: 1)];
        _timeline.Note(Samples.Snapshot() with { Listeners = queues });
        _timeline.Note(Samples.Snapshot() with { Listeners = queues });
        _timeline.Version.ShouldBe(0);
    }

    [Fact]
    public void What_was_down_when_the_agent_came_did_not_go_down_now_and_old_events_are_forgotten()
    {
        Scan(waiting: 0, down: ["web1"], drops: 7);
        _timeline.Version.ShouldBe(0);
        Scan(waiting: 0, down: ["web1", "web2"], drops: 7);
        _timeline.Since(Samples.Noon).ShouldHaveSingleItem().What.ShouldContain("web2");
        _second += 700;
        Scan(waiting: 0, down: ["web1", "web2"], drops: 7);
        _timeline.Since(Samples.Noon).ShouldBeEmpty();
    }

    private void Scan(long waiting, long drops = 0, IReadOnlyList<string>? down = null, long errors = 0)
    {
        _second++;
        var haproxy = Samples.Haproxy();
        _timeline.Note(Samples.Snapshot() with
        {
            Time = Samples.Noon.AddSeconds(_second),
            Listeners = [Samples.Listener(0, waiting) with { Drops = drops }],
            Haproxies = [haproxy with { Backends = [haproxy.Backends[0] with { Down = down ?? [], OwnErrors = errors }] }],
        });
    }
}
