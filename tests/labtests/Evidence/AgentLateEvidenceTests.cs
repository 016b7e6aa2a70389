namespace Sidecar.LabTests.Evidence;

/// <summary>The agent comes, or goes on, when the kernel has already retransmitted a few times and waits for long.</summary>
public sealed class AgentLateEvidenceTests
{
    [Theory]
    [InlineData(5)]
    [InlineData(10)]
    [InlineData(30)]
    public async Task Workers_that_hung_before_the_agent_came_are_freed_soon_after_it_is_ready(int seconds)
    {
        await using var lab = await TestLab.StartAsync(EvidenceSteps.NoWorkers);
        var clients = await DatabaseClients.RestingAsync(lab, 3);
        await Task.Delay(EvidenceSteps.Rest);
        await lab.Router.ForgetAsync();
        var sent = DatabaseClients.Now;
        clients.Use();
        await Task.Delay(Wait.Seconds(seconds));
        clients.Uses.ShouldBeEmpty();

        var agent = await lab.StartAgentAsync(EvidenceSteps.Unprepared);

        await clients.FreedAtOnceAsync(sent, DatabaseClients.Now, agent);
        await agent.ClosedAsync(3);
    }
}

/// <summary>The agent stands still for half a minute: a machine that is paused, a cgroup that is frozen.</summary>
public sealed class AgentStoppedEvidenceTests
{
    [Theory]
    [InlineData("before the hang")]
    [InlineData("in the hang")]
    public async Task Workers_that_hang_while_the_agent_is_stopped_are_freed_soon_after_it_goes_on(string when)
    {
        await using var lab = await TestLab.StartAsync(EvidenceSteps.NoWorkers);
        var agent = await lab.StartAgentAsync(EvidenceSteps.Unprepared);
        var clients = await DatabaseClients.RestingAsync(lab, 3);
        await agent.WatchesAsync(3);
        await Task.Delay(EvidenceSteps.Rest);
        if (when == "before the hang")
        {
            agent.Process.Send(Signal.Stop);
        }

        await lab.Router.ForgetAsync();
        var sent = DatabaseClients.Now;
        clients.Use();
        await Wait.UntilAsync("queries are out", async () => (await lab.DatabaseSocketsAsync()).Any(s => s.SendQueue > 0), Wait.Seconds(2));
        agent.Process.Send(Signal.Stop);
        await Task.Delay(Wait.Seconds(30));
        clients.Uses.ShouldBeEmpty("they were freed before the agent was stopped");
        agent.Process.Send(Signal.Continue);

        await clients.FreedAtOnceAsync(sent, DatabaseClients.Now, agent);
        await agent.ClosedAsync(3);
    }
}
