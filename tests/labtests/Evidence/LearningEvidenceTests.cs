namespace Sidecar.LabTests.Evidence;

/// <summary>What ends connections in use together with resting ones says nothing about idling.</summary>
public sealed class LearningEvidenceTests
{
    [Theory]
    [InlineData("answers with RST")]
    [InlineData("answers nothing")]
    public async Task A_failover_is_not_learnt_as_an_idle_timeout(string successor)
    {
        await using var lab = await TestLab.StartAsync(BystanderSteps.PatientRouter);
        var agent = await lab.StartAgentAsync(BystanderSteps.Terminating(recycle: true, "uwsgi-core"));
        var pids = await lab.Web.WarmUpAsync();
        await agent.SeesAsync(pids[3]);
        await using (new Neighbours(lab, 1, 2, 3))
        {
            await Task.Delay(Wait.Seconds(14));
            await lab.Router.SetServerAwayAsync(true);
            if (successor == "answers nothing")
            {
                await lab.Router.ForgetAsync();
            }
            else
            {
                // The new server's kernel knows none of the old connections; what ss -K sends on the way out is lost.
                await lab.Network.Database.RunAsync(["nft", "-f", "-"], "table inet reboot {\n chain output {\n type filter hook output priority filter; policy drop;\n }\n}\n");
                await lab.Network.Database.TryRunAsync(["ss", "-tK", "sport", "=", $"{Database.Port}"]);
                await lab.Network.Database.RunAsync(["nft", "delete", "table", "inet", "reboot"]);
            }

            await Task.Delay(Wait.Seconds(2));
            await lab.Router.SetServerAwayAsync(false);
            var resting = lab.Web.GetAsync(4, "/sleep?s=0");
            (await resting.WaitAsync(Patience.For(Wait.Seconds(30)))).Error.ShouldNotBeNull(agent.Process.Output);
            await Wait.UntilAsync("all have moved", async () => (await lab.DatabaseSocketsAsync()).Count(s => s.State == "ESTAB") >= 3, Wait.Seconds(30));

            await Wait.ThroughoutAsync(Wait.Seconds(8), async () =>
            {
                var (upper, text) = await agent.PathAsync();
                upper.ShouldBeNull(text);
                text.ShouldNotContain("data-only");
                (await agent.MetricsAsync()).ShouldNotContain("conn_sidecar_path_idle_timeout_seconds{upstream=\"orders-db\",bound=\"upper\"}");
            });
        }

        await agent.NobodySignalledAsync(pids);
    }
}
