namespace Sidecar.Agent.Core.Judgement;

/// <summary>What the agent thinks of one connection at one scan.</summary>
public enum Verdict : byte
{
    /// <summary>Segments moved lately, or protected by keepalive.</summary>
    Healthy,

    /// <summary>Idle, unprotected, and past half of the path's known idle timeout.</summary>
    Aging,

    /// <summary>Idle beyond the age at which this path is known to forget, nothing in flight.</summary>
    Expired,

    /// <summary>All sent data acknowledged, an answer is awaited (a slow query). Never touched.</summary>
    Waiting,

    /// <summary>Unacknowledged data and at least one retransmission timeout; evidence is being gathered.</summary>
    Suspect,

    /// <summary>Silent while fresh connections to the same endpoint from the same namespace succeed.</summary>
    Stuck,

    /// <summary>Silent, and fresh connections fail too: the path or the server is down. Nothing is touched.</summary>
    Outage,

    /// <summary>Zero window: the peer lives but does not read. Left alone.</summary>
    BlockedByPeer,

    /// <summary>Silent, while connect probes or neighbours contradict one another: one leg of a bundle, one server of several.</summary>
    Partly,

    /// <summary>The peer answers probes, and full segments do not get through: the network drops them for their size. Left alone.</summary>
    BlackHole,
}

/// <summary>The names of verdicts as they appear in status, metrics and incidents.</summary>
public static class VerdictNames
{
    /// <summary>All verdicts in the order of the enumeration.</summary>
    public static readonly IReadOnlyList<Verdict> All = Enum.GetValues<Verdict>();

    public static string ToName(this Verdict verdict) => verdict switch
    {
        Verdict.Healthy => "healthy",
        Verdict.Aging => "aging",
        Verdict.Expired => "expired",
        Verdict.Waiting => "waiting",
        Verdict.Suspect => "suspect",
        Verdict.Stuck => "stuck",
        Verdict.Outage => "outage",
        Verdict.BlockedByPeer => "blocked-by-peer",
        Verdict.Partly => "partly",
        Verdict.BlackHole => "black-hole",
        _ => throw new ArgumentOutOfRangeException(nameof(verdict), verdict, "no such verdict"),
    };
}
