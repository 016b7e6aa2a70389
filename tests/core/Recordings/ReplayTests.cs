using Shouldly;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Recordings;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Settings;
using Sidecar.CoreTests.Remedies;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.CoreTests.Recordings;

/// <summary>
/// What leads to each kind of decision is recorded, within bounds, and leads to it again. Besides, the bench replays each incident of
/// every other test.
/// </summary>
public sealed class ReplayTests
{
    [Fact]
    public void A_stuck_connection_that_was_closed_replays_from_its_first_timeout_to_the_decision()
    {
        var bench = new Bench();
        bench.Forget(bench.Open());
        var result = Replayed(bench, "recycle", null);
        result.Decision.ShouldBe(Decision.Act(Remedy.Recycle));
        result.Steps[0].Replayed.ShouldNotBeNull().Verdict.ShouldBe(Verdict.Suspect);
        result.Steps.Last(step => step.Replayed is not null).Replayed!.Verdict.ShouldBe(Verdict.Stuck);
        result.Steps.ShouldContain(step => step.What.StartsWith("connect probe", StringComparison.Ordinal));
        result.Steps[^1].Guardrails.Select(answer => answer.Guardrail).ShouldBe(
            [Guardrail.NotDeclared, Guardrail.PathDown, Guardrail.LateTick, Guardrail.CommonMode, Guardrail.Observe]);
        result.Steps[^1].Guardrails.ShouldAllBe(answer => !answer.Withholds);
    }

    [Fact]
    public void A_forgotten_resting_connection_that_was_closed_replays()
    {
        var bench = new Bench();
        var neighbour = bench.Open(idle: 1);
        neighbour.Answers = true;
        neighbour.Send(bench.Now);
        bench.Run(1);
        neighbour.Receive(bench.Now);
        bench.Open(idle: 100);
        bench.Run(20);
        var incident = bench.Hands.All<IncidentReport>().First(report => report.Incident is { Cause: "expired", Remedy: "recycle" }).Incident;
        var result = Replay.Run(incident, incident.Recording!);
        result.Difference.ShouldBeNull();
        result.Steps.ShouldContain(step => step.What == "window probe sent");
    }

    [Fact]
    public void A_termination_after_closing_did_not_help_replays_with_what_came_of_closing()
    {
        var bench = new Bench();
        bench.Hands.Worker = new WorkerState(true, 7);
        bench.Forget(bench.Open(), 20);
        var result = Replayed(bench, "terminate", null);
        result.Steps.ShouldContain(step => step.What == "recycle: released");
        result.Steps[^1].Guardrails.Select(answer => answer.Guardrail).ShouldContain(Guardrail.NotBlocked);
    }

    [Theory]
    [InlineData(BlockedOn.Other, false, 1, Guardrail.NotBlocked)]
    [InlineData(BlockedOn.Unknown, false, 1, Guardrail.Unknown)]
    [InlineData(BlockedOn.Socket, true, 1, Guardrail.OtherProgress)]
    [InlineData(BlockedOn.Socket, false, 2, Guardrail.Unknown)]
    public void A_termination_that_was_withheld_replays_and_the_guardrail_says_so(BlockedOn blocked, bool? progress, int holders, Guardrail guardrail)
    {
        var bench = new Bench(with: section => section with { Recycle = false });
        (bench.Hands.Blocked, bench.Hands.OtherProgress) = (blocked, progress);
        bench.Forget(bench.Open(holders: holders), 20);
        var result = Replayed(bench, "terminate", guardrail);
        result.Steps[^1].Guardrails.Where(answer => answer.Withholds).Select(answer => answer.Guardrail).ShouldContain(guardrail);
    }

    [Theory]
    [InlineData(1, Guardrail.ProtectedProcess)]
    [InlineData(4242, Guardrail.ProtectedProcess)]
    public void A_protected_process_replays(int pid, Guardrail guardrail)
    {
        var bench = new Bench(with: section => section with { Recycle = false });
        bench.Forget(bench.Open(pid: pid), 20);
        Replayed(bench, "terminate", guardrail);
    }

    [Fact]
    public void The_budget_and_one_at_a_time_replay()
    {
        var bench = new Bench(with: section => section with { Recycle = false });
        bench.Hands.Exited = false;
        var first = bench.Open();
        bench.Forget(first, 5);
        bench.Forget(bench.Open(), 30);
        var withheld = bench.Hands.All<IncidentReport>().Where(report => report.Incident.WithheldBy is not null).Select(report => report.Incident).ToList();
        withheld.ShouldNotBeEmpty();
        withheld.ShouldAllBe(incident => Replay.Run(incident, incident.Recording!).Difference == null);
    }

    [Fact]
    public void What_a_late_tick_withheld_replays()
    {
        var bench = new Bench { IsLate = true };
        bench.Forget(bench.Open());
        var result = Replayed(bench, "recycle", Guardrail.LateTick);
        result.Steps[^1].Guardrails.Single(answer => answer.Withholds).Guardrail.ShouldBe(Guardrail.LateTick);
    }

    [Fact]
    public void What_observe_mode_withheld_replays()
    {
        var bench = new Bench(AgentMode.Observe);
        bench.Forget(bench.Open(), 30);
        Replayed(bench, "recycle", Guardrail.Observe);
    }

    [Fact]
    public void An_outage_replays()
    {
        var bench = new Bench { Path = ConnectProbeOutcome.TimedOut };
        bench.Forget(bench.Open());
        Replayed(bench, "recycle", Guardrail.PathDown).Steps.Last(step => step.Replayed is not null).Replayed!.Verdict.ShouldBe(Verdict.Outage);
    }

    [Fact]
    public void A_black_hole_of_the_answers_replays_from_its_last_step()
    {
        var bench = new Bench();
        var socket = bench.Open(idle: 1);
        bench.Run(1);
        socket.Send(bench.Now);
        socket.Acknowledge(bench.Now);
        bench.Run(1);
        socket.OutOfOrder = 3;
        bench.Run(10);
        var result = Replayed(bench, "none", null);
        result.Steps.First(step => step.Replayed is not null).Replayed!.Reason.ShouldBe(Reason.LargeAnswersLost);
    }

    [Fact]
    public void A_path_that_is_up_in_part_replays()
    {
        var bench = new Bench { Path = ConnectProbeOutcome.TimedOut };
        var (silent, neighbour) = (bench.Open(idle: 1), bench.Open(idle: 1));
        silent.Send(bench.Now);
        for (var i = 0; i < 100; i++)
        {
            // Connect probes fail, and a neighbour goes on.
            neighbour.Send(bench.Now);
            neighbour.Receive(bench.Now);
            bench.Tick();
        }

        Replayed(bench, "recycle", Guardrail.Partly);
    }

    /// <summary>As when the incident is of a version that has other thresholds.</summary>
    [Fact]
    public void Where_the_judge_was_another_the_first_step_that_it_judged_otherwise_is_the_difference()
    {
        var incident = Recycled();
        var steps = incident.Recording!.Steps.ToList();
        var at = steps.FindIndex(step => step.Judged is { Verdict: Verdict.Stuck });
        steps[at] = steps[at] with { Judged = steps[at].Judged! with { Verdict = Verdict.Suspect, Reason = Reason.RetransmittingPathUp } };
        var result = Replay.Run(incident, incident.Recording with { Steps = steps });
        result.Difference.ShouldNotBeNull().ShouldContain("recorded suspect (RetransmittingPathUp");
        result.Difference.ShouldContain("now stuck (SilentWhilePathUp");
        result.Steps[^1].Replayed!.Verdict.ShouldBe(Verdict.Stuck, "no step follows the one that differs");
    }

    [Fact]
    public void Where_a_guardrail_was_not_there_its_step_is_the_difference()
    {
        var incident = Recycled();
        var steps = incident.Recording!.Steps.Select(step => step.Plan is { } plan ? step with { Plan = plan with { PathUp = false } } : step).ToList();
        Replay.Run(incident, incident.Recording with { Steps = steps }).Difference.ShouldNotBeNull()
            .ShouldEndWith("recorded recycle is carried out, now recycle withheld by path-down");
    }

    [Fact]
    public void Where_other_odds_come_of_the_same_observations_that_is_a_difference()
    {
        var incident = Recycled();
        var steps = incident.Recording!.Steps.Select(step => step.Judged is { Odds: > 0 } judged ? step with { Judged = judged with { Odds = judged.Odds * 1.01 } } : step).ToList();
        Replay.Run(incident, incident.Recording with { Steps = steps }).Difference.ShouldNotBeNull().ShouldContain("odds");
    }

    [Fact]
    public void Where_something_was_seen_otherwise_the_verdicts_on_it_differ()
    {
        var incident = Recycled();
        var steps = incident.Recording!.Steps.ToList();
        var at = steps.FindLastIndex(step => step.Seen is not null);
        steps[at] = steps[at] with { Seen = steps[at].Seen! with { Unacked = 0, Retransmits = 0 } };
        Replay.Run(incident, incident.Recording with { Steps = steps }).Difference.ShouldNotBeNull();
    }

    [Theory]
    [InlineData("terminate", null, "stuck")]
    [InlineData("recycle", "observe", "stuck")]
    [InlineData("recycle", null, "outage")]
    public void An_incident_that_says_something_else_than_its_recording_differs(string remedy, string? withheldBy, string cause)
    {
        var incident = Recycled() with { Remedy = remedy, WithheldBy = withheldBy, Cause = cause };
        Replay.Run(incident, incident.Recording!).Difference.ShouldNotBeNull().ShouldStartWith("the incident says");
    }

    [Fact]
    public void When_the_tick_was_due_decides_again_whether_it_was_late()
    {
        var incident = Recycled();
        var steps = incident.Recording!.Steps.Select(step => step.Plan is { } plan
            ? step with { Plan = plan with { TickPlanned = step.At - TimeSpan.FromSeconds(2), TickStarted = step.At, TickObserved = step.At } } : step).ToList();
        Replay.Run(incident, incident.Recording with { Steps = steps }).Difference.ShouldNotBeNull().ShouldEndWith("now recycle withheld by late-tick");
    }

    private static Incident Recycled()
    {
        var bench = new Bench();
        bench.Forget(bench.Open());
        var incident = bench.Hands.All<IncidentReport>().First().Incident;
        Replay.Run(incident, incident.Recording!).Difference.ShouldBeNull();
        return incident;
    }

    private static ReplayResult Replayed(Bench bench, string remedy, Guardrail? withheldBy)
    {
        var incident = bench.Hands.All<IncidentReport>().First(report => report.Incident.Remedy == remedy && report.Incident.WithheldBy == withheldBy?.ToName()).Incident;
        var result = Replay.Run(incident, incident.Recording.ShouldNotBeNull());
        result.Difference.ShouldBeNull();
        return result;
    }
}
