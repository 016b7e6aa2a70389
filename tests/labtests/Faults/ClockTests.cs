using System.Text.Json;

namespace Sidecar.LabTests.Faults;

/// <summary>
/// Time that jumps. The wall clock cannot be namespaced, so libfaketime steps it for the agent alone; a stopped process is
/// what a starved or suspended agent is.
/// </summary>
public sealed class ClockTests
{
    private const string Library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

    [Fact]
    public async Task A_wall_clock_that_steps_by_an_hour_either_way_changes_no_verdict_and_no_action()
    {
        await using var lab = await TestLab.StartAsync(FaultSteps.OneWorker);
        var worker = (await lab.Web.WarmUpAsync())[0];
        var offset = Path.Combine(lab.Directory, "offset");
        await File.WriteAllTextAsync(offset, "+0");
        var agent = await lab.StartAgentAsync(FaultSteps.RecycleOnly with
        {
            Starter =
            [
                "env", $"LD_PRELOAD={Library}", $"FAKETIME_TIMESTAMP_FILE={offset}", "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1",
            ],
        });
        await agent.SeesAsync(worker);

        foreach (var step in new[] { "+3600", "-3600", "+0" })
        {
            await File.WriteAllTextAsync(offset, step);
            var expected = double.Parse(step, System.Globalization.CultureInfo.InvariantCulture);
            await Wait.UntilAsync("the clock has stepped", async () => Math.Abs((await TimeAsync(agent) - DateTimeOffset.UtcNow).TotalSeconds - expected) < 60, Wait.Seconds(10));
            await Wait.ThroughoutAsync(Wait.Seconds(2), async () => (await agent.StatusAsync()).ShouldHaveSingleItem().Verdict.ShouldBe("healthy", step));
            (await agent.IncidentsAsync()).ShouldBeEmpty(step);
        }

        // In the middle of a stall, too.
        var request = await lab.AskOnForgottenAsync();
        await File.WriteAllTextAsync(offset, "-3600");
        await agent.FreesAsync(request);
        var released = await agent.WaitForIncidentAsync(i => i is { Remedy: "recycle", Outcome: "released" }, Wait.Seconds(10));
        using var json = JsonDocument.Parse(released.Raw);
        json.RootElement.GetProperty("release_seconds").GetDouble().ShouldBeInRange(0.2, 60);
    }

    [Fact]
    public async Task An_agent_that_slept_through_an_outage_closes_nothing_that_is_alive()
    {
        await using var lab = await TestLab.StartAsync(FaultSteps.OneWorker);
        var worker = (await lab.Web.WarmUpAsync())[0];
        var agent = await lab.StartAgentAsync(BlackoutAssertions.EverythingAllowed with { IdleTimeout = "measure" });
        await agent.SeesAsync(worker);
        var sockets = await lab.WorkerSocketsAsync();
        await Task.Delay(Wait.Seconds(6));

        // It sees nothing of the outage but its trace: a connection with many timeouts, and a path that is up.
        ChildProcess.SendTo(agent.Pid, Signal.Stop);
        await lab.Network.SetLinkAsync(LabLink.Database, up: false);
        var request = lab.Web.GetAsync(1);
        await Wait.UntilAsync("several retransmissions are out", async () => (await lab.DatabaseSocketsAsync()).Any(s => s.Timer.EndsWith(",4", StringComparison.Ordinal)), Wait.Seconds(30));
        await lab.Network.SetLinkAsync(LabLink.Database, up: true);
        ChildProcess.SendTo(agent.Pid, Signal.Continue);

        (await request.WaitAsync(Patience.For(Wait.Seconds(30)))).Error.ShouldBeNull();
        (await lab.WorkerSocketsAsync()).ShouldBe(sockets);
        await agent.NothingDoneAsync();
    }

    [Fact]
    public async Task An_agent_that_slept_while_a_connection_was_forgotten_frees_its_worker_when_it_wakes()
    {
        await using var lab = await TestLab.StartAsync(FaultSteps.OneWorker);
        var worker = (await lab.Web.WarmUpAsync())[0];
        var agent = await lab.StartAgentAsync(FaultSteps.RecycleOnly);
        await agent.SeesAsync(worker);

        ChildProcess.SendTo(agent.Pid, Signal.Stop);
        var request = await lab.AskOnForgottenAsync();
        await agent.StaysHungAsync(request, Wait.Seconds(6));
        ChildProcess.SendTo(agent.Pid, Signal.Continue);

        await agent.FreesAsync(request);
        (await agent.IncidentsAsync()).Count(i => i is { Remedy: "recycle", WithheldBy: null }).ShouldBe(1, agent.Process.Output);
    }

    private static async Task<DateTimeOffset> TimeAsync(AgentProcess agent)
    {
        using var json = JsonDocument.Parse((await agent.RunAsync("status", "--json")).Output);
        return json.RootElement.GetProperty("time").GetDateTimeOffset();
    }
}
