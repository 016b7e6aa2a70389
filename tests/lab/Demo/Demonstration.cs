using System.Globalization;

namespace Sidecar.Lab.Demo;

/// <summary>
/// <c>sidecar-lab demo</c>: the same blackout three times at once, without the agent and with it, second by second, and
/// what it comes to.
/// </summary>
internal static class Demonstration
{
    /// <summary>How long one looks at the blackout without the agent.</summary>
    private const int SecondsAfter = 62;

    private const int SecondsBefore = 3;

    /// <summary>
    /// Within this time of the first unanswered send requests must flow again. The median is below 2 s; a single rescue may have
    /// to await the retransmission at 3.4 s.
    /// </summary>
    private static readonly TimeSpan Promise = TimeSpan.FromSeconds(5);

    public static async Task<int> RunAsync()
    {
        Console.WriteLine("""
            conn-sidecar: one blackout, three times at once

            Each column is a lab of its own: 4 uWSGI workers, a router, PostgreSQL. The
            router forgets connections that are idle for 10 s and tells nobody. Workers
            1 to 3 are asked twice a second; worker 4 has slept. At second 0 it is asked
            too, and its query goes into nothing. All workers share one lock around the
            database library.

              #     a request answered        x  a request answered with an error
              hung  workers, of 4, that did not answer for half a second or longer

            Building the labs and letting worker 4 sleep takes about 20 s ...

            """);
        await using var without = new DemoScenario("without the agent", null);
        await using var recycle = new DemoScenario("agent: recycle", new AgentOptions { Keepalive = false, Recycle = true });
        await using var terminate = new DemoScenario("agent: terminate", new AgentOptions { Keepalive = false, Recycle = false, Terminate = true });
        DemoScenario[] scenarios = [without, recycle, terminate];
        await Task.WhenAll(scenarios.Select(s => s.PrepareAsync()));
        await WatchAsync(scenarios);
        var kept = Summarise(without, recycle, terminate);
        if (!kept)
        {
            foreach (var scenario in scenarios.Where(s => s.AgentLog.Length > 0))
            {
                Console.Error.WriteLine($"\nlog of the agent in the column \"{scenario.Title}\":\n{scenario.AgentLog}");
            }
        }

        return kept ? 0 : 1;
    }

    private static async Task WatchAsync(DemoScenario[] scenarios)
    {
        Console.WriteLine($" second | {string.Join(" | ", scenarios.Select(s => $"{s.Title,-20}"))}");
        Console.WriteLine($"        | {string.Join(" | ", scenarios.Select(_ => $"{"answers",-15} hung"))}");
        Console.WriteLine($"--------+-{string.Join("-+-", scenarios.Select(_ => new string('-', 20)))}");
        using var timer = new PeriodicTimer(TimeSpan.FromSeconds(1));
        for (var second = -SecondsBefore; second <= SecondsAfter; second++)
        {
            await timer.WaitForNextTickAsync();
            var cells = scenarios.Select(s => s.LastSecond()).Select(c => $"{Short(c.Answers),-15} {(c.Hung == 0 ? "-" : c.Hung),4}");
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{second,7} | {string.Join(" | ", cells)}"));
            if (second == 0)
            {
                Array.ForEach(scenarios, s => s.WakeSleeper());
                Console.WriteLine("        : worker 4 is asked; its connection is forgotten");
            }
        }

        Array.ForEach(scenarios, s => s.Finish());
    }

    private static bool Summarise(DemoScenario without, DemoScenario recycle, DemoScenario terminate)
    {
        var hung = without.HungToTheEnd();
        var recycled = recycle.FlowsAgain() <= Promise && recycle.Release() is not null && recycle.Gone().Count == 0 && recycle.ServesAtTheEnd();
        var terminated = terminate.Release() is not null && terminate.Gone() is [var gone] && gone == terminate.SleeperPid
            && terminate.Respawned().Count == 1 && terminate.ServesAtTheEnd();
        Console.WriteLine($"""

            What it comes to
            ----------------
            without the agent
              {(hung ? $"All {without.WorkerCount} workers hung for the whole {SecondsAfter} s that we looked: no load, no error," : "NOT the failure that it should be: some request was answered, or worker 4 was")}
              {(hung ? "no log line. The kernel would give up after 15 minutes." : $"released after {DemoScenario.Seconds(without.Release())}.")}
            agent, recycle
              worker 4 was released {DemoScenario.Seconds(recycle.Release())} after its first unanswered send; requests
              flowed again after {DemoScenario.Seconds(recycle.FlowsAgain())}, among them {recycle.HeldUp()} that had waited.
              Processes that died: {Pids(recycle.Gone())}. What the worker's database driver raised:
              {recycle.DriverError ?? "nothing"}
            agent, terminate
              worker 4 was released {DemoScenario.Seconds(terminate.Release())} after its first unanswered send; requests
              flowed again after {DemoScenario.Seconds(terminate.FlowsAgain())}, among them {terminate.HeldUp()} that had waited.
              Processes that died: {Pids(terminate.Gone())} (worker 4 was pid {terminate.SleeperPid}); new: {Pids(terminate.Respawned())}.
              {(terminated ? $"The other {terminate.WorkerCount - 1} kept their processes and recovered." : "That is not what should have happened.")}

            {Verdict("without the agent the site is down for as long as one looks", hung)}
            {Verdict($"recycle: requests flow within {Promise.TotalSeconds} s, and no process dies", recycled)}
            {Verdict("terminate: exactly the worker that hung first is replaced", terminated)}
            """);
        return hung && recycled && terminated;
    }

    private static string Verdict(string claim, bool holds) => $"{(holds ? "[holds]" : "[FAILS]")} {claim}";

    private static string Pids(IReadOnlyList<int> pids) => pids.Count == 0 ? "none" : string.Join(", ", pids.Select(p => $"pid {p}"));

    private static string Short(string answers) => answers.Length <= 15 ? answers : $"{answers[..11]}+{answers.Length - 11}";
}
