using System.Globalization;
using System.Net;
using Sidecar.Lab;

namespace Sidecar.Benchmarks;

/// <summary>
/// <c>prevention</c>: connections that rest longer than the router remembers and are then used, with keepalives off in the
/// application. A use that is not served within seconds hung.
/// </summary>
internal static class PreventionBenchmark
{
    private const int Workers = 25;
    private const int Periods = 4;
    private static readonly TimeSpan Rest = TimeSpan.FromSeconds(15);
    private static readonly TimeSpan Hung = TimeSpan.FromSeconds(5);

    public static async Task<bool> RunAsync()
    {
        var with = await RunAsync(new AgentOptions { Keepalive = true, IdleTimeout = "10s" }, Periods);

        // Who hangs once hangs for a quarter of an hour, so there is one period.
        var without = await RunAsync(null, 1);
        Report.Write("Prevention", "make bench TARGET=prevention",
        [
            $"Idle periods of {Rest.TotalSeconds.ToString(CultureInfo.InvariantCulture)} s over a router that forgets after 10 s; uWSGI workers with psycopg2, keepalives off in the application.",
            "",
            "| | idle periods | hung | failed | longest of those served |",
            "|---|---|---|---|---|",
            Row("with the agent, keepalive on", with),
            Row("without the agent", without),
            "",
            $"Budget: none hung or failed with the agent: {(with is { HungCount: 0, Failed: 0 } ? "kept" : "MISSED")}.",
        ]);
        return with is { HungCount: 0, Failed: 0 } && without.HungCount == Workers;
    }

    private static async Task<Counted> RunAsync(AgentOptions? agent, int periods)
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { Workers = Workers });
        if (agent is not null)
        {
            await lab.StartAgentAsync(agent);
        }

        await lab.Web.WarmUpAsync();
        var all = new Counted(0, 0, 0, TimeSpan.Zero);
        for (var period = 0; period < periods; period++)
        {
            await Task.Delay(Rest);
            foreach (var use in await Task.WhenAll(Enumerable.Range(1, Workers).Select(worker => UseAsync(lab, worker))))
            {
                all = new Counted(all.Uses + 1, all.HungCount + use.HungCount, all.Failed + use.Failed, use.Longest > all.Longest ? use.Longest : all.Longest);
            }
        }

        return all;
    }

    private static async Task<Counted> UseAsync(TestLab lab, int worker)
    {
        var started = System.Diagnostics.Stopwatch.GetTimestamp();
        try
        {
            var answer = await lab.Web.GetAsync(worker, "/sleep?s=0").WaitAsync(Hung);
            return answer.Status == HttpStatusCode.OK
                ? new Counted(1, 0, 0, System.Diagnostics.Stopwatch.GetElapsedTime(started))
                : new Counted(1, 0, 1, TimeSpan.Zero);
        }
        catch (TimeoutException)
        {
            return new Counted(1, 1, 0, TimeSpan.Zero);
        }
    }

    private static string Row(string name, Counted counted) => string.Create(CultureInfo.InvariantCulture,
        $"| {name} | {counted.Uses} | {counted.HungCount} | {counted.Failed} | {(counted.Longest > TimeSpan.Zero ? $"{counted.Longest.TotalMilliseconds:0} ms" : "-")} |");

    private readonly record struct Counted(int Uses, int HungCount, int Failed, TimeSpan Longest);
}
