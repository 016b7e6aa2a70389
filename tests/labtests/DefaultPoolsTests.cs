namespace Sidecar.LabTests;

/// <summary>The default configuration, ten minutes, and pools whose path forgets sooner or later; the four paths side by side.</summary>
[Trait("Speed", "slow")]
public sealed class DefaultPoolsTests
{
    private const int Clients = 20;
    private const int MostFurther = 5;
    private static readonly int[] PathsForgetAfter = [12, 25, 60, 350];
    private static readonly TimeSpan Duration = TimeSpan.FromMinutes(10);

    /// <summary>Declared upstreams are measured by a ladder; of the built-in ones only their own connections tell.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Pools_have_no_error_and_the_servers_no_more_than_five_further_connections(bool declared) =>
        await Task.WhenAll(PathsForgetAfter.Select(seconds => PoolsAsync(TimeSpan.FromSeconds(seconds), withAgent: true, declared)));

    [Fact]
    public async Task Without_the_agent_a_pool_is_lost() =>
        (await Assert.ThrowsAsync<ShouldAssertException>(() => PoolsAsync(TimeSpan.FromSeconds(12), withAgent: false))).Message.ShouldContain("in time");

    private static async Task PoolsAsync(TimeSpan idleTimeout, bool withAgent, bool declared = false)
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { IdleTimeout = idleTimeout, Workers = 0 });
        var redis = lab.StartProgram("redis-server", lab.Network.Database, "www-data", "/usr/bin/redis-server",
            "--bind", "*", "--port", "6379", "--protected-mode", "no", "--save", "", "--tcp-keepalive", "0");
        await redis.WaitForLineAsync(l => l.Contains("Ready to accept connections"), Wait.Seconds(10));
        var dsn = Path.Combine(lab.Directory, "default.dsn");
        await File.WriteAllTextAsync(dsn, lab.Database.Dsn("sidecar") + "\n");
        File.SetUnixFileMode(dsn, UnixFileMode.UserRead);
        var agent = withAgent
            ? await lab.StartAgentAsync(new AgentOptions
            {
                Configuration = $$"""
                    [agent]
                    runtime-directory = {run}
                    state-directory = {state}
                    network-namespaces = own
                    {{(declared ? $"[upstream:db]\nendpoint = {lab.Database.EndPoint}\nprotocol = postgresql\ndsn-file = {dsn}\n[upstream:cache]\nendpoint = {lab.Database.Address}:6379" : "")}}

                    """,
            })
            : null;
        // Each time longer than the path remembers.
        var gap = Math.Ceiling(idleTimeout.TotalSeconds * 1.2);
        var periods = Math.Max(1, (int)((withAgent ? Duration : idleTimeout * 2) / TimeSpan.FromSeconds(gap)));
        (int Port, ChildProcess Pool)[] pools =
        [
            (Database.Port, lab.StartScript("idlers.py", "postgresql", lab.Database.Dsn("postgres"), $"{Clients}", $"{periods}", $"{gap}")),
            (6379, lab.StartScript("idlers.py", "redis", $"{lab.Database.Address}:6379", $"{Clients}", $"{periods}", $"{gap}")),
        ];
        var ends = DateTime.UtcNow + (withAgent ? Duration + Wait.Seconds(90) : TimeSpan.FromSeconds(gap * periods) + TimeSpan.FromSeconds(30));
        while (!pools.All(p => p.Pool.Lines.Contains("done")) && DateTime.UtcNow < ends)
        {
            await Task.Delay(TimeSpan.FromSeconds(1));
            foreach (var (port, pool) in pools)
            {
                pool.Lines.ShouldNotContain(l => l.Contains("failed"), pool.Output);
                (await AtServerAsync(lab, port)).ShouldBeLessThanOrEqualTo(Clients + MostFurther, $"{idleTimeout}, port {port}");
            }
        }

        pools.ShouldAllBe(p => p.Pool.Lines.Contains("done"), "all periods in time");
        if (agent is not null)
        {
            (await agent.IncidentsAsync()).ShouldBeEmpty();
        }

        lab.Database.Server.Output.ShouldNotContain("FATAL");
    }

    /// <summary>Connections from other hosts to that port, as the server's kernel has them: also those that the path has forgotten.</summary>
    private static async Task<int> AtServerAsync(TestLab lab, int port) =>
        (await lab.Network.Database.TryRunAsync(["ss", "-tnH", "state", "established", $"sport = :{port}"])).Output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length;
}
