using System.Text.Json;
using Xunit.Abstractions;

namespace Sidecar.LabTests.Stack;

/// <summary>One hung connection, and what comes of it up to the balancer.</summary>
public sealed class ChainTests(ITestOutputHelper output)
{
    [Fact]
    public async Task A_hung_connection_is_one_incident_with_the_busy_workers_the_full_queue_and_the_servers_that_HAProxy_takes_out()
    {
        var sockets = Directory.CreateTempSubdirectory("sidecar-").FullName;
        try
        {
            var stats = Path.Combine(sockets, "haproxy.sock");
            await using var blackout = await Blackout.PrepareAsync(
                new LabOptions { Backlog = 4 },
                new AgentOptions { Keepalive = false, Recycle = false, Terminate = false, FurtherLines = ["", "[haproxy:edge]", $"socket = {stats}"] });
            var lab = blackout.Lab;
            var configuration = Path.Combine(lab.Directory, "haproxy.cfg");
            await File.WriteAllTextAsync(configuration, $"""
                global
                  stats socket {stats} mode 600 level user
                defaults
                  mode http
                  timeout connect 2s
                  timeout client 30s
                  timeout server 30s
                  timeout check 2s
                backend web
                  option httpchk GET /query
                {string.Join('\n', Enumerable.Range(1, 3).Select(w => $"  server web{w} unix@{lab.Directory}/web/worker-{w}.sock check inter 1s fall 6"))}

                """);
            lab.StartProgram("haproxy", lab.Network.Worker, null, "/usr/sbin/haproxy", "-db", "-f", configuration);
            var agent = blackout.RequireAgent();
            await Wait.UntilAsync("HAProxy is seen", async () => (await agent.MetricsAsync()).Contains("conn_sidecar_haproxy_servers{haproxy=\"edge\",proxy=\"web\",state=\"up\"} 3\n"), Wait.Seconds(30));

            blackout.Client.WakeSleeper();
            List<string> chain = [];
            await Wait.UntilAsync("the chain is complete", async () =>
            {
                var incident = (await agent.IncidentsAsync()).FirstOrDefault(i => i.Cause == "stuck");
                chain = incident is null ? [] : Chain(incident.Raw);
                return chain.Any(link => link.Contains("down", StringComparison.Ordinal)) && chain.Any(link => link.Contains("fills", StringComparison.Ordinal));
            }, Wait.Seconds(90));
            chain.ForEach(output.WriteLine);
            chain[0].ShouldContain($"hangs, and its worker [{blackout.SleeperPid}] with it");
            var busy = chain.FindIndex(link => link.Contains("all workers of web are busy", StringComparison.Ordinal));
            var fills = chain.FindIndex(link => link.Contains("fills", StringComparison.Ordinal));
            var down = chain.FindIndex(link => link.Contains("HAProxy edge marks", StringComparison.Ordinal));
            busy.ShouldBeInRange(1, fills - 1);
            down.ShouldBeGreaterThan(busy);
            (await agent.RunAsync("incidents")).Output.ShouldContain("all workers of web are busy");
        }
        finally
        {
            Directory.Delete(sockets, recursive: true);
        }
    }

    private static List<string> Chain(string incident)
    {
        using var json = JsonDocument.Parse(incident);
        return [.. json.RootElement.GetProperty("chain").EnumerateArray().Select(link => link.GetProperty("what").GetString()!)];
    }
}
