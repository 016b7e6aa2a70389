namespace Sidecar.LabTests.Faults;

/// <summary>
/// A worker that the agent has decided to end exits by itself, and another process has its pid when the signal is sent.
/// The agent is stopped before the call in question, and the pid is taken by clone3(2) with set_tid.
/// </summary>
public sealed class PidReuseTests
{
    [Fact]
    public async Task Who_takes_the_pid_of_a_worker_that_was_to_be_ended_gets_no_signal()
    {
        const string when = "before SIGTERM";
        await using var lab = await TestLab.StartAsync(FaultSteps.OneWorker);
        var worker = (await lab.Web.WarmUpAsync()).Single();
        var armed = Path.Combine(lab.Directory, "armed");

        // An agent that signalled by pid would be stopped too, and then hit the wrong one.
        string[] rules = ["signal/15/hold", "kill/15/hold"];
        var agent = await lab.StartAgentAsync(CrashRounds.TerminateOnly with { Starter = await Interruption.StarterAsync(armed, rules) });
        await agent.SeesAsync(worker);
        await File.WriteAllTextAsync(armed, "");

        var request = await lab.AskOnForgottenAsync();

        await agent.Process.WaitForLineAsync(line => line.StartsWith("interrupt: ", StringComparison.Ordinal), Wait.Seconds(60));
        ChildProcess.SendTo(worker, Signal.Kill);
        using var other = await Interruption.TakePidAsync(worker);
        File.Delete(armed);

        var incident = await agent.WaitForIncidentAsync(i => i is { Remedy: "terminate", WithheldBy: null, Outcome: not "pending" }, Wait.Seconds(30));
        incident.Pid.ShouldBe(worker, when);
        incident.Outcome.ShouldBe("vanished", when);
        await Wait.ThroughoutAsync(Wait.Seconds(3), () => other.HasExited.ShouldBeFalse($"{when}: {other.Output}"));
        (await agent.IncidentsAsync()).Count(i => i is { Remedy: "terminate", WithheldBy: null }).ShouldBe(1);
        await request.ContinueWith(_ => { }, TaskScheduler.Default).WaitAsync(Patience.For(Wait.Seconds(30)));
    }
}
