using Shouldly;
using Sidecar.Agent.Core.Remedies;
using Xunit;

namespace Sidecar.CoreTests.Remedies;

/// <summary>What a user without rights can do with his own sockets to the same server changes nothing for the worker of another.</summary>
public sealed class UsersTests
{
    private const uint Stranger = 1000;

    [Fact]
    public void Blips_of_one_user_do_not_slow_the_rescue_of_anothers_worker()
    {
        var alone = ReleaseAfterBlips(null);

        // Sooner is no harm: what the stranger's silence has had probed, the worker's need not wait for.
        ReleaseAfterBlips(Stranger).ShouldBeLessThanOrEqualTo(alone);
        ReleaseAfterBlips(33).ShouldBeGreaterThan(alone, "the blips are such that they would slow it");
    }

    [Fact]
    public void Connections_that_one_user_lets_fall_silent_spend_nothing_of_anothers_rate()
    {
        var bench = new Bench();
        var strangers = Enumerable.Range(0, 300).Select(_ => bench.Open(uid: Stranger)).ToList();
        var worker = bench.Open();
        bench.Run(5);
        foreach (var socket in strangers)
        {
            socket.Send(bench.Now);
        }

        bench.Run(3);
        var sent = bench.Now;
        bench.Forget(worker);
        bench.Hands.Log.First(entry => entry.Command is Recycle recycle && recycle.Connection.Cookie == worker.Cookie).At.ShouldBeLessThan(sent + TimeSpan.FromSeconds(3));
    }

    [Fact]
    public void They_do_not_put_its_upstream_in_common_mode_either()
    {
        var bench = new Bench(with: section => section with { Recycle = false });
        var strangers = Enumerable.Range(0, 8).Select(_ => bench.Open(uid: Stranger)).ToList();
        var worker = bench.Open();
        foreach (var socket in strangers)
        {
            socket.Send(bench.Now);
        }

        bench.Run(3);
        bench.Forget(worker);
        bench.Hands.All<Terminate>().Single().Connection.Cookie.ShouldBe(worker.Cookie);
    }

    [Fact]
    public void Window_probes_that_one_users_connection_ignores_count_on_anothers()
    {
        var bench = new Bench(with: section => section with { Recycle = false });
        var stranger = bench.Open(idle: 10, uid: Stranger);
        var worker = bench.Open(idle: 10);
        stranger.Receive(bench.Now);
        bench.Run(1);
        stranger.Send(bench.Now);
        bench.Run(4);
        stranger.Acknowledge(bench.Now);
        bench.Tick();
        bench.Connection(stranger).User.AnswersProbes.ShouldBeFalse("its answer came although probes had none");
        bench.Connection(worker).User.AnswersProbes.ShouldBeTrue();
    }

    [Fact]
    public void Neighbours_are_those_of_the_same_user()
    {
        var bench = new Bench();
        var (stranger, worker) = (bench.Open(uid: Stranger), bench.Open());
        var start = bench.Now;
        bench.Path = Sidecar.Probes.Values.ConnectProbeOutcome.NotTried;
        worker.Send(bench.Now);
        for (var i = 0; i < 200; i++)
        {
            stranger.Receive(bench.Now);
            bench.Tick();
        }

        bench.Connection(stranger).User.LastProven.ShouldNotBeNull().ShouldBeGreaterThan(start);
        bench.Hands.All<Recycle>().ShouldBeEmpty("his way out may be another, by an egress rule for his uid");
    }

    private static TimeSpan ReleaseAfterBlips(uint? uid)
    {
        var bench = new Bench();
        var worker = bench.Open();
        var other = bench.Open(uid: uid ?? Stranger);
        for (var i = 0; i < 10; i++)
        {
            worker.Receive(bench.Now);
            other.Receive(bench.Now);
            bench.Run(3);
            if (uid is not null)
            {
                other.Send(bench.Now);
                bench.Run(1);
                other.Acknowledge(bench.Now);
            }
            else
            {
                bench.Run(1);
            }
        }

        worker.Receive(bench.Now);
        bench.Run(10);
        var sent = bench.Now;
        bench.Forget(worker, 60);
        return bench.Hands.Log.First(entry => entry.Command is Recycle recycle && recycle.Connection.Cookie == worker.Cookie).At - sent;
    }
}
