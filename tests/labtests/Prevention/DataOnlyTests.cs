namespace Sidecar.LabTests.Prevention;

/// <summary>A router whose idle clock only data restarts: keepalives pass, and protect nothing.</summary>
public sealed class DataOnlyTests
{
    private static AgentOptions DataOnly { get; } = new() { Keepalive = true, Recycle = true, IdleTimeout = "10s", RefreshedBy = "data", Sessions = true };

    [Fact]
    public async Task Without_the_agent_workers_hang_although_their_keepalives_are_answered()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { CountsDataOnly = true, ApplicationKeepalive = Wait.Seconds(3) });
        await lab.Web.WarmUpAsync();

        // Past the seventh second, in which the last answered keepalive goes out, and before five unanswered ones end it.
        await Task.Delay(Wait.Seconds(11));

        (await IdlePeriods.UseAllAsync(lab)).ShouldContain((ApplicationAnswer?)null);
    }

    [Fact]
    public async Task Connections_that_nobody_uses_are_closed_before_the_limit_and_a_transaction_is_not()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { CountsDataOnly = true, Workers = 3, ApplicationRole = "web" });
        await using var database = await lab.Database.ConnectLocallyAsync();
        await MeasuredPath.ExecuteAsync(lab, "CREATE TABLE stock (id int PRIMARY KEY, amount int); INSERT INTO stock VALUES (1, 10); GRANT ALL ON stock TO web");
        var agent = await lab.StartAgentAsync(DataOnly);
        await lab.Web.WarmUpAsync();
        var holder = (await lab.Web.GetAsync(3, "/hold?id=1")).Backend.ShouldNotBeNull();
        var socketOfHolder = (await agent.WaitForSessionAsync(holder)).Local;

        await Wait.UntilAsync("three pooled connections are closed", async () => (await agent.IncidentsAsync()).Count(
            i => i is { Remedy: "recycle", Cause: "expired", Outcome: "released" }) == 3, Wait.Seconds(20));

        var closed = (await agent.IncidentsAsync()).Where(i => i.Remedy == "recycle").ToList();
        closed.ShouldAllBe(i => i.Raw.Contains("counts only data"));
        closed.ShouldNotContain(i => i.Raw.Contains(socketOfHolder));

        // The pool finds out at once, at the worst with one error; nobody hangs, and the next request is served.
        (await IdlePeriods.UseAllAsync(lab)).ShouldAllBe(answer => answer != null);
        (await IdlePeriods.UseAllAsync(lab)).ShouldAllBe(answer => answer != null && answer.Error == null);
    }

    [Fact]
    public async Task What_is_used_is_never_closed()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { CountsDataOnly = true, Workers = 1 });
        var agent = await lab.StartAgentAsync(DataOnly);
        var clients = lab.StartScript("idlers.py", "postgresql", lab.Database.Dsn("postgres"), "4", "6", "4");

        await clients.WaitForLineAsync(l => l == "done", Wait.Seconds(60));

        clients.Lines.ShouldNotContain(l => l.Contains("failed"), clients.Output);
        (await agent.IncidentsAsync()).ShouldBeEmpty();
    }

    [Fact]
    public async Task Where_nothing_can_be_proven_it_is_withheld_and_told()
    {
        // The role may not see the sessions of others.
        await using var lab = await TestLab.StartAsync(new LabOptions { CountsDataOnly = true, Workers = 1 });
        await MeasuredPath.ExecuteAsync(lab, "REVOKE pg_monitor FROM sidecar");
        var agent = await lab.StartAgentAsync(DataOnly);
        await lab.Web.WarmUpAsync();

        var incident = await agent.WaitForIncidentAsync(i => i.Remedy == "recycle", Wait.Seconds(20));
        incident.WithheldBy.ShouldBe("unknown");
        incident.Raw.ShouldContain("pg_monitor");
    }

    [Fact]
    public async Task Measuring_finds_it_out_and_the_agent_goes_by_it()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { CountsDataOnly = true, Workers = 2 });
        var agent = await lab.StartAgentAsync(DataOnly with { IdleTimeout = "measure", RefreshedBy = "segments" });
        await lab.Web.WarmUpAsync();

        // The workers are asked all the time while the path is measured; then they rest for longer than it remembers, again and again.
        var restsUntil = DateTimeOffset.MinValue;
        await Wait.UntilAsync("a connection is closed before the limit", async () =>
        {
            var closed = (await agent.IncidentsAsync()).Any(i => i is { Remedy: "recycle", Outcome: "released" } && i.Raw.Contains("counts only data"));
            if (!closed && DateTimeOffset.UtcNow >= restsUntil)
            {
                await IdlePeriods.UseAllAsync(lab);
                restsUntil = agent.Process.Output.Contains("is payload-only", StringComparison.Ordinal) ? DateTimeOffset.UtcNow + IdlePeriods.Length : DateTimeOffset.MinValue;
            }

            return closed;
        }, Wait.Seconds(120), () => agent.Process.Output);
    }
}
