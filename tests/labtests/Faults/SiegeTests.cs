using System.Diagnostics;

namespace Sidecar.LabTests.Faults;

/// <summary>A user without rights does at once all that used to hold the agent up; a worker's connection is forgotten meanwhile.</summary>
public sealed class SiegeTests
{
    private const int Port = 10842;

    [Fact]
    public async Task A_worker_is_freed_as_soon_under_siege_as_in_peace()
    {
        await using var lab = await TestLab.StartAsync(FaultSteps.OneWorker);
        var script = Path.Combine(lab.Directory, "siege.py");
        File.Copy(Path.Combine(AppContext.BaseDirectory, "app", "siege.py"), script);
        var socket = Path.Combine(lab.Directory, "haproxy.sock");
        await StartAsync("haproxy", socket);
        await lab.Web.WarmUpAsync();
        var agent = await lab.StartAgentAsync(FaultSteps.RecycleOnly with { Listen = $"127.0.0.1:{Port}", FurtherLines = ["[haproxy:edge]", $"socket = {socket}"] });
        var peace = Median([await RescueAsync(), await RescueAsync()]);

        await StartAsync("hoard", "40", "16000");
        await StartAsync("namespaces", "150");
        await StartAsync("http", "127.0.0.1", $"{Port}", "600");
        await StartAsync("churn", $"{lab.Network.DatabaseAddress4}", $"{Database.Port}", "600");
        var siege = Median([await RescueAsync(), await RescueAsync(), await RescueAsync()]);

        siege.ShouldBeLessThan(Patience.For(peace + Wait.Seconds(0.5)), $"{peace.TotalSeconds:F1} s in peace; the agent's log:\n{agent.Process.Output}");
        agent.Process.HasExited.ShouldBeFalse();
        var scrape = await lab.Network.Worker.RunAsync(["/usr/bin/python3", "-c", $"import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:{Port}/metrics', timeout=20).read().decode())"]);
        scrape.ShouldContain("conn_sidecar_recycled_connections_total");
        scrape.Split('\n').Count(line => line.StartsWith("conn_sidecar_haproxy_own_errors_total{", StringComparison.Ordinal)).ShouldBeLessThanOrEqualTo(256);
        (await agent.RunAsync("status")).Output.ShouldContain("left out");

        async Task StartAsync(string kind, params string[] arguments)
        {
            // Only HAProxy's socket lies where nobody may not write.
            string[] nobody = kind == "haproxy" ? [] : ["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"];
            var program = lab.StartProgram($"siege-{kind}", lab.Network.Worker, null, "/usr/bin/setpriv", [.. nobody, "--", "/usr/bin/python3", script, kind, .. arguments]);
            await program.WaitForLineAsync(line => line == "ready", Patience.For(Wait.Seconds(20)));
        }

        async Task<TimeSpan> RescueAsync()
        {
            await lab.Web.WarmUpAsync();
            var request = await lab.AskOnForgottenAsync();
            var asked = Stopwatch.GetTimestamp();
            await agent.FreesAsync(request);
            return Stopwatch.GetElapsedTime(asked);
        }
    }

    private static TimeSpan Median(IEnumerable<TimeSpan> times) => times.Order().ToList() is var sorted ? sorted[sorted.Count / 2] : default;
}
