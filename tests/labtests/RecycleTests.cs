namespace Sidecar.LabTests;

/// <summary>Recycle: the dead connection is destroyed, the worker goes on, no process dies.</summary>
public sealed class RecycleTests
{
    [Theory]
    [InlineData("a plain path")]
    [InlineData("source NAT")]
    [InlineData("IPv6")]
    [InlineData("a worker in a namespace of its own")]
    [InlineData("a worker in a namespace of its own, IPv6")]
    public async Task Recycle_frees_the_worker_and_its_driver_raises(string path)
    {
        var options = new LabOptions
        {
            Masquerade = path == "source NAT",
            IPv6 = path.Contains("IPv6"),
            Container = path.Contains("namespace"),
        };
        await using var blackout = await Blackout.PrepareAsync(options, new AgentOptions { Recycle = true });
        var agent = blackout.RequireAgent();
        var sleeper = blackout.Client.WakeSleeper();

        (await SteadyClient.EndsWithinAsync(sleeper, Wait.Seconds(30))).ShouldBeTrue($"over {path}; the agent's log:\n{agent.Process.Output}");
        sleeper.Outcome.ShouldBe(RequestOutcome.Refused);
        sleeper.Error.ShouldBe("OperationalError: could not receive data from server: Software caused connection abort");
        sleeper.Pid.ShouldBe(blackout.SleeperPid);
        await blackout.WaitingRequestsAreServedAsync(sleeper);
        blackout.NoWorkerDied();

        var incident = (await agent.IncidentsAsync()).ShouldHaveSingleItem();
        incident.Upstream.ShouldBe("orders-db");
        incident.Cause.ShouldBe("stuck");
        incident.Remedy.ShouldBe("recycle");
        incident.Outcome.ShouldBe("released");
        incident.Pid.ShouldBe(blackout.SleeperPid);
        incident.WithheldBy.ShouldBeNull();
        await blackout.Lab.EveryWorkerAnswersAsync();
    }

    [Fact]
    public async Task Status_shows_each_connection_with_its_owner_and_reads_well_at_80_columns()
    {
        await using var blackout = await Blackout.PrepareAsync(new LabOptions(), new AgentOptions { Recycle = false });
        var agent = blackout.RequireAgent();
        blackout.Client.WakeSleeper();
        await Wait.UntilAsync("the sleeper is seen", async () => (await agent.StatusAsync()).Any(c => c.Verdict == "stuck"), Wait.Seconds(20));

        var connections = await agent.StatusAsync();
        connections.Select(c => c.Pid).ShouldBe(blackout.WorkersBefore.Select(w => (int?)w.Pid), ignoreOrder: true);
        connections.ShouldAllBe(c => c.Executable == WebApplication.Executable && c.Upstream == "orders-db" && c.Why.Length > 0);
        var sockets = await blackout.Lab.DatabaseSocketsAsync();
        connections.Select(c => c.Local).ShouldBe(sockets.Select(s => s.Local.ToString()), ignoreOrder: true);
        connections.ShouldAllBe(c => c.Peer == blackout.Lab.Database.EndPoint.ToString());
        connections.Single(c => c.Verdict == "stuck").Pid.ShouldBe(blackout.SleeperPid);

        var table = await agent.RunAsync("status");
        table.ExitCode.ShouldBe(0);
        table.Output.Split('\n').ShouldAllBe(line => line.Length <= 80);
        table.Output.ShouldContain(blackout.SleeperPid.ToString());
        table.Output.ShouldContain("uwsgi-core");
        table.Output.ShouldContain("stuck");
    }

    [Fact]
    public async Task A_router_that_resets_needs_no_remedy()
    {
        await using var blackout = await Blackout.PrepareAsync(new LabOptions { Router = RouterBehaviour.Reset }, BlackoutAssertions.EverythingAllowed);
        var sleeper = blackout.Client.WakeSleeper();

        (await SteadyClient.EndsWithinAsync(sleeper, Wait.Seconds(10))).ShouldBeTrue();
        sleeper.Error.ShouldNotBeNull().ShouldStartWith("OperationalError: server closed the connection unexpectedly");
        await Wait.ThroughoutAsync(Wait.Seconds(5), blackout.NoWorkerDied);
        (await blackout.RequireAgent().IncidentsAsync()).ShouldBeEmpty();
        await blackout.Lab.EveryWorkerAnswersAsync();
    }

    [Fact]
    public async Task When_all_connections_are_forgotten_together_each_is_recycled_and_nobody_is_terminated()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { IdleTimeout = Wait.Seconds(600) });
        var agent = await lab.StartAgentAsync(BlackoutAssertions.EverythingAllowed);
        await lab.Web.WarmUpAsync();
        var before = lab.Web.Workers();

        // Idle for longer than what counts as being in use; otherwise more silence would be wanted.
        await Wait.UntilAsync("all have rested", async () => await agent.StatusAsync() is { Count: 4 } all && all.All(c => c.IdleSeconds > 6), Wait.Seconds(30));
        await lab.Router.ForgetAsync();

        // Without the shared lock, so that all of them hang at the same time.
        var answers = await Task.WhenAll(Enumerable.Range(1, 4).Select(w => lab.Web.GetAsync(w, "/sleep?s=0").WaitAsync(Patience.For(Wait.Seconds(60)))));

        answers.ShouldAllBe(a => a.Error == "OperationalError: could not receive data from server: Software caused connection abort");
        lab.Web.Workers().ShouldBe(before);
        var incidents = await agent.IncidentsAsync();
        incidents.Count(i => i is { Remedy: "recycle", Outcome: "released" }).ShouldBe(4);
        incidents.ShouldNotContain(i => i.Remedy == "terminate");
        await lab.EveryWorkerAnswersAsync();
    }
}
