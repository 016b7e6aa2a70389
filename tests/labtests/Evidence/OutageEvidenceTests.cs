namespace Sidecar.LabTests.Evidence;

/// <summary>Nothing passes for a while, and the router still knows its connections when it is over.</summary>
public sealed class OutageEvidenceTests
{
    /// <summary>The kernel retransmits 13 s after the send and then 27 s after it: in between it waits.</summary>
    private static readonly TimeSpan Outage = Wait.Seconds(14.5);

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Queries_in_flight_go_on_when_the_path_is_up_again_and_nothing_is_closed(bool ipv6)
    {
        await using var lab = await TestLab.StartAsync(EvidenceSteps.NoWorkers with { IPv6 = ipv6 });
        var agent = await lab.StartAgentAsync(EvidenceSteps.Unprepared);
        var clients = await DatabaseClients.RestingAsync(lab, 4);
        await agent.WatchesAsync(4);
        var sockets = await InodesAsync(lab);
        await Task.Delay(EvidenceSteps.Rest);

        var (up, uses) = await PassAsync(lab, clients, agent);

        // A retransmission of the kernel's own would have come 12 s later.
        uses.ShouldAllBe(u => u.Error == null);
        uses.Select(u => u.Ended - up).Median().ShouldBeLessThan(EvidenceSteps.Measured(0.5), $"{uses.Select(u => u.Ended - up).Text()} s\n{await agent.StateAsync()}");
        (await InodesAsync(lab)).ShouldBe(sockets);
        await agent.NothingDoneAsync();
    }

    [Fact]
    public async Task Where_packets_may_not_be_seen_they_wait_for_the_kernel_and_that_is_told()
    {
        await using var lab = await TestLab.StartAsync(EvidenceSteps.NoWorkers);
        var agent = await lab.StartAgentAsync(EvidenceSteps.Unprepared with { WithoutCapabilities = ["net_raw"] });
        var clients = await DatabaseClients.RestingAsync(lab, 2);
        await agent.WatchesAsync(2);
        await Task.Delay(EvidenceSteps.Rest);

        var (up, uses) = await PassAsync(lab, clients, agent);

        uses.ShouldAllBe(u => u.Error == null);
        uses.Select(u => u.Ended - up).Min().ShouldBeGreaterThan(Wait.Seconds(8));
        agent.Process.Output.ShouldContain("CAP_NET_RAW");
        await agent.NothingDoneAsync();
    }

    [Fact]
    public async Task When_the_path_comes_and_goes_nothing_is_closed_and_queries_end_when_it_stays()
    {
        await using var lab = await TestLab.StartAsync(EvidenceSteps.NoWorkers);
        var agent = await lab.StartAgentAsync(EvidenceSteps.Unprepared);
        var clients = await DatabaseClients.RestingAsync(lab, 4);
        await agent.WatchesAsync(4);
        var sockets = await InodesAsync(lab);
        await Task.Delay(EvidenceSteps.Rest);

        await lab.Router.GoAwayAsync();
        clients.Use();
        var up = TimeSpan.Zero;
        for (var i = 0; i < 8; i++)
        {
            await Task.Delay(Wait.Seconds(2 + (i % 3)));
            up = await lab.Router.ComeBackAsync(withTable: true);
            if (i < 7)
            {
                await Task.Delay(Wait.Seconds(0.05 * i));
                await lab.Router.GoAwayAsync();
            }
        }

        (await clients.FreedAsync(TimeSpan.Zero, Wait.Seconds(10), agent)).ShouldAllBe(u => u.Error == null);
        (await InodesAsync(lab)).ShouldBe(sockets);
        await agent.NothingDoneAsync();
    }

    [Fact]
    public async Task A_server_that_was_restarted_meanwhile_resets_them_as_soon_as_it_is_back()
    {
        await using var lab = await TestLab.StartAsync(EvidenceSteps.NoWorkers);
        var agent = await lab.StartAgentAsync(EvidenceSteps.Unprepared);
        var clients = await DatabaseClients.RestingAsync(lab, 3);
        await agent.WatchesAsync(3);
        await Task.Delay(EvidenceSteps.Rest);

        await lab.Router.GoAwayAsync();
        clients.Use();
        await Task.Delay(Outage / 2);
        await lab.Database.RestartAsync();
        await Task.Delay(Outage / 2);
        var up = await lab.Router.ComeBackAsync(withTable: true);

        var uses = await clients.FreedAsync(up, Wait.Seconds(6), agent);
        uses.ShouldAllBe(u => u.Error != null);
        uses.Max(u => u.Ended - up).ShouldBeLessThan(EvidenceSteps.Measured(1), $"{uses.Select(u => u.Ended - up).Text()} s\n{await agent.StateAsync()}");
    }

    [Fact]
    public async Task Without_the_agent_they_wait_for_the_kernels_next_retransmission()
    {
        await using var lab = await TestLab.StartAsync(EvidenceSteps.NoWorkers);
        var clients = await DatabaseClients.RestingAsync(lab, 4);

        var (up, uses) = await PassAsync(lab, clients, agent: null);

        uses.ShouldAllBe(u => u.Error == null);
        uses.Select(u => u.Ended - up).Min().ShouldBeGreaterThan(Wait.Seconds(8));
    }

    [Fact]
    public async Task The_incident_of_an_outage_lasts_as_long_as_its_connections_hang()
    {
        await using var lab = await TestLab.StartAsync(EvidenceSteps.NoWorkers);
        // It must not help: how long they hang is what it is asked.
        var agent = await lab.StartAgentAsync(EvidenceSteps.Unprepared with { Mode = "observe" });
        var clients = await DatabaseClients.RestingAsync(lab, 2);
        await agent.WatchesAsync(2);
        await Task.Delay(EvidenceSteps.Rest);

        var (_, uses) = await PassAsync(lab, clients, agent);

        var hung = uses.Max(u => u.Length);
        var incident = await agent.WaitForIncidentAsync(i => i.Cause == "outage" && i.Number("release_seconds") is not null, Wait.Seconds(5));
        incident.Number("release_seconds").ShouldNotBeNull().ShouldBe(hung.TotalSeconds, 3, $"the clients hung for {uses.Select(u => u.Length).Text()} s\n{await agent.StateAsync()}");
    }

    private static async Task<(TimeSpan Up, IReadOnlyList<ClientUse> Uses)> PassAsync(TestLab lab, DatabaseClients clients, AgentProcess? agent)
    {
        await lab.Router.GoAwayAsync();
        clients.Use();
        await Task.Delay(Outage);
        clients.Uses.ShouldBeEmpty();
        var up = await lab.Router.ComeBackAsync(withTable: true);
        return (up, await clients.FreedAsync(up, Wait.Seconds(15), agent));
    }

    private static async Task<IReadOnlyList<ulong>> InodesAsync(TestLab lab) =>
        [.. (await lab.DatabaseSocketsAsync()).Where(s => s is { State: "ESTAB", Pid: not null }).Select(s => s.Inode).Order()];
}

/// <summary>The same for longer: minutes each.</summary>
[Trait("Speed", "slow")]
public sealed class OutageLongEvidenceTests
{
    [Theory]
    [InlineData(30)]
    [InlineData(60)]
    [InlineData(120)]
    public async Task Queries_in_flight_go_on_at_once_after_a_long_outage(int seconds)
    {
        await using var lab = await TestLab.StartAsync(EvidenceSteps.NoWorkers);
        var agent = await lab.StartAgentAsync(EvidenceSteps.Unprepared);
        var clients = await DatabaseClients.RestingAsync(lab, 4);
        await agent.WatchesAsync(4);
        await Task.Delay(EvidenceSteps.Rest);

        await lab.Router.GoAwayAsync();
        clients.Use();
        await Task.Delay(Wait.Seconds(seconds));
        clients.Uses.ShouldBeEmpty();
        var up = await lab.Router.ComeBackAsync(withTable: true);

        var uses = await clients.FreedAsync(up, Wait.Seconds(6), agent);
        uses.ShouldAllBe(u => u.Error == null);
        uses.Select(u => u.Ended - up).Median().ShouldBeLessThan(EvidenceSteps.Measured(0.5), $"{uses.Select(u => u.Ended - up).Text()} s\n{await agent.StateAsync()}");
        await agent.NothingDoneAsync();
    }
}
