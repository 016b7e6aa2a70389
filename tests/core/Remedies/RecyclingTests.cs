using Shouldly;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.CoreTests.Remedies;

/// <summary>From silence to a closed connection, through each guardrail, to what came of it.</summary>
public sealed class RecyclingTests
{
    [Fact]
    public void A_forgotten_connection_is_closed_once_and_within_seconds()
    {
        var bench = new Bench();
        var sent = bench.Now;
        bench.Forget(bench.Open());
        bench.Hands.All<Recycle>().Count().ShouldBe(1);
        bench.Hands.All<ReleasedReport>().Single().Stuck.ShouldBeLessThan(TimeSpan.FromSeconds(5));
        bench.Hands.Ended.ShouldBe(["recycle released"]);
    }

    [Fact]
    public void An_incident_is_written_down_as_pending_before_the_action_and_ended_after_it()
    {
        var bench = new Bench();
        bench.Forget(bench.Open());
        var commands = bench.Hands.Log.Select(entry => entry.Command).ToList();
        var recycle = commands.FindIndex(command => command is Recycle);
        var begun = commands[recycle - 1].ShouldBeOfType<IncidentReport>();
        (begun.Stage, begun.Incident.Outcome).ShouldBe((IncidentStage.Begun, "pending"));
        commands.FindIndex(command => command is IncidentReport { Stage: IncidentStage.Ended } ended && ended.Incident.Id == begun.Incident.Id).ShouldBeGreaterThan(recycle);
    }

    [Theory]
    [InlineData(RecycleResult.Vanished, "recycle vanished")]
    [InlineData(RecycleResult.Recovered, "recycle recovered")]
    [InlineData(RecycleResult.Refused, "recycle refused")]
    [InlineData(RecycleResult.Failed, "recycle failed")]
    public void What_came_of_closing_stands_in_the_incident_and_it_is_not_tried_again(RecycleResult result, string ended)
    {
        var bench = new Bench();
        bench.Hands.Recycled = new RecycleOutcome(result, "why", 7);
        bench.Hands.Blocked = BlockedOn.Other;
        bench.Forget(bench.Open());
        bench.Hands.Ended.ShouldBe([ended]);
        bench.Hands.All<Recycle>().Count().ShouldBe(1);
        bench.Hands.All<RecycledReport>().ShouldBeEmpty();
        bench.Hands.Withheld.Count(withheld => withheld == "recycle not-permitted").ShouldBe(result == RecycleResult.Refused ? 1 : 0);
    }

    [Theory]
    [InlineData(RecycleResult.Refused)]
    [InlineData(RecycleResult.Failed)]
    public void Where_closing_is_not_possible_the_hung_worker_is_terminated(RecycleResult result)
    {
        var bench = new Bench();
        bench.Hands.Recycled = new RecycleOutcome(result, "why", 7);
        bench.Forget(bench.Open());
        bench.Hands.All<Terminate>().Single().IsRecycled.ShouldBeFalse();
    }

    [Fact]
    public void A_worker_that_went_on_after_its_connection_was_closed_was_helped()
    {
        var bench = new Bench();
        bench.Forget(bench.Open());
        bench.Hands.All<RecycleDidNotHelpReport>().ShouldBeEmpty();
        bench.Hands.All<CheckWorker>().Count().ShouldBe(1);
        bench.Engine.IsFollowing.ShouldBeFalse();
    }

    [Theory]
    [InlineData(false, 7L, 7L)]
    [InlineData(true, null, 7L)]
    public void Where_it_cannot_be_seen_whether_a_worker_ran_it_counts_as_helped(bool alive, long? before, long? after)
    {
        var bench = new Bench();
        bench.Hands.Recycled = new RecycleOutcome(RecycleResult.Released, null, before);
        bench.Hands.Worker = new WorkerState(alive, after);
        bench.Forget(bench.Open(), 20);
        bench.Hands.All<Terminate>().ShouldBeEmpty();
        bench.Engine.IsFollowing.ShouldBeFalse();
    }

    [Fact]
    public void A_worker_that_has_not_run_for_three_seconds_and_is_blocked_on_the_closed_socket_is_terminated()
    {
        var bench = Hung();
        bench.Forget(bench.Open(), 20);
        var closed = bench.Hands.Log.First(entry => entry.Command is Recycle).At;
        var (at, command) = bench.Hands.Log.First(entry => entry.Command is Terminate);
        (at - closed).ShouldBeGreaterThanOrEqualTo(TimeSpan.FromSeconds(3));
        ((Terminate)command).IsRecycled.ShouldBeTrue();
        bench.Hands.All<RecycleDidNotHelpReport>().Count().ShouldBe(1);
    }

    /// <summary>A socket that was inherited over fork: the first of its holders may be an idle master.</summary>
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void For_a_socket_that_several_processes_held_nobody_is_ever_terminated(bool recycle)
    {
        var bench = new Bench(with: section => section with { Recycle = recycle });
        bench.Hands.Worker = new WorkerState(true, 7);
        var socket = bench.Open(holders: 2);
        socket.Send(bench.Now);
        bench.Run(5);

        // Afterwards the search finds the one alone that is left.
        bench.World.Owners.Found(socket.Inode, bench.World.Owners.Processes.Single().Identity, 5, recycle ? 1 : 2);
        bench.Run(25);
        bench.Hands.All<Terminate>().ShouldBeEmpty();
        bench.Hands.All<InspectWorker>().ShouldBeEmpty("who held it when it was closed decides");
        bench.Hands.Withheld.Count(withheld => withheld == "terminate unknown").ShouldBe(1);
    }

    [Fact]
    public void While_the_tick_is_late_nothing_is_closed_and_it_is_counted_once()
    {
        var bench = new Bench();
        var socket = bench.Open();
        bench.IsLate = true;
        bench.Forget(socket);
        bench.Hands.All<Recycle>().ShouldBeEmpty();
        bench.Hands.Withheld.ShouldBe(["recycle late-tick"]);
        bench.IsLate = false;
        bench.Run(1);
        bench.Hands.All<Recycle>().Count().ShouldBe(1);
    }

    [Fact]
    public void In_observe_mode_nothing_is_touched_and_what_would_have_been_done_is_told_once()
    {
        var bench = new Bench(AgentMode.Observe);
        bench.Forget(bench.Open(), 30);
        bench.Hands.Acted.ShouldBeFalse();
        bench.Hands.Withheld.Count(withheld => withheld == "recycle observe").ShouldBe(1);
    }

    [Fact]
    public void With_recycling_off_that_is_counted_once_and_the_hung_worker_terminated()
    {
        var bench = new Bench(with: section => section with { Recycle = false });
        bench.Forget(bench.Open());
        bench.Hands.All<Recycle>().ShouldBeEmpty();
        bench.Hands.Withheld.ShouldBe(["recycle switched-off"]);
        bench.Hands.All<Terminate>().Count().ShouldBe(1);
    }

    [Fact]
    public void An_answered_window_probe_ends_suspicion_and_nothing_is_closed()
    {
        var bench = new Bench();
        var socket = bench.Open();
        socket.Answers = true;
        bench.Forget(socket, 30);
        bench.Hands.All<Recycle>().ShouldBeEmpty();
        bench.Connection(socket).LastProbeAnswer.ShouldNotBeNull();
    }

    [Fact]
    public void A_resting_connection_past_the_timeout_is_closed_only_after_probes_went_unanswered()
    {
        var bench = new Bench();
        var neighbour = bench.Open(idle: 1);
        neighbour.Answers = true;
        neighbour.Send(bench.Now);
        bench.Run(1); // the path is known to answer probes
        neighbour.Receive(bench.Now);
        bench.Open(idle: 100);
        bench.Run(0.5);
        bench.Hands.All<Recycle>().ShouldBeEmpty();
        bench.Run(20);
        bench.Hands.All<RecycledReport>().Single().Reason.ShouldBe("expired");
        bench.Hands.All<CheckWorker>().ShouldBeEmpty("nobody waited for it");
    }

    [Fact]
    public void An_agent_that_is_held_up_within_a_tick_closes_nothing_on_what_it_knew_before()
    {
        var bench = new Bench();
        var sockets = Enumerable.Range(0, 4).Select(_ => bench.Open(idle: 1, tick: false)).ToList();
        bench.Tick();
        sockets.ForEach(socket => socket.Send(bench.Now));
        bench.Hands.RecyclingTakes = TimeSpan.FromSeconds(1.2);
        for (var tick = 0; tick < 100 && !bench.Hands.All<Recycle>().Any(); tick++)
        {
            bench.Tick();
        }

        bench.Hands.All<Recycle>().Count().ShouldBe(1, "and what was to follow it in the same tick is not tried");
        bench.Hands.Ended.ShouldBe(["recycle failed"]);
        bench.Hands.Withheld.ShouldBe(["recycle late-tick"]);
        var probes = bench.Hands.All<ConnectProbe>().Count();

        bench.Hands.RecyclingTakes = TimeSpan.Zero;
        bench.Run(20);
        bench.Hands.All<Recycle>().Count().ShouldBe(5);
        bench.Hands.Ended.Count(ended => ended == "recycle released").ShouldBe(4);
        bench.Hands.All<ConnectProbe>().Count().ShouldBeGreaterThan(probes, "the path is asked anew");
    }

    [Fact]
    public void A_resting_connection_that_answers_is_never_closed_however_old()
    {
        var bench = new Bench();
        bench.Open(idle: 1000).Answers = true;
        bench.Run(60);
        bench.Hands.All<Recycle>().ShouldBeEmpty();
        bench.Hands.All<NudgedReport>().First().Outcome.ShouldBe("answered");
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void While_connect_probes_fail_nothing_is_closed_and_one_incident_tells_of_the_outage(bool recovers)
    {
        var bench = new Bench { Path = ConnectProbeOutcome.TimedOut };
        var (first, second) = (bench.Open(), bench.Open());
        first.Send(bench.Now);
        bench.Forget(second);
        bench.Hands.All<Recycle>().ShouldBeEmpty();
        bench.Hands.Withheld.ShouldBe(["recycle path-down"]);
        bench.Hands.Ended.ShouldBeEmpty();

        if (recovers)
        {
            first.Receive(bench.Now);
            bench.Run(1);
            bench.Hands.Ended.ShouldBeEmpty("the other one still hangs");
            second.Receive(bench.Now);
        }
        else
        {
            (first.IsClosed, second.IsClosed) = (true, true);
        }

        bench.Run(1);
        bench.Hands.Ended.ShouldBe([recovers ? "recycle recovered" : "recycle withheld"]);
        bench.Hands.All<IncidentReport>().Last().Incident.ReleaseSeconds.ShouldNotBeNull().ShouldBeGreaterThan(10);
    }

    [Fact]
    public void An_outage_is_not_over_for_a_connection_that_still_hangs_when_connect_probes_succeed_again()
    {
        var bench = new Bench { Path = ConnectProbeOutcome.TimedOut };
        bench.Forget(bench.Open());
        bench.IsLate = true; // so that it is not closed meanwhile
        bench.Path = ConnectProbeOutcome.Connected;
        bench.Run(5);
        bench.Hands.All<OutageReport>().Select(report => report.IsOver).ShouldBe([false, true]);
        bench.Hands.Ended.ShouldBeEmpty();
    }

    [Fact]
    public void When_all_fall_silent_together_ten_are_closed_in_the_first_second_and_more_while_the_server_bears_it()
    {
        var bench = new Bench();
        var sockets = Enumerable.Range(0, 60).Select(_ => bench.Open(idle: 1)).ToList();
        sockets.ForEach(socket => socket.Send(bench.Now));
        while (!bench.Hands.All<Recycle>().Any())
        {
            bench.Tick();
        }

        bench.Run(0.8);
        bench.Hands.All<Recycle>().Count().ShouldBe(10);
        bench.Hands.Withheld.ShouldContain("recycle common-mode");
        bench.Run(5);
        bench.Hands.All<Recycle>().Count().ShouldBe(60);
        bench.Hands.All<Terminate>().ShouldBeEmpty();
    }

    [Fact]
    public void A_new_stall_of_the_same_connection_is_a_new_case()
    {
        var bench = new Bench();
        bench.Hands.Recycled = new RecycleOutcome(RecycleResult.Recovered, "it moved after it was judged", 7);
        var socket = bench.Open(idle: 1);
        bench.Forget(socket);
        bench.Hands.All<Recycle>().Count().ShouldBe(1);
        socket.Receive(bench.Now);
        bench.Run(1);
        bench.Forget(socket, 60);
        bench.Hands.All<Recycle>().Count().ShouldBe(2);
        bench.Hands.Ended.ShouldBe(["recycle recovered", "recycle recovered"]);
    }

    [Fact]
    public void A_connection_that_is_closed_after_a_while_of_silence_without_the_agent_is_told()
    {
        var bench = new Bench();
        bench.IsLate = true;
        var socket = bench.Open(idle: 1);
        bench.Forget(socket, 6);
        socket.IsClosed = true;
        bench.Run(1);
        bench.Hands.All<EndedByItselfReport>().Single().Silence.ShouldBeInRange(TimeSpan.FromSeconds(5.5), TimeSpan.FromSeconds(7));
    }

    [Fact]
    public void One_that_the_agent_closed_did_not_end_by_itself()
    {
        var bench = new Bench();
        bench.Forget(bench.Open());
        bench.World.Connections.All.ShouldBeEmpty();
        bench.Hands.All<EndedByItselfReport>().ShouldBeEmpty();
    }

    /// <summary>The socket was destroyed, so only connect probes tell whether its worker could go on by now.</summary>
    [Fact]
    public void A_recycled_worker_that_does_not_run_is_not_terminated_while_the_path_is_away()
    {
        var bench = Hung();
        var socket = bench.Open();
        socket.Send(bench.Now);
        while (!bench.Hands.All<Recycle>().Any())
        {
            bench.Tick();
        }

        bench.Path = ConnectProbeOutcome.TimedOut;
        bench.Run(20);
        bench.Hands.All<Terminate>().ShouldBeEmpty();
        bench.Engine.IsFollowing.ShouldBeTrue();
        bench.Path = ConnectProbeOutcome.Connected;
        bench.Run(5);
        bench.Hands.All<Terminate>().Count().ShouldBe(1);
    }

    [Fact]
    public void Nothing_is_closed_on_the_word_of_a_connect_probe_that_is_no_longer_of_just_now()
    {
        var bench = new Bench();
        var socket = bench.Open(idle: 1);
        bench.IsLate = true;
        bench.Forget(socket, 8);
        bench.Path = null; // the next ones stay out
        bench.Run(1.5);
        bench.IsLate = false;
        bench.Run(3);
        bench.Hands.All<Recycle>().ShouldBeEmpty();
    }

    [Fact]
    public void The_incident_names_the_evidence_and_the_time_from_the_first_unanswered_send()
    {
        var bench = new Bench();
        var socket = bench.Open();
        var sent = bench.Now;
        bench.Forget(socket);
        var closed = bench.Hands.Log.Single(entry => entry.Command is Recycle).At;
        var ended = bench.Hands.All<IncidentReport>().Single(report => report.Stage == IncidentStage.Ended).Incident;
        ended.ShouldSatisfyAllConditions(
            incident => incident.Cause.ShouldBe("stuck"),
            incident => incident.Pid.ShouldBe(101),
            incident => incident.Workers.ShouldBe("web"),
            incident => incident.Local.ShouldBe("10.1.0.2:40001"),
            incident => incident.Namespace.ShouldBe("own"),
            incident => incident.StuckSeconds.ShouldBe((closed - sent).TotalSeconds),
            incident => incident.ReleaseSeconds.ShouldBe((closed - sent).TotalSeconds),
            incident => incident.Evidence["unacked_segments"].ShouldBe("1"),
            incident => incident.Evidence["fresh_connection"].ShouldStartWith("connected in "));
    }

    [Fact]
    public void Incidents_that_an_earlier_run_left_pending_end_as_interrupted_and_no_others()
    {
        Incident Left(string outcome) => new()
        {
            Id = outcome, Time = DateTimeOffset.UnixEpoch, Upstream = "db", Cause = "stuck", Remedy = "recycle", Outcome = outcome, Pid = 1, WithheldBy = null, Why = "why",
        };
        var report = RemedyEngine.CloseInterrupted([Left("pending"), Left("released")]).ShouldHaveSingleItem().ShouldBeOfType<IncidentReport>();
        (report.Stage, report.Incident.Id, report.Incident.Outcome).ShouldBe((IncidentStage.Ended, "pending", "interrupted"));
    }

    private static Bench Hung()
    {
        var bench = new Bench();
        bench.Hands.Worker = new WorkerState(true, 7);
        return bench;
    }
}
