namespace Sidecar.LabTests.Evidence;

/// <summary>A peer that does not read lives as long as it answers; when the router forgets it, it does not.</summary>
public sealed class ZeroWindowEvidenceTests
{
    [Fact]
    public async Task A_peer_that_did_not_read_and_was_then_forgotten_is_let_go_of()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { IdleTimeout = Wait.Seconds(600), Workers = 1 });
        var agent = await lab.StartAgentAsync(EvidenceSteps.Unprepared);
        var pid = (await lab.Web.WarmUpAsync())[0];
        await agent.SeesAsync(pid);
        var backend = (await lab.Web.GetAsync(1)).Backend.ShouldNotBeNull();
        ChildProcess.SendTo(backend, Signal.Stop);
        var upload = lab.Web.GetAsync(1, "/upload?mb=30");
        await Wait.UntilAsync("the agent says so", async () => (await agent.StatusAsync()).Single(c => c.Pid == pid).Verdict == "blocked-by-peer", Wait.Seconds(20));
        // While the peer answers it is left alone.
        await Wait.ThroughoutAsync(Wait.Seconds(10), async () => (await agent.StatusAsync()).Single(c => c.Pid == pid).Verdict.ShouldBe("blocked-by-peer"));
        upload.IsCompleted.ShouldBeFalse();
        await agent.NothingDoneAsync();

        await lab.Router.ForgetAsync();

        var ended = await Task.WhenAny(upload, Task.Delay(Patience.For(Wait.Seconds(15))));
        ended.ShouldBe(upload, await agent.StateAsync());
        (await upload).Error.ShouldNotBeNull();
        await agent.ClosedAsync(1);
    }
}
