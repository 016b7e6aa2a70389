using System.Globalization;

namespace Sidecar.Benchmarks;

/// <summary>What finding the owners of sockets adds to a scan, with 2,000 processes that hold one each.</summary>
internal static class OwnersBenchmark
{
    private const int Processes = 2_000;
    private const double Budget = 0.05;

    public static async Task<bool> RunAsync()
    {
        var sockets = Asked.Sockets(200_000)[^1];
        await using var field = await Field.CreateAsync();
        await field.StartProcessesAsync(Processes);
        await field.OpenAsync(sockets);
        using var agent = await SweepBenchmark.StartAgentAsync(field);
        await SweepBenchmark.WarmUpAsync(agent);
        var (shares, walks) = (new List<double>(), new List<double>());
        for (var round = 0; round < 15; round++)
        {
            var scan = await agent.AskAsync();
            shares.Add((double)scan[4] / scan[0]);
        }

        // What it would be to look for them anew each time.
        for (var round = 0; round < 3; round++)
        {
            walks.Add((await field.TimeAsync("for d in /proc/[0-9]*; do ls -l $d/fd; done > /dev/null 2>&1")).TotalMilliseconds);
        }

        var share = new Measured(shares);
        Report.Write("Owners", "make bench TARGET=owners",
        [
            "| processes | sockets | share of a scan | goal |",
            "|---|---|---|---|",
            string.Create(CultureInfo.InvariantCulture, $"| {Processes:#,0} | {sockets + Processes:#,0} | {share.Median:P1} ({share.Quantile(0.25):P1}–{share.Quantile(0.75):P1}) | ≤ 5 % |"),
            "",
            "Owners are searched for once, among the processes that are known to hold watched connections first; a scan asks only for",
            string.Create(CultureInfo.InvariantCulture, $"those of new sockets. A shell's walk over all descriptors takes {new Measured(walks).Median:0} ms here."),
        ]);
        return share.Median <= Budget;
    }
}
