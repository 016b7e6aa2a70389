using System.Diagnostics;

namespace Sidecar.LabTests.Evidence;

/// <summary>
/// A path that swallows packets above a size and tells nobody. The connection lives, and whatever is closed meets the same
/// hole again: what helps is a smaller segment.
/// </summary>
public sealed class BlackHoleEvidenceTests
{
    private const int Passes = 1000;

    /// <summary>Long enough for several segments of full size, with an end that passes.</summary>
    private const int Large = 5000;

    [Fact]
    public Task A_large_query_that_never_arrives_is_named_and_left_alone() =>
        PassAsync(LabLink.Worker, $"SELECT length('{new string('x', Large)}')");

    [Fact]
    public Task A_large_answer_that_never_arrives_is_named_and_left_alone() =>
        PassAsync(LabLink.Database, $"SELECT repeat('x', {Large})");

    [Fact]
    public async Task Without_the_agent_small_queries_pass_and_the_large_one_hangs_although_its_peer_answers()
    {
        await using var lab = await StartAsync();
        var small = await DatabaseClients.RestingAsync(lab, 1);
        var large = await DatabaseClients.RestingAsync(lab, 1, $"SELECT length('{new string('x', Large)}')");
        await lab.Router.SwallowLargerThanAsync(Passes, LabLink.Worker);
        var since = DatabaseClients.Now;
        small.Use();
        large.Use();

        (await small.FreedAsync(since, Wait.Seconds(2), agent: null)).ShouldAllBe(u => u.Error == null);
        await Wait.UntilAsync("the end of it is acknowledged, the beginning is sent again", async () =>
            (await lab.DatabaseSocketsAsync()).Any(s => s.Details.Contains("sacked:") && s.Details.Contains("backoff:")), Wait.Seconds(5));
        large.Uses.ShouldBeEmpty();
    }

    [Fact]
    public async Task Without_the_agent_the_end_of_a_large_answer_is_received_and_its_beginning_never_is()
    {
        await using var lab = await StartAsync();
        var clients = await DatabaseClients.RestingAsync(lab, 1, $"SELECT repeat('x', {Large})");
        await lab.Router.SwallowLargerThanAsync(Passes, LabLink.Database);
        clients.Use();

        await Wait.UntilAsync("something is out of order", async () => (await lab.DatabaseSocketsAsync()).Any(s => s.Details.Contains("rcv_ooopack:")), Wait.Seconds(5));
        await Wait.ThroughoutAsync(Wait.Seconds(3), async () => (await lab.DatabaseSocketsAsync()).ShouldAllBe(s => s.ReceiveQueue == 0 && s.SendQueue == 0));
        clients.Uses.ShouldBeEmpty();
    }

    private static async Task PassAsync(LabLink from, string statement)
    {
        await using var lab = await StartAsync();
        var agent = await lab.StartAgentAsync(EvidenceSteps.Unprepared);
        var clients = await DatabaseClients.RestingAsync(lab, 1, statement);
        await agent.WatchesAsync(1);
        var socket = (await lab.DatabaseSocketsAsync()).Single(s => s.Pid == clients.Process.Pid);
        await Task.Delay(EvidenceSteps.Rest);
        await lab.Router.SwallowLargerThanAsync(Passes, from);
        clients.Use();

        await WaitForVerdictAsync();
        await Wait.ThroughoutAsync(Wait.Seconds(10), async () =>
        {
            await LeftAloneAsync();
            (await VerdictAsync()).ShouldBe("black-hole");
        });
        var incident = await agent.WaitForIncidentAsync(i => i.Cause == "black-hole", Wait.Seconds(5));
        incident.Remedy.ShouldBe("none");
        incident.Raw.ShouldContain("tcp_mtu_probing");
        incident.Raw.ShouldContain("MSS");
        incident.Raw.ShouldMatch(@"\b(1448|1500)\b", "the size that does not pass");
        await lab.Router.SwallowNothingAsync();

        // Whoever sends has waited ever longer by now.
        (await clients.FreedAsync(DatabaseClients.Now, Wait.Seconds(30), agent)).ShouldAllBe(u => u.Error == null);
        await agent.NothingDoneAsync();

        async Task<string?> VerdictAsync() => (await agent.StatusAsync()).SingleOrDefault(c => c.Local == socket.Local.ToString())?.Verdict;

        async Task WaitForVerdictAsync()
        {
            var waited = Stopwatch.StartNew();
            while (await VerdictAsync() != "black-hole")
            {
                await LeftAloneAsync();
                waited.Elapsed.ShouldBeLessThan(Patience.For(Wait.Seconds(10)), $"it is {await VerdictAsync()}\n{await agent.StateAsync()}");
                await Task.Delay(200);
            }
        }

        async Task LeftAloneAsync()
        {
            if (clients.Uses.Count > 0 || clients.Process.HasExited)
            {
                clients.Process.HasExited.ShouldBeFalse();
                clients.Uses.ShouldBeEmpty($"it was closed\n{await agent.StateAsync()}");
            }
        }
    }

    private static async Task<TestLab> StartAsync()
    {
        var lab = await TestLab.StartAsync(EvidenceSteps.NoWorkers);

        // Segments are cut by the hosts and not by their devices, so that the router sees what would be on a wire.
        await Task.WhenAll(
            lab.Network.Worker.IpAsync("link set to-router gso_max_segs 1"),
            lab.Network.Database.IpAsync("link set to-router gso_max_segs 1"));
        return lab;
    }
}
