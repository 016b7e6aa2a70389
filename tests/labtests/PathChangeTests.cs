using System.Text.Json;

namespace Sidecar.LabTests;

/// <summary>What the running agent learns of a router, and that it follows when the router is changed.</summary>
public sealed class PathChangeTests
{
    [Fact]
    public async Task The_estimate_follows_a_router_that_is_changed_from_20_s_to_8_s_and_back()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { IdleTimeout = Wait.Seconds(20) });
        var agent = await lab.StartAgentAsync(new AgentOptions { Keepalive = true, IdleTimeout = "measure", Sessions = true });
        var client = UseNowAndThen(lab);
        await BracketedAsync(agent, 20);

        // Shorter: resting connections, kept alive for 20 s, are lost, which shows by itself.
        await lab.Web.WarmUpAsync();
        await Wait.UntilAsync("the workers' connections are armed",
            async () => (await lab.DatabaseSocketsAsync()).Count(s => s.Timer.StartsWith("keepalive,")) >= 4, Wait.Seconds(10));
        await lab.Router.SetIdleTimeoutAsync(Wait.Seconds(8));
        await BracketedAsync(agent, 8);

        // Longer: nothing is lost, and one connection that idles for longer finds out.
        await lab.Router.SetIdleTimeoutAsync(Wait.Seconds(20));
        await BracketedAsync(agent, 20);
        client.HasExited.ShouldBeFalse(client.Output);
    }

    [Fact]
    public async Task A_router_that_resets_is_learnt_from_the_connections_that_it_ends()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { Router = RouterBehaviour.Reset });
        // Without a DSN there is no ladder; without keepalive the connections rest.
        var agent = await lab.StartAgentAsync(new AgentOptions { Keepalive = false, IdleTimeout = "measure" });
        await lab.Web.WarmUpAsync();
        await Wait.UntilAsync("the connections are watched", async () => (await agent.StatusAsync()).Count == 4, Wait.Seconds(10));

        await Task.Delay(Wait.Seconds(12));
        (await lab.Web.GetAsync(1, "/sleep?s=0")).Error.ShouldNotBeNull();

        await Wait.UntilAsync("an upper bound is known", async () => (await BoundsAsync(agent)).Upper is > 10 and < 30, Wait.Seconds(10));
        (await agent.IncidentsAsync()).ShouldBeEmpty();
    }

    private static async Task BracketedAsync(AgentProcess agent, double timeout)
    {
        try
        {
            await Wait.UntilAsync($"{timeout} s is bracketed", async () => await BoundsAsync(agent) is { Lower: { } lower, Upper: { } upper }
                && lower <= timeout && upper >= timeout && upper - lower <= Math.Max(1, lower * 0.1), Wait.Seconds(90));
        }
        catch (TimeoutException e)
        {
            throw new TimeoutException($"{e.Message}; it is {await agent.GetAsync("/api/v1/paths")}\n{await File.ReadAllTextAsync(Path.Combine(agent.StateDirectory, "idle-timeouts.json"))}\n{agent.Process.Output}", e);
        }
    }

    /// <summary>Keeps the path in use, with connections that are used often enough never to be forgotten.</summary>
    private static ChildProcess UseNowAndThen(TestLab lab) =>
        lab.StartScript("idlers.py", "postgresql", lab.Database.Dsn("postgres"), "2", "1000", "3");

    private static async Task<(double? Lower, double? Upper)> BoundsAsync(AgentProcess agent)
    {
        using var json = JsonDocument.Parse(await agent.GetAsync("/api/v1/paths"));
        var path = json.RootElement.GetProperty("paths")[0];
        return (Number(path, "idle_timeout_lower_seconds"), Number(path, "idle_timeout_upper_seconds"));

        static double? Number(JsonElement element, string name) => element.GetProperty(name) is { ValueKind: JsonValueKind.Number } n ? n.GetDouble() : null;
    }
}
