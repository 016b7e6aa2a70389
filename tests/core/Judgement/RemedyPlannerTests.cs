using Shouldly;
using Sidecar.Agent.Core.Judgement;
using Xunit;

namespace Sidecar.CoreTests.Judgement;

/// <summary>One test for each guardrail; the first two prove that without them the remedy would go ahead.</summary>
public sealed class RemedyPlannerTests
{
    private static readonly Circumstances Calm = new() { Observe = false, TickLate = false, CommonMode = false, RecycleRateLeft = true };

    private static readonly WorkerEvidence Hung = new()
    {
        SoleOwnerKnown = true,
        Protected = false,
        NamedForTermination = true,
        Blocked = BlockedOn.Socket,
        OtherProgress = false,
        HungFirst = true,
        GroupBusy = false,
        BudgetLeft = true,
    };

    private static readonly StuckCase ToRecycle = new()
    {
        Declared = true,
        PathUp = true,
        Partly = false,
        EndToEnd = false,
        RecycleEnabled = true,
        Recycle = RecycleProgress.NotTried,
        Worker = default,
    };

    private static readonly StuckCase ToTerminate = ToRecycle with { RecycleEnabled = false, Worker = Hung };

    [Fact]
    public void A_stuck_connection_is_recycled() => RemedyPlanner.ForStuck(ToRecycle, Calm).ShouldBe(new Decision(Remedy.Recycle, null));

    [Fact]
    public void Where_recycling_is_off_the_hung_worker_is_terminated() =>
        RemedyPlanner.ForStuck(ToTerminate, Calm).ShouldBe(new Decision(Remedy.Terminate, null));

    [Theory]
    [InlineData(RecycleProgress.Refused)]
    [InlineData(RecycleProgress.DidNotHelp)]
    public void Where_recycling_was_refused_or_of_no_help_the_hung_worker_is_terminated(RecycleProgress recycle) =>
        RemedyPlanner.ForStuck(ToRecycle with { Recycle = recycle, Worker = Hung }, Calm).ShouldBe(new Decision(Remedy.Terminate, null));

    [Theory]
    [InlineData(RecycleProgress.Settling)]
    [InlineData(RecycleProgress.Helped)]
    public void While_a_recycle_settles_or_after_it_helped_nothing_is_done(RecycleProgress recycle) =>
        RemedyPlanner.ForStuck(ToRecycle with { Recycle = recycle, Worker = Hung }, Calm).ShouldBe(Decision.Nothing);

    [Fact]
    public void A_living_connection_near_its_end_is_recycled_only_while_provably_nobody_uses_it()
    {
        RemedyPlanner.ForNearTheTimeout(ToRecycle, true, Calm).ShouldBe(new Decision(Remedy.Recycle, null));
        RemedyPlanner.ForNearTheTimeout(ToRecycle, false, Calm).ShouldBe(Decision.Nothing);
        RemedyPlanner.ForNearTheTimeout(ToRecycle, null, Calm).ShouldBe(new Decision(Remedy.Recycle, Guardrail.Unknown));
        RemedyPlanner.ForNearTheTimeout(ToRecycle with { RecycleEnabled = false }, true, Calm).ShouldBe(Decision.Nothing);
    }

    [Fact]
    public void A_living_connection_near_its_end_has_the_other_guardrails_too()
    {
        WithheldNear(ToRecycle with { Declared = false }, Calm, Guardrail.NotDeclared);
        WithheldNear(ToRecycle with { PathUp = false }, Calm, Guardrail.PathDown);
        WithheldNear(ToRecycle, Calm with { TickLate = true }, Guardrail.LateTick);
        WithheldNear(ToRecycle, Calm with { CommonMode = true, RecycleRateLeft = false }, Guardrail.CommonMode);
        WithheldNear(ToRecycle, Calm with { Observe = true }, Guardrail.Observe);

        static void WithheldNear(StuckCase aging, Circumstances now, Guardrail by) =>
            RemedyPlanner.ForNearTheTimeout(aging, true, now).ShouldBe(new Decision(Remedy.Recycle, by));
    }

    [Fact]
    public void A_connection_that_nobody_declared_is_left_alone()
    {
        Withheld(ToRecycle with { Declared = false }, Calm, Remedy.Recycle, Guardrail.NotDeclared);
        Withheld(ToTerminate with { Declared = false }, Calm, Remedy.Terminate, Guardrail.NotDeclared);
    }

    [Fact]
    public void While_fresh_connections_fail_nothing_is_recycled_and_nobody_terminated()
    {
        Withheld(ToRecycle with { PathUp = false }, Calm, Remedy.Recycle, Guardrail.PathDown);
        Withheld(ToTerminate with { PathUp = false }, Calm, Remedy.Terminate, Guardrail.PathDown);
    }

    [Fact]
    public void When_most_connections_went_silent_together_recycling_goes_on_at_a_bounded_rate()
    {
        RemedyPlanner.ForStuck(ToRecycle, Calm with { CommonMode = true }).IsAction.ShouldBeTrue();
        Withheld(ToRecycle, Calm with { CommonMode = true, RecycleRateLeft = false }, Remedy.Recycle, Guardrail.CommonMode);
        RemedyPlanner.ForStuck(ToRecycle, Calm with { CommonMode = false, RecycleRateLeft = false }).IsAction.ShouldBeTrue();
    }

    [Fact]
    public void When_most_connections_went_silent_together_nobody_is_terminated() =>
        Withheld(ToTerminate, Calm with { CommonMode = true }, Remedy.Terminate, Guardrail.CommonMode);

    [Fact]
    public void A_look_that_came_late_acts_on_nothing()
    {
        Withheld(ToRecycle, Calm with { TickLate = true }, Remedy.Recycle, Guardrail.LateTick);
        Withheld(ToTerminate, Calm with { TickLate = true }, Remedy.Terminate, Guardrail.LateTick);
    }

    [Fact]
    public void A_worker_that_made_progress_elsewhere_is_not_hung() =>
        Withheld(Terminate(Hung with { OtherProgress = true }), Calm, Remedy.Terminate, Guardrail.OtherProgress);

    [Fact]
    public void A_worker_whose_progress_cannot_be_seen_is_not_called_hung() =>
        Withheld(Terminate(Hung with { OtherProgress = null }), Calm, Remedy.Terminate, Guardrail.Unknown);

    [Fact]
    public void Pid_1_the_agent_and_kernel_threads_are_never_terminated() =>
        Withheld(Terminate(Hung with { Protected = true }), Calm, Remedy.Terminate, Guardrail.ProtectedProcess);

    [Fact]
    public void A_process_that_no_section_names_is_never_terminated() =>
        Withheld(Terminate(Hung with { NamedForTermination = false }), Calm, Remedy.Terminate, Guardrail.UnnamedWorker);

    [Fact]
    public void A_socket_with_several_owners_or_none_known_ends_no_process() =>
        Withheld(Terminate(Hung with { SoleOwnerKnown = false }), Calm, Remedy.Terminate, Guardrail.Unknown);

    [Theory]
    [InlineData(BlockedOn.Other, Guardrail.NotBlocked)]
    [InlineData(BlockedOn.Stopped, Guardrail.NotBlocked)]
    [InlineData(BlockedOn.Unknown, Guardrail.Unknown)]
    public void A_worker_that_is_not_provably_blocked_on_the_socket_is_not_terminated(BlockedOn blocked, Guardrail by) =>
        Withheld(Terminate(Hung with { Blocked = blocked }), Calm, Remedy.Terminate, by);

    [Fact]
    public void While_connect_probes_contradict_one_another_nobody_is_terminated()
    {
        Withheld(ToTerminate with { Partly = true }, Calm, Remedy.Terminate, Guardrail.Partly);
        RemedyPlanner.ForStuck(ToRecycle with { Partly = true }, Calm).IsAction.ShouldBeTrue();
    }

    [Theory]
    [InlineData(false, RecycleProgress.NotTried, true)]
    [InlineData(true, RecycleProgress.Refused, true)]
    [InlineData(true, RecycleProgress.DidNotHelp, false)]
    public void In_common_mode_with_an_answer_of_the_server_itself_only_where_closing_is_impossible(bool recycle, RecycleProgress progress, bool acts) =>
        RemedyPlanner.ForStuck(ToTerminate with { RecycleEnabled = recycle, Recycle = progress, EndToEnd = true }, Calm with { CommonMode = true }).IsAction.ShouldBe(acts);

    [Fact]
    public void Only_the_worker_that_hung_first_is_terminated() =>
        Withheld(Terminate(Hung with { HungFirst = false }), Calm, Remedy.Terminate, Guardrail.NotFirstHung);

    [Fact]
    public void One_termination_at_a_time() =>
        Withheld(Terminate(Hung with { GroupBusy = true }), Calm, Remedy.Terminate, Guardrail.OneAtATime);

    [Fact]
    public void Past_the_budget_the_agent_stands_down() =>
        Withheld(Terminate(Hung with { BudgetLeft = false }), Calm, Remedy.Terminate, Guardrail.Budget);

    [Fact]
    public void Observe_mode_does_nothing_and_says_what_it_would_have_done()
    {
        Withheld(ToRecycle, Calm with { Observe = true }, Remedy.Recycle, Guardrail.Observe);
        Withheld(ToTerminate, Calm with { Observe = true }, Remedy.Terminate, Guardrail.Observe);
    }

    [Fact]
    public void Observe_mode_names_the_guardrail_that_would_have_withheld_it_anyway() =>
        Withheld(ToRecycle with { PathUp = false }, Calm with { Observe = true }, Remedy.Recycle, Guardrail.PathDown);

    /// <summary>All 2^n combinations: an action follows only where nothing at all speaks against it.</summary>
    [Fact]
    public void Of_all_combinations_only_those_terminate_a_worker_in_which_nothing_speaks_against_it()
    {
        var acting = 0;
        for (var bits = 0; bits < 1 << 16; bits++)
        {
            bool Bit(int n) => (bits >> n & 1) != 0;
            var worker = new WorkerEvidence
            {
                SoleOwnerKnown = Bit(0),
                Protected = Bit(1),
                NamedForTermination = Bit(2),
                OtherProgress = Bit(3) ? null : Bit(4),
                HungFirst = Bit(5),
                GroupBusy = Bit(6),
                BudgetLeft = Bit(7),
                Blocked = (BlockedOn)((bits >> 12) & 3),
            };
            var stuck = ToTerminate with { Declared = Bit(8), PathUp = Bit(9), Partly = Bit(14), EndToEnd = Bit(15), Worker = worker };
            var decision = RemedyPlanner.ForStuck(stuck, Calm with { TickLate = Bit(10), CommonMode = Bit(11) });
            decision.Remedy.ShouldBe(Remedy.Terminate);
            if (decision.IsAction)
            {
                // In common mode only once the server itself has answered; else whether it has makes no difference.
                acting++;
                (stuck with { EndToEnd = false }, worker).ShouldBe((ToTerminate, Hung));
                (stuck.EndToEnd || !Bit(11)).ShouldBeTrue();
            }
        }

        acting.ShouldBe(3);
    }

    [Fact]
    public void An_expired_connection_is_recycled_once_its_death_is_proved()
    {
        RemedyPlanner.ForExpired(ToRecycle, proved: true, Calm).ShouldBe(new Decision(Remedy.Recycle, null));
        RemedyPlanner.ForExpired(ToRecycle, proved: false, Calm).ShouldBe(Decision.Nothing);
        RemedyPlanner.ForExpired(ToRecycle with { RecycleEnabled = false }, proved: true, Calm).ShouldBe(Decision.Nothing);
        RemedyPlanner.ForExpired(ToRecycle with { Recycle = RecycleProgress.Helped }, proved: true, Calm).ShouldBe(Decision.Nothing);
    }

    [Fact]
    public void An_expired_connection_has_the_same_guardrails()
    {
        Guardrail? By(StuckCase expired, Circumstances now) => RemedyPlanner.ForExpired(expired, proved: true, now).WithheldBy;
        By(ToRecycle with { Declared = false }, Calm).ShouldBe(Guardrail.NotDeclared);
        By(ToRecycle with { PathUp = false }, Calm).ShouldBe(Guardrail.PathDown);
        By(ToRecycle, Calm with { TickLate = true }).ShouldBe(Guardrail.LateTick);
        By(ToRecycle, Calm with { CommonMode = true, RecycleRateLeft = false }).ShouldBe(Guardrail.CommonMode);
        By(ToRecycle, Calm with { Observe = true }).ShouldBe(Guardrail.Observe);
    }

    [Fact]
    public void Every_guardrail_and_remedy_has_a_name_of_its_own()
    {
        Enum.GetValues<Guardrail>().Select(guardrail => guardrail.ToName()).ShouldBeUnique();
        Enum.GetValues<Remedy>().Select(remedy => remedy.ToName()).ShouldBeUnique();
        Should.Throw<ArgumentOutOfRangeException>(() => ((Guardrail)99).ToName());
    }

    private static StuckCase Terminate(WorkerEvidence worker) => ToTerminate with { Worker = worker };

    private static void Withheld(StuckCase stuck, Circumstances now, Remedy remedy, Guardrail guardrail) =>
        RemedyPlanner.ForStuck(stuck, now).ShouldBe(new Decision(remedy, guardrail));

    [Theory]
    [InlineData(true, false, false, null)]
    [InlineData(false, false, false, Guardrail.Unknown)] // another session, or none
    [InlineData(true, true, false, Guardrail.Unknown)] // its client is alive
    [InlineData(true, null, false, Guardrail.Unknown)] // that cannot be seen
    [InlineData(true, false, true, Guardrail.Observe)]
    [InlineData(true, true, true, Guardrail.Unknown)]
    public void A_session_is_ended_only_where_it_is_provably_the_orphan(bool isProven, bool? isClientAlive, bool observe, Guardrail? withheldBy) =>
        RemedyPlanner.ForRelease(new ReleaseCase { IsProven = isProven, IsClientAlive = isClientAlive, Observe = observe }).ShouldBe(new Decision(Remedy.Release, withheldBy));
}
