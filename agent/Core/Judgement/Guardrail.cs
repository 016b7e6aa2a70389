namespace Sidecar.Agent.Core.Judgement;

/// <summary>What withheld a remedy. Names are append-only: they stand in incidents and metrics.</summary>
public enum Guardrail
{
    /// <summary>1: not a connection of a declared upstream, or a listening socket, or loopback that nobody declared.</summary>
    NotDeclared,

    /// <summary>2: fresh connections fail: an outage, nothing here would help.</summary>
    PathDown,

    /// <summary>3: most connections of the upstream went silent together: at a bounded rate, and nobody is terminated.</summary>
    CommonMode,

    /// <summary>4: the agent's own scan came late, so what it saw may be old.</summary>
    LateTick,

    /// <summary>5: another connection of the process made progress since the stall: it is not hung.</summary>
    OtherProgress,

    /// <summary>6: PID 1, the agent itself or a kernel thread.</summary>
    ProtectedProcess,

    /// <summary>6: no [workers:…] section names the process, or its section has terminate = off.</summary>
    UnnamedWorker,

    /// <summary>7: a termination in the same group is in progress, or its recovery is.</summary>
    OneAtATime,

    /// <summary>7: another worker of the group hung first; freeing that one frees this one.</summary>
    NotFirstHung,

    /// <summary>7: the group's terminations per period are used up.</summary>
    Budget,

    /// <summary>8: something needed is unknown or inconsistent.</summary>
    Unknown,

    /// <summary>8: the kernel did not permit it, or cannot do it.</summary>
    NotPermitted,

    /// <summary>9: mode = observe.</summary>
    Observe,

    /// <summary>The upstream's section has the remedy switched off.</summary>
    SwitchedOff,

    /// <summary>5: no thread of the process is provably blocked on that very socket, or the process is stopped, traced or frozen.</summary>
    NotBlocked,

    /// <summary>2: connect probes or neighbours contradict one another: one leg of a bundle may be away.</summary>
    Partly,
}

/// <summary>Guardrail names as they stand in incidents and metrics.</summary>
public static class GuardrailNames
{
    public static string ToName(this Guardrail guardrail) => guardrail switch
    {
        Guardrail.NotDeclared => "not-declared",
        Guardrail.PathDown => "path-down",
        Guardrail.CommonMode => "common-mode",
        Guardrail.LateTick => "late-tick",
        Guardrail.OtherProgress => "other-progress",
        Guardrail.ProtectedProcess => "protected-process",
        Guardrail.UnnamedWorker => "unnamed-worker",
        Guardrail.OneAtATime => "one-at-a-time",
        Guardrail.NotFirstHung => "not-first-hung",
        Guardrail.Budget => "budget",
        Guardrail.Unknown => "unknown",
        Guardrail.NotPermitted => "not-permitted",
        Guardrail.Observe => "observe",
        Guardrail.SwitchedOff => "switched-off",
        Guardrail.NotBlocked => "not-blocked",
        Guardrail.Partly => "partly",
        _ => throw new ArgumentOutOfRangeException(nameof(guardrail), guardrail, "no such guardrail"),
    };
}
