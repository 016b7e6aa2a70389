using System.Text.Json;

namespace Sidecar.LabTests.Faults;

/// <summary>
/// An agent that is killed by SIGKILL at each step between deciding and recording. The next one finds a consistent story,
/// finishes what is unfinished, and does nothing twice.
/// </summary>
public sealed class RecycleCrashTests
{
    /// <summary>Each system call between the decision to recycle and the record of what came of it, before it and after it.</summary>
    private static readonly string[] Steps =
    [
        "write/\"outcome\":\"pending\"/kill-before",
        "write/\"outcome\":\"pending\"/kill-after",
        "netlink/21/kill-before",
        "netlink/21/kill-after",
        "write/\"outcome\":\"released\"/kill-before",
        "write/\"outcome\":\"released\"/kill-after",
    ];

    [Fact]
    public async Task Killed_at_any_step_of_a_recycle_the_next_agent_tells_one_story_and_closes_nothing_twice()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { IdleTimeout = Wait.Seconds(600), Workers = 1 });
        var worker = (await lab.Web.WarmUpAsync()).Single();
        foreach (var step in Steps)
        {
            var (killed, story) = await CrashRounds.RunAsync(lab, step, FaultSteps.RecycleOnly);

            var actions = story.Where(i => i is { Remedy: "recycle", WithheldBy: null }).ToList();
            actions.ShouldNotContain(i => i.Outcome == "pending", step);
            actions.Count(i => i.Outcome == "released").ShouldBeLessThanOrEqualTo(1, step);
            switch (step)
            {
                case var _ when step.Contains("pending") && step.EndsWith("before", StringComparison.Ordinal):
                    // Nothing was on record and nothing was done: the next agent's story is the whole of it.
                    killed.ShouldBeEmpty();
                    actions.Select(i => i.Outcome).ShouldBe(["released"], step);
                    break;
                case var _ when step.Contains("pending") || step == "netlink/21/kill-before":
                    // On record and not done: closed as interrupted, and done by the next.
                    actions.Select(i => i.Outcome).ShouldBe(["interrupted", "released"], step);
                    break;
                case var _ when step.EndsWith("released\"/kill-after", StringComparison.Ordinal):
                    actions.Select(i => i.Outcome).ShouldBe(["released"], step);
                    break;
                default:
                    // Done and not on record as done: not done again.
                    actions.Select(i => i.Outcome).ShouldBe(["interrupted"], step);
                    break;
            }

            lab.Web.Workers().Select(w => w.Pid).ShouldBe([worker], step);
        }
    }
}

/// <summary>The same for a termination.</summary>
public sealed class TerminateCrashTests
{
    private static readonly string[] Steps =
    [
        "write/\"outcome\":\"pending\"/kill-after",
        "signal/15/kill-before",
        "signal/15/kill-after",
        "write/\"outcome\":\"exited\"/kill-before",
    ];

    [Fact]
    public async Task Killed_at_any_step_of_a_termination_the_next_agent_ends_no_second_worker()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { IdleTimeout = Wait.Seconds(600), Workers = 1 });
        foreach (var step in Steps)
        {
            var before = lab.Web.Workers();
            var (_, story) = await CrashRounds.RunAsync(lab, step, CrashRounds.TerminateOnly);

            var actions = story.Where(i => i is { Remedy: "terminate", WithheldBy: null }).ToList();
            actions.ShouldNotContain(i => i.Outcome == "pending", step);
            actions.Select(i => i.Outcome).ShouldBe(
                step.StartsWith("signal/15/kill-after", StringComparison.Ordinal) || step.Contains("exited") ? ["interrupted"] : ["interrupted", "exited"], step);
            actions.Select(i => i.Pid).Distinct().Count().ShouldBe(1, step);

            // Exactly the one that hung is gone.
            await Wait.UntilAsync("the master respawns it", () => lab.Web.Workers().Count == 1, Wait.Seconds(10));
            before.Except(lab.Web.Workers()).Select(w => (int?)w.Pid).ShouldBe([actions[0].Pid], step);
        }
    }

    [Fact]
    public async Task What_an_interrupted_termination_cost_counts_against_the_budget()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { IdleTimeout = Wait.Seconds(600), Workers = 1 });
        var worker = (await lab.Web.WarmUpAsync()).Single();
        var (_, story) = await CrashRounds.RunAsync(lab, "signal/15/kill-before", CrashRounds.TerminateOnly with { FurtherLines = ["budget = 1/h"] }, isFreed: false);

        story.ShouldContain(i => i.WithheldBy == "budget");
        lab.Web.Workers().Select(w => w.Pid).ShouldBe([worker]);
    }
}

/// <summary>One agent that is killed at a step, and the one after it.</summary>
internal static class CrashRounds
{
    internal static AgentOptions TerminateOnly { get; } = BlackoutAssertions.TerminateOnly with { IdleTimeout = "measure" };

    /// <summary>Lets a connection be forgotten under an agent that dies at the step, and another agent take over.</summary>
    /// <returns>The incidents that the dead agent left, and those at the end.</returns>
    internal static async Task<(IReadOnlyList<string> Left, IReadOnlyList<AgentIncident> Story)> RunAsync(TestLab lab, string step, AgentOptions options, bool isFreed = true)
    {
        var pids = await lab.Web.WarmUpAsync();

        // Armed late: the agent destroys a connection of its own at its start, to see whether it can.
        var armed = Path.Combine(lab.Directory, $"armed-{Guid.NewGuid():N}");
        var first = await lab.StartAgentAsync(options with { Starter = await Interruption.StarterAsync(armed, step) });
        await first.SeesAsync(pids[^1]);
        await File.WriteAllTextAsync(armed, "");

        var request = await lab.AskOnForgottenAsync();
        (await first.Process.WaitForExitAsync(Wait.Seconds(60))).ShouldBe(128 + (int)Signal.Kill, $"{step}\n{first.Process.Output}");
        var file = Path.Combine(first.StateDirectory, "incidents.jsonl");
        IReadOnlyList<string> left = File.Exists(file) ? await File.ReadAllLinesAsync(file) : [];
        left.ShouldAllBe(line => IsObject(line), "no half line is left");

        var second = await lab.StartAgentAsync(options with { StateDirectory = first.StateDirectory });
        if (isFreed)
        {
            await second.FreesAsync(request);
        }
        else
        {
            await second.WaitForIncidentAsync(i => i.WithheldBy is not null, Wait.Seconds(60));
            request.IsCompleted.ShouldBeFalse();
        }

        await Wait.UntilAsync("nothing is pending", async () => !(await second.IncidentsAsync()).Any(i => i.Outcome == "pending"), Wait.Seconds(15));

        // Whatever it would do twice it would do now.
        await Wait.ThroughoutAsync(Wait.Seconds(3), () => second.Process.HasExited.ShouldBeFalse());
        var story = await second.IncidentsAsync();
        second.Process.Stop(Signal.Terminate);
        return (left, story);
    }

    private static bool IsObject(string line)
    {
        using var json = JsonDocument.Parse(line);
        return json.RootElement.ValueKind == JsonValueKind.Object;
    }
}
