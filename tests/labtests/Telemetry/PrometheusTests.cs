using System.Diagnostics;
using Xunit.Abstractions;

namespace Sidecar.LabTests.Telemetry;

/// <summary>What an operator's Prometheus sees of a blackout.</summary>
public sealed class PrometheusTests(ITestOutputHelper output)
{
    /// <summary>The agent may look, and do nothing: the blackout lasts until the operator ends it.</summary>
    private static readonly AgentOptions HandsOff = new() { Keepalive = false, Recycle = false, Terminate = false, NetworkNamespaces = "own" };

    [Fact]
    public async Task A_blackout_fires_the_alert_and_what_its_runbook_page_says_resolves_it()
    {
        await using var blackout = await Blackout.PrepareAsync(new LabOptions(), HandsOff);
        var lab = blackout.Lab;
        using var prometheus = await Prometheus.StartAsync(lab);
        var scraped = Stopwatch.StartNew();
        (await prometheus.FiringAsync()).ShouldBeEmpty();

        var sleeper = blackout.Client.WakeSleeper();
        await Wait.UntilAsync("all workers hang", () => blackout.Client.HungWorkers(Wait.Seconds(1)) == 4, Wait.Seconds(15));
        var alert = await prometheus.FiresAloneAsync("ConnSidecarConnectionsStuck", Wait.Seconds(60));
        output.WriteLine($"fires {blackout.Client.Now - sleeper.Sent} after the first unanswered send: {alert.Annotations["summary"]}");
        alert.Labels["upstream"].ShouldBe("orders-db");
        alert.Labels["severity"].ShouldBe("critical");
        alert.Annotations["summary"].ShouldBe($"1 connections to orders-db on 127.0.0.1:{AgentProcess.Port} are stuck and not released");
        (await prometheus.ValueAsync("conn_sidecar_connections{verdict='stuck'}")).ShouldBe(1);
        (await prometheus.ValueAsync("upstream:conn_sidecar_connections_silent:ratio")).ShouldBe(0.25);
        (await prometheus.ValueAsync("sum(conn_sidecar_worker_requests_in_flight)")).ShouldNotBeNull().ShouldBeGreaterThanOrEqualTo(1);
        sleeper.Outcome.ShouldBe(RequestOutcome.Pending);

        // The page that the alert names, with the addresses that status shows.
        var page = await File.ReadAllTextAsync(PageOf(alert));
        page.ShouldContain("    conn-sidecar status\n");
        page.ShouldContain("    ss -K src 10.0.1.2:40000 dst 10.0.2.2:5432\n");
        var closed = 0;
        await Wait.UntilAsync("nothing is stuck and nothing fires", async () =>
        {
            var stuck = (await blackout.RequireAgent().StatusAsync()).Where(c => c.Verdict == "stuck").ToList();
            foreach (var connection in stuck)
            {
                await lab.Network.Worker.RunAsync(["ss", "-K", "src", connection.Local, "dst", connection.Peer]);
                closed++;
            }

            return stuck.Count == 0 && blackout.Client.HungWorkers(Wait.Seconds(1)) == 0 && (await prometheus.FiringAsync()).Count == 0;
        }, Wait.Seconds(40));
        output.WriteLine($"resolved {blackout.Client.Now - sleeper.Ended} after the first of {closed} connections was closed by hand");
        sleeper.Error.ShouldBe("OperationalError: could not receive data from server: Software caused connection abort");
        blackout.NoWorkerDied();
        await lab.EveryWorkerAnswersAsync();

        // Two minutes of scrapes without a gap, and afterwards what they leave on record.
        await Wait.UntilAsync("two minutes have been scraped", () => scraped.Elapsed > Wait.Seconds(120), Wait.Seconds(120));
        (await prometheus.ValueAsync("count_over_time(up{job='conn-sidecar'}[2m])")).ShouldNotBeNull().ShouldBeGreaterThanOrEqualTo(55);
        (await prometheus.ValueAsync("min_over_time(up{job='conn-sidecar'}[2m])")).ShouldBe(1);
        (await prometheus.RuleHealthAsync()).ShouldAllBe(h => h == "ok");
        (await prometheus.FiringAsync()).ShouldBeEmpty();
        var suffered = await prometheus.ValueAsync("max_over_time(conn_sidecar_blackout_seconds_total[3m]) - min_over_time(conn_sidecar_blackout_seconds_total[3m])");
        output.WriteLine($"blackout: {suffered} s by metrics, {sleeper.Latency} by the client");
        suffered.ShouldNotBeNull().ShouldBeGreaterThan(sleeper.Latency.ShouldNotBeNull().TotalSeconds - 3);
        (await prometheus.ValueAsync("max(max_over_time(scrape_duration_seconds[2m]))")).ShouldNotBeNull().ShouldBeLessThan(1);
    }

    [Fact]
    public async Task An_outage_fires_its_own_alert_and_resolves_when_the_path_is_back()
    {
        await using var blackout = await Blackout.PrepareAsync(new LabOptions(), new AgentOptions { Keepalive = false, Recycle = true, Terminate = true, NetworkNamespaces = "own" });
        using var prometheus = await Prometheus.StartAsync(blackout.Lab);
        await blackout.Lab.Network.SetLinkAsync(LabLink.Worker, up: false);

        var alert = await prometheus.FiresAloneAsync("ConnSidecarOutage", Wait.Seconds(90));
        output.WriteLine(alert.Annotations["summary"]);
        File.Exists(PageOf(alert)).ShouldBeTrue();
        (await prometheus.ValueAsync("conn_sidecar_path_up")).ShouldBe(0);
        (await prometheus.ValueAsync("sum(conn_sidecar_recycled_connections_total)")).ShouldBe(0);
        (await prometheus.ValueAsync("sum(conn_sidecar_terminated_workers_total)")).ShouldBe(0);
        (await prometheus.ValueAsync("sum(conn_sidecar_withheld_remedies_total{guardrail='path-down'})")).ShouldNotBeNull().ShouldBeGreaterThanOrEqualTo(1);

        await blackout.Lab.Network.SetLinkAsync(LabLink.Worker, up: true);
        await Wait.UntilAsync("nothing fires", async () => (await prometheus.FiringAsync()).Count == 0, Wait.Seconds(90));
    }

    [Fact]
    public async Task The_worker_that_sleeps_and_the_worker_that_computes_show()
    {
        await using var blackout = await Blackout.PrepareAsync(new LabOptions(), new AgentOptions { Keepalive = true, NetworkNamespaces = "own" });
        var agent = blackout.RequireAgent();
        var scrape = await agent.MetricsAsync();
        Samples(scrape, "conn_sidecar_worker_processes").Values.ShouldBe([4.0]);
        await Command.RunAsync("promtool", ["check", "metrics"], scrape);

        // It has not been asked since the warm-up: after a minute nothing of its traffic is left in the share.
        await Wait.UntilAsync("one worker has no share of the traffic", async () =>
        {
            scrape = await agent.MetricsAsync();
            return Samples(scrape, "conn_sidecar_worker_traffic_share").Values.Count(share => share == 0) == 1;
        }, Wait.Seconds(100));
        var shares = Samples(scrape, "conn_sidecar_worker_traffic_share");
        output.WriteLine(string.Join("; ", shares.Select(s => $"{s.Key} {s.Value:0.000}")));
        shares.Count.ShouldBe(4);
        shares.Values.Sum().ShouldBe(1, 0.001);
        shares.Values.Order().Skip(1).ShouldAllBe(share => share > 0.2);
        Samples(scrape, "conn_sidecar_worker_connections").Values.ShouldBe([1.0, 1, 1, 1]);
        Samples(scrape, "conn_sidecar_worker_resident_bytes").Values.ShouldAllBe(bytes => bytes > 5_000_000 && bytes < 500_000_000);
        Samples(scrape, "conn_sidecar_worker_resident_growth_bytes_per_second").Count.ShouldBe(4);

        // A long query is a request in flight of one worker.
        var slow = blackout.Client.Ask(1, "/sleep?s=20");
        await Wait.UntilAsync("the slow request is in flight", async () =>
            Samples(await agent.MetricsAsync(), "conn_sidecar_worker_requests_in_flight").Values.Sum() >= 1, Wait.Seconds(15));
        slow.Outcome.ShouldBe(RequestOutcome.Pending);
        Samples(await agent.MetricsAsync(), "conn_sidecar_worker_cpu_share").Values.ShouldAllBe(cores => cores < 0.9);
    }

    private static string PageOf(PrometheusAlert alert)
    {
        var shown = $"http://127.0.0.1:{AgentProcess.Port}/runbook?alert=";
        var url = alert.Annotations["runbook_url"];
        url.ShouldStartWith(shown);
        return Path.Combine(Repository.Root, "docs", "runbook", url[shown.Length..] + ".md");
    }

    private static Dictionary<string, double> Samples(string scrape, string name) => Scrape.Samples(scrape, name);
}
