namespace Sidecar.Agent.Core.Judgement;

/// <summary>
/// The odds that a silent connection was forgotten by the path, against its being alive, as a posterior.
/// </summary>
/// <remarks>
/// Five explanations compete for k unanswered transmissions, of which c are known to have been sent while the path was
/// up, with h fresh connections that succeeded at once:
/// <list type="bullet">
/// <item>forgotten: every transmission fails, with a prior that depends on the idle gap before the send;</item>
/// <item>alive, with loss: each fails on its own with rate q, so q^k;</item>
/// <item>alive, after a blip: the path was away for a while and has come back, so only c count: b · q^c, where b is the
/// share of this path's sends that such a blip has met;</item>
/// <item>alive, in a burst of loss that goes on: transmissions fail and fresh connections succeed with the same unknown
/// rate f, so b · max f^k (1 - f)^h, times the share of bursts that last so long;</item>
/// <item>alive, on a dead leg of a bundle: everything fails, and each fresh connection has taken another leg by chance, so d · 2^-h,
/// where d is zero unless fresh connections and neighbours have contradicted one another on this path.</item>
/// </list>
/// The numbers are chosen so that on a clean path an expired connection is condemned at its first timeout (about 0.45 s),
/// one of unknown age when two or three timeouts have passed (0.9 s to 1.7 s), one that was active just before not before
/// five (about 7 s), and with 10 % loss each way hardly any before nine transmissions have failed in a row. A path on
/// which connections have gone silent and come back takes longer, by as much as it has done so.
/// </remarks>
public static class ForgottenOdds
{
    /// <summary>Odds from which a connection counts as stuck. At 10,000 to 1 a path must be up as well.</summary>
    public const double Conclusive = 1e4;

    /// <summary>The gap before the send was longer than the path is known to survive.</summary>
    public const double PriorExpired = 0.5;

    /// <summary>
    /// The path's idle timeout is not known to be exceeded, but the gap is one that some routers forget after. So small that
    /// three timeouts condemn only on a path that has shown neither loss nor blips; with 1e-2 the simulator closed four live
    /// connections in a million hours, and ended a worker.
    /// </summary>
    public const double PriorIdle = 4e-3;

    /// <summary>The gap is not known.</summary>
    public const double PriorUnknownGap = 1e-4;

    /// <summary>The connection was in use just before: only a router that lost its whole table explains it.</summary>
    public const double PriorBusy = 1e-6;

    /// <summary>The path was seen down during the stall: routers that come back have often lost their table.</summary>
    public const double PriorAfterOutage = 0.3;

    /// <summary>Bursts of loss last about this long, and seldom much longer; what lasts is an outage, which fresh connections tell.</summary>
    private static readonly TimeSpan Burst = TimeSpan.FromSeconds(1);

    /// <summary>
    /// Blips per send to reckon with where a silence was found late: an outage of any length may have been and gone before
    /// anybody asked for a fresh connection.
    /// </summary>
    private const double BlipsWhereFoundLate = 1e-3;

    /// <summary>
    /// And of a path with several legs that was down as a whole: its legs do not come back in the same moment. With the 1e-2 of quiet times
    /// nine connect probes that all took the leg that was back condemned five live connections on the other.
    /// </summary>
    private const double DeadLegAfterOutage = 0.1;

    /// <summary>Failure rate to reckon with while a connection rests: 10 % loss each way.</summary>
    private const double Patient = 0.19;

    /// <summary>And where it rested longer than the path is known to survive: 6 % each way, so that five probes are enough.</summary>
    private const double PatientWhenExpired = 0.12;

    /// <summary>No middlebox known forgets sooner: shorter gaps are no gaps.</summary>
    public static readonly TimeSpan ShortestGap = TimeSpan.FromSeconds(5);

    /// <summary>Posterior odds, forgotten to alive; larger is worse for the connection.</summary>
    public static double Of(in StallEvidence stall, in PathEvidence path)
    {
        var q = path.TransmissionFailureRate;
        var aliveWithLoss = Math.Pow(q, stall.FailedTransmissions);
        var aliveAfterBlip = (path.WasDownDuringStall ? 1.0 : Blips(stall, path)) * Math.Pow(q, stall.ConfirmedFailures);
        return Prior(stall, path) / (aliveWithLoss + aliveAfterBlip + AliveInBurst(stall, path) + AliveOnDeadLeg(stall, path));
    }

    /// <summary>
    /// The same for a resting connection whose keepalive probes go unanswered. Nobody waits for it and little is known of
    /// the loss on a path that rests, so the path is held to be as bad as one may be.
    /// </summary>
    public static double OfResting(in StallEvidence probing, in PathEvidence path)
    {
        var worst = path.IdleTimeoutUpper is { } upper && probing.IdleBefore >= upper ? PatientWhenExpired : Patient;
        return Of(probing, path with { TransmissionFailureRate = Math.Max(path.TransmissionFailureRate, worst) });
    }

    /// <summary>
    /// Whatever the loss in the burst is, f^k (1 - f)^h is largest at f = k / (k + h). After an outage only what was sent
    /// since counts. Bursts are longer than t with the tail of a Lomax distribution, (1 + t / burst)^-2.
    /// </summary>
    private static double AliveInBurst(in StallEvidence stall, in PathEvidence path)
    {
        var failures = path.WasDownDuringStall ? stall.ConfirmedFailures : stall.FailedTransmissions;
        var all = failures + stall.CleanConnections;
        if (all == 0)
        {
            return Blips(stall, path);
        }

        var share = (double)failures / all;
        return Blips(stall, path) * Math.Pow(share, failures) * Math.Pow(1 - share, stall.CleanConnections) * Math.Pow(1 + (stall.Silence / Burst), -2);
    }

    /// <summary>Where they contradict one another just now it is known already, and what is silent is given its time for that.</summary>
    private static double AliveOnDeadLeg(in StallEvidence stall, in PathEvidence path)
    {
        if (path.State == PathState.Partly || path.DeadLeg == 0)
        {
            return 0;
        }

        var dead = path.WasDownDuringStall ? Math.Max(path.DeadLeg, DeadLegAfterOutage) : path.DeadLeg;
        return dead * Math.Pow(0.5, stall.CleanConnections);
    }

    /// <summary>
    /// How likely it is that the path was away for a while. Where SYNs of a fresh connection had to be sent again meanwhile, it
    /// was, or they were lost one by one: Bayes' rule.
    /// </summary>
    private static double Blips(in StallEvidence stall, in PathEvidence path)
    {
        var blips = stall.FoundLate ? Math.Max(path.BlipRate, BlipsWhereFoundLate) : path.BlipRate;
        return path.SynRetransmissions == 0 ? blips : Math.Max(blips, blips / (blips + Math.Pow(path.TransmissionFailureRate, path.SynRetransmissions)));
    }

    private static double Prior(in StallEvidence stall, in PathEvidence path)
    {
        double prior;
        if (stall.IdleBefore is not { } gap)
        {
            prior = PriorUnknownGap;
        }
        else if (path.IdleTimeoutUpper is { } upper && gap >= upper)
        {
            prior = PriorExpired;
        }
        else
        {
            // A bound that the gap stays below lowers nothing: a declared timeout may be wrong, a measured one outdated.
            prior = gap >= ShortestGap ? PriorIdle : PriorBusy;
        }

        return path.WasDownDuringStall ? Math.Max(prior, PriorAfterOutage) : prior;
    }
}
