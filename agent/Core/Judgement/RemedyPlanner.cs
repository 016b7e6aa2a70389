namespace Sidecar.Agent.Core.Judgement;

/// <summary>Remedies, mildest first.</summary>
public enum Remedy
{
    None,
    Keepalive,
    Nudge,
    Recycle,
    Release,
    Terminate,
}

/// <summary>Remedy names as they stand in incidents and metrics.</summary>
public static class RemedyNames
{
    public static string ToName(this Remedy remedy) => remedy switch
    {
        Remedy.None => "none",
        Remedy.Keepalive => "keepalive",
        Remedy.Nudge => "nudge",
        Remedy.Recycle => "recycle",
        Remedy.Release => "release",
        Remedy.Terminate => "terminate",
        _ => throw new ArgumentOutOfRangeException(nameof(remedy), remedy, "no such remedy"),
    };
}

/// <summary>How far recycling a stuck connection has come.</summary>
public enum RecycleProgress
{
    NotTried,

    /// <summary>Done, and it is too early to say whether it helped.</summary>
    Settling,

    /// <summary>Done, and the worker went on.</summary>
    Helped,

    /// <summary>Done, and after a few seconds the worker has not run at all.</summary>
    DidNotHelp,

    /// <summary>The kernel refused it.</summary>
    Refused,
}

/// <summary>What is known of the worker that holds a stuck connection.</summary>
public readonly record struct WorkerEvidence
{
    /// <summary>Exactly one process holds the socket and its identity is known.</summary>
    public required bool SoleOwnerKnown { get; init; }

    /// <summary>PID 1, the agent itself, a kernel thread.</summary>
    public required bool Protected { get; init; }

    /// <summary>A [workers:…] section with terminate = on names it.</summary>
    public required bool NamedForTermination { get; init; }

    /// <summary>Whether a thread of it is provably blocked on that very socket.</summary>
    public required BlockedOn Blocked { get; init; }

    /// <summary>Whether another of its connections made progress since the stall; null where that could not be seen.</summary>
    public required bool? OtherProgress { get; init; }

    /// <summary>No other worker of the group hung earlier.</summary>
    public required bool HungFirst { get; init; }

    /// <summary>A termination in the group has begun and the group has not recovered from it.</summary>
    public required bool GroupBusy { get; init; }

    /// <summary>The group's budget allows one more.</summary>
    public required bool BudgetLeft { get; init; }
}

/// <summary>A connection judged stuck, as the planner sees it.</summary>
public readonly record struct StuckCase
{
    /// <summary>A connection (never a listening socket) of a declared upstream, and not undeclared loopback.</summary>
    public required bool Declared { get; init; }

    /// <summary>The latest connect probe, made since the stall began, succeeded.</summary>
    public required bool PathUp { get; init; }

    /// <summary>Connect probes or neighbours contradict one another.</summary>
    public required bool Partly { get; init; }

    /// <summary>That connect probe was answered by the server itself, not by a handshake alone.</summary>
    public required bool EndToEnd { get; init; }

    /// <summary>The upstream's <c>recycle</c>.</summary>
    public required bool RecycleEnabled { get; init; }

    public required RecycleProgress Recycle { get; init; }

    public required WorkerEvidence Worker { get; init; }
}

/// <summary>The back-end of a connection that was recycled, as the planner sees it.</summary>
public readonly record struct ReleaseCase
{
    /// <summary>It is for certain the back-end of that connection.</summary>
    public required bool IsProven { get; init; }

    /// <summary>Whether its client's socket is still there on this host; null where that could not be seen.</summary>
    public required bool? IsClientAlive { get; init; }

    /// <summary>mode = observe.</summary>
    public required bool Observe { get; init; }
}

/// <summary>What holds for the whole agent, or the whole upstream, at this scan.</summary>
public readonly record struct Circumstances
{
    /// <summary>mode = observe.</summary>
    public required bool Observe { get; init; }

    /// <summary>The scan came late: the agent was starved, stopped or suspended.</summary>
    public required bool TickLate { get; init; }

    /// <summary>Most connections of the upstream are silent.</summary>
    public required bool CommonMode { get; init; }

    /// <summary>The bounded rate that holds in common mode allows one more recycle now.</summary>
    public required bool RecycleRateLeft { get; init; }
}

/// <summary>What to do, or what would be done but for a guardrail.</summary>
/// <param name="Remedy">The remedy in question; None where nothing is due.</param>
/// <param name="WithheldBy">Null: carry it out.</param>
public readonly record struct Decision(Remedy Remedy, Guardrail? WithheldBy)
{
    public static readonly Decision Nothing = new(Remedy.None, null);

    public bool IsAction => Remedy != Remedy.None && WithheldBy is null;

    internal static Decision Act(Remedy remedy) => new(remedy, null);

    internal static Decision Withhold(Remedy remedy, Guardrail guardrail) => new(remedy, guardrail);
}

/// <summary>
/// From a stuck connection to a remedy. Pure: each guardrail is one question here, asked at the last moment before an
/// action, even where an earlier step should have asked it already.
/// </summary>
public static class RemedyPlanner
{
    /// <summary>Plans for a stuck connection: recycle first; where that is off, refused or of no help, terminate.</summary>
    public static Decision ForStuck(in StuckCase stuck, in Circumstances now)
    {
        if (stuck.Recycle is RecycleProgress.Settling or RecycleProgress.Helped)
        {
            return Decision.Nothing;
        }

        var remedy = stuck.RecycleEnabled && stuck.Recycle == RecycleProgress.NotTried ? Remedy.Recycle : Remedy.Terminate;
        var guardrail = ForAny(stuck, now) ?? (remedy == Remedy.Recycle ? ForRecycle(now) : ForTerminate(stuck, now));

        // Last, so that in observe mode an incident says "observe" only where everything else would have let it pass.
        if (guardrail is null && now.Observe)
        {
            guardrail = Guardrail.Observe;
        }

        return guardrail is { } by ? Decision.Withhold(remedy, by) : Decision.Act(remedy);
    }

    /// <summary>
    /// Plans for a resting connection that is expired. It is recycled only where its death is proved: probes unanswered
    /// while the path is up. An idle clock alone never closes a connection.
    /// </summary>
    public static Decision ForExpired(in StuckCase expired, bool proved, in Circumstances now)
    {
        if (!expired.RecycleEnabled || expired.Recycle != RecycleProgress.NotTried || !proved)
        {
            return Decision.Nothing;
        }

        return Close(expired, null, now);
    }

    /// <summary>
    /// Plans for a connection that is about to be forgotten on a path where no keepalive prevents it. It lives, so it is
    /// recycled only while provably nobody uses it.
    /// </summary>
    /// <param name="aging">The connection.</param>
    /// <param name="isAtRest">Its session is idle and outside a transaction; false: it is not; null: that cannot be proven.</param>
    /// <param name="now">What holds at this scan.</param>
    public static Decision ForNearTheTimeout(in StuckCase aging, bool? isAtRest, in Circumstances now)
    {
        if (!aging.RecycleEnabled || aging.Recycle != RecycleProgress.NotTried || isAtRest == false)
        {
            return Decision.Nothing;
        }

        return Close(aging, isAtRest is null ? Guardrail.Unknown : null, now);
    }

    /// <summary>Plans for the back-end of a recycled connection: ended only where it is provably an orphan.</summary>
    public static Decision ForRelease(in ReleaseCase orphan) => orphan switch
    {
        { IsProven: false } or { IsClientAlive: not false } => Decision.Withhold(Remedy.Release, Guardrail.Unknown),
        { Observe: true } => Decision.Withhold(Remedy.Release, Guardrail.Observe),
        _ => Decision.Act(Remedy.Release),
    };

    /// <summary>Recycles a resting connection unless a guardrail withholds it; <paramref name="ofItsOwn"/> is the one that only its kind has.</summary>
    private static Decision Close(in StuckCase resting, Guardrail? ofItsOwn, in Circumstances now)
    {
        var guardrail = ForAny(resting, now) ?? ofItsOwn ?? ForRecycle(now) ?? (now.Observe ? Guardrail.Observe : null);
        return guardrail is { } by ? Decision.Withhold(Remedy.Recycle, by) : Decision.Act(Remedy.Recycle);
    }

    private static Guardrail? ForAny(in StuckCase stuck, in Circumstances now)
    {
        if (!stuck.Declared)
        {
            return Guardrail.NotDeclared;
        }

        if (!stuck.PathUp)
        {
            return Guardrail.PathDown;
        }

        return now.TickLate ? Guardrail.LateTick : null;
    }

    private static Guardrail? ForRecycle(in Circumstances now) =>
        now.CommonMode && !now.RecycleRateLeft ? Guardrail.CommonMode : null;

    private static Guardrail? ForTerminate(in StuckCase stuck, in Circumstances now)
    {
        if (stuck.Partly)
        {
            return Guardrail.Partly;
        }

        // When all go silent together, closing goes on at a bounded rate. Where that is off, or was refused, one worker at a time
        // is ended, once the server itself has answered.
        if (now.CommonMode && (stuck.Recycle == RecycleProgress.DidNotHelp || !stuck.EndToEnd))
        {
            return Guardrail.CommonMode;
        }

        var worker = stuck.Worker;
        if (!worker.SoleOwnerKnown)
        {
            return Guardrail.Unknown;
        }

        if (worker.Protected)
        {
            return Guardrail.ProtectedProcess;
        }

        if (!worker.NamedForTermination)
        {
            return Guardrail.UnnamedWorker;
        }

        if (!worker.HungFirst)
        {
            return Guardrail.NotFirstHung;
        }

        if (worker.GroupBusy)
        {
            return Guardrail.OneAtATime;
        }

        if (worker.Blocked != BlockedOn.Socket)
        {
            return worker.Blocked == BlockedOn.Unknown ? Guardrail.Unknown : Guardrail.NotBlocked;
        }

        return worker.OtherProgress switch
        {
            null => Guardrail.Unknown,
            true => Guardrail.OtherProgress,
            false => worker.BudgetLeft ? null : Guardrail.Budget,
        };
    }
}
