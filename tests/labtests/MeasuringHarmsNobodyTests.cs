using System.Net;

namespace Sidecar.LabTests;

/// <summary>What measuring must not do to a server, to its clients, and to the truth.</summary>
public sealed class MeasuringHarmsNobodyTests
{
    private const int Port = 7000;

    /// <summary>Nothing is refused, but only so many are answered at a time.</summary>
    private const string Threads = "a thread for each";

    /// <summary>The application uses six of eight places, and what is beyond them is refused or hangs; what measures in the background takes two at most.</summary>
    [Theory]
    [InlineData("reject with tcp reset", true)]
    [InlineData("reject with tcp reset", false)]
    [InlineData("drop", true)]
    [InlineData("drop", false)]
    [InlineData(Threads, true)]
    [InlineData(Threads, false)]
    public async Task A_server_with_a_limit_refuses_nothing_to_the_application(string beyond, bool withAgent)
    {
        await using var lab = await LimitedAsync(8, beyond == Threads ? "accept" : beyond);
        using var listener = beyond == Threads ? null : MeasuredPath.Listen(lab, Port);
        if (beyond == Threads)
        {
            await lab.StartServer("threads.py", $"{Port}", "8").WaitForLineAsync(l => l == "listening", Wait.Seconds(10));
        }

        var endPoint = new IPEndPoint(lab.Network.DatabaseAddress4, Port);
        var agent = withAgent ? await lab.StartAgentAsync(new AgentOptions { Configuration = Declared(endPoint) }) : null;
        var client = lab.StartScript("short.py", [$"{endPoint}", "5", "30", .. beyond == Threads ? ["ask"] : Array.Empty<string>()]);
        if (agent is not null)
        {
            await Wait.UntilAsync("a ladder is run", () => agent.Process.Output.Contains("measuring the idle timeout", StringComparison.Ordinal), Wait.Seconds(20));
        }

        await client.WaitForLineAsync(l => l.StartsWith("refused", StringComparison.Ordinal), Wait.Seconds(90));

        client.Lines.ShouldContain("refused 0", client.Output + agent?.Process.Output);
        if (agent is not null)
        {
            (await ConnectionsOfAsync(lab, agent)).ShouldBeLessThanOrEqualTo(2);
        }
    }

    [Fact]
    public async Task Refusals_end_it_with_what_is_known()
    {
        await using var lab = await LimitedAsync(5);
        using var listener = MeasuredPath.Listen(lab, Port);

        var measured = await MeasuredPath.TcpAsync(lab, Port, "--max", "12s");

        measured.ExitCode.ShouldBe(0, measured.Error);
        measured.Elapsed.ShouldBeLessThan(12 + 10 + 15);
        measured.Lower.ShouldBeGreaterThan(2);
        measured.Connections.ShouldBeLessThan(30);
    }

    [Fact]
    public async Task Of_a_name_with_several_addresses_each_is_measured_or_named()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { Router = RouterBehaviour.Forward, Servers = false });
        using var listener = MeasuredPath.Listen(lab, Port);
        var hosts = Path.Combine(lab.Directory, "hosts");
        var address = lab.Network.DatabaseAddress4;
        await File.WriteAllTextAsync(hosts, $"127.0.0.66 many.test\n{address} many.test\n127.0.0.67 many.test\n");

        var result = await lab.Network.Worker.TryRunAsync(
            ["unshare", "--mount", "sh", "-c", $"mount --bind {hosts} /etc/hosts && exec {AgentProcess.Binary} measure many.test:{Port} --max 3s"]);

        result.ExitCode.ShouldBe(0, result.Error);
        result.Output.ShouldContain($"{address}:{Port}: forgets nothing within");
        result.Output.ShouldContain("127.0.0.66:7000: cannot connect");
        result.Output.ShouldContain("127.0.0.67:7000");
    }

    /// <summary>All places are taken: the operator sees why nothing is known.</summary>
    [Fact]
    public async Task A_measurement_that_the_server_refuses_is_told_in_status()
    {
        await using var lab = await LimitedAsync(1);
        using var listener = MeasuredPath.Listen(lab, Port);
        var endPoint = new IPEndPoint(lab.Network.DatabaseAddress4, Port);
        var agent = await lab.StartAgentAsync(new AgentOptions { Configuration = Declared(endPoint) });
        var client = lab.StartScript("short.py", $"{endPoint}", "0", "0");
        await client.WaitForLineAsync(l => l == "refused 0", Wait.Seconds(10));

        await Wait.UntilAsync("it is told", async () => (await agent.GetAsync("/api/v1/paths")).Contains("\"not_measured\":\"", StringComparison.Ordinal), Wait.Seconds(40));
    }

    /// <summary>The path forgets connections of a guest, and the server would hold them for ever.</summary>
    [Fact]
    public async Task What_the_path_has_forgotten_is_given_up_by_a_plain_server_too()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { IdleTimeout = Wait.Seconds(4), Servers = false });
        using var listener = MeasuredPath.Listen(lab, Port);

        var measured = await MeasuredPath.TcpAsync(lab, Port);

        measured.ShouldBracket(4);
        await Wait.UntilAsync("the server holds none", async () => (await lab.Network.Database.TryRunAsync(["ss", "-tnH", "state", "established", $"sport = :{Port}"])).Output.Length == 0, Wait.Seconds(10));
    }

    /// <summary>The router forgets sooner than the server ends idle sessions: keepalives count, though the server ends that session too.</summary>
    [Fact]
    public async Task A_servers_own_limit_does_not_make_a_path_one_that_counts_data_only()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { IdleTimeout = Wait.Seconds(8), Workers = 1 });
        await MeasuredPath.ExecuteAsync(lab, "ALTER SYSTEM SET idle_session_timeout = '11s'", "SELECT pg_reload_conf()");

        var measured = await MeasuredPath.PostgreSqlAsync(lab);

        measured.ShouldBracket(8);
        measured.Class.ShouldBe("silent-drop", measured.Json.ToString());
        measured.KeepaliveRefreshes.ShouldBeNull();
    }

    /// <summary>A proxy on this host acknowledges everything; between it and the server the path forgets.</summary>
    [Fact]
    public async Task Behind_a_proxy_only_an_answer_of_the_servers_counts()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { IdleTimeout = Wait.Seconds(9), Workers = 1 });
        var server = lab.StartProgram("redis-server", lab.Network.Database, "www-data", "/usr/bin/redis-server",
            "--bind", "*", "--port", "6379", "--protected-mode", "no", "--save", "", "--tcp-keepalive", "0");
        await server.WaitForLineAsync(l => l.Contains("Ready to accept connections"), Wait.Seconds(10));
        var configuration = Path.Combine(lab.Directory, "haproxy.cfg");
        await File.WriteAllTextAsync(configuration, $"""
            defaults
                mode tcp
                timeout connect 5s
                timeout client 10m
                timeout server 10m
            listen redis
                bind 127.0.0.1:6380
                server one {lab.Database.Address}:6379

            """);
        lab.StartProgram("haproxy", lab.Network.Worker, "www-data", "/usr/sbin/haproxy", "-db", "-f", configuration);
        await Wait.UntilAsync("haproxy listens", async () => (await lab.Network.Worker.TryRunAsync(["ss", "-ltnH", "sport = :6380"])).Output.Length > 0, Wait.Seconds(10));

        var blind = MeasuredPath.AtAsync(lab, "127.0.0.1:6380", "--max", "12s");
        var asked = await MeasuredPath.AtAsync(lab, "127.0.0.1:6380", "--payload", "PING\\r\\n");

        asked.ShouldBracket(9);
        (await blind).Upper.ShouldBeNull();
        $"{(await blind).Json}".ShouldContain("what lies behind it was not measured");
        var silent = await MeasuredPath.AtAsync(lab, $"{lab.Database.Address}:{Database.Port}", "--payload", "PING");
        silent.ExitCode.ShouldBe(1);
        silent.Error.ShouldContain("nothing came back for the payload");
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_pool_is_protected_from_the_first_minute(bool agentRuns)
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { IdleTimeout = Wait.Seconds(25), Workers = 1 });
        if (agentRuns)
        {
            await lab.StartAgentAsync(new AgentOptions { Keepalive = true, IdleTimeout = "measure", Sessions = true });
        }

        var pool = lab.StartScript("idlers.py", "postgresql", lab.Database.Dsn("postgres"), "20", "1", "29");
        await pool.WaitForLineAsync(l => l == "connected", Wait.Seconds(20));
        if (agentRuns)
        {
            await pool.WaitForLineAsync(l => l == "done", Wait.Seconds(60));
            pool.Lines.ShouldNotContain(l => l.Contains("failed"), pool.Output);
            (await SessionsOfAgentAsync(lab)).ShouldBeLessThanOrEqualTo(5);
        }
        else
        {
            await Task.Delay(Wait.Seconds(45));
            pool.Lines.ShouldNotContain("done");
        }
    }

    private static string Declared(IPEndPoint endPoint) => $$"""
        [agent]
        runtime-directory = {run}
        state-directory = {state}
        network-namespaces = own

        [upstream:limited]
        endpoint = {{endPoint}}
        protocol = tcp
        idle-timeout = measure
        """;

    /// <summary>A database host without a database, which resets connections of a client that has so many.</summary>
    private static async Task<TestLab> LimitedAsync(int places, string beyond = "reject with tcp reset")
    {
        var lab = await TestLab.StartAsync(new LabOptions { Router = RouterBehaviour.Forward, Servers = false });
        await lab.Network.Database.RunAsync(["nft", "-f", "-"], $$"""
            table inet places {
                set hosts { type ipv4_addr; flags dynamic; size 65535; }
                chain input {
                    type filter hook input priority 0;
                    tcp dport {{Port}} ct state new add @hosts { ip saddr ct count over {{places}} } {{beyond}}
                }
            }
            """);
        return lab;
    }

    private static async Task<int> ConnectionsOfAsync(TestLab lab, AgentProcess agent) =>
        (await lab.Network.Worker.TryRunAsync(["ss", "-tnpH", "state", "established", $"dport = :{Port}"])).Output
            .Split('\n').Count(line => line.Contains($"pid={agent.Pid},", StringComparison.Ordinal));

    private static async Task<long> SessionsOfAgentAsync(TestLab lab)
    {
        await using var connection = await lab.Database.ConnectLocallyAsync();
        await using var command = new Npgsql.NpgsqlCommand("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'conn-sidecar'", connection);
        return (long)(await command.ExecuteScalarAsync())!;
    }
}
