using System.Globalization;

namespace Sidecar.Benchmarks;

/// <summary>What the published agent costs while nothing, or little, happens.</summary>
internal static class SteadyBenchmark
{
    private const double CpuBudget = 0.01;

    /// <summary>The JIT's second scan of the hot code is not the steady state.</summary>
    private static readonly TimeSpan Settled = TimeSpan.FromSeconds(60);

    private static readonly TimeSpan Watched = Asked.Seconds(60);

    private static readonly int Many = Asked.Sockets(200_000)[^1];

    public static async Task<bool> RunAsync()
    {
        var rows = new List<string> { "| what | measured | goal |", "|---|---|---|" };
        var within = true;

        void Row(string what, string measured, string goal, bool isWithin)
        {
            within &= isWithin;
            rows.Add($"| {what} | {measured} | {goal}{(isWithin ? "" : ", missed")} |");
            Console.WriteLine(rows[^1]);
        }

        async Task CpuAsync(PublishedAgent agent, string what, double? budget)
        {
            const string scans = "conn_sidecar_scan_duration_seconds_count";
            var scanned = await agent.MetricAsync(scans);
            var before = agent.Cpu;
            await Task.Delay(Watched);
            var cpu = (agent.Cpu - before) / Watched;
            scanned = await agent.MetricAsync(scans) - scanned;
            Row(what, string.Create(CultureInfo.InvariantCulture, $"{cpu:P2} of a core over {Watched.TotalSeconds:0} s, {scanned:0} scans"), budget is { } most ? $"< {most:P0}" : "-", cpu < (budget ?? double.MaxValue));
        }

        await using (var field = await Field.CreateAsync())
        {
            await field.OpenAsync(1_000);
            await field.OpenAsync(9_000, watched: false);
            using var agent = PublishedAgent.Start(field);
            await agent.WaitForAsync("conn_sidecar_keepalive_armed_connections", 1_000, TimeSpan.FromSeconds(60));
            await Task.Delay(Settled);
            await CpuAsync(agent, "CPU, 1,000 watched among 10,000 sockets, all of them at rest", CpuBudget);

            // A new connection is a scan, the search for its owner, and a second scan when its keepalive is set.
            await field.StartClientAsync("churn", 2, Field.WatchedPort, "1");
            await CpuAsync(agent, "the same while one more comes and goes every second", null);
        }

        await using (var field = await Field.CreateAsync())
        {
            // A host in use: no scan is put off.
            await field.UseAsync(1_000, TimeSpan.FromSeconds(5));
            await field.OpenAsync(9_000, watched: false);
            using var agent = PublishedAgent.Start(field);
            await agent.WaitForAsync("conn_sidecar_keepalive_armed_connections", 1_000, TimeSpan.FromSeconds(60));
            await Task.Delay(Settled);
            await CpuAsync(agent, "CPU, 1,000 watched among 10,000 sockets, each of the watched used every 5 s", CpuBudget);
        }

        await using (var field = await Field.CreateAsync())
        {
            await field.OpenAsync(10_000);
            using var agent = PublishedAgent.Start(field);
            await agent.WaitForAsync("conn_sidecar_keepalive_armed_connections", 10_000, TimeSpan.FromSeconds(60));
            await Task.Delay(TimeSpan.FromSeconds(20));
            Row(
                "resident memory, 10,000 watched",
                string.Create(CultureInfo.InvariantCulture, $"{agent.Resident:0} MB (at most {agent.Peak:0} MB)"),
                "< 60 MB",
                agent.Resident < 60);
        }

        var few = await AllocatedAsync(1_000);
        var many = await AllocatedAsync(10_000);
        Row(
            "allocated by a scan, by the memory diagnoser",
            string.Create(CultureInfo.InvariantCulture, $"{few:#,0} B with 1,000 watched, {many:#,0} B with 10,000: {Math.Max(0, many - few) / 9_000.0:0.00} B for each more"),
            "0 B for each",
            many - few < 90);

        await using (var field = await Field.CreateAsync())
        {
            await field.OpenAsync(Many);
            using var agent = PublishedAgent.Start(field);
            await agent.WaitForAsync("conn_sidecar_keepalive_armed_connections", Many * 0.99, TimeSpan.FromMinutes(5));
            await Task.Delay(TimeSpan.FromSeconds(30));
            Row(
                string.Create(CultureInfo.InvariantCulture, $"resident memory, {Many:#,0} watched"),
                string.Create(CultureInfo.InvariantCulture, $"{agent.Resident:0} MB (at most {agent.Peak:0} MB)"),
                "< 150 MB",
                agent.Resident < 150);
        }

        Report.Write("Steady cost", "make bench TARGET=steady", rows);
        return within;
    }

    private static async Task<long> AllocatedAsync(int watched)
    {
        await using var field = await Field.CreateAsync();
        await field.OpenAsync(watched);
        using var agent = await SweepBenchmark.StartAgentAsync(field);
        await SweepBenchmark.WarmUpAsync(agent);
        return (await agent.AskAsync("allocation"))[0];
    }
}
