using Shouldly;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.CoreTests.Remedies;

/// <summary>One worker at a time, within a budget, and only the one that is provably hung.</summary>
public sealed class TerminationTests
{
    private readonly Bench _bench = new(with: section => section with { Recycle = false });

    [Theory]
    [InlineData(BlockedOn.Other, "terminate not-blocked")]
    [InlineData(BlockedOn.Stopped, "terminate not-blocked")]
    [InlineData(BlockedOn.Unknown, "terminate unknown")]
    public void A_worker_that_is_not_provably_blocked_is_left_alone_and_that_is_counted_once(BlockedOn blocked, string withheld)
    {
        _bench.Hands.Blocked = blocked;
        _bench.Forget(_bench.Open(), 20);
        _bench.Hands.All<Terminate>().ShouldBeEmpty();
        _bench.Hands.Withheld.Count(by => by == withheld).ShouldBe(1);
    }

    [Theory]
    [InlineData(true, "terminate other-progress")]
    [InlineData(null, "terminate unknown")]
    public void A_worker_that_moves_elsewhere_or_may_do_so_is_left_alone(bool? progress, string withheld)
    {
        _bench.Hands.OtherProgress = progress;
        _bench.Forget(_bench.Open(), 20);
        _bench.Hands.All<Terminate>().ShouldBeEmpty();
        _bench.Hands.Withheld.Count(by => by == withheld).ShouldBe(1);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(4242)]
    public void Pid_1_and_the_agent_itself_are_never_terminated(int pid)
    {
        _bench.Forget(_bench.Open(pid: pid), 20);
        _bench.Hands.All<Terminate>().ShouldBeEmpty();
        _bench.Hands.Withheld.ShouldContain("terminate protected-process");
    }

    [Fact]
    public void Workers_are_inspected_once_a_second_at_most()
    {
        _bench.Hands.Blocked = BlockedOn.Other;
        _bench.Forget(_bench.Open(), 20);
        var inspections = _bench.Hands.Log.Where(entry => entry.Command is InspectWorker).Select(entry => entry.At).ToList();
        inspections.Count.ShouldBeGreaterThan(5);
        inspections.Zip(inspections.Skip(1), (before, after) => after - before).Min().ShouldBeGreaterThanOrEqualTo(TimeSpan.FromSeconds(1));
    }

    [Fact]
    public void SIGKILL_follows_once_after_the_grace_and_the_process_is_let_go_when_it_has_exited()
    {
        _bench.Forget(_bench.Open(), 12);
        var term = _bench.Hands.Log.Single(entry => entry.Command is Terminate).At;
        (_bench.Hands.Log.Single(entry => entry.Command is Kill).At - term).ShouldBe(Bench.Web.Grace);
        _bench.Hands.All<TerminatedReport>().Select(report => report.Signal).ShouldBe(["TERM", "KILL"]);
        _bench.Hands.All<LetGo>().ShouldBeEmpty();
        _bench.Hands.Exited = true;
        _bench.Run(0.2);
        _bench.Hands.All<LetGo>().Count().ShouldBe(1);
    }

    [Theory]
    [InlineData(true, "terminate exited")]
    [InlineData(false, "terminate failed")]
    public void The_incident_tells_how_the_worker_ended(bool exits, string ended)
    {
        _bench.Hands.Exited = exits;
        _bench.Forget(_bench.Open(), 30);
        _bench.Hands.Ended.First().ShouldBe(ended);
    }

    [Theory]
    [InlineData(SignalOutcome.Gone, "terminate vanished")]
    [InlineData(SignalOutcome.NotPermitted, "terminate refused")]
    public void A_signal_that_was_not_sent_spends_no_budget_and_is_not_repeated_at_once(SignalOutcome outcome, string ended)
    {
        _bench.Hands.Signal = outcome;
        _bench.Forget(_bench.Open(), 20);
        _bench.Hands.Ended.ShouldAllBe(each => each == ended);
        var tries = _bench.Hands.Log.Where(entry => entry.Command is Terminate).Select(entry => entry.At).ToList();
        tries.Count.ShouldBeGreaterThan(Bench.Web.Budget.Count - (outcome == SignalOutcome.Gone ? 0 : 1), "no budget was spent");
        tries.Zip(tries.Skip(1), (a, b) => b - a).ShouldAllBe(gap => gap >= TimeSpan.FromSeconds(outcome == SignalOutcome.Gone ? 3 : 9));
        _bench.Hands.All<TerminatedReport>().ShouldBeEmpty();
    }

    [Fact]
    public void The_first_hung_one_is_ended_and_the_next_one_after_its_recovery()
    {
        var (first, second) = (_bench.Open(), _bench.Open());
        _bench.Hands.Exited = true;
        first.Send(_bench.Now);
        _bench.Run(0.1);
        second.Send(_bench.Now);
        _bench.Run(30);
        var terms = _bench.Hands.Log.Where(entry => entry.Command is Terminate).ToList();
        ((Terminate)terms[0].Command).Connection.Cookie.ShouldBe(first.Cookie);
        _bench.Hands.Withheld.ShouldContain("terminate not-first-hung");
        terms.Zip(terms.Skip(1), (a, b) => b.At - a.At).ShouldAllBe(gap => gap >= TimeSpan.FromSeconds(3));
    }

    [Fact]
    public void A_restarted_agent_remembers_what_was_spent_and_stands_down_once()
    {
        _bench.Engine.Remember([Earlier(10), Earlier(20)], DateTimeOffset.UnixEpoch + _bench.Now, _bench.Now);
        var (first, second) = (_bench.Open(), _bench.Open());
        first.Send(_bench.Now);
        _bench.Forget(second, 20);
        _bench.Hands.All<Terminate>().ShouldBeEmpty();
        _bench.Hands.Withheld.Count(by => by == "terminate budget").ShouldBe(2, "once for each");
        _bench.Hands.All<StoodDownReport>().Count().ShouldBe(1);
    }

    [Theory]
    [InlineData(false, 0)]
    [InlineData(true, 1)]
    public void When_all_hang_together_one_is_ended_only_once_the_server_itself_has_answered(bool answers, int terminated)
    {
        _bench.ServerAnswers = answers;
        FakeSocket[] sockets = [_bench.Open(), _bench.Open(), _bench.Open(), _bench.Open()];
        foreach (var socket in sockets)
        {
            socket.Send(_bench.Now);
        }

        _bench.Run(8);
        _bench.Hands.All<Terminate>().Count().ShouldBe(terminated);
        _bench.Hands.Withheld.Contains("terminate common-mode").ShouldBe(!answers);
    }

    [Fact]
    public void A_kernel_thread_is_never_terminated()
    {
        var socket = _bench.Open();
        var process = new OwnerInfo(new ProcessIdentity(77, 1), "kworker", null, null, 33, IsKernelThread: true, Bench.Web);
        _bench.World.Owners.Add(process);
        _bench.World.Owners.Found(socket.Inode, process.Identity, 5, 1);
        _bench.Forget(socket, 20);
        _bench.Hands.All<Terminate>().ShouldBeEmpty();
        _bench.Hands.Withheld.ShouldContain("terminate protected-process");
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Nobody_is_terminated_whom_no_section_names_with_terminate_on(bool isNamed)
    {
        var section = Bench.Web with { Terminate = false };
        var bench = new Bench(with: section => section with { Recycle = false }, workers: [section]);
        bench.Forget(isNamed ? bench.Open(workers: section) : bench.Open(uid: 34), 20);
        bench.Hands.All<Terminate>().ShouldBeEmpty();
        bench.Hands.All<InspectWorker>().ShouldBeEmpty();
        bench.Hands.Withheld.ShouldContain("terminate unnamed-worker");
    }

    [Fact]
    public void A_budget_of_two_in_five_minutes_ends_two_and_one_more_when_they_have_passed()
    {
        var five = Bench.Web with { Budget = new TerminationBudget(2, TimeSpan.FromMinutes(5)) };
        var bench = new Bench(with: section => section with { Recycle = false }, workers: [five]);
        bench.Hands.Exited = true;
        for (var i = 0; i < 4; i++)
        {
            var socket = bench.Open(workers: five);
            bench.Forget(socket, 15);
            socket.IsClosed = i < 2; // its process has exited
        }

        bench.Hands.All<TerminatedReport>().Count().ShouldBe(2);
        bench.Hands.All<StoodDownReport>().Single().ShouldSatisfyAllConditions(told => told.Workers.ShouldBe("web"), told => told.Budget.ShouldBe(2));
        bench.Run(270);
        bench.Hands.All<TerminatedReport>().Count().ShouldBeGreaterThan(2);
    }

    [Fact]
    public void One_groups_terminations_spend_nothing_of_anothers_budget_and_do_not_make_it_wait()
    {
        var jobs = Bench.Web with { Name = "jobs" };
        var bench = new Bench(with: section => section with { Recycle = false }, workers: [Bench.Web, jobs]);
        var (web, job) = (bench.Open(), bench.Open(workers: jobs));
        web.Send(bench.Now);
        bench.Run(0.1);
        bench.Forget(job, 8);
        bench.Hands.All<TerminatedReport>().Select(report => report.Workers).Distinct().ShouldBe(["jobs", "web"], ignoreOrder: true);
        bench.Hands.Withheld.ShouldNotContain("terminate one-at-a-time");
    }

    [Fact]
    public void While_one_is_being_ended_no_other_of_its_group_is()
    {
        var (first, second, _) = (_bench.Open(), _bench.Open(), _bench.Open(idle: 1));
        first.Send(_bench.Now);
        _bench.Run(0.1);
        second.Send(_bench.Now);
        _bench.Run(2);
        first.Receive(_bench.Now); // so that the second one hangs longest
        _bench.Run(7);
        _bench.Hands.All<Terminate>().Count().ShouldBe(1);
        _bench.Hands.Withheld.ShouldContain("terminate one-at-a-time");
        _bench.Engine.IsFollowing.ShouldBeTrue();
    }

    [Fact]
    public void A_clock_that_was_stepped_back_does_not_make_room_in_the_budget()
    {
        _bench.Engine.Remember([Earlier(-600), Earlier(-1200)], DateTimeOffset.UnixEpoch + _bench.Now, _bench.Now);
        _bench.Forget(_bench.Open(), 20);
        _bench.Hands.All<Terminate>().ShouldBeEmpty();
    }

    [Fact]
    public void What_was_withheld_or_long_ago_or_another_groups_spends_nothing()
    {
        _bench.Engine.Remember(
            [Earlier(10) with { WithheldBy = "budget" }, Earlier(11) with { WithheldBy = "budget" }, Earlier(10) with { Workers = "other" }, Earlier(11) with { Workers = "other" }, Earlier(10) with { Remedy = "recycle" }, Earlier(11) with { Remedy = "recycle" }, Earlier(61), Earlier(62)],
            DateTimeOffset.UnixEpoch + _bench.Now,
            _bench.Now);
        _bench.Forget(_bench.Open(), 20);
        _bench.Hands.All<Terminate>().ShouldNotBeEmpty();
    }

    [Fact]
    public void A_worker_that_used_another_connection_since_the_stall_is_not_hung_even_where_that_one_has_gone()
    {
        var (hung, other) = (_bench.Open(pid: 500), _bench.Open(idle: 1, pid: 500));
        other.Answers = true;
        hung.Send(_bench.Now);
        _bench.Run(0.5);
        other.Receive(_bench.Now);
        _bench.Tick();
        other.IsClosed = true;
        _bench.Run(20);
        _bench.Hands.All<Terminate>().ShouldBeEmpty();
        _bench.Hands.Withheld.ShouldContain("terminate other-progress");
    }

    [Fact]
    public void A_process_that_does_not_exit_on_SIGKILL_is_let_go_after_ten_seconds()
    {
        _bench.Forget(_bench.Open(), 12);
        var killed = _bench.Hands.Log.Single(entry => entry.Command is Kill).At;
        _bench.Run(12);
        var ended = _bench.Hands.Log.First(entry => entry.Command is IncidentReport { Stage: IncidentStage.Ended });
        (ended.At - killed).ShouldBe(TimeSpan.FromSeconds(10));
        ((IncidentReport)ended.Command).Incident.Why.ShouldEndWith("it did not exit on SIGKILL");
        _bench.Hands.All<LetGo>().ShouldNotBeEmpty();
    }

    [Fact]
    public void In_observe_mode_nobody_is_terminated_and_what_would_have_been_done_is_told_once()
    {
        var bench = new Bench(AgentMode.Observe, section => section with { Recycle = false });
        bench.Forget(bench.Open(), 30);
        bench.Hands.All<Terminate>().ShouldBeEmpty();
        bench.Hands.Withheld.Count(by => by == "terminate observe").ShouldBe(1);
    }

    private Incident Earlier(int minutes) => new()
    {
        Id = $"{minutes}", Time = DateTimeOffset.UnixEpoch + _bench.Now - TimeSpan.FromMinutes(minutes), Upstream = "db", Cause = "stuck", Remedy = "terminate",
        Outcome = "exited", Pid = 1, WithheldBy = null, Why = "", Workers = "web",
    };
}
