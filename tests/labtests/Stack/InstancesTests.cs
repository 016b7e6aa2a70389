using System.Net;
using Npgsql;
using Sidecar.LabTests.Telemetry;
using Xunit.Abstractions;

namespace Sidecar.LabTests.Stack;

/// <summary>Squid, Apache and two single-process application servers in front of PostgreSQL.</summary>
public sealed class InstancesTests(ITestOutputHelper output)
{
    private const int SquidPort = 8080;
    private const int ApachePort = 8081;
    private const string Modules = "/usr/lib/apache2/modules";

    [Fact]
    public async Task Clients_that_stick_a_version_that_drifts_and_a_standby_in_the_primarys_place_are_seen_and_their_checks_say_so()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { Workers = 0, Router = RouterBehaviour.Forward });
        var python = lab.CopyPython();
        var directory = await StartStackAsync(lab, python);
        var versionFile = Path.Combine(directory, "version");
        await File.WriteAllTextAsync(versionFile, "3.2.1\n");
        await using (var connection = await lab.Database.ConnectLocallyAsync())
        {
            await using var command = new NpgsqlCommand("CREATE TABLE settings AS SELECT '3.2.1' AS version; GRANT SELECT ON settings TO PUBLIC", connection);
            await command.ExecuteNonQueryAsync();
        }

        var dsn = Path.Combine(directory, "db.dsn");
        await File.WriteAllTextAsync(dsn, lab.Database.Dsn("sidecar") + "\n");
        File.SetUnixFileMode(dsn, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        var agent = await lab.StartAgentAsync(new AgentOptions
        {
            Configuration = $$"""
                [agent]
                state-directory = {state}
                runtime-directory = {run}
                listen = 127.0.0.1:{{AgentProcess.Port}}
                network-namespaces = own
                [upstream:db]
                endpoint = {{lab.Database.EndPoint}}
                protocol = postgresql
                dsn-file = {{dsn}}
                server-role = primary
                [workers:app]
                executable = {{python}}
                [check:app]
                expected-query = SELECT version FROM settings
                actual-command = /usr/bin/cat {{versionFile}}
                upstream = db
                interval = 1s

                """,
        });
        using var client = lab.Network.Worker.HttpClient();

        // Without a session the balancer takes turns, and all is well.
        var even = Load(lab, cookie: null);
        await CheckAsync("workers", HttpStatusCode.OK, "ServiceOK app 2 processes", client);
        await CheckAsync("db", HttpStatusCode.OK, "ServiceOK db", client);
        await CheckAsync("pool", HttpStatusCode.OK, "ServiceOK db", client);
        await CheckAsync("version", HttpStatusCode.OK, "ServiceOK app 3.2.1", client);
        await Wait.UntilAsync("both instances compute", async () => Imbalance(await agent.MetricsAsync()) is >= 0 and < 0.5, Wait.Seconds(60));
        even.ForEach(load => load.Stop(Signal.Kill));

        // All clients carry the session of one instance.
        var sticky = Load(lab, cookie: "ROUTEID=.one");
        await Wait.UntilAsync("one instance has all the work", async () => Imbalance(await agent.MetricsAsync()) > 0.7, Wait.Seconds(60));
        await CheckAsync("workers", HttpStatusCode.ServiceUnavailable, "imbalance", client);
        output.WriteLine((await agent.RunAsync("status")).Output);
        sticky.ForEach(load => load.Stop(Signal.Kill));

        var scrape = await agent.MetricsAsync();
        Scrape.Value(scrape, "conn_sidecar_server_role{upstream=\"db\",role=\"primary\"}").ShouldBe(1);
        Scrape.Value(scrape, "conn_sidecar_server_role_as_declared{upstream=\"db\"}").ShouldBe(1);
        Scrape.Value(scrape, "conn_sidecar_server_connections{upstream=\"db\"}").ShouldBeGreaterThanOrEqualTo(3);
        Scrape.Value(scrape, "conn_sidecar_server_connections_limit{upstream=\"db\"}").ShouldBe(97);

        await File.WriteAllTextAsync(versionFile, "3.3.0\n");
        await CheckAsync("version", HttpStatusCode.ServiceUnavailable, "ServiceKO app 3.3.0, expected 3.2.1", client);
        Scrape.Value(await agent.MetricsAsync(), "conn_sidecar_check_ok{check=\"app\"}").ShouldBe(0);

        await lab.Database.RestartAsStandbyAsync();
        await CheckAsync("db", HttpStatusCode.ServiceUnavailable, "ServiceKO db the server is a standby", client);
        scrape = await agent.MetricsAsync();
        Scrape.Value(scrape, "conn_sidecar_server_role{upstream=\"db\",role=\"standby\"}").ShouldBe(1);
        Scrape.Value(scrape, "conn_sidecar_server_role_as_declared{upstream=\"db\"}").ShouldBe(0);
        (await agent.RunAsync("status")).Output.ShouldContain("server: standby, which is not the declared role");
    }

    private static double Imbalance(string scrape) => Scrape.Value(scrape, "conn_sidecar_group_cpu_imbalance{workers=\"app\"}");

    private static async Task CheckAsync(string name, HttpStatusCode status, string text, HttpClient client)
    {
        var last = "";
        await Wait.UntilAsync($"/check/{name} says {text}", async () =>
        {
            using var answer = await client.GetAsync(new Uri($"http://127.0.0.1:{AgentProcess.Port}/check/{name}"));
            last = await answer.Content.ReadAsStringAsync();
            return answer.StatusCode == status && last.Contains(text, StringComparison.Ordinal);
        }, Wait.Seconds(60), () => $"it said: {last}");
        last.ShouldStartWith(status == HttpStatusCode.OK ? "ServiceOK " : "ServiceKO ");
    }

    /// <summary>Four clients that ask without a pause.</summary>
    private static List<ChildProcess> Load(TestLab lab, string? cookie) => [.. Enumerable.Range(0, 4).Select(_ => lab.StartProgram("load", lab.Network.Worker, "www-data", "/bin/sh", "-c",
        $"while :; do curl -s -o /dev/null {(cookie is null ? "" : $"-H 'Cookie: {cookie}'")} http://127.0.0.1:{SquidPort}/; done"))];

    private static async Task<string> StartStackAsync(TestLab lab, string python)
    {
        var directory = Path.Combine(lab.Directory, "site");
        Directory.CreateDirectory(directory);
        var host = lab.Network.Worker;
        foreach (var port in new[] { 9001, 9002 })
        {
            var instance = lab.StartScriptWith(python, "instance.py", $"{port}", lab.Database.Dsn("web"));
            await instance.WaitForLineAsync(l => l == "listening", Wait.Seconds(30));
        }

        var apache = Path.Combine(directory, "apache.conf");
        string[] modules = ["mpm_event", "authz_core", "proxy", "proxy_http", "proxy_balancer", "lbmethod_byrequests", "slotmem_shm"];
        await File.WriteAllTextAsync(apache, $"""
            ServerRoot {directory}
            ServerName lab
            PidFile {directory}/apache.pid
            ErrorLog {directory}/apache.log
            DefaultRuntimeDir {directory}
            Mutex pthread default
            {string.Join('\n', modules.Select(m => $"LoadModule {m}_module {Modules}/mod_{m}.so"))}
            Listen 127.0.0.1:{ApachePort}
            <Proxy balancer://app>
              BalancerMember http://127.0.0.1:9001 route=one
              BalancerMember http://127.0.0.1:9002 route=two
              ProxySet stickysession=ROUTEID
            </Proxy>
            ProxyPass / balancer://app/

            """);
        var squid = Path.Combine(directory, "squid.conf");
        await File.WriteAllTextAsync(squid, $"""
            http_port 127.0.0.1:{SquidPort} accel defaultsite=lab
            cache_peer 127.0.0.1 parent {ApachePort} 0 no-query no-digest originserver
            http_access allow all
            cache deny all
            memory_cache_shared off
            pid_filename {directory}/squid.pid
            cache_log {directory}/squid.log
            access_log none
            netdb_filename none
            coredump_dir {directory}
            shutdown_lifetime 0 seconds

            """);
        await Command.RunAsync("chown", ["-R", "www-data:", directory]);
        lab.StartProgram("apache2", host, "www-data", "/usr/sbin/apache2", "-D", "FOREGROUND", "-f", apache);
        lab.StartProgram("squid", host, "www-data", "/usr/sbin/squid", "-N", "-f", squid);
        await Wait.UntilServedAsync(host, SquidPort, Wait.Seconds(40));
        return directory;
    }
}
