using System.Globalization;
using Npgsql;

namespace Sidecar.LabTests.Prevention;

/// <summary>The server's side of a recycled connection.</summary>
public sealed class ReleaseTests
{
    private static AgentOptions WithSessions { get; } = new() { Keepalive = false, Recycle = true, IdleTimeout = "10s", Sessions = true };

    [Theory]
    [InlineData("10s", "expired")]
    [InlineData("350s", "stuck")]
    public async Task After_a_recycle_under_an_open_transaction_the_back_end_and_its_row_lock_are_gone_and_no_other_was_touched(string idleTimeout, string cause)
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { ApplicationRole = "web" });
        await using var database = await StockAsync(lab);
        var agent = await lab.StartAgentAsync(WithSessions with { IdleTimeout = idleTimeout });
        await lab.Web.WarmUpAsync();
        var holder = (await lab.Web.GetAsync(4, "/hold?id=1")).Backend.ShouldNotBeNull();
        await Wait.UntilAsync("status shows the transaction", async () => (await agent.StatusAsync()).Any(
            c => c.Session is { State: "idle in transaction", TransactionSeconds: > 0 } session && session.BackendPid == holder), Wait.Seconds(10));

        // Bystanders: used often enough to be remembered by the router.
        var before = await BackendsAsync(database);
        var bystanders = lab.StartScript("idlers.py", "postgresql", lab.Database.Dsn("web"), "3", "60", "2");
        await bystanders.WaitForLineAsync(l => l == "connected", Wait.Seconds(30));
        var others = (await BackendsAsync(database)).Except(before).ToList();
        others.Count.ShouldBe(3);
        (await LocksOfAsync(database, holder)).ShouldBeGreaterThan(0);

        // Found dead by its timeout before it is used, or by its silence when it is.
        Task<ApplicationAnswer>? asked = null;
        if (cause == "stuck")
        {
            await Task.Delay(IdlePeriods.Length);
            asked = lab.Web.GetAsync(4, "/go-on");
        }

        var released = await agent.WaitForIncidentAsync(i => i is { Remedy: "release" } && i.Outcome != "pending" && i.Raw.Contains($"\"{holder}\""), Wait.Seconds(30));
        released.Outcome.ShouldBe("released", released.Raw);
        released.Cause.ShouldBe(cause);
        (await LocksOfAsync(database, holder)).ShouldBe(0);
        await ExecuteAsync(database, "SELECT * FROM stock WHERE id = 1 FOR UPDATE NOWAIT");
        var recycled = (await agent.IncidentsAsync()).Where(i => i is { Remedy: "recycle", Outcome: "released" } && i.Time < released.Time).MaxBy(i => i.Time).ShouldNotBeNull();
        var ended = await lab.Database.Server.WaitForLineAsync(l => l.Contains($"[{holder}] ") && l.Contains("terminating connection due to administrator command"), Wait.Seconds(5));
        (TimeOf(ended) - recycled.Time).ShouldBeLessThan(Wait.Seconds(5));

        (await (asked ?? lab.Web.GetAsync(4, "/go-on")).WaitAsync(Wait.Seconds(5))).Error.ShouldNotBeNull();
        (await BackendsAsync(database)).Intersect(others).Order().ShouldBe(others.Order());
        bystanders.Lines.ShouldNotContain(l => l.Contains("failed"));
        NoPasswordIn(agent.Process.Output, released.Raw, await agent.MetricsAsync(), (await agent.RunAsync("status", "--json")).Output,
            (await agent.RunAsync("check-config")).Output, await File.ReadAllTextAsync($"/proc/{agent.Process.Pid}/cmdline"));
    }

    [Fact]
    public async Task Under_source_NAT_nothing_can_be_proven_and_nothing_is_ended()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { ApplicationRole = "web", Masquerade = true });
        await using var database = await StockAsync(lab);
        var agent = await lab.StartAgentAsync(WithSessions);
        await lab.Web.WarmUpAsync();
        var holder = (await lab.Web.GetAsync(4, "/hold?id=1")).Backend.ShouldNotBeNull();

        await Task.Delay(IdlePeriods.Length);
        var asked = lab.Web.GetAsync(4, "/go-on");

        var incident = await agent.WaitForIncidentAsync(i => i is { Remedy: "release" } && i.Outcome != "pending", Wait.Seconds(20));
        incident.Outcome.ShouldBe("withheld");
        incident.WithheldBy.ShouldBe("unknown");
        incident.Raw.ShouldContain("source NAT");
        await asked.WaitAsync(Wait.Seconds(10));
        (await BackendsAsync(database)).ShouldContain(holder);
        (await agent.StatusAsync()).ShouldAllBe(c => c.Session == null);
    }

    [Fact]
    public async Task In_observe_mode_the_release_is_recorded_as_withheld()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { ApplicationRole = "web" });
        await using var database = await StockAsync(lab);
        var agent = await lab.StartAgentAsync(WithSessions with { Mode = "observe" });
        await lab.Web.WarmUpAsync();
        var holder = (await lab.Web.GetAsync(4, "/hold?id=1")).Backend.ShouldNotBeNull();

        await Task.Delay(IdlePeriods.Length);
        _ = lab.Web.GetAsync(4, "/go-on");

        (await agent.WaitForIncidentAsync(i => i is { Remedy: "release" }, Wait.Seconds(20))).WithheldBy.ShouldBe("observe");
        await Wait.ThroughoutAsync(Wait.Seconds(5), async () => (await BackendsAsync(database)).ShouldContain(holder));
    }

    [Fact]
    public async Task A_slow_query_is_seen_in_the_servers_own_word()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { ApplicationRole = "web" });
        var agent = await lab.StartAgentAsync(WithSessions with { Recycle = false });
        await lab.Web.WarmUpAsync();

        var query = lab.Web.GetAsync(4, "/sleep?s=14");
        await Wait.UntilAsync("a running query is seen", async () => (await agent.StatusAsync()).Any(
            c => c is { Verdict: "waiting", Session: { State: "active", QuerySeconds: > 1 } } && c.Why.Contains("has run its query for")), Wait.Seconds(12));
        (await agent.IncidentsAsync()).ShouldBeEmpty();
        _ = query;
    }

    [Fact]
    public async Task A_server_that_does_not_answer_stalls_nothing()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { IdleTimeout = Wait.Seconds(600) });
        var agent = await lab.StartAgentAsync(WithSessions with { IdleTimeout = "600s" });
        await lab.Web.WarmUpAsync();
        await Wait.UntilAsync("sessions are seen", async () => (await agent.StatusAsync()).Any(c => c.Session is not null), Wait.Seconds(15));

        // Every process of the server stands still; its kernel still answers.
        var processes = (await Command.RunAsync("ip", ["netns", "pids", lab.Network.Database.Name])).Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(int.Parse).ToList();
        processes.ForEach(pid => ChildProcess.SendTo(pid, Signal.Stop));
        await Wait.UntilAsync("sessions are no longer known", async () => (await agent.StatusAsync()).All(c => c.Session is null), Wait.Seconds(40));
        var scans = await ScansAsync(agent);
        await Task.Delay(Wait.Seconds(5));
        (await ScansAsync(agent) - scans).ShouldBeGreaterThanOrEqualTo(4);
        (await agent.RunAsync("status", "--json")).Output.ShouldContain("the sessions on the server are not seen");

        processes.ForEach(pid => ChildProcess.SendTo(pid, Signal.Continue));
        await Wait.UntilAsync("sessions are seen again", async () => (await agent.StatusAsync()).Any(c => c.Session is not null), Wait.Seconds(90));
    }

    [Fact]
    public async Task A_full_server_is_seen_and_stalls_nothing()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { IdleTimeout = Wait.Seconds(600) });
        await lab.Web.WarmUpAsync();
        await using var administrator = await lab.Database.ConnectLocallyAsync();
        var (limit, taken) = await SlotsAsync(administrator);
        var others = new List<NpgsqlConnection>();
        try
        {
            for (; taken < limit - 1; taken++)
            {
                others.Add(await lab.Database.ConnectLocallyAsync());
            }

            // The last place is the agent's, which keeps it: a full server is the one that has to be asked.
            var agent = await lab.StartAgentAsync(WithSessions with { Keepalive = true });
            await Wait.UntilAsync("the server is full", async () => (await agent.GetAsync("/check/pool")).StartsWith("ServiceKO", StringComparison.Ordinal), Wait.Seconds(20));
            (await agent.GetAsync("/check/pool")).ShouldContain($"orders-db 100% ({limit} of {limit} on the server, 4 from here");
            await Wait.UntilAsync("sessions are seen", async () => (await agent.StatusAsync()).All(c => c.Session is not null), Wait.Seconds(20));
            await Wait.UntilAsync("the workers' connections are armed",
                async () => (await lab.DatabaseSocketsAsync()).Count(s => s.Timer.StartsWith("keepalive,")) == 4, Wait.Seconds(10));

            // A second agent finds no place, says so, and protects all the same.
            var late = await lab.StartAgentAsync(WithSessions with { Mode = "observe", Listen = "none" });
            await Wait.UntilAsync("it says so", () => late.Process.Output.Contains("53300", StringComparison.Ordinal), Wait.Seconds(20));

            // Its attempts are short: one that a scan has met may be told of until the look after the next.
            await Wait.UntilAsync("the workers' connections are told of, and no others", async () => (await late.StatusAsync()).Count == 4, Wait.Seconds(10));
        }
        finally
        {
            others.ForEach(o => o.Dispose());
        }
    }

    [Fact]
    public async Task A_server_in_recovery_is_seen_as_one_and_nothing_is_ended_on_it()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { ApplicationRole = "web" });
        await lab.Database.RestartAsStandbyAsync();
        var agent = await lab.StartAgentAsync(WithSessions);
        await lab.Web.WarmUpAsync();

        await Task.Delay(IdlePeriods.Length);
        var incident = await agent.WaitForIncidentAsync(i => i is { Remedy: "release" } && i.Outcome != "pending", Wait.Seconds(20));
        incident.WithheldBy.ShouldBe("unknown");
        incident.Raw.ShouldContain("in recovery");
        (await IdlePeriods.UseAllAsync(lab)).ShouldAllBe(answer => answer != null);
    }

    [Fact]
    public async Task A_DSN_file_that_others_may_read_is_refused_and_protection_goes_on()
    {
        await using var lab = await TestLab.StartAsync();
        var open = Path.Combine(lab.Directory, "open.dsn");
        await File.WriteAllTextAsync(open, lab.Database.Dsn("sidecar") + $" password={AgentProcess.Password}\n");
        File.SetUnixFileMode(open, (UnixFileMode)0x1A4 /* 0644 */);
        var agent = await lab.StartAgentAsync(IdlePeriods.Prevention with
        {
            FurtherLines = ["", "[upstream:other]", "endpoint = 10.99.0.1:5432", "protocol = postgresql", $"dsn-file = {open}"],
        });

        await Wait.UntilAsync("it says so", () => agent.Process.Output.Contains("mode 0644"), Wait.Seconds(10));
        agent.Process.Output.ShouldNotContain(AgentProcess.Password);
        await lab.Web.WarmUpAsync();
        await lab.ArmedAsync(lab.Database.EndPoint, 4);
    }

    /// <summary>When the server wrote a line of its log (%m; its zone is UTC).</summary>
    private static DateTimeOffset TimeOf(string line) =>
        DateTimeOffset.ParseExact(line[..23], "yyyy-MM-dd HH:mm:ss.fff", CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal);

    private static void NoPasswordIn(params IEnumerable<string> texts)
    {
        foreach (var text in texts)
        {
            text.ShouldNotContain(AgentProcess.Password);
        }
    }

    private static async Task<NpgsqlConnection> StockAsync(TestLab lab)
    {
        var database = await lab.Database.ConnectLocallyAsync();
        await ExecuteAsync(database, "CREATE TABLE stock (id int PRIMARY KEY, amount int); INSERT INTO stock VALUES (1, 10), (2, 10); GRANT ALL ON stock TO web");
        return database;
    }

    private static async Task ExecuteAsync(NpgsqlConnection database, string statement)
    {
        await using var command = new NpgsqlCommand(statement, database);
        await command.ExecuteNonQueryAsync();
    }

    /// <summary>Back-ends of the application.</summary>
    private static async Task<List<int>> BackendsAsync(NpgsqlConnection database)
    {
        await using var command = new NpgsqlCommand("SELECT pid FROM pg_stat_activity WHERE usename = 'web'", database);
        await using var reader = await command.ExecuteReaderAsync();
        var pids = new List<int>();
        while (await reader.ReadAsync())
        {
            pids.Add(reader.GetInt32(0));
        }

        return pids;
    }

    /// <summary>Places for all roles together, the superuser's among them, and how many of them are taken.</summary>
    private static async Task<(int Limit, int Taken)> SlotsAsync(NpgsqlConnection database)
    {
        await using var command = new NpgsqlCommand(
            "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int, (SELECT count(*)::int FROM pg_stat_activity WHERE datid IS NOT NULL AND usesysid IS NOT NULL)", database);
        await using var reader = await command.ExecuteReaderAsync();
        await reader.ReadAsync();
        return (reader.GetInt32(0), reader.GetInt32(1));
    }

    private static async Task<long> LocksOfAsync(NpgsqlConnection database, int pid)
    {
        await using var command = new NpgsqlCommand("SELECT count(*) FROM pg_locks WHERE pid = $1", database);
        command.Parameters.Add(new NpgsqlParameter<int> { TypedValue = pid });
        return (long)(await command.ExecuteScalarAsync())!;
    }

    private static async Task<long> ScansAsync(AgentProcess agent)
    {
        using var json = System.Text.Json.JsonDocument.Parse((await agent.RunAsync("status", "--json")).Output);
        return json.RootElement.GetProperty("scan").GetInt64();
    }
}
