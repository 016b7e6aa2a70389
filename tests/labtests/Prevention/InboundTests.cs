namespace Sidecar.LabTests.Prevention;

/// <summary>The agent on the database host, where the worker hosts cannot be changed at all.</summary>
public sealed class InboundTests
{
    [Fact]
    public async Task The_servers_own_sockets_are_kept_alive_and_no_worker_hangs()
    {
        await using var lab = await TestLab.StartAsync();
        var agent = await lab.StartAgentAsync(IdlePeriods.Prevention with { OnDatabaseHost = true, WorkersExecutable = null });
        await lab.Web.WarmUpAsync();
        await Wait.UntilAsync("the server's sockets are watched", async () => (await agent.StatusAsync()).Count == 4, Wait.Seconds(10));

        await IdlePeriods.PassAsync(lab, periods: 2);

        var connections = await agent.StatusAsync();
        connections.Count.ShouldBe(4);
        connections.ShouldAllBe(c => c.Verdict == "healthy" && c.Executable == "/usr/lib/postgresql/15/bin/postgres");
        (await agent.IncidentsAsync()).ShouldBeEmpty();
    }

    [Fact]
    public async Task With_a_DSN_it_sees_its_own_sessions_by_their_process()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { Masquerade = true });
        var agent = await lab.StartAgentAsync(IdlePeriods.Prevention with { OnDatabaseHost = true, Sessions = true });
        await lab.Web.WarmUpAsync();

        // Behind source NAT too: here the owner of the socket is the back-end itself. One more is the agent's own session.
        await Wait.UntilAsync("sessions are seen", async () => await agent.StatusAsync() is { Count: 5 } all
            && all.All(c => c.Session?.BackendPid == c.Pid), Wait.Seconds(20));
    }
}
