namespace Sidecar.LabTests;

/// <summary>What is asserted about a lab in more than one test.</summary>
internal static class BlackoutAssertions
{
    /// <summary>All remedies allowed but the keepalive, which would hide what is tested.</summary>
    public static AgentOptions EverythingAllowed { get; } = new() { Keepalive = false, Recycle = true, Terminate = true };

    public static AgentOptions TerminateOnly { get; } = new() { Keepalive = false, Recycle = false, Terminate = true };

    public static AgentProcess RequireAgent(this Blackout blackout) => blackout.Agent ?? throw new InvalidOperationException("this blackout has no agent");

    /// <summary>No worker process has ended or is new.</summary>
    public static void NoWorkerDied(this Blackout blackout) => blackout.Lab.Web.Workers().ShouldBe(blackout.WorkersBefore);

    /// <summary>Inodes of the workers' own database connections; the agent's fresh connections are none of them.</summary>
    public static async Task<IReadOnlyList<ulong>> WorkerSocketsAsync(this TestLab lab)
    {
        var workers = lab.Web.Workers().Select(w => (int?)w.Pid).ToHashSet();
        return [.. (await lab.DatabaseSocketsAsync()).Where(s => workers.Contains(s.Pid)).Select(s => s.Inode).Order()];
    }

    /// <summary>Waits until the running agent shows a connection of this process.</summary>
    public static Task SeesAsync(this AgentProcess agent, int pid) =>
        Wait.UntilAsync($"the agent sees {pid}", async () => (await agent.StatusAsync()).Any(c => c.Pid == pid), Wait.Seconds(10));

    /// <summary>Nothing was recycled or terminated; what was withheld does not count.</summary>
    public static async Task NothingDoneAsync(this AgentProcess agent)
    {
        var done = (await agent.IncidentsAsync()).Where(i => i.Remedy is "recycle" or "terminate" && i.WithheldBy is null);
        done.Select(i => i.Raw).ShouldBeEmpty();
    }

    /// <summary>All workers answer: an error of a connection that the blackout cost is allowed for once, hanging is not.</summary>
    public static async Task EveryWorkerAnswersAsync(this TestLab lab)
    {
        for (var worker = 1; worker <= lab.Web.WorkerCount; worker++)
        {
            var answer = await lab.Web.GetAsync(worker).WaitAsync(Patience.For(Wait.Seconds(20)));
            if (answer.Error is not null)
            {
                answer = await lab.Web.GetAsync(worker).WaitAsync(Patience.For(Wait.Seconds(20)));
            }

            answer.Error.ShouldBeNull();
        }
    }

    /// <summary>The requests that waited behind the sleeper, served now.</summary>
    public static async Task WaitingRequestsAreServedAsync(this Blackout blackout, RequestRecord sleeper)
    {
        await Wait.UntilAsync("requests flow", () => blackout.Client.Requests.Any(r => r.Sent > sleeper.Ended && r.Ended is not null), Wait.Seconds(10));
        await Wait.UntilAsync("nobody waits", () => blackout.Client.HungWorkers(Wait.Seconds(2)) == 0, Wait.Seconds(20));
        blackout.Client.Requests.Where(r => r != sleeper && r.Sent > sleeper.Sent && r.Ended is not null)
            .ShouldAllBe(r => r.Outcome == RequestOutcome.Served);
    }
}
