using System.Diagnostics;

namespace Sidecar.Lab;

/// <summary>
/// The failure that conn-sidecar ends, brought to the moment before it happens: all workers have a connection, all but
/// the last are asked steadily, and the router has just forgotten the last one's.
/// </summary>
public sealed class Blackout : IAsyncDisposable
{
    private Blackout(TestLab lab, AgentProcess? agent, SteadyClient client, IReadOnlyList<WorkerProcess> workers, int sleeperPid)
    {
        Lab = lab;
        Agent = agent;
        Client = client;
        WorkersBefore = workers;
        SleeperPid = sleeperPid;
    }

    public TestLab Lab { get; }

    public AgentProcess? Agent { get; }

    public SteadyClient Client { get; }

    /// <summary>The worker processes before it happens.</summary>
    public IReadOnlyList<WorkerProcess> WorkersBefore { get; }

    /// <summary>The worker whose connection is forgotten: the one that will hang first.</summary>
    public int SleeperPid { get; }

    /// <summary>Builds a lab, with the agent where options for it are given, and waits until the router has forgotten.</summary>
    /// <exception cref="TimeoutException">The router did not forget.</exception>
    public static async Task<Blackout> PrepareAsync(LabOptions? labOptions = null, AgentOptions? agentOptions = null)
    {
        var lab = await TestLab.StartAsync(labOptions);
        try
        {
            var agent = agentOptions is null ? null : await lab.StartAgentAsync(agentOptions);
            var client = await SteadyClient.StartAsync(lab);
            var workers = lab.Web.Workers();
            var sleeper = client.SleeperPid;
            await WaitUntilForgottenAsync(lab, sleeper);
            return new Blackout(lab, agent, client, workers, sleeper);
        }
        catch
        {
            await lab.DisposeAsync();
            throw;
        }
    }

    /// <summary>Waits until the router no longer knows the database connection of a process.</summary>
    /// <exception cref="TimeoutException">It still does, long after its idle timeout.</exception>
    public static async Task WaitUntilForgottenAsync(TestLab lab, int pid)
    {
        var sockets = await lab.DatabaseSocketsAsync();
        var source = sockets.Single(s => s.Pid == pid).Local;
        var waited = Stopwatch.StartNew();
        while (await lab.Router.KnowsAsync(source))
        {
            if (waited.Elapsed > lab.Options.IdleTimeout + Patience.For(TimeSpan.FromSeconds(10)))
            {
                throw new TimeoutException($"the router still knows {source}");
            }

            await Task.Delay(200);
        }
    }

    public async ValueTask DisposeAsync()
    {
        await Client.DisposeAsync();
        await Lab.DisposeAsync();
    }
}
