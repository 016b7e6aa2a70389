namespace Sidecar.LabTests.Evidence;

/// <summary>
/// A driver that switches keepalive on itself, with the system's two hours, 75 s and nine probes (libpq's default), and an
/// agent without configuration.
/// </summary>
public sealed class DriverEvidenceTests
{
    /// <summary>Nothing is known of the path: a keepalive goes out after half a minute, and then there is something to see.</summary>
    private static readonly TimeSpan FirstProbe = Wait.Seconds(30);

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task What_was_forgotten_is_freed_as_soon_with_the_drivers_own_keepalive_as_without(bool driversKeepalive)
    {
        await using var lab = await TestLab.StartAsync(EvidenceSteps.NoWorkers);
        // Built in: all well-known ports; only here, since the labs beside this one have them, too.
        var agent = await lab.StartAgentAsync(new AgentOptions
        {
            Configuration = $"[agent]\nlisten = 127.0.0.1:{AgentProcess.Port}\nstate-directory = {{state}}\nruntime-directory = {{run}}\nnetwork-namespaces = own\n",
        });
        var listening = await DatabaseClients.ListeningAsync(lab, 1, driversKeepalive);
        var asking = await DatabaseClients.RestingAsync(lab, 2, "SELECT pg_sleep(5)", driversKeepalive);
        var pooled = await DatabaseClients.RestingAsync(lab, 40, driversKeepalive: driversKeepalive);
        await Wait.UntilAsync("the agent has armed all of them", async () =>
            (await lab.DatabaseSocketsAsync()).Count(s => s.Timer.StartsWith("keepalive,") && (s.Timer.Contains("sec,") || s.Timer.Contains("ms,"))) >= 43, Wait.Seconds(10));
        asking.Use();
        await Task.Delay(Wait.Seconds(2));
        var pids = new int?[] { listening.Process.Pid, asking.Process.Pid, pooled.Process.Pid };

        await lab.Router.ForgetAsync();

        var since = DatabaseClients.Now;
        var until = since + FirstProbe + Patience.For(Wait.Seconds(10));
        IReadOnlyList<SocketState> left;
        while ((left = [.. (await lab.DatabaseSocketsAsync()).Where(s => s.State == "ESTAB" && pids.Contains(s.Pid))]).Count > 0 && DatabaseClients.Now < until)
        {
            await Task.Delay(200);
        }

        var seconds = (DatabaseClients.Now - since).TotalSeconds;
        left.Count.ShouldBe(0, $"after {seconds:0} s {left.Count(s => s.Pid == pids[0])} of 1 still listen, {left.Count(s => s.Pid == pids[1])} of 2 still wait for an answer, "
            + $"{left.Count(s => s.Pid == pids[2])} of 40 rest\n{await agent.StateAsync()}");
        await Wait.UntilAsync("those that waited go on", () => listening.Uses.Concat(asking.Uses).Count(u => u.Error is not null) == 3, Wait.Seconds(2));
        await agent.ClosedAsync(43);
    }
}
