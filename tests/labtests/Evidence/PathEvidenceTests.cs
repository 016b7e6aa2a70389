namespace Sidecar.LabTests.Evidence;

/// <summary>What proves that a path is up, or down, where single connections of the agent mislead.</summary>
public sealed class PathEvidenceTests
{
    [Theory]
    [InlineData(12)]
    [InlineData(20)]
    public async Task Live_connections_outlast_an_outage_behind_a_router_that_answers_handshakes_itself(int seconds)
    {
        await using var lab = await TestLab.StartAsync(BystanderSteps.PatientRouter);
        await lab.Router.AnswerHandshakesAsync();
        var agent = await lab.StartAgentAsync(BystanderSteps.Terminating(recycle: true, "uwsgi-core"));
        var pids = await lab.Web.WarmUpAsync();
        await agent.SeesAsync(pids[3]);
        var sockets = await lab.WorkerSocketsAsync();
        await Task.Delay(BystanderSteps.Rest);

        await lab.Router.SetServerAwayAsync(true);
        var requests = Enumerable.Range(1, 4).Select(w => lab.Web.GetAsync(w, "/sleep?s=0")).ToList();
        await Wait.ThroughoutAsync(Wait.Seconds(seconds), async () =>
        {
            (await lab.WorkerSocketsAsync()).ShouldBe(sockets, agent.Process.Output);
            await agent.NobodySignalledAsync(pids);
        });
        await lab.Router.SetServerAwayAsync(false);

        // The retransmission timer has doubled up to as long as the outage was.
        foreach (var request in requests)
        {
            (await request.WaitAsync(Patience.For(Wait.Seconds(30)))).Error.ShouldBeNull(agent.Process.Output);
        }

        (await lab.WorkerSocketsAsync()).ShouldBe(sockets);
        await agent.NothingDoneAsync();
    }

    [Fact]
    public async Task Live_connections_on_a_dead_leg_of_a_bundle_are_not_closed_while_the_other_leg_answers()
    {
        await using var lab = await TestLab.StartAsync(BystanderSteps.PatientRouter);
        var agent = await lab.StartAgentAsync(BystanderSteps.Terminating(recycle: true, "uwsgi-core"));
        var pids = await lab.Web.WarmUpAsync();
        await agent.SeesAsync(pids[3]);
        var sockets = await lab.WorkerSocketsAsync();
        var leg = await LegOfAsync(lab, pids[3]);
        await Task.Delay(BystanderSteps.Rest);

        await lab.Router.SetLegDeadAsync(leg, dead: true);
        var request = lab.Web.GetAsync(4, "/sleep?s=0");
        await Wait.ThroughoutAsync(Wait.Seconds(16), async () =>
        {
            (await lab.WorkerSocketsAsync()).ShouldBe(sockets, agent.Process.Output);
            await agent.NobodySignalledAsync(pids);
        });
        var said = (await agent.StatusAsync()).Single(c => c.Pid == pids[3]).Verdict;
        await lab.Router.SetLegDeadAsync(leg, dead: false);

        (await request.WaitAsync(Patience.For(Wait.Seconds(30)))).Error.ShouldBeNull(agent.Process.Output);
        (await lab.WorkerSocketsAsync()).ShouldBe(sockets);
        said.ShouldBeOneOf("partly", "outage");
        (await agent.IncidentsAsync()).ShouldContain(i => i.Cause == "partly" || i.Cause == "outage");
        await agent.NothingDoneAsync();
    }

    [Fact]
    public async Task A_forgotten_connection_is_freed_while_the_leg_of_ports_from_bind_is_dead()
    {
        await using var lab = await TestLab.StartAsync(BystanderSteps.PatientRouter);
        var agent = await lab.StartAgentAsync(BystanderSteps.Terminating(recycle: true, "uwsgi-core"));
        var pids = await lab.Web.WarmUpAsync();
        await agent.SeesAsync(pids[3]);
        await lab.Router.SetLegDeadAsync(1 - await LegOfAsync(lab, pids[3]), dead: true);
        await FreedAsync(lab, agent, pids);
    }

    [Theory]
    [InlineData("an egress rule drops")]
    [InlineData("an egress rule refuses")]
    [InlineData("the server refuses new connections")]
    [InlineData("the ports are used up")]
    public async Task A_forgotten_connection_is_freed_where_the_agent_itself_may_not_connect(string why)
    {
        await using var lab = await TestLab.StartAsync(BystanderSteps.PatientRouter);
        var agent = await lab.StartAgentAsync(BystanderSteps.Terminating(recycle: true, "uwsgi-core"));
        var pids = await lab.Web.WarmUpAsync();
        await agent.SeesAsync(pids[3]);
        var port = (await lab.SocketOfAsync(pids[0])).Local.Port;
        await (why switch
        {
            // The agent is root here, the workers are not.
            "an egress rule drops" => lab.Network.Worker.RunAsync(["nft", "-f", "-"], Chain("output", "meta skuid 0 tcp dport 5432 tcp flags & (syn | ack) == syn drop")),
            "an egress rule refuses" => lab.Network.Worker.RunAsync(["nft", "-f", "-"], Chain("output", "meta skuid 0 tcp dport 5432 tcp flags & (syn | ack) == syn reject")),
            "the server refuses new connections" => lab.Network.Database.RunAsync(
                ["nft", "-f", "-"], Chain("input", "tcp dport 5432 tcp flags & (syn | ack) == syn reject with tcp reset")),
            _ => lab.Network.Worker.SysctlAsync($"net.ipv4.ip_local_port_range={port} {port}"),
        });
        await FreedAsync(lab, agent, pids);

        static string Chain(string hook, string rule) => $"table inet refusal {{\n chain {hook} {{\n type filter hook {hook} priority filter; policy accept;\n {rule}\n }}\n}}\n";
    }

    [Fact]
    public async Task With_recycling_off_hung_workers_are_ended_one_by_one_when_all_connections_are_forgotten_together()
    {
        await using var lab = await TestLab.StartAsync(BystanderSteps.PatientRouter);
        var agent = await lab.StartAgentAsync(BystanderSteps.Terminating(recycle: false, "uwsgi-core") with { FurtherLines = ["budget = 10/h"] });
        var pids = await lab.Web.WarmUpAsync();
        await agent.SeesAsync(pids[3]);
        await Task.Delay(BystanderSteps.Rest);
        await lab.Router.ForgetAsync();
        var requests = new List<Task<ApplicationAnswer>>();
        for (var worker = 1; worker <= 4; worker++)
        {
            requests.Add(lab.Web.GetAsync(worker, "/sleep?s=0"));
            await Task.Delay(Wait.Seconds(0.6));
        }

        // Nobody is freed but by the end of his process; each of the four is replaced within the time of four terminations.
        var all = Task.WhenAll(requests).ContinueWith(_ => { }, TaskScheduler.Default);
        (await all.EndsInAsync(Wait.Seconds(90))).ShouldBeTrue($"the site stays down; the agent's log:\n{agent.Process.Output}");
        await lab.EveryWorkerAnswersAsync();
        var terminated = (await agent.IncidentsAsync()).Where(i => i is { Remedy: "terminate", WithheldBy: null }).Select(i => i.Pid).ToList();
        terminated[0].ShouldBe(pids[0]);
        terminated.ShouldBeUnique();
        lab.Web.Workers().Select(w => w.Pid).Intersect(pids).Count().ShouldBe(4 - terminated.Count);
    }

    /// <summary>The last worker's connection is forgotten, the neighbours exchange data: it is freed within 30 s, and nobody is ended.</summary>
    private static async Task FreedAsync(TestLab lab, AgentProcess agent, IReadOnlyList<int> pids)
    {
        await using var neighbours = new Neighbours(lab, 1, 2, 3);
        await Task.Delay(BystanderSteps.Rest);
        await lab.Router.ForgetAsync((await lab.SocketOfAsync(pids[3])).Local);
        var before = neighbours.Served;
        var request = lab.Web.GetAsync(4, "/sleep?s=0");

        // 30 s after the first unanswered send, and as long again for a busy machine.
        (await request.EndsInAsync(Wait.Seconds(60))).ShouldBeTrue($"the worker hangs; the agent's log:\n{agent.Process.Output}");
        (await request).Error.ShouldNotBeNull();
        neighbours.Served.ShouldBeGreaterThan(before);
        await agent.NobodySignalledAsync(pids);
        (await agent.IncidentsAsync()).ShouldContain(i => i.Remedy == "recycle" && i.Outcome == "released" && i.Pid == pids[3]);
    }

    private static async Task<int> LegOfAsync(TestLab lab, int pid) => (await lab.SocketOfAsync(pid)).Local.Port & 1;
}
