using System.Globalization;
using Sidecar.Lab;

namespace Sidecar.Benchmarks;

/// <summary>
/// <c>release</c>: from the first unanswered send to the release of the worker, keepalives off, over real blackouts. The
/// time is taken at the worker's client (request sent to answer or broken connection), so nothing here believes the agent. And
/// after a router that has lost its table, or was away: from the loss, or from when the path is up.
/// </summary>
internal static class ReleaseBenchmark
{
    private const int Labs = 4;
    private const int TrialsPerLab = 3;
    private static readonly TimeSpan NeverHung = TimeSpan.FromMilliseconds(100);
    private static readonly LabOptions Path = new() { IdleTimeout = TimeSpan.FromSeconds(10) };

    public static async Task<bool> RunAsync()
    {
        var rows = new List<string> { "| what happens, or what the agent knows | times | least, s | median, s | p99, s | most, s | goal | without the agent, s |", "|---|---|---|---|---|---|---|---|" };
        var good = true;
        foreach (var (name, budget, agent) in Cases)
        {
            var trials = new Measured((await Task.WhenAll(Enumerable.Range(0, Labs).Select(_ => LabAsync(agent)))).SelectMany(t => t));
            good &= Add(rows, name, trials, budget, null, KernelGivesUp);
        }

        good &= Add(rows, "ten busy connections, table lost", await AwayBenchmark.BusyTrialsAsync(10), 2.5, 4, KernelGivesUp);
        foreach (var away in new[] { 2, 10 })
        {
            good &= Add(rows, Text(away, "without its table"), await AwayBenchmark.TrialsAsync(TimeSpan.FromSeconds(away), withTable: false), 3, 6, KernelGivesUp);
        }

        foreach (var away in new[] { 2, 10 })
        {
            var length = TimeSpan.FromSeconds(away);
            var alone = await AwayBenchmark.TrialsAsync(length, withTable: true, withAgent: false);
            var without = string.Create(CultureInfo.InvariantCulture, $"{alone.Median:0.00}, most {alone.Quantile(1):0.00}");
            good &= Add(rows, Text(away, "with its table: live ones go on"), await AwayBenchmark.TrialsAsync(length, withTable: true), 0.5, null, without);
        }

        rows.AddRange(
        [
            "",
            string.Create(
                CultureInfo.InvariantCulture,
                $"uWSGI workers on PostgreSQL, keepalives off; the router forgets after {Path.IdleTimeout.TotalSeconds} s. {Labs} labs side by side, {TrialsPerLab} blackouts in each,"),
            "from the request that hangs to its answer or its broken connection, seen by the web client. Below: clients of PostgreSQL that had rested or were busy, the",
            "time taken by themselves from the loss of the table, or from when the path is up. 924 s is what tcp_retries2 gives; what goes on is measured without the agent, too.",
        ]);
        Report.Write("Release", "make bench TARGET=release", rows);
        return good;
    }

    private const string KernelGivesUp = "924";

    private static readonly (string Name, double Budget, AgentOptions Agent)[] Cases =
    [
        ("timeout unknown, recycle", 1.0, new AgentOptions { IdleTimeout = "350s", Recycle = true, NetworkNamespaces = "own" }),
        ("timeout unknown, terminate", 1.0, new AgentOptions { IdleTimeout = "350s", Recycle = false, Terminate = true, NetworkNamespaces = "own", FurtherLines = ["budget = 100/h"] }),
        ("timeout known, recycle", 0.6, new AgentOptions { IdleTimeout = "10s", Recycle = true, NetworkNamespaces = "own" }),
    ];

    private static string Text(int away, string how) => string.Create(CultureInfo.InvariantCulture, $"router away {away} s, back {how}");

    private static bool Add(List<string> rows, string name, Measured trials, double median, double? p99, string without)
    {
        var kept = trials.Median <= median && !(trials.Quantile(0.99) > p99);
        rows.Add(string.Create(
            CultureInfo.InvariantCulture,
            $"| {name} | {trials.Runs} | {trials.Quantile(0):0.00} | {trials.Median:0.00} | {trials.Quantile(0.99):0.00} | {trials.Quantile(1):0.00} | ≤ {median} s{(p99 is null ? "" : $", p99 ≤ {p99} s")}{(kept ? "" : ", missed")} | {without} |"));
        Console.WriteLine(rows[^1]);
        return kept;
    }

    private static async Task<List<double>> LabAsync(AgentOptions options)
    {
        await using var blackout = await Blackout.PrepareAsync(Path, options);
        var seconds = new List<double>();
        while (true)
        {
            // The agent scans once a second; a blackout may begin at any time in between.
            await Task.Delay(Random.Shared.Next(1000));
            var sleeper = blackout.Client.WakeSleeper();
            if (!await SteadyClient.EndsWithinAsync(sleeper, TimeSpan.FromSeconds(120)) || sleeper.Outcome == RequestOutcome.Served)
            {
                throw new InvalidOperationException($"{sleeper.Outcome} after {sleeper.Latency}\n{blackout.Agent?.Process.Output}");
            }

            // An agent that knows the timeout may have closed the connection before it was used: no send, no trial.
            if (sleeper.Latency > NeverHung)
            {
                seconds.Add(sleeper.Latency.Value.TotalSeconds);
            }

            if (seconds.Count == TrialsPerLab)
            {
                return seconds;
            }

            // The worker, or the one in its place, connects again and sleeps again.
            var pid = (await blackout.Lab.Web.GetAsync(blackout.Lab.Web.WorkerCount)).Pid;
            await Blackout.WaitUntilForgottenAsync(blackout.Lab, pid);
        }
    }
}
