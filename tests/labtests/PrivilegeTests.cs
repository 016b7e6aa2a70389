namespace Sidecar.LabTests;

/// <summary>An agent that may not do something says so and goes on with the rest.</summary>
public sealed class PrivilegeTests
{
    [Fact]
    public async Task Without_a_capability_the_agent_says_what_it_cannot_do_and_goes_on()
    {
        await using var lab = await TestLab.StartAsync();
        await lab.Web.WarmUpAsync();
        foreach (var capability in new[] { "net_admin", "sys_ptrace", "dac_read_search", "kill", "sys_admin" })
        {
            var agent = await lab.StartAgentAsync(BlackoutAssertions.EverythingAllowed with { WithoutCapabilities = [capability] });

            agent.Process.Output.ShouldContain($"CAP_{capability.ToUpperInvariant()} is missing");
            (await agent.StatusAsync()).Count.ShouldBe(4, capability);

            // The database runs in another network namespace: that is told, with what to do. On a host without any it would be noise.
            (await agent.RunAsync("status", "--json")).Output.Contains("containers.conf", StringComparison.Ordinal).ShouldBe(capability == "sys_admin", agent.Process.Output);
            agent.Process.Send(Signal.Terminate);
            (await agent.Process.WaitForExitAsync(Wait.Seconds(10))).ShouldBe(0, agent.Process.Output);
        }
    }

    [Fact]
    public async Task Without_any_privilege_the_agent_still_sees_and_judges()
    {
        await using var blackout = await Blackout.PrepareAsync(new LabOptions(), BlackoutAssertions.EverythingAllowed with { User = "daemon" });
        var agent = blackout.RequireAgent();
        var sleeper = blackout.Client.WakeSleeper();

        await Wait.UntilAsync("it judges", async () => (await agent.StatusAsync()).Any(c => c.Verdict == "stuck"), Wait.Seconds(30));
        (await agent.WaitForIncidentAsync(i => i is { Remedy: "recycle" }, Wait.Seconds(10))).Outcome.ShouldBe("refused");
        await Wait.ThroughoutAsync(Wait.Seconds(5), blackout.NoWorkerDied);
        sleeper.Outcome.ShouldBe(RequestOutcome.Pending);
        agent.Process.HasExited.ShouldBeFalse();
    }

    [Fact]
    public async Task Without_CAP_KILL_a_termination_is_refused_and_recorded()
    {
        await using var blackout = await Blackout.PrepareAsync(new LabOptions(), BlackoutAssertions.TerminateOnly with { WithoutCapabilities = ["kill"] });
        blackout.Client.WakeSleeper();

        var incident = await blackout.RequireAgent().WaitForIncidentAsync(i => i is { Remedy: "terminate" }, Wait.Seconds(30));
        incident.Outcome.ShouldBe("refused");
        blackout.NoWorkerDied();
    }

    [Fact]
    public async Task A_state_directory_that_cannot_be_written_does_not_stop_the_agent()
    {
        await using var blackout = await Blackout.PrepareAsync(
            new LabOptions(), new AgentOptions { Recycle = true, StateDirectory = "/proc/conn-sidecar" });
        var agent = blackout.RequireAgent();
        agent.Process.Output.ShouldContain("/proc/conn-sidecar");
        var sleeper = blackout.Client.WakeSleeper();

        (await SteadyClient.EndsWithinAsync(sleeper, Wait.Seconds(30))).ShouldBeTrue(agent.Process.Output);
        sleeper.Outcome.ShouldBe(RequestOutcome.Refused);
        agent.Process.HasExited.ShouldBeFalse();
    }

    [Theory]
    [InlineData("[upstream:db]\nendpoint = 10.0.0.1:5432\nrecycel = on\n", "recycel")]
    [InlineData("[upstream:db]\nendpoint = 10.0.0.1:5432\ndead-after = soon\n", "dead-after")]
    [InlineData("[upstream:db]\nendpoint = 10.0.0.1:5432\n[upstream:db]\nendpoint = 10.0.0.2:5432\n", "upstream:db")]
    public async Task With_a_bad_configuration_the_agent_does_not_start_and_says_where(string text, string named)
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { Servers = false });
        var agent = await lab.LaunchAgentAsync(new AgentOptions { Configuration = "[agent]\nruntime-directory = {run}\nstate-directory = {state}\n" + text });

        (await agent.Process.WaitForExitAsync(Wait.Seconds(20))).ShouldBe(78);
        agent.Process.Output.ShouldContain(named);
        agent.Process.Output.ShouldContain("conn-sidecar.conf:");
    }
}
