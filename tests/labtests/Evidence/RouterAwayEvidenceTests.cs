namespace Sidecar.LabTests.Evidence;

/// <summary>
/// The router is away and comes back without its table. By then the kernel's next retransmission is up to two minutes away,
/// and a connection is shown to be dead by what the agent itself asks.
/// </summary>
public sealed class RouterAwayEvidenceTests
{
    [Theory]
    [InlineData(2, "nothing passes")]
    [InlineData(10, "nothing passes")]
    [InlineData(10, "the link is down")]
    [InlineData(30, "nothing passes")]
    public Task Workers_are_freed_soon_after_the_router_is_back(int seconds, string how) => RouterAwaySteps.PassAsync(seconds, how);
}

/// <summary>The same for longer: minutes each.</summary>
[Trait("Speed", "slow")]
public sealed class RouterAwayLongEvidenceTests
{
    [Theory]
    [InlineData(60)]
    [InlineData(120)]
    public Task Workers_are_freed_soon_after_the_router_is_back(int seconds) => RouterAwaySteps.PassAsync(seconds, "nothing passes");
}

/// <summary>Two clients that had rested and two that were busy, and a router that is away.</summary>
internal static class RouterAwaySteps
{
    public static async Task PassAsync(int seconds, string how)
    {
        await using var lab = await TestLab.StartAsync(EvidenceSteps.NoWorkers);
        var agent = await lab.StartAgentAsync(EvidenceSteps.Unprepared);
        var rested = await DatabaseClients.RestingAsync(lab, 2);
        var busy = await DatabaseClients.BusyAsync(lab, 2, Wait.Seconds(0.3));
        await agent.WatchesAsync(4);
        await Task.Delay(EvidenceSteps.Rest);

        var link = how == "the link is down";
        await (link ? lab.Network.SetLinkAsync(LabLink.Worker, up: false) : lab.Router.GoAwayAsync());
        await Task.Delay(Wait.Seconds(0.3));
        rested.Use();
        await Task.Delay(Wait.Seconds(seconds));
        TimeSpan back;
        if (link)
        {
            await lab.Router.ForgetAsync();
            back = DatabaseClients.Now;
            await lab.Network.SetLinkAsync(LabLink.Worker, up: true);
        }
        else
        {
            back = await lab.Router.ComeBackAsync(withTable: false);
        }

        // Nothing may be closed before: while nothing passes, nobody can know.
        rested.Uses.Concat(busy.Uses).Where(u => u.Error is not null && u.Ended < back).ShouldBeEmpty();
        var freed = await Task.WhenAll(rested.FreedAtOnceAsync(back, back, agent), busy.FreedAtOnceAsync(back, back, agent));
        freed.SelectMany(f => f).ShouldAllBe(u => u.Error != null);
        await agent.ClosedAsync(4);
    }
}
