namespace Sidecar.Agent.Judgement;

/// <summary>
/// How often a transmission on a path fails, from segments sent and retransmitted. Old counts fade, so that a path that
/// was bad yesterday is not held to be bad today.
/// </summary>
public sealed class LossEstimate
{
    /// <summary>Nothing is believed to be better than this: real loss comes in bursts.</summary>
    public const double Floor = 0.02;

    /// <summary>Nor worse: beyond it nothing could be told apart at all.</summary>
    public const double Ceiling = 0.6;

    // One failure in twenty before anything was seen.
    private const double PriorFailures = 1;
    private const double PriorTransmissions = 20;

    private static readonly TimeSpan HalfLife = TimeSpan.FromMinutes(5);

    private double _sent;
    private double _failed;
    private TimeSpan _at;

    /// <summary>Notes transmissions that were answered or repeated. Those of a stall in progress do not belong here.</summary>
    /// <param name="sent">Transmissions, repeated ones included.</param>
    /// <param name="failed">Those that had to be repeated.</param>
    /// <param name="now">Monotonic time.</param>
    public void Add(double sent, double failed, TimeSpan now)
    {
        Fade(now);
        _sent += Math.Max(sent, failed);
        _failed += failed;
    }

    /// <summary>Failure rate to reckon with: the estimate and, once failures were seen, two standard errors on top.</summary>
    public double RateAt(TimeSpan now)
    {
        Fade(now);
        var total = _sent + PriorTransmissions;
        var rate = (_failed + PriorFailures) / total;
        var margin = _failed >= 1 ? 2 * Math.Sqrt(rate * (1 - rate) / total) : 0;
        return Math.Clamp(rate + margin, Floor, Ceiling);
    }

    private void Fade(TimeSpan now)
    {
        if (now <= _at)
        {
            return;
        }

        var factor = Math.Pow(0.5, (now - _at) / HalfLife);
        _sent *= factor;
        _failed *= factor;
        _at = now;
    }
}
