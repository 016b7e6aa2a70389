using System.Net;

namespace Sidecar.LabTests.Prevention;

/// <summary>gunicorn instead of uWSGI.</summary>
public sealed class GunicornTests
{
    [Fact]
    public async Task Workers_of_gunicorn_are_protected_in_the_same_way()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { Workers = 1 });
        var agent = await lab.StartAgentAsync(IdlePeriods.Prevention);
        var directory = Path.Combine(lab.Directory, "web");
        var socket = Path.Combine(directory, "gunicorn.sock");
        var server = lab.StartProgram("gunicorn", lab.Network.Application, "www-data", "/usr/bin/env",
            $"DATABASE_DSN={lab.Database.Dsn("web")}", $"LIBRARY_LOCK={directory}/library.lock", "KEEPALIVES_IDLE=",
            "gunicorn", "--chdir", directory, "--bind", $"unix:{socket}", "--workers", "4", "--timeout", "600", "app:application");
        await Wait.UntilAsync("four workers", () => server.Lines.Count(l => l.Contains("Booting worker")) == 4 && File.Exists(socket), Wait.Seconds(30));

        // A worker of gunicorn serves one request at a time, so four long ones at once go to all four of them.
        async Task<int> UseAllAsync()
        {
            var answers = await Task.WhenAll(Enumerable.Range(0, 4).Select(_ => WebApplication.AskAsync(socket, "/sleep?s=1").WaitAsync(IdlePeriods.Hung)));
            answers.ShouldAllBe(a => a.Error == null);
            return answers.Select(a => a.Pid).Distinct().Count();
        }

        (await UseAllAsync()).ShouldBe(4);
        for (var period = 0; period < 2; period++)
        {
            await Task.Delay(IdlePeriods.Length);
            (await UseAllAsync()).ShouldBe(4);
        }

        (await agent.IncidentsAsync()).ShouldBeEmpty();
    }
}

/// <summary>pgbouncer between the workers and the database: its connections to the server are the ones that cross the router.</summary>
public sealed class PgBouncerTests
{
    [Fact]
    public async Task Server_connections_of_pgbouncer_are_protected_in_the_same_way()
    {
        const int clients = 8;
        await using var lab = await TestLab.StartAsync(new LabOptions { Workers = 1 });
        var agent = await lab.StartAgentAsync(IdlePeriods.Prevention);
        var configuration = Path.Combine(lab.Directory, "pgbouncer.ini");
        await File.WriteAllTextAsync(configuration, $"""
            [databases]
            postgres = host={lab.Database.Address} port=5432 user=web
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = 6432
            unix_socket_dir =
            auth_type = any
            pool_mode = transaction
            default_pool_size = {clients}
            min_pool_size = {clients}
            tcp_keepalive = 0
            server_check_delay = 3600
            """);
        var pooler = lab.StartProgram("pgbouncer", lab.Network.Worker, "www-data", "/usr/sbin/pgbouncer", configuration);
        await pooler.WaitForLineAsync(l => l.Contains("process up"), Wait.Seconds(10));

        var idlers = lab.StartScript("idlers.py", "postgresql", "host=127.0.0.1 port=6432 user=web dbname=postgres", $"{clients}", "2", "15");
        await idlers.WaitForLineAsync(l => l == "connected", Wait.Seconds(20));
        await lab.ArmedAsync(lab.Database.EndPoint, clients);

        await IdlePeriods.ServedThroughoutAsync(idlers, clients, periods: 2);
        (await agent.IncidentsAsync()).ShouldBeEmpty();
    }
}

/// <summary>redis behind the router, as a plain TCP upstream.</summary>
public sealed class RedisTests
{
    [Fact]
    public async Task Connections_to_redis_are_protected_as_plain_tcp()
    {
        const int clients = 8;
        await using var lab = await TestLab.StartAsync(new LabOptions { Workers = 1 });
        var endPoint = new IPEndPoint(lab.Database.Address, 6379);
        var server = lab.StartProgram("redis-server", lab.Network.Database, "www-data", "/usr/bin/redis-server",
            "--bind", "*", "--port", "6379", "--protected-mode", "no", "--save", "", "--tcp-keepalive", "0");
        await server.WaitForLineAsync(l => l.Contains("Ready to accept connections"), Wait.Seconds(10));
        var agent = await lab.StartAgentAsync(IdlePeriods.Prevention with
        {
            FurtherLines = ["", "[upstream:cache]", $"endpoint = {endPoint}", "protocol = tcp", "idle-timeout = 10s"],
        });

        var idlers = lab.StartScript("idlers.py", "redis", endPoint.ToString(), $"{clients}", "2", "15");
        await idlers.WaitForLineAsync(l => l == "connected", Wait.Seconds(20));
        await lab.ArmedAsync(endPoint, clients);
        (await agent.StatusAsync()).Count(c => c.Upstream == "cache").ShouldBe(clients);

        await IdlePeriods.ServedThroughoutAsync(idlers, clients, periods: 2);
        (await agent.IncidentsAsync()).ShouldBeEmpty();
    }
}

/// <summary>A .NET program with an Npgsql pool.</summary>
public sealed class NpgsqlPoolTests
{
    private const int Clients = 8;

    [Fact]
    public async Task Connections_of_an_Npgsql_pool_are_protected_in_the_same_way()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { Workers = 1 });
        var agent = await lab.StartAgentAsync(IdlePeriods.Prevention);
        var idlers = Start(lab, periods: 2);
        await idlers.WaitForLineAsync(l => l == "connected", Wait.Seconds(30));
        await lab.ArmedAsync(lab.Database.EndPoint, Clients);

        await IdlePeriods.ServedThroughoutAsync(idlers, Clients, periods: 2);
        (await agent.IncidentsAsync()).ShouldBeEmpty();
    }

    [Fact]
    public async Task Without_the_agent_an_Npgsql_pool_hangs()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { Workers = 1 });
        var idlers = Start(lab, periods: 1);
        await idlers.WaitForLineAsync(l => l == "connected", Wait.Seconds(30));

        await Task.Delay(IdlePeriods.Length + IdlePeriods.Hung);

        idlers.HasExited.ShouldBeFalse();
        idlers.Lines.ShouldNotContain(l => l.StartsWith("period"));
    }

    private static ChildProcess Start(TestLab lab, int periods) => lab.StartProgram(
        "npgsql-idlers", lab.Network.Application, null, Path.Combine(AppContext.BaseDirectory, "sidecar-lab"),
        "npgsql-idlers", $"Host={lab.Database.Address};Port=5432;Username=web;Database=postgres;SSL Mode=Disable", $"{Clients}", $"{periods}", "15");
}
