using Sidecar.Agent.Core.Judgement;

namespace Sidecar.Agent.Core.Recordings;

/// <summary>What one guardrail said of a remedy.</summary>
/// <param name="Guardrail">Which.</param>
/// <param name="Withholds">Whether it withholds the remedy, for itself alone.</param>
public readonly record struct GuardrailAnswer(Guardrail Guardrail, bool Withholds);

/// <summary>
/// Asks the planner about each guardrail by itself: a case in which everything lets the remedy pass, but for what this one looks
/// at. So each answer is the planner's own.
/// </summary>
internal static class GuardrailAnswers
{
    private static readonly WorkerEvidence HungWorker = new()
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

    /// <summary>The answers on a plan, in the order of the guardrails.</summary>
    /// <param name="stuck">The case.</param>
    /// <param name="now">The circumstances.</param>
    /// <param name="remedy">The remedy in question.</param>
    /// <param name="decide">The planner's function.</param>
    internal static IReadOnlyList<GuardrailAnswer> Of(StuckCase stuck, Circumstances now, Remedy remedy, Func<StuckCase, Circumstances, Decision> decide)
    {
        var passing = stuck with { Declared = true, PathUp = true, Partly = false, EndToEnd = true, Worker = HungWorker };
        var calm = new Circumstances { Observe = false, TickLate = false, CommonMode = false, RecycleRateLeft = true };
        var answers = new List<GuardrailAnswer>();
        void Ask(Guardrail guardrail, StuckCase alone, Circumstances circumstances) =>
            answers.Add(new GuardrailAnswer(guardrail, decide(alone, circumstances).WithheldBy == guardrail));

        Ask(Guardrail.NotDeclared, passing with { Declared = stuck.Declared }, calm);
        Ask(Guardrail.PathDown, passing with { PathUp = stuck.PathUp }, calm);
        Ask(Guardrail.LateTick, passing, calm with { TickLate = now.TickLate });
        Ask(Guardrail.CommonMode, passing with { EndToEnd = stuck.EndToEnd }, calm with { CommonMode = now.CommonMode, RecycleRateLeft = now.RecycleRateLeft });
        if (remedy == Remedy.Terminate)
        {
            var worker = stuck.Worker;
            Ask(Guardrail.Partly, passing with { Partly = stuck.Partly }, calm);
            Ask(Guardrail.Unknown, passing with { Worker = HungWorker with { SoleOwnerKnown = worker.SoleOwnerKnown, Blocked = worker.Blocked == BlockedOn.Unknown ? BlockedOn.Unknown : BlockedOn.Socket, OtherProgress = worker.OtherProgress is null ? null : false } }, calm);
            Ask(Guardrail.ProtectedProcess, passing with { Worker = HungWorker with { Protected = worker.Protected } }, calm);
            Ask(Guardrail.UnnamedWorker, passing with { Worker = HungWorker with { NamedForTermination = worker.NamedForTermination } }, calm);
            Ask(Guardrail.NotFirstHung, passing with { Worker = HungWorker with { HungFirst = worker.HungFirst } }, calm);
            Ask(Guardrail.OneAtATime, passing with { Worker = HungWorker with { GroupBusy = worker.GroupBusy } }, calm);
            Ask(Guardrail.NotBlocked, passing with { Worker = HungWorker with { Blocked = worker.Blocked } }, calm);
            Ask(Guardrail.OtherProgress, passing with { Worker = HungWorker with { OtherProgress = worker.OtherProgress } }, calm);
            Ask(Guardrail.Budget, passing with { Worker = HungWorker with { BudgetLeft = worker.BudgetLeft } }, calm);
        }

        Ask(Guardrail.Observe, passing, calm with { Observe = now.Observe });
        return answers;
    }
}
