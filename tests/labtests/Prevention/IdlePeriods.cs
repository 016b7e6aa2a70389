using System.Net;

namespace Sidecar.LabTests.Prevention;

/// <summary>Connections that rest longer than the router remembers, and are then used again.</summary>
internal static class IdlePeriods
{
    /// <summary>The router forgets after ten.</summary>
    public static readonly TimeSpan Length = Wait.Seconds(15);

    /// <summary>What is served later than this after a rest counts as hung.</summary>
    public static readonly TimeSpan Hung = Wait.Seconds(5);

    /// <summary>The agent as it is meant to prevent: keepalive on, the path's timeout known.</summary>
    public static AgentOptions Prevention { get; } = new() { Keepalive = true, IdleTimeout = "10s" };

    /// <summary>Rests and uses all workers' connections at the same time, so many times; every use must be served at once.</summary>
    public static async Task PassAsync(TestLab lab, int periods)
    {
        for (var period = 1; period <= periods; period++)
        {
            await Task.Delay(Length);
            foreach (var answer in await UseAllAsync(lab))
            {
                answer.ShouldNotBeNull($"a request hung in period {period}").Error.ShouldBeNull();
            }
        }
    }

    /// <summary>Asks all workers at once; null for each that hangs.</summary>
    public static Task<ApplicationAnswer?[]> UseAllAsync(TestLab lab) => Task.WhenAll(Enumerable.Range(1, lab.Web.WorkerCount).Select(async worker =>
    {
        try
        {
            // Without the library's lock, behind which one that hangs would hide the others.
            return await lab.Web.GetAsync(worker, "/sleep?s=0").WaitAsync(Hung);
        }
        catch (TimeoutException)
        {
            return null;
        }
    }));

    /// <summary>Waits until all database connections of the application have a keepalive timer.</summary>
    public static Task ArmedAsync(this TestLab lab, IPEndPoint peer, int connections) => Wait.UntilAsync(
        "all connections are armed",
        async () =>
        {
            var sockets = await SocketState.ListAsync(lab.Network.Application, peer);
            return sockets.Count >= connections && sockets.All(s => s.Timer.StartsWith("keepalive,"));
        },
        Wait.Seconds(10));

    /// <summary>Waits for a client program to pass its idle periods; none of its uses may have failed or hung.</summary>
    public static async Task ServedThroughoutAsync(ChildProcess clients, int count, int periods)
    {
        await clients.WaitForLineAsync(l => l == "done", (Length + Hung) * periods + Hung);
        clients.Lines.ShouldNotContain(l => l.Contains("failed"));
        clients.Lines.Count(l => l.Contains($": {count} of {count} served, longest 0.")).ShouldBe(periods, clients.Output);
    }
}
