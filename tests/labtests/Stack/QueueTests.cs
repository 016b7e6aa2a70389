using System.Globalization;
using Sidecar.LabTests.Telemetry;
using Xunit.Abstractions;

namespace Sidecar.LabTests.Stack;

/// <summary>A spike of requests, seen from the accept queues before the clients see it.</summary>
public sealed class QueueTests(ITestOutputHelper output)
{
    [Fact]
    public async Task In_a_spike_of_two_thousand_requests_the_alert_fires_before_the_first_503()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { Servers = false });
        var mirror = await MirrorService.StartAsync(lab, seconds: 0.5);
        var agent = await lab.StartAgentAsync(new AgentOptions
        {
            Configuration = $$"""
                [agent]
                state-directory = {state}
                runtime-directory = {run}
                listen = 127.0.0.1:{{AgentProcess.Port}}
                mode = observe
                network-namespaces = own
                {{mirror.Sections}}
                """,
        });
        using var prometheus = await Prometheus.StartAsync(lab);
        await Wait.UntilAsync("both queues are seen", async () => Queues(await agent.MetricsAsync(), "limit").Count == 2, Wait.Seconds(30));
        (await prometheus.FiringAsync()).ShouldBeEmpty();
        var limits = Queues(await agent.MetricsAsync(), "limit");
        limits["workers=\"apache\",listener=\"0\""].ShouldBe(128, "the host cuts the 511 that Apache asks for");
        limits["workers=\"forker\",listener=\"0\""].ShouldBe(5);

        var spike = mirror.Spike(2000, 25);
        var fired = await FiredAsync(prometheus);
        var refused = await FirstAsync(spike, "503");
        var began = double.Parse((await spike.WaitForLineAsync(l => l.StartsWith("begins", StringComparison.Ordinal), Wait.Seconds(1))).Split(' ')[1], CultureInfo.InvariantCulture);
        output.WriteLine($"the alert fires {fired - began:0.0} s after the spike began, the first 503 comes after {refused - began:0.0} s");
        fired.ShouldBeLessThan(refused);

        var scrape = await agent.MetricsAsync();
        Queues(scrape, "peak_connections")["workers=\"apache\",listener=\"0\""].ShouldBeInRange(129, 129 + Environment.ProcessorCount, "the kernel lets one more in than the limit, and asks on each processor by itself");
        scrape.ShouldContain("conn_sidecar_listen_drops_total{workers=\"forker\"} 0\n");
        Sample(scrape, "conn_sidecar_listen_drops_total{workers=\"apache\"}").ShouldBeGreaterThan(0);
        Sample(scrape, "conn_sidecar_zombie_children{workers=\"forker\"}").ShouldBeGreaterThan(0);
        var status = await agent.RunAsync("status");
        status.Output.ShouldContain($"listens on 127.0.0.1:{MirrorService.ApachePort}: ");
        status.Output.ShouldContain("the limit is net.core.somaxconn");
        status.Output.ShouldContain($"listens on {mirror.Socket}: ");
        status.Output.ShouldContain("children not reaped");
        output.WriteLine(status.Output);

        // HAProxy is asked too, and counts what the clients saw.
        await Wait.UntilAsync("HAProxy's own errors are counted", async () =>
            Sample(scrape = await agent.MetricsAsync(), "conn_sidecar_haproxy_own_errors_total{haproxy=\"edge\",proxy=\"mirrors\"}") > 0, Wait.Seconds(10));
        Sample(scrape, "conn_sidecar_haproxy_sessions{haproxy=\"edge\"}").ShouldBeGreaterThan(500);
        await Wait.UntilAsync("status tells of them", async () => (await agent.RunAsync("status")).Output.Contains("errors of HAProxy's own", StringComparison.Ordinal), Wait.Seconds(10));
        output.WriteLine(await spike.WaitForLineAsync(l => l.StartsWith("ends", StringComparison.Ordinal), Wait.Seconds(60)));
        agent.Process.HasExited.ShouldBeFalse();
    }

    /// <summary>Unix time at which the alert was first seen firing.</summary>
    private static async Task<double> FiredAsync(Prometheus prometheus)
    {
        await Wait.UntilAsync("the alert fires", async () => (await prometheus.FiringAsync()).Contains("ConnSidecarQueueFilling"), Wait.Seconds(30));
        return DateTimeOffset.UtcNow.ToUnixTimeMilliseconds() / 1000.0;
    }

    private static async Task<double> FirstAsync(ChildProcess spike, string status) =>
        double.Parse((await spike.WaitForLineAsync(l => l.StartsWith($"first {status} ", StringComparison.Ordinal), Wait.Seconds(40))).Split(' ')[2], CultureInfo.InvariantCulture);

    private static Dictionary<string, double> Queues(string scrape, string what) => Scrape.Samples(scrape, $"conn_sidecar_listen_queue_{what}");

    private static double Sample(string scrape, string series) => Scrape.Value(scrape, series);
}
