using System.Diagnostics;
using Sidecar.Benchmarks;

namespace Sidecar.LabTests.Evidence;

/// <summary>Thousands of connections of one process, forgotten together.</summary>
// It would keep the labs beside it waiting: after the others.
[Collection("alone")]
public sealed class ManyEvidenceTests
{
    private const int Connections = 5000;

    [Theory]
    [InlineData("in use")]
    [InlineData("resting")]
    public async Task Five_thousand_connections_that_are_forgotten_together_are_closed_within_a_minute(string how)
    {
        await using var field = await Field.CreateAsync(new LabOptions { IdleTimeout = Wait.Seconds(600) });
        var agent = await field.Lab.StartAgentAsync(new AgentOptions
        {
            Configuration = $"""
                [agent]
                listen = 127.0.0.1:{AgentProcess.Port}
                state-directory = {"{state}"}
                runtime-directory = {"{run}"}
                network-namespaces = own

                [upstream:echo]
                endpoint = {field.ServerNetwork}:{Field.WatchedPort}
                protocol = tcp
                idle-timeout = 20s
                keepalive = {(how == "resting" ? "on" : "off")}

                """,
        });
        using var clients = await field.StartClientAsync("ask", Connections, Field.WatchedPort);
        await Wait.UntilAsync("all are watched", async () => (await agent.MetricsAsync()).Split('\n')
            .Where(l => l.StartsWith("conn_sidecar_connections{")).Sum(l => int.Parse(l.Split(' ')[^1])) >= Connections, Wait.Seconds(20));
        await Task.Delay(EvidenceSteps.Rest);

        await field.ForgetAsync(clients);
        var since = Stopwatch.StartNew();
        if (how == "in use")
        {
            clients.Send(Signal.User1);
        }

        // Resting ones are asked by a keepalive ten seconds after their last segment.
        var limit = Wait.Seconds(60 * 1.5) + (how == "resting" ? Wait.Seconds(10) : TimeSpan.Zero);
        int left;
        var picture = new List<string>();
        while ((left = await EstablishedAsync(field, clients.Pid)) > 0 && since.Elapsed < limit)
        {
            picture.Add($"{since.Elapsed.TotalSeconds:0} s: {left}");
            await Task.Delay(500);
        }

        left.ShouldBe(0, $"{left} of {Connections} were still open after {since.Elapsed.TotalSeconds:0} s; {string.Join(", ", picture.Where((_, i) => i % 10 == 0))}\n{await agent.StateAsync()}");
        clients.HasExited.ShouldBeFalse();
    }

    private static async Task<int> EstablishedAsync(Field field, int pid) =>
        (await field.Worker.RunAsync(["ss", "-Htnp", "state", "established", "dport", "=", $"{Field.WatchedPort}"])).Split('\n').Count(l => l.Contains($"pid={pid},"));
}
