namespace Sidecar.Agent.Judgement;

/// <summary>
/// The odds that a silent connection was forgotten by the path, against its being alive, as a posterior.
/// </summary>
/// <remarks>
/// Three explanations compete for k unanswered transmissions:
/// <list type="bullet">
/// <item>forgotten: every transmission fails, with a prior that depends on the idle gap before the send;</item>
/// <item>alive, with loss: each fails on its own with rate q, so q^k;</item>
/// <item>alive, after a blip: the path was down for a while and has come back, so only those transmissions count that
/// are known to have been sent while it was up (c of them): P(blip) · q^c.</item>
/// </list>
/// The numbers are chosen so that on a clean path an expired connection is condemned at its first timeout (about 0.45 s),
/// one of unknown age when three timeouts have passed (about 1.7 s), one that was active just before not before five
/// (about 7 s), and with 10 % loss each way none of them before nine transmissions have failed in a row.
/// </remarks>
public static class ForgottenOdds
{
    /// <summary>Odds from which a connection counts as stuck. At 10,000 to 1 a path must be up as well.</summary>
    public const double Conclusive = 1e4;

    /// <summary>The gap before the send was longer than the path is known to survive.</summary>
    public const double PriorExpired = 0.5;

    /// <summary>The path's idle timeout is not known to be exceeded, but the gap is one that some routers forget after.</summary>
    public const double PriorIdle = 1e-2;

    /// <summary>The gap is not known.</summary>
    public const double PriorUnknownGap = 1e-4;

    /// <summary>The connection was in use just before: only a router that lost its whole table explains it.</summary>
    public const double PriorBusy = 1e-6;

    /// <summary>The path was seen down during the stall: routers that come back have often lost their table.</summary>
    public const double PriorAfterOutage = 0.3;

    /// <summary>A blip that nobody saw began just before the send and ended before the first fresh connection.</summary>
    public const double BlipUnseen = 1e-5;

    /// <summary>No middlebox known forgets sooner: shorter gaps are no gaps.</summary>
    public static readonly TimeSpan ShortestGap = TimeSpan.FromSeconds(5);

    /// <summary>Posterior odds, forgotten to alive; larger is worse for the connection.</summary>
    public static double Of(in StallEvidence stall, in PathEvidence path)
    {
        var q = path.TransmissionFailureRate;
        var prior = Prior(stall, path);
        var blip = path.WasDownDuringStall ? 1.0 : BlipUnseen;
        var aliveWithLoss = Math.Pow(q, stall.FailedTransmissions);
        var aliveAfterBlip = blip * Math.Pow(q, stall.ConfirmedFailures);
        return prior / (aliveWithLoss + aliveAfterBlip);
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
