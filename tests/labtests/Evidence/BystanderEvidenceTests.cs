using System.Globalization;

namespace Sidecar.LabTests.Evidence;

/// <summary>Only the process that is provably blocked on the dead connection may be ended; nobody beside it.</summary>
public sealed class BystanderEvidenceTests
{
    [Theory]
    [InlineData("publish-query", true)]
    [InlineData("publish-query", false)]
    [InlineData("publish-accept", true)]
    [InlineData("publish-accept", false)]
    public async Task Who_has_sent_on_a_dead_connection_and_waits_elsewhere_gets_no_signal(string kind, bool recycle)
    {
        await using var lab = await TestLab.StartAsync(BystanderSteps.NoWorkers);
        var agent = await lab.StartAgentAsync(BystanderSteps.Terminating(recycle, BystanderSteps.Python));
        var (process, a) = await lab.StartBystanderAsync(agent, kind);
        await Task.Delay(BystanderSteps.Rest);
        await lab.Router.ForgetAsync(a);
        process.Send(Signal.User1);
        await process.WaitForLineAsync(l => l == "published", Wait.Seconds(5));

        await Wait.ThroughoutAsync(Wait.Seconds(20), () => agent.NobodySignalledAsync(process.Pid));
        if (kind == "publish-query")
        {
            await process.WaitForLineAsync(l => l == "B answered", Wait.Seconds(10));
        }

        (await lab.DatabaseSocketsAsync()).Any(s => s.Local.Equals(a) && s.Pid == process.Pid && s.State == "ESTAB").ShouldBe(!recycle);
    }

    [Theory]
    [InlineData("stopped", true)]
    [InlineData("stopped", false)]
    [InlineData("frozen", true)]
    [InlineData("frozen", false)]
    public async Task A_worker_that_is_stopped_or_frozen_gets_no_signal(string how, bool recycle)
    {
        await using var lab = await TestLab.StartAsync(BystanderSteps.NoWorkers);
        var agent = await lab.StartAgentAsync(BystanderSteps.Terminating(recycle, BystanderSteps.Python));
        var (process, a) = await lab.StartBystanderAsync(agent, "ask");
        await Task.Delay(BystanderSteps.Rest);
        await lab.Router.ForgetAsync(a);
        process.Send(Signal.User1);
        await process.WaitForLineAsync(l => l == "A asks", Wait.Seconds(5));
        await Wait.UntilAsync("its query is out", async () => (await lab.DatabaseSocketsAsync()).Any(s => s.Local.Equals(a) && s.SendQueue > 0), Wait.Seconds(5));
        using (how == "frozen" ? Freezer.Freeze(process.Pid) : null)
        {
            if (how == "stopped")
            {
                process.Send(Signal.Stop);
            }

            await Wait.ThroughoutAsync(Wait.Seconds(18), () => agent.NobodySignalledAsync(process.Pid));
        }

        process.Send(Signal.Continue);
        if (recycle)
        {
            await process.WaitForLineAsync(l => l.StartsWith("A failed", StringComparison.Ordinal), Wait.Seconds(10));
            await agent.NobodySignalledAsync(process.Pid);
        }
    }
}

/// <summary>A process beside the one that is blocked: its parent, its broker, its master.</summary>
public sealed class BystanderParentEvidenceTests
{
    [Theory]
    [InlineData("fork", true)]
    [InlineData("fork", false)]
    [InlineData("pool", true)]
    [InlineData("pool", false)]
    public async Task A_parent_that_waits_for_its_child_gets_no_signal(string kind, bool recycle)
    {
        await using var lab = await TestLab.StartAsync(BystanderSteps.NoWorkers);
        var agent = await lab.StartAgentAsync(BystanderSteps.Terminating(recycle, BystanderSteps.Python));
        var (process, a) = await lab.StartBystanderAsync(agent, kind);
        await Task.Delay(BystanderSteps.Rest);
        await lab.Router.ForgetAsync(a);
        process.Send(Signal.User1);
        await process.WaitForLineAsync(l => l == "child asks", Wait.Seconds(5));

        // The child may be ended where recycling is off: it hangs on that very socket. Its parent does not.
        await Wait.ThroughoutAsync(Wait.Seconds(20), () => process.Lines.ShouldNotContain("end"));
        await ParentLivesAsync(agent, process, recycle);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_broker_that_has_passed_the_descriptor_on_gets_no_signal(bool recycle)
    {
        await using var lab = await TestLab.StartAsync(BystanderSteps.NoWorkers);
        var agent = await lab.StartAgentAsync(BystanderSteps.Terminating(recycle, BystanderSteps.Python));
        var (process, a) = await lab.StartBystanderAsync(agent, "broker");
        process.Send(Signal.User1);
        var holder = int.Parse((await process.WaitForLineAsync(l => l.StartsWith("holder ", StringComparison.Ordinal), Wait.Seconds(5))).Split(' ')[1], CultureInfo.InvariantCulture);
        await Task.Delay(BystanderSteps.Rest);
        (await lab.SocketOfAsync(holder)).Local.ShouldBe(a);
        await lab.Router.ForgetAsync(a);
        process.Send(Signal.User1);
        await process.WaitForLineAsync(l => l == "holder asks", Wait.Seconds(5));

        await Wait.ThroughoutAsync(Wait.Seconds(20), () => process.HasExited.ShouldBeFalse(agent.Process.Output));
        await ParentLivesAsync(agent, process, recycle);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task An_idle_uWSGI_master_whose_worker_inherited_the_socket_gets_no_signal(bool recycle)
    {
        await using var lab = await TestLab.StartAsync(BystanderSteps.NoWorkers);
        var agent = await lab.StartAgentAsync(BystanderSteps.Terminating(recycle, "uwsgi-core"));
        var script = Path.Combine(lab.Directory, "inherited.py");
        File.Copy(Path.Combine(AppContext.BaseDirectory, "app", "inherited.py"), script);
        var directory = Directory.CreateDirectory(Path.Combine(lab.Directory, "inherited")).FullName;
        await Command.RunAsync("chown", [$"{WebApplication.User}:", directory]);
        var path = Path.Combine(directory, "web.sock");
        var master = lab.StartProgram("uwsgi", lab.Network.Application, WebApplication.User, WebApplication.Executable,
            "--plugin", "python3", "--master", "--processes", "1", "--wsgi-file", script, "--need-app", "--die-on-term", "--no-orphans",
            "--http-socket", path, "--env", $"DATABASE_DSN={lab.Database.Dsn("postgres")}");
        await master.WaitForLineAsync(l => l.StartsWith("spawned uWSGI worker 1 ", StringComparison.Ordinal), Wait.Seconds(30));
        var worker = (await WebApplication.AskAsync(path, "/")).Pid;
        await Wait.UntilAsync("the agent sees the connection", async () => (await agent.StatusAsync()).Count > 0, Wait.Seconds(10));
        await Task.Delay(BystanderSteps.Rest);
        await lab.Router.ForgetAsync();
        var request = WebApplication.AskAsync(path, "/");

        await Wait.ThroughoutAsync(Wait.Seconds(20), () => master.HasExited.ShouldBeFalse(agent.Process.Output));
        await ParentLivesAsync(agent, master, recycle, worker);
        await request.ContinueWith(_ => { }, TaskScheduler.Default).EndsInAsync(Wait.Seconds(1));
    }

    private static async Task ParentLivesAsync(AgentProcess agent, ChildProcess parent, bool recycle, int? worker = null)
    {
        WorkerProcess.TryFind(parent.Pid).ShouldNotBeNull($"{parent.Name} is gone; the agent's log:\n{agent.Process.Output}");
        var terminated = (await agent.IncidentsAsync()).Where(i => i is { Remedy: "terminate", WithheldBy: null }).ToList();
        terminated.ShouldNotContain(i => i.Pid == parent.Pid);
        if (recycle)
        {
            // The connection was closed, so that nobody is blocked on it any more.
            terminated.Select(i => i.Raw).ShouldBeEmpty();
            if (worker is { } pid)
            {
                WorkerProcess.TryFind(pid).ShouldNotBeNull(agent.Process.Output);
            }
        }
    }
}
