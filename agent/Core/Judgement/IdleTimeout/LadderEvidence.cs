namespace Sidecar.Agent.Core.Judgement.IdleTimeout;

/// <summary>One gap that a connection of a ladder was tried with.</summary>
/// <param name="Gap">Idle time; survived ones are rounded down, lost ones up.</param>
/// <param name="Survived">Whether the connection lived.</param>
/// <param name="Begun">When the gap began, by a monotonic clock.</param>
/// <param name="Ended">When the verdict was known, by the same clock.</param>
/// <param name="Occasion">
/// A number where it was lost while something else was wrong: a connection was lost that does not idle, or heard nothing for a while.
/// An outage, or a path that forgot everything at once, loses connections whatever their age. Those of the same occasion have the
/// same number; 0: nothing was wrong.
/// </param>
public sealed record LadderTrial(TimeSpan Gap, bool Survived, TimeSpan Begun, TimeSpan Ended, int Occasion = 0)
{
    public bool IsSuspect => Occasion != 0;
}

/// <summary>What the trials of a ladder say together.</summary>
/// <param name="Lower">Zero where no gap is known to be survived.</param>
/// <param name="Upper">Null where no loss counts.</param>
/// <param name="Varies">
/// The same gap was survived and lost: no single timeout explains it. The bounds are then those of a time that varies: below
/// <paramref name="Lower"/> nothing was lost, above <paramref name="Upper"/> nothing survived, with half of what it was seen to vary by
/// to spare where such gaps were tried.
/// </param>
public readonly record struct LadderBounds(TimeSpan Lower, TimeSpan? Upper, bool Varies);

/// <summary>
/// The trials of one ladder, and what follows from them. A path may lose packets, forget everything at once, or forget at
/// varying times: one survived and one lost gap that lie close together say nothing about that, and each bound is repeated.
/// A loss that repetitions contradict is overruled, so that the search goes on; in the result it still counts.
/// </summary>
public sealed class LadderEvidence
{
    /// <summary>How often each bound is to be seen again.</summary>
    private const int Repeats = 3;

    private readonly List<LadderTrial> _trials = [];
    private LadderBounds? _search;
    private LadderBounds? _result;

    public IReadOnlyList<LadderTrial> Trials => _trials;

    /// <summary>Losses so far.</summary>
    public int Losses => _trials.Count(t => !t.Survived);

    /// <summary>Longest gap that was survived; zero for none.</summary>
    public TimeSpan Longest => LongestBelow(TimeSpan.MaxValue);

    public void Add(LadderTrial trial)
    {
        _trials.Add(trial);
        (_search, _result) = (null, null);
    }

    /// <summary>Where to search: between the shortest loss that is not overruled and the longest gap survived below it.</summary>
    public LadderBounds Search() => _search ??= FindSearch();

    /// <summary>What is known: all that was seen counts, but for losses for which something else is to blame.</summary>
    public LadderBounds Result() => _result ??= FindResult();

    private LadderBounds FindSearch()
    {
        var upper = Shortest(Lost.Where(t => !IsOverruled(t)));
        return new LadderBounds(LongestBelow(upper ?? TimeSpan.MaxValue), upper, Survived.Any(t => t.Gap > upper));
    }

    private LadderBounds FindResult()
    {
        var counted = Lost.Where(Counts).ToArray();
        if (Shortest(counted) is not { } shortest)
        {
            return new LadderBounds(LongestBelow(TimeSpan.MaxValue), null, false);
        }

        var longest = Longest;
        var established = counted.Where(IsEstablished).ToArray();
        if (longest <= shortest)
        {
            return new LadderBounds(longest, Shortest(established), false);
        }

        // So few trials have hardly met the extremes.
        var spread = longest - shortest;
        var upper = Shortest(established.Where(t => t.Gap > longest + (spread / 2))) ?? Shortest(established.Where(t => t.Gap > longest));
        return new LadderBounds(LongestBelow(shortest - (spread / 2)), upper, true);
    }

    /// <summary>
    /// Whether a loss counts in the result. One that was overruled does not where everything was forgotten at that moment, nor far
    /// below what was survived again and again: no timeout varies that much, but packets get lost.
    /// </summary>
    public bool Counts(LadderTrial loss) =>
        !IsOverruled(loss) || !(loss.IsSuspect || Search() is var search && loss.Gap < (search.Upper is null ? search.Lower : search.Upper.Value) / 2);

    /// <summary>How many trials are wanting at either bound, before it may be called known.</summary>
    /// <param name="width">What counts as the same gap.</param>
    public (int Survived, int Lost) Wanting(TimeSpan width)
    {
        if (Search() is not { Upper: { } upper } search)
        {
            return (0, 0);
        }

        var survived = Survived.Count(t => t.Gap <= search.Lower && t.Gap >= search.Lower - width);
        var first = Lost.Where(t => t.Gap == upper).Min(t => t.Ended);
        var tried = _trials.Count(t => t.Gap >= upper && t.Gap <= upper + width && (t.Begun >= first || t is { Survived: false, IsSuspect: false }));
        return (search.Lower == TimeSpan.Zero ? 0 : Math.Max(0, 1 + Repeats - survived), Math.Max(0, 1 + Repeats - tried));
    }

    private IEnumerable<LadderTrial> Survived => _trials.Where(t => t.Survived);

    private IEnumerable<LadderTrial> Lost => _trials.Where(t => !t.Survived);

    /// <summary>Repetitions contradict it, or for a suspect one another loss of the same occasion.</summary>
    private bool IsOverruled(LadderTrial loss) => loss.IsSuspect
        ? Lost.Any(t => t.Occasion == loss.Occasion && IsContradicted(t))
        : IsContradicted(loss);

    /// <summary>Since it was seen, that gap and longer ones were survived so often, all of them shorter than what was lost again.</summary>
    private bool IsContradicted(LadderTrial loss)
    {
        var again = Shortest(Lost.Where(t => t.Begun >= loss.Ended && !t.IsSuspect)) ?? TimeSpan.MaxValue;
        return Survived.Count(t => t.Begun >= loss.Ended && t.Gap >= loss.Gap && t.Gap < again) >= (loss.IsSuspect ? 1 : Repeats);
    }

    /// <summary>Nothing else is to blame for a loss, or nearly the same gap was lost again later.</summary>
    private bool IsEstablished(LadderTrial loss) =>
        !loss.IsSuspect || Lost.Any(t => t.Begun >= loss.Ended && t.Gap <= (loss.Gap * 1.1) + TimeSpan.FromSeconds(1));

    private TimeSpan LongestBelow(TimeSpan bound) =>
        Survived.Where(t => t.Gap <= bound).Select(t => t.Gap).DefaultIfEmpty(TimeSpan.Zero).Max();

    private static TimeSpan? Shortest(IEnumerable<LadderTrial> trials) => trials.Select(t => (TimeSpan?)t.Gap).Min();
}
