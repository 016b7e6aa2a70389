using Sidecar.LabTests.Prevention;

namespace Sidecar.LabTests.Evidence;

/// <summary>
/// The query has reached the server, and the router forgets while the server works. The answer is lost, nothing is
/// unacknowledged, and the worker waits for ever.
/// </summary>
public sealed class LostAnswerEvidenceTests
{
    [Fact]
    public async Task Where_a_keepalive_goes_unanswered_the_worker_is_freed()
    {
        await using var lab = await TestLab.StartAsync(EvidenceSteps.NoWorkers);
        // A keepalive goes out five seconds after the last segment.
        var agent = await lab.StartAgentAsync(EvidenceSteps.Unprepared with { Keepalive = true, IdleTimeout = "10s" });
        var clients = await DatabaseClients.RestingAsync(lab, 2, "SELECT pg_sleep(8)");
        await lab.ArmedAsync(lab.Database.EndPoint, 2);

        var lost = await LoseAsync(lab, clients);

        (await clients.FreedAsync(lost, Wait.Seconds(5 + 10), agent)).ShouldAllBe(u => u.Error != null);
        await agent.ClosedAsync(2);
    }

    [Fact]
    public async Task With_keepalive_off_window_probes_now_and_then_find_it_out()
    {
        await using var lab = await TestLab.StartAsync(EvidenceSteps.NoWorkers);
        var agent = await lab.StartAgentAsync(EvidenceSteps.Unprepared);
        var clients = await DatabaseClients.RestingAsync(lab, 2, "SELECT pg_sleep(8)");
        await agent.WatchesAsync(2);

        var lost = await LoseAsync(lab, clients);

        (await clients.FreedAsync(lost, Wait.Seconds(20), agent)).ShouldAllBe(u => u.Error != null);
        await agent.ClosedAsync(2);
    }

    [Fact]
    public async Task Without_the_agent_nothing_would_ever_end_it()
    {
        await using var lab = await TestLab.StartAsync(EvidenceSteps.NoWorkers);
        var clients = await DatabaseClients.RestingAsync(lab, 2, "SELECT pg_sleep(8)");

        await LoseAsync(lab, clients);

        // The server gives up no sooner than after a quarter of an hour, and its RST is dropped; the client has no timer at all.
        await Wait.UntilAsync("the server sends its answers again", async () => (await SocketsOfServerAsync(lab)).Count(s => s.Contains("timer:(on,")) == 2, Wait.Seconds(20));
        await Wait.ThroughoutAsync(Wait.Seconds(5), async () => (await lab.DatabaseSocketsAsync()).ShouldAllBe(s => s.Timer == "" && s.SendQueue == 0));
        clients.Uses.ShouldBeEmpty();
    }

    /// <summary>The queries are out and acknowledged when the router forgets.</summary>
    private static async Task<TimeSpan> LoseAsync(TestLab lab, DatabaseClients clients)
    {
        await Task.Delay(Wait.Seconds(2));
        clients.Use();
        await Task.Delay(Wait.Seconds(1));
        (await lab.DatabaseSocketsAsync()).ShouldAllBe(s => s.SendQueue == 0);
        clients.Uses.ShouldBeEmpty();
        await lab.Router.ForgetAsync();
        return DatabaseClients.Now;
    }

    private static async Task<IReadOnlyList<string>> SocketsOfServerAsync(TestLab lab) =>
        (await lab.Network.Database.RunAsync(["ss", "-HOtno", "state", "established", "sport", "=", $"{Database.Port}"])).Split('\n', StringSplitOptions.RemoveEmptyEntries);
}
