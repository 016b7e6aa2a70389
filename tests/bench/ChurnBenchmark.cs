using System.Diagnostics;
using System.Globalization;

namespace Sidecar.Benchmarks;

/// <summary>Whether the published agent grows while connections open and close all the time.</summary>
internal static class ChurnBenchmark
{
    private const int Held = 5_000;
    private const int Rate = 1_000;
    private const int Parts = 4;

    private static readonly TimeSpan Watched = Asked.Seconds(240);

    public static async Task<bool> RunAsync()
    {
        await using var field = await Field.CreateAsync();
        await field.StartClientAsync("churn", Held, Field.WatchedPort, Rate.ToString(CultureInfo.InvariantCulture));
        using var agent = PublishedAgent.Start(field);
        await agent.WaitForAsync("conn_sidecar_keepalive_armed_connections", Held * 0.8, TimeSpan.FromSeconds(60));
        await Task.Delay(TimeSpan.FromSeconds(30)); // until the collector has found its pace
        var rows = new List<string> { "| minutes | resident memory, MB | at most, MB | of a core |", "|---|---|---|---|" };
        var parts = new List<Measured>();
        for (var part = 0; part < Parts; part++)
        {
            var cpu = agent.Cpu;
            var resident = await ResidentAsync(agent, Watched / Parts);
            var spent = (agent.Cpu - cpu) / (Watched / Parts);
            parts.Add(resident);
            rows.Add(string.Create(
                CultureInfo.InvariantCulture,
                $"| {(part * Watched / Parts).TotalMinutes:0.#}–{((part + 1) * Watched / Parts).TotalMinutes:0.#} | {resident.Text("0.0")} | {resident.Quantile(1):0.0} | {spent:P1} |"));
            Console.WriteLine(rows[^1]);
        }

        // Between two collections it rises by a few MB, so two single readings say nothing of growth: the median of a part does,
        // where it lies above nine tenths of the readings of the one before.
        var grows = parts[^1].Median >= parts[1].Quantile(0.9);
        rows.AddRange(
        [
            "",
            string.Create(CultureInfo.InvariantCulture, $"{Held:#,0} connections held, {Rate:#,0} of them closed and as many opened every second. Read once a second."),
            grows ? "Goal: no growth. Missed: the last quarter's median is above nine tenths of the second's." : "Goal: no growth between the second quarter and the last: kept.",
        ]);
        Report.Write("Churn", $"SIDECAR_BENCH_SECONDS={Watched.TotalSeconds:0} make bench TARGET=churn", rows);
        return !grows;
    }

    /// <summary>Resident memory every second, MB.</summary>
    private static async Task<Measured> ResidentAsync(PublishedAgent agent, TimeSpan time)
    {
        var readings = new List<double>();
        for (var until = Stopwatch.StartNew(); until.Elapsed < time;)
        {
            await Task.Delay(TimeSpan.FromSeconds(1));
            readings.Add(agent.Resident);
        }

        return new Measured(readings);
    }
}
