namespace Sidecar.Agent.Core.Judgement;

/// <summary>
/// How often a transmission on a path fails, from segments sent and retransmitted, and how often failures come in a row.
/// Old counts fade, so that a path that was bad yesterday is not held to be bad today; blips, which are rare and say most,
/// fade over days.
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

    /// <summary>No path is held to have fewer blips than this per send.</summary>
    public const double LeastBlips = 1e-5;

    // As if so many sends had been seen without a blip.
    private const double SendsBeforeBlips = 200;

    private static readonly TimeSpan HalfLifeOfBlips = TimeSpan.FromDays(1);

    private double _blips;
    private double _sends;
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
        _sends += Math.Max(0, sent - failed);
    }

    /// <summary>
    /// Notes a connection that went silent for a timeout or more, with the path up as far as was seen, and was answered
    /// after all: what the next silence on this path may be too.
    /// </summary>
    public void AddBlip(TimeSpan now)
    {
        Fade(now);
        _blips++;
    }

    /// <summary>Blips per send to reckon with.</summary>
    public double BlipRateAt(TimeSpan now)
    {
        Fade(now);
        return Math.Clamp(_blips / (_sends + SendsBeforeBlips), LeastBlips, 1);
    }

    /// <summary>Failure rate to reckon with: the estimate and, once failures were seen, two and a half standard errors on top.</summary>
    public double RateAt(TimeSpan now)
    {
        Fade(now);
        var total = _sent + PriorTransmissions;
        var rate = (_failed + PriorFailures) / total;
        var margin = _failed >= 1 ? 2.5 * Math.Sqrt(rate * (1 - rate) / total) : 0;
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
        factor = Math.Pow(0.5, (now - _at) / HalfLifeOfBlips);
        _blips *= factor;
        _sends *= factor;
        _at = now;
    }
}
