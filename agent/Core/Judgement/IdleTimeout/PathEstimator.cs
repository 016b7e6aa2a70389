namespace Sidecar.Agent.Core.Judgement.IdleTimeout;

/// <summary>
/// Keeps the evidence about one path's idle timeout and draws the interval from it.
/// <para>
/// As long as all observations agree, the interval runs from the longest survived gap to the shortest lost one, so a
/// router that keeps to its timeout always has it inside. When they disagree, each new observation wears out the older
/// ones that it contradicts (a changed router is followed after a few sightings, however long its past), and the
/// interval takes in every timeout that is explained as well as the best one but for a single observation (one lie
/// widens it, and is worn out by the truths that follow).
/// </para>
/// Not thread-safe. Clock-free: time comes in with the observations.
/// </summary>
public sealed class PathEstimator
{
    /// <summary>Observations kept at most; the bounds themselves are always among them.</summary>
    public const int Capacity = 64;

    // Repetition makes an observation harder to wear out, but not without limit: a changed router must win in the end.
    private const double MaxWeight = 4;

    // What is left of an observation after contradiction counts for nothing below this share of what contradicts it: two
    // sightings by a ladder settle it, however often the contrary was seen before.
    private const double Forgotten = 1.0 / 15;

    // An equal sighting of up to this much shorter (survived) or longer (lost) is already said by the stronger one.
    private const double Redundant = 0.05;

    private readonly List<GapObservation> _evidence = [];
    private IdleTimeoutEstimate? _cached;
    private DateTimeOffset _newest;
    private long _count;

    public PathEstimator()
    {
    }

    /// <summary>Takes up kept evidence; entries that make no sense are left out.</summary>
    public PathEstimator(KeptEvidence kept)
    {
        foreach (var item in kept.Observations)
        {
            if (item.GapSeconds is > 0 and < 1e9 && item.Weight is > 0 and <= MaxWeight && Enum.IsDefined(item.Outcome) && Enum.IsDefined(item.Source))
            {
                var gap = TimeSpan.FromSeconds(item.GapSeconds);
                _evidence.Add(new GapObservation(gap, item.Outcome, item.At, item.Source, item.Weight));
                _newest = item.At > _newest ? item.At : _newest;
            }
        }

        while (_evidence.Count > Capacity)
        {
            Evict();
        }

        _count = Math.Max(kept.Count, _evidence.Count);
    }

    /// <summary>Takes one observation. Gaps of zero or less and weights of zero or less say nothing and are ignored.</summary>
    public void Add(in GapObservation observation)
    {
        if (observation.Gap <= TimeSpan.Zero || !(observation.Weight > 0))
        {
            return;
        }

        var added = observation with { Weight = Math.Min(observation.Weight, MaxWeight) };
        _count++;
        _newest = added.At > _newest ? added.At : _newest;

        var wear = Math.Pow(0.5, added.Weight);
        if (!Absorb(ref added))
        {
            _evidence.Add(added);
        }

        WearOut(added, wear);
        if (_evidence.Count > Capacity)
        {
            Evict();
        }

        _cached = null;
    }

    /// <summary>The interval as of <paramref name="now"/>.</summary>
    public IdleTimeoutEstimate Estimate(DateTimeOffset now)
    {
        _cached ??= Compute();
        return _evidence.Count == 0 ? _cached : _cached with { Age = now > _newest ? now - _newest : TimeSpan.Zero };
    }

    /// <summary>True while some of the evidence disagrees with the rest.</summary>
    public bool Contradicted => (_cached ??= Compute()).Contradicted;

    /// <summary>Drops all evidence: the path is known to have changed.</summary>
    public void Forget()
    {
        _evidence.Clear();
        _cached = null;
    }

    /// <summary>The evidence in a form that can be kept.</summary>
    public KeptEvidence Keep() => new()
    {
        Count = _count,
        Observations = [.. _evidence.Select(o => new KeptGap
        {
            GapSeconds = o.Gap.TotalSeconds,
            Outcome = o.Outcome,
            At = o.At,
            Source = o.Source,
            Weight = o.Weight,
        })],
    };

    private void WearOut(in GapObservation added, double factor)
    {
        DateTimeOffset? changed = null;
        for (var i = _evidence.Count - 1; i >= 0; i--)
        {
            var old = _evidence[i];
            if (!old.Contradicts(added))
            {
                continue;
            }

            if (old.Weight * factor < Forgotten * Math.Max(1, added.Weight))
            {
                _evidence.RemoveAt(i);
                var since = _evidence.Where(o => o.Contradicts(old)).Min(o => o.At);
                changed = since > old.At && !(changed > since) ? since : changed;
            }
            else
            {
                _evidence[i] = old with { Weight = old.Weight * factor };
            }
        }

        // What nothing disputed when it came is worn out: the path has changed. What was seen of that side before says
        // nothing of the path as it is now, also where the newer evidence allows it.
        var outcome = added.Outcome;
        _evidence.RemoveAll(o => o.Outcome != outcome && o.At < changed);
    }

    /// <summary>
    /// True when the evidence says it already. What the new observation says as well or better is taken out of the
    /// list and adds to its weight; no gap is ever replaced by one that was not seen.
    /// </summary>
    private bool Absorb(ref GapObservation added)
    {
        for (var i = _evidence.Count - 1; i >= 0; i--)
        {
            var old = _evidence[i];
            if (old.Outcome != added.Outcome)
            {
                continue;
            }

            var (weaker, stronger) = added.Outcome == GapOutcome.Survived ? (old.Gap, added.Gap) : (added.Gap, old.Gap);
            if (weaker <= stronger && weaker >= stronger * (1 - Redundant))
            {
                added = added with { Weight = Math.Min(MaxWeight, added.Weight + old.Weight) };
                _evidence.RemoveAt(i);
            }
            else if (weaker > stronger && stronger >= weaker * (1 - Redundant) && old.Weight >= added.Weight)
            {
                _evidence[i] = old with { At = added.At > old.At ? added.At : old.At };
                return true;
            }
        }

        return false;
    }

    /// <summary>Takes out the oldest observation that bounds nothing.</summary>
    private void Evict()
    {
        var (shortestLost, longestSurvived) = Bounds();
        var oldest = -1;
        for (var i = 0; i < _evidence.Count; i++)
        {
            var bounds = _evidence[i].Gap == (_evidence[i].Outcome == GapOutcome.Survived ? longestSurvived : shortestLost);
            if (!bounds && (oldest < 0 || _evidence[i].At < _evidence[oldest].At))
            {
                oldest = i;
            }
        }

        _evidence.RemoveAt(oldest < 0 ? 0 : oldest);
    }

    private IdleTimeoutEstimate Compute()
    {
        if (_evidence.Count == 0)
        {
            return IdleTimeoutEstimate.Unknown with { Count = _count };
        }

        // A timeout is contradicted by survived gaps above it and by lost gaps below it. That cost is constant at
        // and between the observed gaps, so these are all the candidates there are. The sums run over the gaps in order;
        // they only ever add, so that what nothing contradicts costs nothing at all.
        var ordered = _evidence.ToArray();
        Array.Sort(ordered, static (a, b) => a.Gap.CompareTo(b.Gap));
        var survivedFrom = new double[ordered.Length + 1];
        for (var i = ordered.Length - 1; i >= 0; i--)
        {
            survivedFrom[i] = survivedFrom[i + 1] + (ordered[i].Outcome == GapOutcome.Survived ? ordered[i].Weight : 0);
        }

        var candidates = new List<(TimeSpan From, TimeSpan? To, double Cost)>((ordered.Length * 2) + 1) { (TimeSpan.Zero, ordered[0].Gap, survivedFrom[0]) };
        var lostBelow = 0.0;
        for (var i = 0; i < ordered.Length;)
        {
            var at = ordered[i].Gap;
            var lostHere = 0.0;
            for (; i < ordered.Length && ordered[i].Gap == at; i++)
            {
                lostHere += ordered[i].Outcome == GapOutcome.Lost ? ordered[i].Weight : 0;
            }

            candidates.Add((at, at, survivedFrom[i] + lostBelow));
            lostBelow += lostHere;
            candidates.Add((at, i < ordered.Length ? ordered[i].Gap : null, survivedFrom[i] + lostBelow));
        }

        var best = candidates.Min(c => c.Cost);
        var contradicted = best > 0;
        var accepted = contradicted ? best + LargestDisputed() + 1e-9 : 0;
        var lower = TimeSpan.MaxValue;
        TimeSpan? upper = TimeSpan.Zero;
        foreach (var (from, to, cost) in candidates)
        {
            if (cost > accepted)
            {
                continue;
            }

            lower = from < lower ? from : lower;
            upper = to is null || upper is null ? null : to > upper ? to : upper;
        }

        var agreeing = _evidence.Sum(o => o.Outcome == GapOutcome.Survived
            ? (upper is null || o.Gap <= upper ? o.Weight : 0)
            : (o.Gap >= lower ? o.Weight : 0));
        var disputed = contradicted ? best : 0;
        return new IdleTimeoutEstimate
        {
            Lower = lower,
            Upper = upper,
            Count = _count,
            Confidence = Math.Max(0, agreeing - disputed) / (agreeing + disputed + 1),
            Contradicted = contradicted,
            Age = null,
        };
    }

    /// <summary>Longest gap that was survived, by the evidence of one source; zero for none.</summary>
    public TimeSpan Survived(EvidenceSource source) =>
        _evidence.Where(o => o.Outcome == GapOutcome.Survived && o.Source == source).Select(o => o.Gap).DefaultIfEmpty(TimeSpan.Zero).Max();

    /// <summary>The weight of the heaviest observation that another one contradicts: any one of them may be the lie.</summary>
    private double LargestDisputed()
    {
        var (shortestLost, longestSurvived) = Bounds();
        var largest = 0.0;
        foreach (var one in _evidence)
        {
            if (one.Outcome == GapOutcome.Survived ? one.Gap > shortestLost : one.Gap < longestSurvived)
            {
                largest = Math.Max(largest, one.Weight);
            }
        }

        return largest;
    }

    private (TimeSpan ShortestLost, TimeSpan LongestSurvived) Bounds()
    {
        var shortestLost = TimeSpan.MaxValue;
        var longestSurvived = TimeSpan.Zero;
        foreach (var one in _evidence)
        {
            if (one.Outcome == GapOutcome.Survived)
            {
                longestSurvived = one.Gap > longestSurvived ? one.Gap : longestSurvived;
            }
            else
            {
                shortestLost = one.Gap < shortestLost ? one.Gap : shortestLost;
            }
        }

        return (shortestLost, longestSurvived);
    }
}
