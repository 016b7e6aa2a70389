using System.Diagnostics;

namespace Sidecar.LabTests;

/// <summary>A slow query is slow, not dead.</summary>
public sealed class SlowQueryTests
{
    [Fact]
    public async Task A_slow_query_is_never_touched()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { ApplicationKeepalive = Wait.Seconds(3) });
        var agent = await lab.StartAgentAsync(BlackoutAssertions.EverythingAllowed);
        var pids = await lab.Web.WarmUpAsync();
        var workers = lab.Web.Workers();
        await agent.SeesAsync(pids[3]);
        var asked = Stopwatch.StartNew();
        var query = lab.Web.GetAsync(4, "/sleep?s=40");

        var verdicts = new HashSet<string>(StringComparer.Ordinal);
        while (!query.IsCompleted && asked.Elapsed < Patience.For(Wait.Seconds(60)))
        {
            verdicts.Add((await agent.StatusAsync()).Single(c => c.Pid == pids[3]).Verdict);
            await Task.Delay(Wait.Seconds(1));
        }

        (await query.WaitAsync(Wait.Seconds(5))).Error.ShouldBeNull();
        asked.Elapsed.ShouldBeGreaterThan(Wait.Seconds(40));
        verdicts.ShouldContain("waiting");
        verdicts.ShouldBeSubsetOf(["waiting", "healthy"]);
        lab.Web.Workers().ShouldBe(workers);
        (await agent.IncidentsAsync()).ShouldBeEmpty();
    }
}

/// <summary>A path that is down is down for everybody; destroying or killing would help nobody.</summary>
public sealed class OutageTests
{
    [Theory]
    [InlineData(LabLink.Worker)]
    [InlineData(LabLink.Database)]
    public async Task In_an_outage_nothing_is_destroyed_or_killed_and_service_resumes_by_itself(LabLink link)
    {
        // A router that forgets during the outage is another failure.
        await using var lab = await TestLab.StartAsync(new LabOptions { IdleTimeout = Wait.Seconds(600) });
        var agent = await lab.StartAgentAsync(BlackoutAssertions.EverythingAllowed);
        await using var client = await SteadyClient.StartAsync(lab);
        var workers = lab.Web.Workers();
        var sockets = await lab.WorkerSocketsAsync();
        sockets.Count.ShouldBe(4);
        var inFlight = client.Ask(4, "/sleep?s=10");
        await Task.Delay(Wait.Seconds(2));

        await lab.Network.SetLinkAsync(link, up: false);
        var verdicts = new HashSet<string>(StringComparer.Ordinal);
        await Wait.ThroughoutAsync(Wait.Seconds(30), async () =>
        {
            lab.Web.Workers().ShouldBe(workers);
            (await lab.WorkerSocketsAsync()).ShouldBe(sockets);
            verdicts.UnionWith((await agent.StatusAsync()).Select(c => c.Verdict));
        });
        client.HungWorkers(Wait.Seconds(10)).ShouldBe(4);
        await lab.Network.SetLinkAsync(link, up: true);
        var hung = client.Requests.Where(r => r.Ended is null).ToList();

        // The retransmission timer has doubled up to about half a minute by now.
        await Wait.UntilAsync("service resumes", () => hung.TrueForAll(r => r.Ended is not null), Wait.Seconds(60));
        inFlight.Outcome.ShouldBe(RequestOutcome.Served);
        client.Requests.Where(r => r.Ended is not null).ShouldAllBe(r => r.Outcome == RequestOutcome.Served);
        verdicts.ShouldContain("outage");
        verdicts.ShouldNotContain("stuck");
        lab.Web.Workers().ShouldBe(workers);
        (await lab.WorkerSocketsAsync()).ShouldBe(sockets);
        await agent.NothingDoneAsync();
        (await agent.IncidentsAsync()).ShouldContain(i => i.Cause == "outage" && i.Upstream == "orders-db");
    }
}

/// <summary>Loss is made up for by TCP itself.</summary>
public sealed class PacketLossTests
{
    [Fact]
    public async Task Ten_percent_loss_under_load_for_a_minute_leads_to_no_action()
    {
        await using var lab = await TestLab.StartAsync();
        var agent = await lab.StartAgentAsync(BlackoutAssertions.EverythingAllowed);
        await lab.Web.WarmUpAsync();
        var workers = lab.Web.Workers();
        var sockets = await lab.WorkerSocketsAsync();
        await lab.Router.SetLossAsync(10);

        using var load = new CancellationTokenSource();
        var served = 0;
        var askers = Enumerable.Range(1, 4).Select(async worker =>
        {
            while (!load.IsCancellationRequested)
            {
                // Without the shared lock, so that all four connections are under load.
                var answer = await lab.Web.GetAsync(worker, "/sleep?s=0.01");
                answer.Error.ShouldBeNull(string.Join('\n', (await IncidentsAfter(answer)).Select(i => i.Raw)));
                Interlocked.Increment(ref served);
            }
        }).ToList();
        await Wait.ThroughoutAsync(Wait.Seconds(60), () => lab.Web.Workers().ShouldBe(workers));
        await load.CancelAsync();
        await Task.WhenAll(askers).WaitAsync(Patience.For(Wait.Seconds(30)));

        served.ShouldBeGreaterThan(100);
        (await lab.DatabaseSocketsAsync()).ShouldContain(s => s.Details.Contains("bytes_retrans:"));
        (await lab.WorkerSocketsAsync()).ShouldBe(sockets);
        (await agent.IncidentsAsync()).ShouldBeEmpty();

        async Task<IReadOnlyList<AgentIncident>> IncidentsAfter(ApplicationAnswer answer) =>
            answer.Error is null ? [] : await agent.IncidentsAsync();
    }
}

/// <summary>Who does not read is busy, not dead: its kernel answers.</summary>
public sealed class ZeroWindowTests
{
    // Probes of a closed window come ever more rarely; a router that forgets between two of them is another failure.
    private static readonly LabOptions PatientRouter = new() { IdleTimeout = Wait.Seconds(600) };

    [Fact]
    public async Task A_client_that_does_not_read_is_left_alone()
    {
        await using var lab = await TestLab.StartAsync(PatientRouter);
        var agent = await lab.StartAgentAsync(BlackoutAssertions.EverythingAllowed);
        var pids = await lab.Web.WarmUpAsync();
        var download = lab.Web.GetAsync(4, "/download?mb=300");
        await Wait.UntilAsync("data comes", async () => (await SleeperSocketAsync(lab, pids[3])).ReceiveQueue > 0, Wait.Seconds(10));

        ChildProcess.SendTo(pids[3], Signal.Stop);
        var full = -1L;
        await Wait.UntilAsync("the receive buffer is full", async () =>
        {
            var before = full;
            await Task.Delay(Wait.Seconds(1));
            return (full = (await SleeperSocketAsync(lab, pids[3])).ReceiveQueue) == before;
        }, Wait.Seconds(10));
        full.ShouldBeGreaterThan(0);
        await Wait.ThroughoutAsync(Wait.Seconds(25), async () =>
        {
            (await SleeperSocketAsync(lab, pids[3])).ReceiveQueue.ShouldBe(full);
            (await agent.StatusAsync()).ShouldAllBe(c => c.Verdict != "stuck" && c.Verdict != "outage");
        });
        ChildProcess.SendTo(pids[3], Signal.Continue);

        (await download.WaitAsync(Patience.For(Wait.Seconds(60)))).Error.ShouldBeNull();
        await agent.NothingDoneAsync();
    }

    [Fact]
    public async Task A_server_that_does_not_read_is_left_alone_and_named()
    {
        await using var lab = await TestLab.StartAsync(PatientRouter);
        var agent = await lab.StartAgentAsync(BlackoutAssertions.EverythingAllowed);
        var pids = await lab.Web.WarmUpAsync();
        var backend = (await lab.Web.GetAsync(4)).Backend.ShouldNotBeNull();
        await agent.SeesAsync(pids[3]);
        ChildProcess.SendTo(backend, Signal.Stop);
        var upload = lab.Web.GetAsync(4, "/upload?mb=30");

        await Wait.UntilAsync("the window closes", async () => (await SleeperSocketAsync(lab, pids[3])).Timer.StartsWith("persist,"), Wait.Seconds(20));
        await Wait.UntilAsync("the agent says so", async () => (await agent.StatusAsync()).Single(c => c.Pid == pids[3]).Verdict == "blocked-by-peer", Wait.Seconds(10));
        await Wait.ThroughoutAsync(Wait.Seconds(25), async () =>
            (await agent.StatusAsync()).Single(c => c.Pid == pids[3]).Verdict.ShouldBe("blocked-by-peer"));
        ChildProcess.SendTo(backend, Signal.Continue);

        (await upload.WaitAsync(Patience.For(Wait.Seconds(60)))).Error.ShouldBeNull();
        await agent.NothingDoneAsync();
    }

    private static async Task<SocketState> SleeperSocketAsync(TestLab lab, int pid) => (await lab.DatabaseSocketsAsync()).Single(s => s.Pid == pid);
}

/// <summary>mode = observe: the same eyes and judgement, hands off.</summary>
public sealed class ObserveTests
{
    [Theory]
    [InlineData("recycle")]
    [InlineData("terminate")]
    public async Task In_observe_mode_the_remedy_is_recorded_as_withheld_and_nothing_is_done(string remedy)
    {
        await using var blackout = await Blackout.PrepareAsync(
            new LabOptions(), new AgentOptions { Mode = "observe", Recycle = remedy == "recycle", Terminate = true });
        var agent = blackout.RequireAgent();
        var sockets = await blackout.Lab.WorkerSocketsAsync();
        var sleeper = blackout.Client.WakeSleeper();

        var withheld = await agent.WaitForIncidentAsync(i => i.Remedy == remedy, Wait.Seconds(30));
        withheld.WithheldBy.ShouldBe("observe");
        withheld.Outcome.ShouldBe("withheld");
        withheld.Pid.ShouldBe(blackout.SleeperPid);
        await Wait.ThroughoutAsync(Wait.Seconds(10), async () =>
        {
            blackout.NoWorkerDied();
            (await blackout.Lab.WorkerSocketsAsync()).ShouldBe(sockets);
        });
        sleeper.Outcome.ShouldBe(RequestOutcome.Pending);
        await agent.NothingDoneAsync();
        (await agent.MetricsAsync()).ShouldContain($"conn_sidecar_withheld_remedies_total{{upstream=\"orders-db\",remedy=\"{remedy}\",guardrail=\"observe\"}} 1");
    }
}
