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
            var answer = await lab.Web.GetAsync(worker).WaitAsync(Wait.Seconds(20));
            if (answer.Error is not null)
            {
                answer = await lab.Web.GetAsync(worker).WaitAsync(Wait.Seconds(20));
            }

            answer.Error.ShouldBeNull();
        }
    }

    /// <summary>The requests that waited behind the sleeper, served now.</summary>
    public static async Task WaitingRequestsAreServedAsync(this Blackout blackout, RequestRecord sleeper)
    {
        await Wait.UntilAsync("nobody waits", () => blackout.Client.HungWorkers(Wait.Seconds(2)) == 0, Wait.Seconds(20));
        var waited = blackout.Client.Requests.Where(r => r != sleeper && r.Sent > sleeper.Sent && r.Ended is not null).ToList();
        waited.ShouldNotBeEmpty();
        waited.ShouldAllBe(r => r.Outcome == RequestOutcome.Served);
    }
}
