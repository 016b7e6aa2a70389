using Sidecar.LabTests.Prevention;

namespace Sidecar.LabTests.Evidence;

/// <summary>A keepalive that the agent sets refreshes the path; it must not end what would have lived without it.</summary>
public sealed class KeepaliveEvidenceTests
{
    /// <summary>What the kernel gives a connection with tcp_retries2 = 15 before it is given up.</summary>
    private static readonly TimeSpan KernelsPatience = Wait.Seconds(924.6);

    [Theory]
    [InlineData("30s")]
    [InlineData("measure")]
    public async Task By_default_it_gives_no_connection_up_sooner_than_the_kernel_does(string idleTimeout)
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { IdleTimeout = Wait.Seconds(600), Workers = 1 });
        await lab.StartAgentAsync(new AgentOptions { Keepalive = true, IdleTimeout = idleTimeout, DeadAfter = null });
        await lab.Web.WarmUpAsync();
        await Wait.UntilAsync("it is armed", async () => (await lab.Web.GetAsync(1, "/options")).Value?.StartsWith("1 ") == true, Wait.Seconds(10));

        var options = (await lab.Web.GetAsync(1, "/options")).Value.ShouldNotBeNull().Split(' ').Select(int.Parse).ToList();

        Wait.Seconds(options[2] * options[3]).ShouldBeGreaterThanOrEqualTo(KernelsPatience, $"KEEPIDLE {options[1]}, KEEPINTVL {options[2]}, KEEPCNT {options[3]}");
    }
}

/// <summary>With <c>dead-after</c> a keepalive that the agent has set does end connections, and tells of it.</summary>
public sealed class KeepaliveIncidentEvidenceTests
{
    [Fact]
    public async Task What_it_has_ended_is_an_incident_with_its_true_duration()
    {
        await using var lab = await TestLab.StartAsync(EvidenceSteps.NoWorkers);
        var agent = await lab.StartAgentAsync(EvidenceSteps.Unprepared with { Keepalive = true, Recycle = false, Terminate = false, IdleTimeout = "10s", DeadAfter = "10s" });
        var query = await DatabaseClients.RestingAsync(lab, 1, "SELECT pg_sleep(8)");
        await lab.ArmedAsync(lab.Database.EndPoint, 1);

        query.Use();
        await Task.Delay(Wait.Seconds(2));
        var lost = DatabaseClients.Now;
        await lab.Router.ForgetAsync();
        var use = (await query.FreedAsync(lost, Wait.Seconds(40), agent)).ShouldHaveSingleItem();

        use.Error.ShouldNotBeNull();
        var incident = await agent.WaitForIncidentAsync(i => i.Remedy == "keepalive" && i.Outcome == "released", Wait.Seconds(5));
        var hung = (use.Ended - lost).TotalSeconds;
        incident.Number("release_seconds").ShouldNotBeNull().ShouldBeInRange(hung - 8, hung + 3, await agent.StateAsync());
    }
}

/// <summary>An outage that both a resting connection and a long query survive without the agent; five minutes each.</summary>
[Trait("Speed", "slow")]
public sealed class KeepaliveLongEvidenceTests
{
    [Fact]
    public Task A_query_and_a_resting_connection_survive_an_outage_of_200_s() => LongOutage.IsSurvivedAsync(withAgent: true);
}

/// <inheritdoc cref="KeepaliveLongEvidenceTests"/>
[Trait("Speed", "slow")]
public sealed class KeepaliveLongWithoutEvidenceTests
{
    [Fact]
    public Task Without_the_agent_they_survive_it() => LongOutage.IsSurvivedAsync(withAgent: false);
}

/// <summary>A query of 100 s and a connection that rests, in an outage that is twice as long.</summary>
internal static class LongOutage
{
    public static async Task IsSurvivedAsync(bool withAgent)
    {
        await using var lab = await TestLab.StartAsync(EvidenceSteps.NoWorkers);
        var agent = withAgent ? await lab.StartAgentAsync(EvidenceSteps.Unprepared with { Keepalive = true, IdleTimeout = "30s" }) : null;
        var query = await DatabaseClients.RestingAsync(lab, 1, "SELECT pg_sleep(100)");
        var resting = await DatabaseClients.RestingAsync(lab, 1);
        if (agent is not null)
        {
            await lab.ArmedAsync(lab.Database.EndPoint, 2);
        }

        query.Use();
        await Task.Delay(Wait.Seconds(3));
        await lab.Router.GoAwayAsync();
        await Task.Delay(Wait.Seconds(200));
        query.Uses.ShouldBeEmpty("given up before the path was up");
        var up = await lab.Router.ComeBackAsync(withTable: true);
        resting.Use();

        // The answer is the server's to send again, up to two minutes after its last try.
        (await query.AllEndAsync(up, Wait.Seconds(150))).ShouldAllBe(u => u.Error == null);
        (await resting.AllEndAsync(up, Wait.Seconds(30))).ShouldAllBe(u => u.Error == null);
        if (agent is not null)
        {
            await agent.NothingDoneAsync();
        }
    }
}
