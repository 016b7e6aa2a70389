using System.Globalization;
using Sidecar.Lab;

namespace Sidecar.Benchmarks;

/// <summary>
/// <c>release</c>: from the first unanswered send to the release of the worker, keepalives off, over real blackouts. The
/// time is taken at the worker's client (request sent to answer or broken connection), so nothing here believes the agent.
/// </summary>
internal static class ReleaseBenchmark
{
    private const int Labs = 4;
    private const int TrialsPerLab = 3;
    private static readonly TimeSpan NeverHung = TimeSpan.FromMilliseconds(100);
    private static readonly LabOptions Path = new() { IdleTimeout = TimeSpan.FromSeconds(10) };

    public static async Task<bool> RunAsync()
    {
        var rows = new List<string> { "| what the agent knows, and does | trials | least, s | median, s | most, s | goal for the median |", "|---|---|---|---|---|---|" };
        var good = true;
        foreach (var (name, budget, agent) in Cases)
        {
            good &= await CaseAsync(rows, name, budget, agent);
        }

        rows.AddRange(
        [
            "",
            string.Create(
                CultureInfo.InvariantCulture,
                $"uWSGI workers on PostgreSQL, keepalives off; the router forgets after {Path.IdleTimeout.TotalSeconds} s. {Labs} labs side by side, {TrialsPerLab} blackouts in each,"),
            "from the request that hangs to its answer or its broken connection, seen by the web client. Without the agent: 924 s.",
        ]);
        Report.Write("Release", "make bench TARGET=release", rows);
        return good;
    }

    private static readonly (string Name, double Budget, AgentOptions Agent)[] Cases =
    [
        ("timeout unknown, recycle", 3.0, new AgentOptions { IdleTimeout = "350s", Recycle = true }),
        ("timeout unknown, terminate", 3.0, new AgentOptions { IdleTimeout = "350s", Recycle = false, Terminate = true, FurtherLines = ["budget = 100/h"] }),
        ("timeout known, recycle", 1.0, new AgentOptions { IdleTimeout = "10s", Recycle = true }),
    ];

    private static async Task<bool> CaseAsync(List<string> rows, string name, double budget, AgentOptions agent)
    {
        var trials = new Measured((await Task.WhenAll(Enumerable.Range(0, Labs).Select(_ => LabAsync(agent)))).SelectMany(t => t));
        var kept = trials.Median <= budget;
        rows.Add(string.Create(
            CultureInfo.InvariantCulture,
            $"| {name} | {trials.Runs} | {trials.Quantile(0):0.00} | {trials.Median:0.00} | {trials.Quantile(1):0.00} | ≤ {budget:0} s{(kept ? "" : ", missed")} |"));
        Console.WriteLine(rows[^1]);
        return kept;
    }

    private static async Task<List<double>> LabAsync(AgentOptions options)
    {
        await using var blackout = await Blackout.PrepareAsync(Path, options);
        var seconds = new List<double>();
        while (true)
        {
            // The agent looks once a second; a blackout may begin at any time in between.
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
