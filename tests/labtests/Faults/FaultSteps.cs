namespace Sidecar.LabTests.Faults;

/// <summary>What the tests of faults have in common: one connection is forgotten under the agent, and its worker freed.</summary>
internal static class FaultSteps
{
    /// <summary>
    /// One worker, and a router that forgets only when it is told to.
    /// </summary>
    internal static LabOptions OneWorker { get; } = new() { IdleTimeout = Wait.Seconds(600), Workers = 1 };

    // What the path forgets after is not known, so that a rest of some seconds and a few timeouts are enough evidence.
    internal static AgentOptions RecycleOnly { get; } = new() { Keepalive = false, Recycle = true, WorkersExecutable = null, IdleTimeout = "measure" };

    /// <summary>Makes the router forget all connections after a rest, and asks the last worker, which then hangs.</summary>
    internal static async Task<Task<ApplicationAnswer>> AskOnForgottenAsync(this TestLab lab)
    {
        // The evidence that condemns soon is a rest before the send.
        await Task.Delay(Wait.Seconds(6));
        await lab.Router.ForgetAsync();
        return lab.Web.GetAsync(lab.Web.WorkerCount);
    }

    /// <summary>Waits until the request has come to an end: answered with an error of its connection, or ended with its worker.</summary>
    internal static async Task FreesAsync(this AgentProcess agent, Task<ApplicationAnswer> request)
    {
        var ended = await Task.WhenAny(request, Task.Delay(Patience.For(Wait.Seconds(30))));
        ended.ShouldBe(request, $"the worker hangs; the agent's log:\n{agent.Process.Output}");
        await request.ContinueWith(_ => { }, TaskScheduler.Default);
    }

    /// <summary>Waits for the full length of a hang in which nothing comes of it.</summary>
    internal static async Task StaysHungAsync(this AgentProcess agent, Task<ApplicationAnswer> request, TimeSpan time)
    {
        await Wait.ThroughoutAsync(time, () =>
        {
            request.IsCompleted.ShouldBeFalse(request.IsCompletedSuccessfully ? $"{request.Result}\n{agent.Process.Output}" : request.Exception?.Message);
            agent.Process.HasExited.ShouldBeFalse(agent.Process.Output);
        });
    }

    /// <summary>CPU time that a process has used.</summary>
    internal static TimeSpan CpuOf(int pid)
    {
        using var process = System.Diagnostics.Process.GetProcessById(pid);
        return process.TotalProcessorTime;
    }
}
