namespace Sidecar.LabTests.Faults;

/// <summary>Neighbours that mean ill or do not do their part: local users, name servers, masters, a second agent.</summary>
public sealed class HostileTests
{
    [Fact]
    public async Task Who_floods_the_control_socket_neither_stops_nor_grows_the_agent()
    {
        await using var lab = await TestLab.StartAsync(FaultSteps.OneWorker);
        var worker = (await lab.Web.WarmUpAsync())[0];

        // Other labs come and go beside this one, and their namespaces would be counted too.
        var agent = await lab.StartAgentAsync(FaultSteps.RecycleOnly with { NetworkNamespaces = "own" });
        await agent.SeesAsync(worker);
        var socket = Directory.GetFiles(Path.Combine(Path.GetDirectoryName(agent.StateDirectory)!, "run"), "*.sock").Single();
        var script = Path.Combine(lab.Directory, "hostile.py");
        File.Copy(Path.Combine(AppContext.BaseDirectory, "app", "hostile.py"), script);

        // The user is in no group that may use it: refused by the file's mode.
        var stranger = await lab.Network.Worker.TryRunAsync(["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--", "/usr/bin/python3", script, socket, "1"]);
        stranger.Output.Trim().ShouldBe("0 connections", stranger.Error);

        // This one may.
        var (descriptors, memory) = (Descriptors(agent.Pid), Resident(agent.Pid));
        var flood = lab.StartProgram("hostile", lab.Network.Worker, null, "/usr/bin/python3", script, socket, "14");
        var request = await lab.AskOnForgottenAsync();
        await agent.FreesAsync(request);
        flood.HasExited.ShouldBeFalse("the worker was freed in the middle of the flood");
        var count = await flood.WaitForLineAsync(line => line.EndsWith("connections", StringComparison.Ordinal), Wait.Seconds(30));
        int.Parse(count.Split(' ')[0], System.Globalization.CultureInfo.InvariantCulture).ShouldBeGreaterThan(200);

        await Wait.UntilAsync("it answers", async () => (await agent.RunAsync("status", "--json")).ExitCode == 0, Wait.Seconds(20));
        await Wait.UntilAsync("no descriptor is lost", () => Descriptors(agent.Pid) <= descriptors + 8, Wait.Seconds(20));
        (Resident(agent.Pid) - memory).ShouldBeLessThan(40_000, "kB");
    }

    [Fact]
    public async Task A_second_agent_on_the_host_is_refused_and_touches_nothing_of_the_first_one_s()
    {
        await using var lab = await TestLab.StartAsync(FaultSteps.OneWorker);
        var worker = (await lab.Web.WarmUpAsync())[0];
        var first = await lab.StartAgentAsync(FaultSteps.RecycleOnly);
        await first.SeesAsync(worker);
        var run = Path.Combine(Path.GetDirectoryName(first.StateDirectory)!, "run");
        var left = """{"id":"20260101T000000.000Z-000001","time":"2026-01-01T00:00:00+00:00","upstream":"orders-db","cause":"stuck","remedy":"terminate","outcome":"pending","pid":1,"withheld_by":null,"why":"under way"}""";
        lab.IncidentsByHand.Add("20260101T000000.000Z-000001");
        await File.AppendAllTextAsync(Path.Combine(first.StateDirectory, "incidents.jsonl"), left + "\n");

        var second = await lab.LaunchAgentAsync(FaultSteps.RecycleOnly with
        {
            Configuration = $"[agent]\nlisten = none\nstate-directory = {first.StateDirectory}\nruntime-directory = {run}\n[upstream:orders-db]\nendpoint = {lab.Database.EndPoint}\n",
        });
        (await second.Process.WaitForExitAsync(Wait.Seconds(20))).ShouldNotBe(0);
        second.Process.Output.ShouldContain("already running");

        // What the first one has under way is not the second one's to close.
        (await first.IncidentsAsync()).ShouldHaveSingleItem().Outcome.ShouldBe("pending");
        await first.FreesAsync(await lab.AskOnForgottenAsync());
    }

    [Fact]
    public async Task Where_nobody_starts_workers_again_the_agent_ends_no_more_of_them_than_its_budget()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { IdleTimeout = Wait.Seconds(600), Workers = 0 });
        var python = File.ResolveLinkTarget("/usr/bin/python3", returnFinalTarget: true)!.FullName;
        var agent = await lab.StartAgentAsync(BlackoutAssertions.TerminateOnly with { IdleTimeout = "measure", WorkersExecutable = python, FurtherLines = ["budget = 1/h"] });
        var pool = lab.StartScript("pool.py", $"host={lab.Database.Address} user=postgres dbname=postgres sslmode=disable", "2");

        // Two: three that are silent together would be a common mode, in which nobody is terminated.
        for (var number = 0; number < 2; number++)
        {
            await pool.WaitForLineAsync(line => line.StartsWith($"worker {number} ", StringComparison.Ordinal), Wait.Seconds(20));
        }

        await Wait.UntilAsync("the agent sees them", async () => (await agent.StatusAsync()).Count == 2, Wait.Seconds(10));
        await Task.Delay(Wait.Seconds(6));
        await lab.Router.ForgetAsync();
        pool.Send(Signal.User1);

        await agent.WaitForIncidentAsync(i => i is { Remedy: "terminate", Outcome: "exited" }, Wait.Seconds(60));
        await agent.WaitForIncidentAsync(i => i.WithheldBy == "budget", Wait.Seconds(60));
        await Wait.ThroughoutAsync(Wait.Seconds(3), async () => (await agent.IncidentsAsync()).Count(i => i is { Remedy: "terminate", WithheldBy: null }).ShouldBe(1));
        pool.Lines.Count(line => line.EndsWith("asks", StringComparison.Ordinal)).ShouldBe(2);
        pool.Lines.ShouldNotContain(line => line.EndsWith("answered", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Names_that_resolve_to_many_changing_or_no_addresses_lose_no_connection_and_hold_up_no_other()
    {
        await using var lab = await TestLab.StartAsync(FaultSteps.OneWorker);
        var worker = (await lab.Web.WarmUpAsync())[0];
        var server = lab.StartProgram("dns.py", lab.Network.Worker, null, "/usr/bin/python3", "-u", Path.Combine(AppContext.BaseDirectory, "app", "dns.py"), lab.Database.Address.ToString());
        await server.WaitForLineAsync(line => line == "serving", Wait.Seconds(10));
        var resolver = Path.Combine(lab.Directory, "resolv.conf");
        await File.WriteAllTextAsync(resolver, "nameserver 127.0.0.1\n");
        string[] names = ["silent", "garbage", "empty", "changing", "many", "plain"];
        var sections = string.Concat(names.Select(name => $"\n[upstream:{name}]\nendpoint = {name}.test:5432\nprotocol = postgresql\nkeepalive = off\n"));
        var agent = await lab.StartAgentAsync(new AgentOptions
        {
            Configuration = "[agent]\nlisten = none\nstate-directory = {state}\nruntime-directory = {run}\n" + sections,
            Starter = ["unshare", "--mount", "sh", "-c", "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"", resolver],
        });

        // The silent name takes the resolver its ten seconds; the others do not wait for it.
        await Wait.UntilAsync("the connection is seen", async () => (await agent.StatusAsync()).Any(c => c.Pid == worker), Wait.Seconds(2));
        (await agent.StatusAsync()).ShouldHaveSingleItem().Upstream.ShouldBe("changing");

        // The name has moved away; the connection is still this upstream's.
        await Wait.UntilAsync("the names are asked for again", () => server.Lines.Count(line => line == "changing.test 1") >= 2, Wait.Seconds(45));
        await Wait.ThroughoutAsync(Wait.Seconds(3), async () => (await agent.StatusAsync()).ShouldHaveSingleItem().Upstream.ShouldBe("changing"));
        agent.Process.Output.ShouldContain("empty.test");
        await agent.FreesAsync(await lab.AskOnForgottenAsync());
    }

    private static int Descriptors(int pid) => Directory.GetFileSystemEntries($"/proc/{pid}/fd").Length;

    private static long Resident(int pid) =>
        long.Parse(File.ReadLines($"/proc/{pid}/status").Single(line => line.StartsWith("VmRSS:", StringComparison.Ordinal)).Split(' ', StringSplitOptions.RemoveEmptyEntries)[^2], System.Globalization.CultureInfo.InvariantCulture);
}
