using System.Diagnostics;
using System.Globalization;

namespace Sidecar.Benchmarks;

/// <summary>What the published agent costs while nothing happens, and while connections come and go.</summary>
internal static class SteadyBenchmark
{
    private const double CpuBudget = 0.01;

    private static readonly TimeSpan Watched = TimeSpan.FromSeconds(
        int.Parse(Environment.GetEnvironmentVariable("SIDECAR_BENCH_SECONDS") ?? "60", CultureInfo.InvariantCulture));

    private static readonly int Many = int.Parse(Environment.GetEnvironmentVariable("SIDECAR_BENCH_SOCKETS")?.Split(',')[^1] ?? "200000", CultureInfo.InvariantCulture);

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
            var before = agent.Cpu;
            await Task.Delay(Watched);
            var cpu = (agent.Cpu - before) / Watched;
            Row(what, string.Create(CultureInfo.InvariantCulture, $"{cpu:P2} of a core over {Watched.TotalSeconds:0} s"), budget is { } most ? $"< {most:P0}" : "-", cpu < (budget ?? double.MaxValue));
        }

        await using (var field = await Field.CreateAsync())
        {
            await field.OpenAsync(1_000);
            await field.OpenAsync(9_000, watched: false);
            using var agent = PublishedAgent.Start(field);
            await agent.WaitForAsync("conn_sidecar_keepalive_armed_connections", 1_000, TimeSpan.FromSeconds(60));
            await Task.Delay(TimeSpan.FromSeconds(15)); // the JIT's second look at the hot code is not the steady state
            await CpuAsync(agent, "CPU, 1,000 watched among 10,000 sockets, all of them at rest", CpuBudget);

            // A new connection is a look, the search for its owner, and a second look when its keepalive is set.
            await field.StartClientAsync("churn", 2, Field.WatchedPort, "1");
            await CpuAsync(agent, "the same while one more comes and goes every second", null);
        }

        await using (var field = await Field.CreateAsync())
        {
            await field.OpenAsync(10_000);
            using (var agent = PublishedAgent.Start(field))
            {
                await agent.WaitForAsync("conn_sidecar_keepalive_armed_connections", 10_000, TimeSpan.FromSeconds(60));
                await Task.Delay(TimeSpan.FromSeconds(20));
                Row(
                    "resident memory, 10,000 watched",
                    string.Create(CultureInfo.InvariantCulture, $"{agent.Resident:0} MB (at most {agent.Peak:0} MB)"),
                    "< 60 MB",
                    agent.Resident < 60);
            }

            using (var look = await SweepBenchmark.StartAgentAsync(field))
            {
                await SweepBenchmark.WarmUpAsync(look);
                var least = double.MaxValue;
                for (var round = 0; round < 20; round++)
                {
                    least = Math.Min(least, (await look.AskAsync())[2]);
                }

                Row("allocated by a look, 10,000 watched", string.Create(CultureInfo.InvariantCulture, $"{least:#,0} B, {least / 10_000:0.#} B for each"), "0 B for each", least / 10_000 < 1);
            }
        }

        await using (var field = await Field.CreateAsync())
        {
            await field.StartClientAsync("churn", 5_000, Field.WatchedPort, "1000");
            using var agent = PublishedAgent.Start(field);
            await agent.WaitForAsync("conn_sidecar_keepalive_armed_connections", 4_000, TimeSpan.FromSeconds(60));
            await Task.Delay(TimeSpan.FromSeconds(30)); // until the collector has found its pace
            var cpu = agent.Cpu;
            var earlier = await ResidentAsync(agent);
            var later = await ResidentAsync(agent);
            var spent = (agent.Cpu - cpu) / (2 * Watched);
            Row(
                "growth with 1,000 connections closed and opened a second, 5,000 held",
                string.Create(CultureInfo.InvariantCulture, $"{earlier.Median:0.0} MB over {Watched.TotalSeconds:0} s, {later.Median:0.0} MB over the next (at most {agent.Peak:0} MB); {spent:P1} of a core"),
                "none",
                later.Median < earlier.Quantile(0.9));
        }

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

    /// <summary>
    /// Resident memory every second, MB. Between two collections it rises by a few MB, so two single readings say nothing of
    /// growth: the median of a period does, where it lies above nine tenths of the readings of the one before.
    /// </summary>
    private static async Task<Measured> ResidentAsync(PublishedAgent agent)
    {
        var readings = new List<double>();
        for (var until = Stopwatch.StartNew(); until.Elapsed < Watched;)
        {
            await Task.Delay(TimeSpan.FromSeconds(1));
            readings.Add(agent.Resident);
        }

        return new Measured(readings);
    }
}
