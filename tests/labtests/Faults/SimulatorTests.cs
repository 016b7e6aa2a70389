using System.Diagnostics;
using Sidecar.Simulator;

namespace Sidecar.LabTests.Faults;

/// <summary>
/// The simulator against the real thing: the same history in both leads to the same verdicts in the same order. The lab is
/// seen by asking the agent, which may miss what stands for less than a second; it may add nothing and change no order.
/// </summary>
public sealed class SimulatorTests
{
    private static readonly TimeSpan Missable = Wait.Seconds(1.5);

    [Theory]
    [InlineData("forgotten", "stuck")]
    [InlineData("outage", "outage")]
    [InlineData("slow query", "waiting")]
    public async Task The_same_history_in_the_lab_leads_to_the_same_verdicts(string history, string verdict)
    {
        var scenario = history switch
        {
            "forgotten" => new Scenario { Requests = [At(0), At(13)], RouterForgetsAfter = Wait.Seconds(10), Length = Wait.Seconds(22) },
            "outage" => new Scenario { Requests = [At(0), At(4)], Outage = (Wait.Seconds(2), Wait.Seconds(10)), Length = Wait.Seconds(30) },
            _ => new Scenario { Requests = [At(0), At(2, 6), At(10)], Length = Wait.Seconds(13) },
        };
        var simulated = scenario.Simulate();
        simulated.Select(stood => stood.Verdict).ShouldContain(verdict, "the simulator");

        var seen = await GoThroughAsync(scenario);

        var told = $"simulator: {string.Join(", ", simulated.Select(stood => $"{stood.Verdict} {stood.For.TotalSeconds:0.0} s"))}; lab: {string.Join(", ", seen)}";
        IsPartOf(seen, [.. simulated.Select(stood => stood.Verdict)]).ShouldBeTrue(told);
        IsPartOf([.. WithoutRepetition(simulated.Where(stood => stood.For >= Missable).Select(stood => stood.Verdict))], seen).ShouldBeTrue(told);
    }

    /// <summary>The verdicts on the worker's connection in the lab, in their order.</summary>
    private static async Task<IReadOnlyList<string>> GoThroughAsync(Scenario scenario)
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { Workers = 1, IdleTimeout = scenario.RouterForgetsAfter ?? Wait.Seconds(600) });
        var agent = await lab.StartAgentAsync(FaultSteps.RecycleOnly with
        {
            Configuration = $"[agent]\nmode = observe\nlisten = none\nscan-interval = 100ms\nstate-directory = {{state}}\nruntime-directory = {{run}}\n"
                + $"[upstream:orders-db]\nendpoint = {lab.Database.EndPoint}\nkeepalive = off\nidle-timeout = none\n",
        });
        var verdicts = new List<string>();
        using var over = new CancellationTokenSource();
        var watching = Task.Run(async () =>
        {
            while (!over.IsCancellationRequested)
            {
                foreach (var connection in (await agent.StatusAsync()).Where(c => verdicts.Count == 0 || verdicts[^1] != c.Verdict))
                {
                    verdicts.Add(connection.Verdict);
                }
            }
        });

        var clock = Stopwatch.StartNew();
        var happens = scenario.Requests.Select(request => (request.At, Do: (Func<Task>)(() =>
        {
            _ = lab.Web.GetAsync(1, request.Service > TimeSpan.Zero ? $"/sleep?s={request.Service.TotalSeconds}" : "/query");
            return Task.CompletedTask;
        })));
        if (scenario.Outage is { } outage)
        {
            happens = happens.Append((outage.From, () => lab.Network.SetLinkAsync(LabLink.Database, up: false))).Append((outage.From + outage.For, () => lab.Network.SetLinkAsync(LabLink.Database, up: true)));
        }

        foreach (var (at, happen) in happens.OrderBy(what => what.At))
        {
            await Task.Delay(at > clock.Elapsed ? at - clock.Elapsed : TimeSpan.Zero);
            await happen();
        }

        await Task.Delay(scenario.Length > clock.Elapsed ? scenario.Length - clock.Elapsed : TimeSpan.Zero);
        await over.CancelAsync();
        await watching;
        return verdicts;
    }

    private static (TimeSpan At, TimeSpan Service) At(double seconds, double service = 0) => (Wait.Seconds(seconds), Wait.Seconds(service));

    private static bool IsPartOf(IReadOnlyList<string> few, IReadOnlyList<string> many)
    {
        var found = 0;
        foreach (var verdict in many)
        {
            found += found < few.Count && few[found] == verdict ? 1 : 0;
        }

        return found == few.Count;
    }

    private static IEnumerable<string> WithoutRepetition(IEnumerable<string> verdicts)
    {
        string? last = null;
        foreach (var verdict in verdicts.Where(verdict => verdict != last))
        {
            yield return last = verdict;
        }
    }
}
