using Sidecar.LabTests.Evidence;

namespace Sidecar.LabTests;

/// <summary>An agent that has just been started knows nothing of what was said on the connections that it finds.</summary>
public sealed class RestartTests
{
    private const int Clients = 24;

    /// <summary>On a short way most answers come in the kernel's tick of their query, so that their ages do not tell which was last.</summary>
    [Fact]
    public async Task A_connection_that_rests_does_not_wait_for_an_answer_since_the_agent_was_restarted()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { IdleTimeout = Wait.Seconds(60), Workers = 0 });
        var options = new AgentOptions { Keepalive = true, IdleTimeout = "6s", DeadAfter = null };
        var agent = await lab.StartAgentAsync(options);
        var clients = await DatabaseClients.RestingAsync(lab, Clients);
        await agent.WatchesAsync(Clients);
        clients.Use();
        await Wait.UntilAsync("as many uses have ended", () => clients.Uses.Count >= Clients, Wait.Seconds(10));

        // The keepalives that the agent has set are answered meanwhile.
        await Task.Delay(Wait.Seconds(8));
        (await agent.StatusAsync()).ShouldNotContain(connection => connection.Verdict == "waiting");
        agent.Process.Send(Signal.Terminate);
        await agent.Process.WaitForExitAsync(Wait.Seconds(10));

        agent = await lab.StartAgentAsync(options);
        await agent.WatchesAsync(Clients);
        for (var i = 0; i < 4; i++)
        {
            (await agent.StatusAsync()).ShouldNotContain(connection => connection.Verdict == "waiting");
            (await agent.GetAsync("/check/pool")).ShouldContain(" 0% ");
            await Task.Delay(Wait.Seconds(1));
        }
    }
}
