namespace Sidecar.LabTests;

/// <summary>Terminate: exactly the worker that hung first, and only where the configuration names it.</summary>
public sealed class TerminateTests
{
    [Theory]
    [InlineData("recycle is off")]
    [InlineData("recycle is off, workers in a namespace of their own")]
    [InlineData("the kernel refuses to recycle")]
    public async Task Terminate_ends_exactly_the_worker_that_hung_first(string reason)
    {
        await using var blackout = await Blackout.PrepareAsync(
            new LabOptions { Container = reason.Contains("namespace") },
            reason.Contains("refuses") ? BlackoutAssertions.EverythingAllowed with { WithoutCapabilities = ["net_admin"] } : BlackoutAssertions.TerminateOnly);
        var agent = blackout.RequireAgent();
        var sleeper = blackout.Client.WakeSleeper();

        (await SteadyClient.EndsWithinAsync(sleeper, Wait.Seconds(30))).ShouldBeTrue($"{reason}; the agent's log:\n{agent.Process.Output}");
        sleeper.Outcome.ShouldBe(RequestOutcome.Broken);
        await blackout.WaitingRequestsAreServedAsync(sleeper);
        await Wait.UntilAsync("the master respawns it", () => blackout.Lab.Web.Workers().Count == 4, Wait.Seconds(10));

        var workers = blackout.Lab.Web.Workers();
        blackout.WorkersBefore.Except(workers).Select(w => w.Pid).ShouldBe([blackout.SleeperPid]);
        var incident = await agent.WaitForIncidentAsync(i => i is { Remedy: "terminate", Outcome: "exited" }, Wait.Seconds(10));
        incident.Pid.ShouldBe(blackout.SleeperPid);
        incident.Cause.ShouldBe("stuck");

        // The others were hung too, and are left alone.
        await Wait.ThroughoutAsync(Wait.Seconds(5), () => blackout.Lab.Web.Workers().ShouldBe(workers));
        (await agent.IncidentsAsync()).Count(i => i.Remedy == "terminate").ShouldBe(1);
        await blackout.Lab.EveryWorkerAnswersAsync();
    }

    [Fact]
    public async Task Two_hung_workers_are_terminated_one_after_the_other()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { IdleTimeout = Wait.Seconds(600) });
        var agent = await lab.StartAgentAsync(BlackoutAssertions.TerminateOnly);
        var pids = await lab.Web.WarmUpAsync();
        await lab.Router.ForgetAsync();
        var first = lab.Web.GetAsync(3, "/sleep?s=0");
        await Task.Delay(Wait.Seconds(0.6));
        var second = lab.Web.GetAsync(4, "/sleep?s=0");

        await Should.ThrowAsync<Exception>(first.WaitAsync(Patience.For(Wait.Seconds(40))));
        await Should.ThrowAsync<Exception>(second.WaitAsync(Patience.For(Wait.Seconds(60))));

        await agent.WaitForIncidentAsync(i => i is { Remedy: "terminate", Outcome: "exited" } && i.Pid == pids[3], Wait.Seconds(20));
        var terminated = (await agent.IncidentsAsync()).Where(i => i is { Remedy: "terminate", WithheldBy: null }).ToList();
        terminated.Select(i => i.Pid).ShouldBe([pids[2], pids[3]]);
        (await agent.IncidentsAsync()).ShouldContain(i => i.Pid == pids[3] && i.WithheldBy != null);
    }
}

/// <summary>Terminations that a guardrail withholds. Each has its counterpart in <see cref="TerminateTests"/>, where it happens.</summary>
public sealed class TerminateGuardrailTests
{
    [Theory]
    [InlineData("no section")]
    [InlineData("a section for another executable")]
    [InlineData("a section with terminate = off")]
    public async Task A_worker_that_no_section_names_is_never_signalled(string section)
    {
        await using var blackout = await Blackout.PrepareAsync(new LabOptions(), section switch
        {
            "no section" => BlackoutAssertions.TerminateOnly with { WorkersExecutable = null },
            "a section for another executable" => BlackoutAssertions.TerminateOnly with { WorkersExecutable = "/usr/sbin/nginx" },
            _ => BlackoutAssertions.TerminateOnly with { Terminate = false },
        });
        var agent = blackout.RequireAgent();
        var sleeper = blackout.Client.WakeSleeper();

        var withheld = await agent.WaitForIncidentAsync(i => i is { Remedy: "terminate", WithheldBy: not null }, Wait.Seconds(30));
        withheld.WithheldBy.ShouldBe("unnamed-worker", section);
        withheld.Outcome.ShouldBe("withheld");
        withheld.Pid.ShouldBe(blackout.SleeperPid);
        await Wait.ThroughoutAsync(Wait.Seconds(10), blackout.NoWorkerDied);
        sleeper.Outcome.ShouldBe(RequestOutcome.Pending);
        await agent.NothingDoneAsync();
    }

    [Fact]
    public async Task Past_its_budget_the_agent_stands_down()
    {
        await using var blackout = await Blackout.PrepareAsync(new LabOptions(), BlackoutAssertions.TerminateOnly with { FurtherLines = ["budget = 1/h"] });
        var agent = blackout.RequireAgent();
        var sleeper = blackout.Client.WakeSleeper();
        (await SteadyClient.EndsWithinAsync(sleeper, Wait.Seconds(30))).ShouldBeTrue();
        await blackout.WaitingRequestsAreServedAsync(sleeper);

        // The respawned worker connects, sleeps, and wakes to the same.
        var respawned = (await blackout.Lab.Web.GetAsync(4)).Pid;
        var workers = blackout.Lab.Web.Workers();
        await Blackout.WaitUntilForgottenAsync(blackout.Lab, respawned);
        var again = blackout.Client.WakeSleeper();

        var withheld = await agent.WaitForIncidentAsync(i => i.WithheldBy == "budget", Wait.Seconds(60));
        withheld.Pid.ShouldBe(respawned);
        await Wait.ThroughoutAsync(Wait.Seconds(5), () => blackout.Lab.Web.Workers().ShouldBe(workers));
        again.Outcome.ShouldBe(RequestOutcome.Pending);
    }

    [Fact]
    public async Task A_process_with_another_connection_that_makes_progress_is_never_terminated()
    {
        await using var lab = await TestLab.StartAsync();
        var agent = await lab.StartAgentAsync(BlackoutAssertions.TerminateOnly with { WorkersExecutable = Python });
        var process = lab.StartScript("arms.py", Dsn(lab), "15", "busy");
        await process.WaitForLineAsync(l => l == "arm 1 asks", Wait.Seconds(40));

        var withheld = await agent.WaitForIncidentAsync(i => i is { Remedy: "terminate", WithheldBy: not null }, Wait.Seconds(30));
        withheld.WithheldBy.ShouldBe("other-progress");
        withheld.Pid.ShouldBe(process.Pid);
        await Wait.ThroughoutAsync(Wait.Seconds(10), () => process.HasExited.ShouldBeFalse());
        process.Lines.Count(l => l == "arm 1 answered").ShouldBe(1);
        await agent.NothingDoneAsync();
    }

    [Fact]
    public async Task The_same_process_without_that_connection_is_terminated()
    {
        await using var lab = await TestLab.StartAsync();
        var agent = await lab.StartAgentAsync(BlackoutAssertions.TerminateOnly with { WorkersExecutable = Python });
        var process = lab.StartScript("arms.py", Dsn(lab), "15");
        await process.WaitForLineAsync(l => l == "arm 1 asks", Wait.Seconds(40));

        (await process.WaitForExitAsync(Wait.Seconds(30))).ShouldBe(128 + (int)Signal.Terminate);
        (await agent.WaitForIncidentAsync(i => i is { Remedy: "terminate", Outcome: "exited" }, Wait.Seconds(10))).Pid.ShouldBe(process.Pid);
    }

    private static string Python => File.ResolveLinkTarget("/usr/bin/python3", returnFinalTarget: true)!.FullName;

    private static string Dsn(TestLab lab) => $"host={lab.Database.Address} user=postgres dbname=postgres sslmode=disable";
}
