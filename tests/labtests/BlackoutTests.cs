namespace Sidecar.LabTests;

/// <summary>The failure itself, before any agent: what is to be ended must be there.</summary>
public sealed class BlackoutTests
{
    [Fact]
    public async Task One_sleepy_worker_takes_the_whole_site_down_until_its_socket_is_destroyed()
    {
        await using var blackout = await Blackout.PrepareAsync();
        var before = await blackout.Lab.DatabaseSocketsAsync();
        var sleeper = blackout.Client.WakeSleeper();

        await Wait.UntilAsync("all workers hang", () => blackout.Client.HungWorkers(Wait.Seconds(1)) == 4, Wait.Seconds(10));
        await Wait.ThroughoutAsync(Wait.Seconds(15), () =>
        {
            sleeper.Outcome.ShouldBe(RequestOutcome.Pending);
            blackout.Client.HungWorkers(Wait.Seconds(1)).ShouldBe(4);
        });

        // No error, no log line, no lost connection: nothing that a monitor would see.
        blackout.Lab.Web.Log.ShouldNotContain("Error");
        var stuck = (await blackout.Lab.DatabaseSocketsAsync()).Single(s => s.Pid == blackout.SleeperPid);
        stuck.State.ShouldBe("ESTAB");
        stuck.SendQueue.ShouldBeGreaterThan(0);
        stuck.Timer.ShouldStartWith("on,");
        before.Select(s => s.Inode).ShouldContain(stuck.Inode);

        await stuck.DestroyAsync(blackout.Lab.Network.Application);
        (await SteadyClient.EndsWithinAsync(sleeper, Wait.Seconds(5))).ShouldBeTrue();
        sleeper.Outcome.ShouldBe(RequestOutcome.Refused);
        sleeper.Error.ShouldBe("OperationalError: could not receive data from server: Software caused connection abort");
        blackout.Lab.Web.Workers().ShouldBe(blackout.WorkersBefore);
    }

    [Fact]
    public async Task Killing_the_worker_that_hung_first_frees_the_others_and_the_master_respawns_it()
    {
        await using var blackout = await Blackout.PrepareAsync();
        var sleeper = blackout.Client.WakeSleeper();
        await Wait.UntilAsync("all workers hang", () => blackout.Client.HungWorkers(Wait.Seconds(0.5)) == 4, Wait.Seconds(10));

        ChildProcess.SendTo(blackout.SleeperPid, Signal.Terminate);

        await Wait.UntilAsync("nobody hangs", () => blackout.Client.HungWorkers(Wait.Seconds(0.5)) == 0, Wait.Seconds(10));
        sleeper.Outcome.ShouldBe(RequestOutcome.Broken);
        await Wait.UntilAsync("the master respawns it", () => blackout.Lab.Web.Workers().Count == 4, Wait.Seconds(5));
        var workers = blackout.Lab.Web.Workers();
        workers.Intersect(blackout.WorkersBefore).Count().ShouldBe(3);
        workers.ShouldNotContain(w => w.Pid == blackout.SleeperPid);
    }

    [Fact]
    public async Task Keepalives_of_the_application_keep_the_connection_in_the_routers_memory()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { ApplicationKeepalive = Wait.Seconds(3) });
        await lab.Web.WarmUpAsync();
        var sockets = await lab.DatabaseSocketsAsync();
        sockets.Count.ShouldBe(4);
        sockets.ShouldAllBe(s => s.Timer.StartsWith("keepalive,"));

        await Wait.ThroughoutAsync(Wait.Seconds(15), async () => (await lab.Router.KnowsAsync(sockets[3].Local)).ShouldBeTrue());

        (await lab.Web.GetAsync(4)).Error.ShouldBeNull();
    }
}
