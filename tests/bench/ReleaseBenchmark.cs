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
        Console.WriteLine($"""
            release: first unanswered send to release of the worker, keepalives off
            {Labs} labs side by side, {TrialsPerLab} blackouts in each; the router forgets after {Path.IdleTimeout.TotalSeconds} s

            what the agent knows, and does           trials    least   median     most   budget (median)
            """);
        var good = await CaseAsync("timeout unknown, recycle", 3.0, new AgentOptions { IdleTimeout = "350s", Recycle = true });
        good &= await CaseAsync("timeout unknown, terminate", 3.0, new AgentOptions
        {
            IdleTimeout = "350s",
            Recycle = false,
            Terminate = true,
            FurtherLines = ["budget = 100/h"],
        });
        good &= await CaseAsync("timeout known (10 s), recycle", 1.0, new AgentOptions { IdleTimeout = "10s", Recycle = true });
        return good;
    }

    private static async Task<bool> CaseAsync(string name, double budget, AgentOptions agent)
    {
        var trials = (await Task.WhenAll(Enumerable.Range(0, Labs).Select(_ => LabAsync(agent)))).SelectMany(t => t).Order().ToList();
        var median = trials.Count % 2 == 1 ? trials[trials.Count / 2] : (trials[(trials.Count / 2) - 1] + trials[trials.Count / 2]) / 2;
        var kept = median <= budget;
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{name,-40} {trials.Count,6} {trials[0],6:0.00} s {median,6:0.00} s {trials[^1],6:0.00} s   <= {budget:0.0} s {(kept ? "kept" : "MISSED")}"));
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
