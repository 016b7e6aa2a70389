using System.Diagnostics;
using System.Globalization;
using System.Net;
using Microsoft.Extensions.Logging.Abstractions;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Endpoints;
using Sidecar.Agent.Telemetry;

namespace Sidecar.Benchmarks;

/// <summary>
/// <c>scrape</c>: what <c>/metrics</c> costs at 10,000 watched connections, inside the agent and over HTTP, and what the
/// loop pays once per scan so that a scrape costs no more with many connections than with few.
/// </summary>
internal static class ScrapeBenchmark
{
    private const int Connections = 10_000;
    private const int Rounds = 500;
    private const double BudgetMilliseconds = 1;
    private static readonly string[] Upstreams = ["orders-db", "cache", "search"];

    public static async Task<bool> RunAsync()
    {
        using var metrics = new SidecarMetrics("0.1.0", [.. Enum.GetValues<Guardrail>().Select(GuardrailNames.ToName)]);
        metrics.Declare(new SidecarConfiguration
        {
            Agent = new AgentSection(),
            Upstreams = [.. Upstreams.Select(name => new UpstreamSection { Name = name, Endpoints = [] })],
            Workers = [new WorkersSection { Name = "web" }],
            Files = [],
        });
        var snapshot = Snapshot();
        metrics.Publish(snapshot);
        metrics.Scanned(TimeSpan.FromMilliseconds(20), Connections, DateTimeOffset.UtcNow);
        var bytes = metrics.Aggregator.Scrape(ExpositionFormat.PrometheusText);
        Console.WriteLine($"""
            scrape: {Connections:N0} watched connections, {Upstreams.Length} upstreams, 64 workers: {bytes.Count(b => b == (byte)'\n'):N0} lines, {bytes.Length / 1024} KiB

            what                                          median        99 %   budget (median)
            """);

        await using var endpoint = new HttpEndpoint(
            new IPEndPoint(IPAddress.Loopback, 0),
            new HttpSources
            {
                Snapshot = () => snapshot,
                Health = () => throw new NotSupportedException(),
                Incidents = _ => [],
                Metrics = metrics.Aggregator.Scrape,
                Version = "0.1.0",
            },
            NullLoggerFactory.Instance);
        await endpoint.StartAsync();
        using var client = new HttpClient();
        var address = new Uri($"http://{endpoint.Bound}/metrics");

        var kept = await MeasureAsync("Prometheus text, inside the agent", BudgetMilliseconds, () => Done(metrics.Aggregator.Scrape(ExpositionFormat.PrometheusText)));
        kept &= await MeasureAsync("OpenMetrics, inside the agent", BudgetMilliseconds, () => Done(metrics.Aggregator.Scrape(ExpositionFormat.OpenMetrics)));
        kept &= await MeasureAsync("over HTTP, with its client", BudgetMilliseconds, () => client.GetByteArrayAsync(address));
        await MeasureAsync("the loop's part, once per scan", null, () =>
        {
            metrics.Publish(snapshot);
            return Task.CompletedTask;
        });
        return kept;
    }

    private static async Task<bool> MeasureAsync(string what, double? budget, Func<Task> action)
    {
        for (var i = 0; i < Rounds; i++)
        {
            await action();
        }

        var times = new double[Rounds];
        for (var i = 0; i < Rounds; i++)
        {
            var started = Stopwatch.GetTimestamp();
            await action();
            times[i] = Stopwatch.GetElapsedTime(started).TotalMilliseconds;
        }

        Array.Sort(times);
        var median = times[Rounds / 2];
        var kept = budget is not { } most || median < most;
        var judged = budget is { } limit ? string.Create(CultureInfo.InvariantCulture, $"   < {limit:0.0} ms {(kept ? "kept" : "MISSED")}") : "";
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{what,-40} {median,8:0.000} ms {times[Rounds * 99 / 100],8:0.000} ms{judged}"));
        return kept;
    }

    private static Task Done(byte[] bytes) => bytes.Length > 0 ? Task.CompletedTask : throw new InvalidOperationException("an empty scrape");

    private static AgentSnapshot Snapshot() => new()
    {
        Time = DateTimeOffset.UtcNow,
        Scan = 1,
        Duration = TimeSpan.FromMilliseconds(20),
        Mode = "protect",
        Connections = [.. Enumerable.Range(0, Connections).Select(i => new ConnectionStatus
        {
            Local = new IPEndPoint(IPAddress.Parse("10.0.1.2"), 20_000 + i),
            Peer = new IPEndPoint(IPAddress.Parse("10.0.2.2"), 5432),
            Pid = 1000 + (i % 64),
            Executable = "/usr/bin/uwsgi-core",
            Unit = "uwsgi.service",
            Upstream = Upstreams[i % Upstreams.Length],
            Namespace = "own",
            Idle = TimeSpan.FromSeconds(i % 300),
            Verdict = VerdictNames.All[i % VerdictNames.All.Count],
            Why = "segments moved",
            StuckFor = null,
            KeepaliveArmed = true,
            Cookie = (ulong)i,
        })],
        Upstreams = [.. Upstreams.Select(name => new UpstreamStatus
        {
            Name = name,
            Endpoint = "10.0.2.2:5432",
            PathUp = true,
            PathRoundTrip = TimeSpan.FromMilliseconds(0.8),
            IdleTimeoutLower = TimeSpan.FromSeconds(300),
            IdleTimeoutUpper = TimeSpan.FromSeconds(350),
            Advice = [],
        })],
        Workers = [.. Enumerable.Range(0, 64).Select(i => new WorkerStatus
        {
            Workers = "web",
            Index = i,
            Pid = 1000 + i,
            Connections = Connections / 64,
            RequestsInFlight = i,
            TrafficShare = 1 / 64.0,
            CpuShare = 0.123456789,
            ResidentBytes = 50_000_000 + i,
            ResidentGrowth = 1234.5678,
        })],
        Limitations = [],
    };
}
