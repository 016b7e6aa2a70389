namespace Sidecar.Agent.Core.Judgement;

/// <summary>Why a verdict was given; one value per branch of <see cref="Judge"/>.</summary>
public enum Reason : byte
{
    NoTcpInfo,
    InFlight,
    Active,
    ProtectedByKeepalive,
    NoTimeoutKnown,
    YoungerThanHalfTheTimeout,
    PastHalfTheTimeout,
    NearTheTimeout,
    PastTheTimeout,
    AnswerAwaited,
    PeerWindowClosed,
    RetransmittingPathUnknown,
    RetransmittingPathUp,
    RetransmittingUnprovable,
    SilentWhilePathUp,
    SilentAndPathDown,
    ProbesOut,
    ProbesUnanswered,
    ProbesAndPathDown,

    // Appended: their order is kept nowhere, their names stand in incidents.
    PeerAnswersProbes,
    LargeSegmentsLost,
    LargeAnswersLost,
    AnswerAwaitedProbesOut,
    AnswerLost,
    SilentAndPathPartly,
    ProbesAndPathPartly,
    SilentWhileNeighboursAnswered,
}

/// <summary>A verdict with its reason.</summary>
/// <param name="Verdict">The verdict.</param>
/// <param name="Reason">The branch that gave it.</param>
public readonly record struct Judged(Verdict Verdict, Reason Reason)
{
    // Kept for every connection, and told of where one hung: a float does.
    private readonly float _odds;

    public Judged(Verdict verdict, Reason reason, double odds)
        : this(verdict, reason) => _odds = (float)Math.Min(odds, float.MaxValue);

    /// <summary>Forgotten to alive, where a stall was weighed; otherwise 0.</summary>
    public double Odds => _odds;
}

/// <summary>
/// The verdict table: evidence in, verdict out. Pure; the order of the questions is the meaning.
/// </summary>
public static class Judge
{
    /// <summary>
    /// Share of the idle timeout after which a connection on a path that counts only data is near its end. The last
    /// quarter is for the scan of the server, the fresh connection and a bounded rate.
    /// </summary>
    private const double Near = 0.75;

    /// <summary>Answers to probes, all with the same data unacknowledged, that loss by chance does not explain.</summary>
    private const int ProbesUntilBlackHole = 3;

    /// <summary>And retransmissions of it meanwhile.</summary>
    private const int TimeoutsUntilBlackHole = 4;

    /// <summary>Judges one connection.</summary>
    public static Judged Decide(in ConnectionEvidence connection, in PathEvidence path)
    {
        if (!connection.HasTcpInfo)
        {
            return new(Verdict.Healthy, Reason.NoTcpInfo);
        }

        // A peer that closes its window answers the probes: it lives, and whatever waits in our queue is its own doing.
        if (connection.ZeroWindow)
        {
            return connection.Probing is { FailedTransmissions: >= 2 } unanswered
                ? Awaited(unanswered, path)
                : new(Verdict.BlockedByPeer, Reason.PeerWindowClosed);
        }

        if (connection.Unacknowledged > 0)
        {
            return connection.Timeouts >= 1 && connection.Stall is { } stall
                ? Silent(connection, stall, path)
                : new(Verdict.Healthy, Reason.InFlight);
        }

        if (connection.OutOfOrder)
        {
            return new(Verdict.BlackHole, Reason.LargeAnswersLost);
        }

        if (connection.AnswerAwaited)
        {
            return connection.Probing is { FailedTransmissions: >= 1 } unanswered ? Awaited(unanswered, path) : new(Verdict.Waiting, Reason.AnswerAwaited);
        }

        return Resting(connection, path);
    }

    private static Judged Silent(in ConnectionEvidence connection, in StallEvidence stall, in PathEvidence path)
    {
        if (connection.ProbesAnswered > 0 && stall.FailedTransmissions <= 1)
        {
            // It has answered since: alive, whatever the odds were. Again and again, and the data does not get through: its size.
            return connection.ProbesAnswered >= ProbesUntilBlackHole && connection.Timeouts >= TimeoutsUntilBlackHole
                ? new(Verdict.BlackHole, Reason.LargeSegmentsLost)
                : new(Verdict.Healthy, Reason.PeerAnswersProbes);
        }

        var odds = ForgottenOdds.Of(stall, path);
        return path.State switch
        {
            PathState.Down => new(Verdict.Outage, Reason.SilentAndPathDown, odds),
            PathState.Partly => new(Verdict.Partly, Reason.SilentAndPathPartly, odds),
            PathState.Up when odds >= ForgottenOdds.Conclusive => new(Verdict.Stuck, Reason.SilentWhilePathUp, odds),
            PathState.Up => new(Verdict.Suspect, Reason.RetransmittingPathUp, odds),
            PathState.UpByNeighbours when odds >= ForgottenOdds.Conclusive => new(Verdict.Stuck, Reason.SilentWhileNeighboursAnswered, odds),
            PathState.Unprovable or PathState.UpByNeighbours => new(Verdict.Suspect, Reason.RetransmittingUnprovable, odds),
            _ => new(Verdict.Suspect, Reason.RetransmittingPathUnknown, odds),
        };
    }

    /// <summary>An answer is awaited, or a window to open, and the peer no longer answers probes: a worker waits for nothing.</summary>
    private static Judged Awaited(in StallEvidence probing, in PathEvidence path)
    {
        var odds = ForgottenOdds.Of(probing, path);
        return path.State switch
        {
            PathState.Down => new(Verdict.Outage, Reason.ProbesAndPathDown, odds),
            PathState.Partly => new(Verdict.Partly, Reason.ProbesAndPathPartly, odds),
            PathState.Up or PathState.UpByNeighbours when odds >= ForgottenOdds.Conclusive => new(Verdict.Stuck, Reason.AnswerLost, odds),
            _ => new(Verdict.Suspect, Reason.AnswerAwaitedProbesOut, odds),
        };
    }

    /// <summary>
    /// Nothing is in flight, and probes (the kernel's, or ours) go unanswered: dead, unless the path is away.
    /// </summary>
    private static Judged Probed(in ConnectionEvidence connection, in StallEvidence probing, in PathEvidence path)
    {
        var odds = ForgottenOdds.OfResting(probing, path);
        return path.State switch
        {
            PathState.Down => new(Verdict.Outage, Reason.ProbesAndPathDown, odds),
            PathState.Partly => new(Verdict.Partly, Reason.ProbesAndPathPartly, odds),
            PathState.Up or PathState.UpByNeighbours when odds >= ForgottenOdds.Conclusive => new(Verdict.Expired, Reason.ProbesUnanswered, odds),
            _ => path.IdleTimeoutUpper is { } upper && connection.Idle >= upper
                ? new(Verdict.Expired, Reason.PastTheTimeout, odds)
                : new(Verdict.Aging, Reason.ProbesOut, odds),
        };
    }

    private static Judged Resting(in ConnectionEvidence connection, in PathEvidence path)
    {
        if (connection.Probing is { FailedTransmissions: > 0 } probing)
        {
            return Probed(connection, probing, path);
        }

        return AtRest(connection.Idle, connection.WithoutData, connection.KeepaliveAt, path.CountsDataOnly, (path.IdleTimeoutLower, path.IdleTimeoutUpper));
    }

    /// <summary>Judges a connection on which nothing is in flight, awaited or out.</summary>
    /// <param name="idle">Time since segments moved.</param>
    /// <param name="withoutData">Time since data moved.</param>
    /// <param name="keepaliveAt">Idle time at which its keepalive timer sends a probe; null where none runs.</param>
    /// <param name="countsDataOnly">Only data restarts the path's idle clock.</param>
    /// <param name="idleTimeout">What the path is known to survive, and after what it is known to have forgotten; null where unknown.</param>
    internal static Judged AtRest(
        TimeSpan idle, TimeSpan withoutData, TimeSpan? keepaliveAt, bool countsDataOnly, (TimeSpan? Lower, TimeSpan? Upper) idleTimeout)
    {
        if (idleTimeout.Lower is not { } lower)
        {
            return new(Verdict.Healthy, keepaliveAt is null ? Reason.NoTimeoutKnown : Reason.ProtectedByKeepalive);
        }

        // A probe that comes later than the path forgets protects nothing, nor does any where only data counts.
        if (!countsDataOnly && keepaliveAt < lower && idle < lower)
        {
            return new(Verdict.Healthy, Reason.ProtectedByKeepalive);
        }

        idle = countsDataOnly ? withoutData : idle;
        if (idle >= idleTimeout.Upper)
        {
            return new(Verdict.Expired, Reason.PastTheTimeout);
        }

        if (countsDataOnly && idle >= lower * Near)
        {
            return new(Verdict.Aging, Reason.NearTheTimeout);
        }

        return idle >= lower / 2
            ? new(Verdict.Aging, Reason.PastHalfTheTimeout)
            : new(Verdict.Healthy, Reason.YoungerThanHalfTheTimeout);
    }
}
