using Sidecar.Agent.Core.Judgement;

namespace Sidecar.Agent.Core.Recordings;

/// <summary>Which question about a connection was decided.</summary>
public enum PlanKind
{
    /// <summary>It is stuck: <see cref="RemedyPlanner.ForStuck"/>.</summary>
    Stuck,

    /// <summary>Its path is up in part: whether it has been silent for long enough.</summary>
    Partly,

    /// <summary>It rests and is held to be forgotten: <see cref="RemedyPlanner.ForExpired"/>.</summary>
    Expired,

    /// <summary>It lives and is about to be forgotten: <see cref="RemedyPlanner.ForNearTheTimeout"/>.</summary>
    NearTheTimeout,

    /// <summary>Its path is down: nothing is done.</summary>
    Outage,

    /// <summary>Its large segments are lost: nothing is done.</summary>
    BlackHole,

    /// <summary>It was recycled, and its back-end is left over: <see cref="RemedyPlanner.ForRelease"/>.</summary>
    Release,

    /// <summary>Nothing was decided: it ended, by itself or by the keepalive that was set on it earlier.</summary>
    Ended,
}

/// <summary>A decision on a remedy, with all that the planner was handed. Names are those of <see cref="StuckCase"/>, <see cref="Circumstances"/> and <see cref="ReleaseCase"/>.</summary>
public sealed record RecordedPlan
{
    public PlanKind Kind { get; init; }

    public bool Declared { get; init; }

    public bool PathUp { get; init; }

    public bool Partly { get; init; }

    public bool EndToEnd { get; init; }

    public bool RecycleEnabled { get; init; }

    public RecycleProgress Recycle { get; init; }

    public RecordedWorker? Worker { get; init; }

    /// <summary>For a resting connection: nobody uses it; null: that cannot be proven.</summary>
    public bool? IsAtRest { get; init; }

    /// <summary>For one whose path is up in part: how long it has been silent.</summary>
    public TimeSpan? Silence { get; init; }

    /// <summary>For a back-end that is left over: it is for certain the one of that connection.</summary>
    public bool IsProven { get; init; }

    /// <summary>And whether its client's socket is still there; null where that could not be seen.</summary>
    public bool? IsClientAlive { get; init; }

    public bool Observe { get; init; }

    public bool TickLate { get; init; }

    /// <summary>When the tick was due, began and had observed; null where that is not known.</summary>
    public TimeSpan? TickPlanned { get; init; }

    public TimeSpan? TickStarted { get; init; }

    public TimeSpan? TickObserved { get; init; }

    /// <summary>The brake of the user and upstream: it holds for resting connections whatever the others do.</summary>
    public bool CommonMode { get; init; }

    public bool RecycleRateLeft { get; init; }

    /// <summary>Silent connections of the user and upstream, of so many.</summary>
    public int Silent { get; init; }

    public int Total { get; init; }

    public Remedy Remedy { get; init; }

    public Guardrail? WithheldBy { get; init; }

    internal Decision Decision => new(Remedy, WithheldBy);

    internal static RecordedPlan Of(PlanKind kind, in StuckCase stuck, in Circumstances now, in Decision decision) => new()
    {
        Kind = kind,
        Declared = stuck.Declared,
        PathUp = stuck.PathUp,
        Partly = stuck.Partly,
        EndToEnd = stuck.EndToEnd,
        RecycleEnabled = stuck.RecycleEnabled,
        Recycle = stuck.Recycle,
        Worker = stuck.Worker == default ? null : RecordedWorker.Of(stuck.Worker),
        Observe = now.Observe,
        TickLate = now.TickLate,
        CommonMode = now.CommonMode,
        RecycleRateLeft = now.RecycleRateLeft,
        Remedy = decision.Remedy,
        WithheldBy = decision.WithheldBy,
    };

    internal static RecordedPlan Of(in ReleaseCase orphan, in Decision decision) => new()
    {
        Kind = PlanKind.Release,
        IsProven = orphan.IsProven,
        IsClientAlive = orphan.IsClientAlive,
        Observe = orphan.Observe,
        Remedy = decision.Remedy,
        WithheldBy = decision.WithheldBy,
    };

    internal StuckCase ToCase() => new()
    {
        Declared = Declared,
        PathUp = PathUp,
        Partly = Partly,
        EndToEnd = EndToEnd,
        RecycleEnabled = RecycleEnabled,
        Recycle = Recycle,
        Worker = Worker?.ToEvidence() ?? default,
    };

    internal ReleaseCase ToRelease() => new() { IsProven = IsProven, IsClientAlive = IsClientAlive, Observe = Observe };

    internal Circumstances ToCircumstances() => new() { Observe = Observe, TickLate = TickLate, CommonMode = CommonMode, RecycleRateLeft = RecycleRateLeft };

    /// <summary>Whether it is the same decision on the same grounds as an earlier one; the times of ticks always differ.</summary>
    internal bool IsAs(RecordedPlan earlier) => this == earlier with
    {
        TickPlanned = TickPlanned, TickStarted = TickStarted, TickObserved = TickObserved, Silence = Silence, Silent = Silent, Total = Total,
    };
}

/// <summary>What was known of the worker; names are those of <see cref="WorkerEvidence"/>.</summary>
public sealed record RecordedWorker
{
    public bool SoleOwnerKnown { get; init; }

    public bool Protected { get; init; }

    public bool NamedForTermination { get; init; }

    public BlockedOn Blocked { get; init; }

    public bool? OtherProgress { get; init; }

    public bool HungFirst { get; init; }

    public bool GroupBusy { get; init; }

    public bool BudgetLeft { get; init; }

    internal static RecordedWorker Of(in WorkerEvidence worker) => new()
    {
        SoleOwnerKnown = worker.SoleOwnerKnown,
        Protected = worker.Protected,
        NamedForTermination = worker.NamedForTermination,
        Blocked = worker.Blocked,
        OtherProgress = worker.OtherProgress,
        HungFirst = worker.HungFirst,
        GroupBusy = worker.GroupBusy,
        BudgetLeft = worker.BudgetLeft,
    };

    internal WorkerEvidence ToEvidence() => new()
    {
        SoleOwnerKnown = SoleOwnerKnown,
        Protected = Protected,
        NamedForTermination = NamedForTermination,
        Blocked = Blocked,
        OtherProgress = OtherProgress,
        HungFirst = HungFirst,
        GroupBusy = GroupBusy,
        BudgetLeft = BudgetLeft,
    };
}
