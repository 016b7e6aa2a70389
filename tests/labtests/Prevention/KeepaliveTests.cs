using System.Diagnostics;

namespace Sidecar.LabTests.Prevention;

/// <summary>Keepalive armed from outside, on workers that nobody restarts or changes.</summary>
public sealed class HundredIdlePeriodsTests
{
    [Fact]
    public async Task With_the_agent_no_request_hangs_or_fails_over_a_hundred_idle_periods()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { Workers = 25 });
        var agent = await lab.StartAgentAsync(IdlePeriods.Prevention);
        var pids = await lab.Web.WarmUpAsync();
        var before = (await lab.DatabaseSocketsAsync()).Select(s => s.Inode).Order().ToList();
        before.Count.ShouldBe(25);

        await IdlePeriods.PassAsync(lab, periods: 4);

        // Every connection is still the first one.
        (await lab.DatabaseSocketsAsync()).Select(s => s.Inode).Order().ShouldBe(before);
        (await agent.StatusAsync()).Where(c => c.Pid is { } pid && pids.Contains(pid)).ShouldAllBe(c => c.Verdict == "healthy");
        (await agent.IncidentsAsync()).ShouldBeEmpty();
    }

    [Fact]
    public async Task Without_the_agent_they_hang()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { Workers = 25 });
        await lab.Web.WarmUpAsync();

        await Task.Delay(IdlePeriods.Length);

        (await IdlePeriods.UseAllAsync(lab)).ShouldAllBe(answer => answer == null);
    }
}

/// <summary>
/// A driver that switches keepalive on itself, with the system's two hours and 75 seconds: libpq's default, and so that of
/// most stacks.
/// </summary>
public sealed class DriversKeepaliveTests
{
    [Fact]
    public async Task With_the_agent_a_drivers_own_keepalive_comes_in_time_again_and_again()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { DriversKeepalive = true });
        var agent = await lab.StartAgentAsync(IdlePeriods.Prevention);
        await lab.Web.WarmUpAsync();

        // More than one period without use: the first probe alone would not do.
        await Task.Delay(IdlePeriods.Length);
        await IdlePeriods.PassAsync(lab, periods: 2);

        (await agent.IncidentsAsync()).ShouldBeEmpty();
        (await lab.DatabaseSocketsAsync()).Count.ShouldBe(4);
    }

    [Fact]
    public async Task Without_the_agent_it_comes_hours_too_late()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { DriversKeepalive = true });
        await lab.Web.WarmUpAsync();

        await Task.Delay(IdlePeriods.Length);

        (await IdlePeriods.UseAllAsync(lab)).ShouldAllBe(answer => answer == null);
    }
}

/// <summary>What the agent has set stays in the kernel.</summary>
public sealed class AgentKilledTests
{
    [Fact]
    public async Task Armed_connections_stay_protected_when_the_agent_is_killed()
    {
        await using var lab = await TestLab.StartAsync();
        var agent = await lab.StartAgentAsync(IdlePeriods.Prevention);
        await lab.Web.WarmUpAsync();
        await lab.ArmedAsync(lab.Database.EndPoint, 4);

        agent.Process.Send(Signal.Kill);
        await agent.Process.WaitForExitAsync(Wait.Seconds(5));

        await IdlePeriods.PassAsync(lab, periods: 2);
    }
}

/// <summary>An agent that comes too late for keepalive.</summary>
public sealed class AgentLateTests
{
    [Fact]
    public async Task Connections_that_were_forgotten_before_the_agent_came_are_recycled_before_they_are_used()
    {
        await using var lab = await TestLab.StartAsync();
        await lab.Web.WarmUpAsync();
        var forgotten = (await lab.DatabaseSocketsAsync()).Select(s => s.Inode).ToList();
        await Task.Delay(IdlePeriods.Length);

        var agent = await lab.StartAgentAsync(IdlePeriods.Prevention);
        await Wait.UntilAsync("none of the forgotten connections is left",
            async () => !(await lab.DatabaseSocketsAsync()).Any(s => forgotten.Contains(s.Inode) && s.State == "ESTAB"), Wait.Seconds(30));

        var asked = Stopwatch.StartNew();
        var answers = await IdlePeriods.UseAllAsync(lab);
        asked.Elapsed.ShouldBeLessThan(Wait.Seconds(1));
        answers.ShouldAllBe(answer => answer != null);
        var incidents = await agent.IncidentsAsync();
        incidents.Count.ShouldBe(4);
        incidents.ShouldAllBe(i => i.Remedy == "recycle" && i.Cause == "expired" && i.Outcome == "released");
        (await IdlePeriods.UseAllAsync(lab)).ShouldAllBe(answer => answer != null && answer.Error == null);
    }

    [Fact]
    public async Task Connections_that_are_old_but_alive_are_tested_and_left_alone()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { IdleTimeout = Wait.Seconds(600) });
        await lab.Web.WarmUpAsync();
        var before = (await lab.DatabaseSocketsAsync()).Select(s => s.Inode).Order().ToList();
        await Task.Delay(IdlePeriods.Length);

        var agent = await lab.StartAgentAsync(IdlePeriods.Prevention);
        await lab.ArmedAsync(lab.Database.EndPoint, 4);
        await Wait.UntilAsync("all are healthy", async () => (await agent.StatusAsync()).All(c => c.Verdict == "healthy"), Wait.Seconds(10));

        (await lab.DatabaseSocketsAsync()).Select(s => s.Inode).Order().ShouldBe(before);
        (await agent.IncidentsAsync()).ShouldBeEmpty();
        (await IdlePeriods.UseAllAsync(lab)).ShouldAllBe(answer => answer != null && answer.Error == null);
    }
}

/// <summary>A query that takes longer than the router remembers.</summary>
public sealed class LongQueryTests
{
    [Fact]
    public async Task A_query_of_forty_seconds_comes_back_with_its_answer()
    {
        await using var lab = await TestLab.StartAsync();
        var agent = await lab.StartAgentAsync(IdlePeriods.Prevention);
        await lab.Web.WarmUpAsync();
        await lab.ArmedAsync(lab.Database.EndPoint, 4);

        var answer = await lab.Web.GetAsync(4, "/sleep?s=40").WaitAsync(Wait.Seconds(60));

        answer.Error.ShouldBeNull();
        (await agent.IncidentsAsync()).ShouldBeEmpty();
    }
}

/// <summary>What the application has set is its own.</summary>
public sealed class ApplicationOptionsTests
{
    [Fact]
    public async Task Options_that_the_application_set_tighter_stay_as_they_are()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { ApplicationKeepalive = Wait.Seconds(3) });
        await lab.StartAgentAsync(IdlePeriods.Prevention);
        await lab.Web.WarmUpAsync();

        await Task.Delay(Wait.Seconds(5));

        (await lab.Web.GetAsync(1, "/options")).Value.ShouldBe("1 3 1 5");
    }

    [Fact]
    public async Task Options_that_it_set_too_late_are_tightened_and_nothing_else_is_changed()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { ApplicationKeepalive = Wait.Seconds(300) });
        await lab.StartAgentAsync(IdlePeriods.Prevention);
        await lab.Web.WarmUpAsync();

        await Wait.UntilAsync("the agent has armed it", async () => (await lab.Web.GetAsync(1, "/options")).Value == "1 5 1 5", Wait.Seconds(10));
    }

    [Fact]
    public async Task Without_options_of_its_own_a_probe_comes_at_half_the_timeout_and_dead_after_is_kept()
    {
        await using var lab = await TestLab.StartAsync();
        await lab.StartAgentAsync(IdlePeriods.Prevention);
        await lab.Web.WarmUpAsync();
        await lab.ArmedAsync(lab.Database.EndPoint, 4);

        var options = (await lab.Web.GetAsync(1, "/options")).Value.ShouldNotBeNull().Split(' ').Select(int.Parse).ToList();

        options[0].ShouldBe(1);
        options[1].ShouldBe(5);
        (options[2] * options[3]).ShouldBeGreaterThanOrEqualTo(120);
    }
}
