using System.Globalization;

namespace Sidecar.LabTests.Evidence;

/// <summary>
/// What the tests of how evidence is come by have in common: a router that forgets when it is told to, clients that take the
/// times themselves, and an agent that keeps no connection from being forgotten.
/// </summary>
internal static class EvidenceSteps
{
    /// <summary>PostgreSQL alone, and a router that forgets only when it is told to.</summary>
    public static LabOptions NoWorkers { get; } = new() { IdleTimeout = Wait.Seconds(600), Workers = 0 };

    /// <summary>Nothing is known of the path, nothing is prevented, and everything is allowed.</summary>
    public static AgentOptions Unprepared { get; } = new()
    {
        Keepalive = false,
        Recycle = true,
        Terminate = true,
        WorkersExecutable = File.ResolveLinkTarget("/usr/bin/python3", returnFinalTarget: true)!.FullName,
        IdleTimeout = "measure",
        DeadAfter = null,
    };

    /// <summary>A rest after which a connection no longer counts as in use.</summary>
    public static TimeSpan Rest { get; } = Wait.Seconds(6);

    /// <summary>
    /// A budget of the design, for an assertion about what was measured in the client itself. The machine may be loaded; four
    /// times the budget, though, would be no budget any more. The budget itself is shown by the benchmarks.
    /// </summary>
    public static TimeSpan Measured(double seconds) => Wait.Seconds(seconds * 2);

    /// <summary>Waits until the agent watches so many connections.</summary>
    public static Task WatchesAsync(this AgentProcess agent, int connections) => Wait.UntilAsync(
        $"the agent sees {connections} connections", async () => (await agent.StatusAsync()).Count(c => c.Pid is not null) >= connections, Wait.Seconds(10));

    /// <summary>Waits until none of the clients hangs any more.</summary>
    /// <param name="clients">The clients.</param>
    /// <param name="since">They hang from then on, or from later; what ended before does not count.</param>
    /// <param name="budget">How long it may take on an unloaded machine.</param>
    /// <param name="agent">Whose log to show if it takes longer.</param>
    public static async Task<IReadOnlyList<ClientUse>> FreedAsync(this DatabaseClients clients, TimeSpan since, TimeSpan budget, AgentProcess? agent)
    {
        try
        {
            return await clients.AllEndAsync(since, Patience.For(budget));
        }
        catch (TimeoutException e) when (agent is not null)
        {
            throw new TimeoutException($"{e.Message}\n{await agent.StateAsync()}", e);
        }
    }

    /// <summary>Waits until none of the clients hangs any more, which must be within six seconds.</summary>
    /// <param name="clients">The clients.</param>
    /// <param name="since">They hang from then on, or from later; what ended before does not count.</param>
    /// <param name="possible">When it was possible to free them.</param>
    /// <param name="agent">Whose log to show if it takes longer.</param>
    public static async Task<IReadOnlyList<ClientUse>> FreedAtOnceAsync(this DatabaseClients clients, TimeSpan since, TimeSpan possible, AgentProcess agent)
    {
        // It is waited for longer than what is asserted, so that the message has the times.
        var freed = await clients.FreedAsync(since, Wait.Seconds(6), agent);
        freed.Max(u => u.Ended - possible).ShouldBeLessThan(Measured(6), $"freed after {freed.Select(u => u.Ended - possible).Text()} s\n{await agent.StateAsync()}");
        return freed;
    }

    /// <summary>The agent has closed so many connections, says so, and has ended no process.</summary>
    public static async Task ClosedAsync(this AgentProcess agent, int connections)
    {
        await Wait.UntilAsync($"{connections} incidents", async () => (await agent.IncidentsAsync()).Count(i => i is { Remedy: "recycle", Outcome: "released" }) >= connections, Wait.Seconds(5));
        (await agent.IncidentsAsync()).ShouldNotContain(i => i.Remedy == "terminate" && i.WithheldBy == null);
    }

    /// <summary>How the connections stand, the incidents and the log, for a message.</summary>
    public static async Task<string> StateAsync(this AgentProcess agent)
    {
        var connections = (await agent.StatusAsync()).GroupBy(c => c.Verdict).Select(g => $"{g.Count()} {g.Key}: {g.First().Why}");
        var incidents = (await agent.IncidentsAsync()).Select(i => i.Raw);
        return string.Join('\n', ["connections:", .. connections, "incidents:", .. incidents.TakeLast(8), "log:", .. agent.Process.Lines.TakeLast(20)]);
    }

    /// <summary>A number in an incident; null where it has none.</summary>
    public static double? Number(this AgentIncident incident, string name)
    {
        using var json = System.Text.Json.JsonDocument.Parse(incident.Raw);
        return json.RootElement.TryGetProperty(name, out var value) && value.ValueKind == System.Text.Json.JsonValueKind.Number ? value.GetDouble() : null;
    }

    /// <summary>The middle one of some times.</summary>
    public static TimeSpan Median(this IEnumerable<TimeSpan> times)
    {
        var sorted = times.Order().ToList();
        return sorted[(sorted.Count - 1) / 2];
    }

    /// <summary>Times as text, in seconds.</summary>
    public static string Text(this IEnumerable<TimeSpan> times) => string.Join(' ', times.Order().Select(t => t.TotalSeconds.ToString("0.0", CultureInfo.InvariantCulture)));
}
