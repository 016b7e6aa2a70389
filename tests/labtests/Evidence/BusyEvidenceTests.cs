namespace Sidecar.LabTests.Evidence;

/// <summary>Connections in full use when the router loses its table: there is no rest that makes a loss likely.</summary>
public sealed class BusyEvidenceTests
{
    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    [InlineData(40)]
    public async Task Connections_in_full_use_are_freed_within_seconds_of_the_loss_of_the_table(int connections)
    {
        await using var lab = await TestLab.StartAsync(EvidenceSteps.NoWorkers);
        var agent = await lab.StartAgentAsync(EvidenceSteps.Unprepared);
        var clients = await DatabaseClients.BusyAsync(lab, connections, Wait.Seconds(0.3));
        await agent.WatchesAsync(connections);
        await Task.Delay(EvidenceSteps.Rest);

        var lost = DatabaseClients.Now;
        await lab.Router.ForgetAsync();

        // Longer than what is asserted, so that the message has the times.
        var freed = (await clients.FreedAsync(lost, Wait.Seconds(8), agent)).Select(u => u.Length).ToList();
        freed.Median().ShouldBeLessThan(EvidenceSteps.Measured(2.5), $"they hung for {freed.Text()} s");
        freed.Max().ShouldBeLessThan(EvidenceSteps.Measured(4), $"they hung for {freed.Text()} s");
        await agent.ClosedAsync(connections);
    }
}
