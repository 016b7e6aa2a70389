namespace Sidecar.LabTests.Evidence;

/// <summary>A configuration that is read anew does not undo what was seen.</summary>
public sealed class ReloadEvidenceTests
{
    private const int Hung = 24;

    [Fact]
    public async Task A_reload_every_second_keeps_nobody_from_being_freed()
    {
        await using var lab = await TestLab.StartAsync(EvidenceSteps.NoWorkers);
        var agent = await lab.StartAgentAsync(EvidenceSteps.Unprepared);
        var clients = await DatabaseClients.RestingAsync(lab, Hung);
        await agent.WatchesAsync(Hung);
        await Task.Delay(EvidenceSteps.Rest);
        await lab.Router.ForgetAsync();
        var since = DatabaseClients.Now;
        clients.Use();

        using var stop = new CancellationTokenSource();
        var reloads = ReloadAsync(agent, stop.Token);
        await clients.FreedAsync(since, Wait.Seconds(12), agent);
        await stop.CancelAsync();

        (await reloads).ShouldBeGreaterThan(0);
        await agent.ClosedAsync(Hung);
    }

    private static async Task<int> ReloadAsync(AgentProcess agent, CancellationToken stop)
    {
        var reloads = 0;
        while (!stop.IsCancellationRequested)
        {
            agent.Process.Send(Signal.Hangup);
            reloads++;
            await Task.Delay(Wait.Seconds(1), stop).ContinueWith(_ => { }, TaskScheduler.Default);
        }

        return reloads;
    }
}
