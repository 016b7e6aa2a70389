namespace Sidecar.Agent.Core.Judgement.IdleTimeout;

/// <summary>What the ladder is to find out, and with how much.</summary>
public sealed record LadderSettings
{
    /// <summary>Gaps up to this are known to be survived already; the scale begins above.</summary>
    public TimeSpan Survived { get; init; }

    /// <summary>Longest gap to try.</summary>
    public TimeSpan Max { get; init; } = TimeSpan.FromSeconds(7800);

    /// <summary>Wanted width of the interval as a share of its lower bound.</summary>
    public double Precision { get; init; } = 0.05;

    /// <summary>A narrower interval than this is never asked for.</summary>
    public TimeSpan MinimumWidth { get; init; } = TimeSpan.FromSeconds(1);

    /// <summary>Connections that may idle at the same time, at least 1.</summary>
    public int Slots { get; init; } = LadderPlan.DefaultSlots;

    /// <summary>Connections that may be opened in all, the first ones included.</summary>
    public int Connections { get; init; } = LadderPlan.DefaultConnections;

    /// <summary>
    /// Unasked, in the background: the application's places come first. Few connections, one SYN a second, and the first one that
    /// is refused ends it.
    /// </summary>
    public bool IsGuest { get; init; }

    /// <summary>The width at which an interval that starts at <paramref name="lower"/> is narrow enough.</summary>
    public TimeSpan WidthAt(TimeSpan lower)
    {
        var share = lower * Precision;
        return share > MinimumWidth ? share : MinimumWidth;
    }
}

/// <summary>A connection that idles: it can be tested once at any gap from its present age on.</summary>
/// <param name="Id">The runner's number for it.</param>
/// <param name="Age">How long nothing has moved on it.</param>
/// <param name="TestedAt">The gap at which it is being tested just now; null while it idles.</param>
/// <param name="Target">The gap at which the last step wanted it tested, or null.</param>
public readonly record struct Idler(int Id, TimeSpan Age, TimeSpan? TestedAt = null, TimeSpan? Target = null);

/// <summary>At which age a connection is to be tested.</summary>
public readonly record struct LadderTarget(int Id, TimeSpan Gap);

/// <summary>What to do next.</summary>
public sealed record LadderStep
{
    public required bool Finished { get; init; }

    /// <summary>Idling connections and the ages at which to test them. An age that has come, or passed, is due now.</summary>
    public IReadOnlyList<LadderTarget> Targets { get; init; } = [];

    /// <summary>Connections that can teach nothing more: older than a gap known to be lost.</summary>
    public IReadOnlyList<int> Useless { get; init; } = [];

    /// <summary>How many connections to open now; each starts to idle at once and gets its target with the next step.</summary>
    public int Open { get; init; }
}

/// <summary>
/// Plans a ladder of idle gaps. Pure: each step is a function of the bounds known and of the ages of the connections
/// that idle; nothing is remembered in between.
/// <para>
/// A timeout T cannot be seen before T has passed, and a connection gives one verdict per gap. So connections idle
/// side by side, each for another gap; those that survive theirs start over at once and take the longer gaps. While
/// no loss is known the gaps are a fixed scale with a close pair around each timeout in common use, so a common one
/// is bracketed to the wanted precision by the first loss, at about T. After a loss the connections that started over
/// at different moments have different ages below it: each is tested when it comes to the next of the points that
/// divide what is left.
/// </para>
/// </summary>
public static class LadderPlan
{
    public const int DefaultSlots = 16;
    public const int DefaultConnections = 30;

    /// <summary>And where everything was lost at once and the search has begun anew, however often.</summary>
    public const int MostConnections = 56;

    // Share of a common value to either side of it, at the default precision of 5 %: 2 % and 2 % make a width of 4.1 %.
    private const double PairOffset = 0.4;

    private static readonly double[] CommonSeconds = [60, 240, 300, 350, 600, 900, 1200, 3600, 7440];

    // The scale below and between the common values. Steps are at most 1.8-fold, so that the loss after a survived gap comes
    // before 1.8 T; fine at the short end, where the test itself takes a while beside T.
    private static readonly double[] ShortSeconds = [2.5, 4, 5.5, 7.5, 10, 13.5, 18, 24, 32, 43];

    // Above it as few as that allows: each takes a connection from the pairs, which have to begin before T / 5.
    private static readonly double[] LongSeconds = [105, 175, 2080, 5100];

    // With few connections more: what is found by the first loss has to be narrower there, since dividing it takes longer.
    private static readonly double[] FineLongSeconds = [80, 108, 145, 190, 460, 750, 1050, 1620, 2160, 2850, 4800, 6200];

    // With one to three connections the gaps follow one another: doubled, they take twice the timeout together.
    private static readonly double[] DoublingSeconds = [2.5, 5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120];

    // How far outside a bound it is tried again, as a share of the wanted width.
    private const double Aside = 0.1;

    // Gaps of a survey, a guest's one after another, and how far it reaches beyond what has been seen.
    private const int SurveyGaps = 12;
    private const int GuestSurveyGaps = 4;
    private const double Beyond = 0.25;

    private const int FewSlots = 10;
    private const int FewestSlots = 4;

    /// <summary>The timeouts in common use that get a close pair of gaps.</summary>
    public static IReadOnlyList<TimeSpan> CommonTimeouts { get; } = [.. CommonSeconds.Select(TimeSpan.FromSeconds)];

    /// <summary>The gaps to try while no loss is known, ascending, each above <paramref name="lower"/>, the last one the maximum.</summary>
    public static IReadOnlyList<TimeSpan> Scale(TimeSpan lower, LadderSettings settings)
    {
        var offset = Math.Min(settings.Precision, 0.05) * PairOffset;
        var scale = settings.Slots < FewestSlots
            ? DoublingSeconds
            : CommonSeconds
                .SelectMany(c => new[] { c * (1 - offset), c * (1 + offset) })
                .Concat(ShortSeconds)
                .Concat(settings.Slots < FewSlots ? FineLongSeconds : LongSeconds);
        return [.. scale
            .Select(TimeSpan.FromSeconds)
            .Where(g => g > lower && g < settings.Max)
            .Append(settings.Max)
            .Where(g => g > lower)
            .Order()];
    }

    /// <summary>Whether the bounds are good enough: narrow, or nothing lost up to the maximum.</summary>
    public static bool IsFinished(TimeSpan lower, TimeSpan? upper, LadderSettings settings) =>
        upper is { } u ? u - lower <= settings.WidthAt(lower) : lower >= settings.Max;

    /// <summary>The next step.</summary>
    /// <param name="lower">Longest gap known to be survived; zero for none.</param>
    /// <param name="upper">Shortest gap known to be lost, or null.</param>
    /// <param name="idlers">The connections that idle or are being tested now.</param>
    /// <param name="opened">Connections opened so far.</param>
    /// <param name="settings">What is wanted.</param>
    public static LadderStep Next(TimeSpan lower, TimeSpan? upper, IReadOnlyList<Idler> idlers, int opened, LadderSettings settings)
    {
        if (IsFinished(lower, upper, settings))
        {
            return new LadderStep { Finished = true };
        }

        var free = idlers.Where(i => i.TestedAt is null).OrderByDescending(i => i.Age).ToArray();
        var tested = idlers.Where(i => i.TestedAt is not null).Select(i => i.TestedAt!.Value).ToArray();
        var budget = Math.Max(0, settings.Connections - opened);
        return upper is { } bound
            ? Divide(lower, bound, free, tested, budget, settings)
            : Climb(lower, free, tested, budget, settings);
    }

    /// <summary>The next step once the bounds are close: each is tried again, a little outside, so that neither moves.</summary>
    /// <param name="lower">Longest gap known to be survived.</param>
    /// <param name="upper">Shortest gap known to be lost.</param>
    /// <param name="wanting">How often each is to be tried again.</param>
    /// <param name="idlers">The connections that idle or are being tested now.</param>
    /// <param name="settings">What is wanted.</param>
    public static LadderStep Repeat(TimeSpan lower, TimeSpan upper, (int Survived, int Lost) wanting, IReadOnlyList<Idler> idlers, LadderSettings settings)
    {
        var aside = settings.WidthAt(lower) * Aside;
        var below = lower - aside > lower / 2 ? lower - aside : lower / 2;
        var tested = idlers.Where(i => i.TestedAt is not null).Select(i => i.TestedAt!.Value).ToArray();
        return Try(
            [
                .. Enumerable.Repeat(below, Math.Max(0, wanting.Survived - tested.Count(gap => gap <= lower))),
                .. Enumerable.Repeat(upper + aside, Math.Max(0, wanting.Lost - tested.Count(gap => gap >= upper))),
            ],
            idlers,
            settings);
    }

    /// <summary>Gaps all over the range of a timeout that varies, and beyond it at both ends, ascending.</summary>
    /// <param name="shortest">Shortest gap that was lost.</param>
    /// <param name="longest">Longest gap that was survived.</param>
    /// <param name="settings">What is wanted.</param>
    public static IReadOnlyList<TimeSpan> Survey(TimeSpan shortest, TimeSpan longest, LadderSettings settings)
    {
        var (from, to) = (shortest * (1 - Beyond), (longest * (1 + Beyond)) + settings.MinimumWidth);
        var count = settings.IsGuest ? GuestSurveyGaps : Math.Max(2, Math.Min(settings.Slots, SurveyGaps));
        return [.. Enumerable.Range(0, count).Select(i => from + ((to - from) * i / (count - 1)))];
    }

    /// <summary>The next step that tries each of these gaps once; those under test are not among them.</summary>
    /// <param name="gaps">The gaps, ascending.</param>
    /// <param name="idlers">The connections that idle or are being tested now.</param>
    /// <param name="settings">What is wanted.</param>
    public static LadderStep Try(IReadOnlyList<TimeSpan> gaps, IReadOnlyList<Idler> idlers, LadderSettings settings)
    {
        // The longest gap goes to the oldest, and so on down: all are done soonest.
        var left = gaps.ToList();
        var targets = new List<LadderTarget>();
        var useless = new List<int>();
        foreach (var idler in idlers.Where(i => i.TestedAt is null).OrderByDescending(i => i.Age))
        {
            var late = settings.WidthAt(idler.Age) * Aside;
            if (left.Count > 0 && idler.Age <= left[^1] + late)
            {
                targets.Add(new LadderTarget(idler.Id, left[^1]));
                left.RemoveAt(left.Count - 1);
            }
            else if (gaps.Count == 0 || idler.Age > gaps[^1] + late)
            {
                useless.Add(idler.Id);
            }
        }

        var living = idlers.Count - useless.Count;
        return new LadderStep { Finished = false, Targets = targets, Useless = useless, Open = left.Count == 0 ? 0 : Open(Math.Min(left.Count, settings.Slots - living), living) };
    }

    private static LadderStep Climb(TimeSpan lower, Idler[] free, TimeSpan[] tested, int budget, LadderSettings settings)
    {
        // The oldest takes the shortest gap that it can still be tested at. A gap under test is taken.
        var scale = Scale(tested.Append(lower).Max(), settings);
        var targets = new List<LadderTarget>(free.Length);
        var next = 0;
        foreach (var idler in free)
        {
            if (next == scale.Count)
            {
                break;
            }

            // One that has come to its gap, or past it because somebody was late, is tested now and speaks for all
            // the gaps that it has passed.
            targets.Add(new LadderTarget(idler.Id, scale[next++]));
            while (next < scale.Count && scale[next] <= idler.Age)
            {
                next++;
            }
        }

        var living = free.Length + tested.Length;
        var open = Math.Min(Math.Min(settings.Slots - living, budget), scale.Count - next);
        return new LadderStep { Finished = false, Targets = targets, Open = Open(open, living) };
    }

    private static LadderStep Divide(TimeSpan lower, TimeSpan upper, Idler[] free, TimeSpan[] tested, int budget, LadderSettings settings)
    {
        var useless = free.Where(i => i.Age >= upper).Select(i => i.Id).ToArray();
        var width = settings.WidthAt(lower);

        // Late is what a few milliseconds, or a busy host, make of a point: its test still divides the interval.
        var late = width / 4;
        var targets = new List<LadderTarget>();
        var edges = tested.Where(gap => gap > lower && gap < upper).Append(lower).Append(upper).ToList();

        // A target that still divides is kept: its connection is on the way there.
        foreach (var idler in free)
        {
            if (idler.Target is { } target && idler.Age <= target + late && target > lower && target < upper && edges.All(e => (e - target).Duration() > late))
            {
                targets.Add(new LadderTarget(idler.Id, target));
                edges.Add(target);
            }
        }

        var points = Points(edges, width);
        var idle = free.Where(i => i.Age < upper && targets.All(t => t.Id != i.Id)).ToArray();

        // Those between the bounds take the next point from their age: what they know is to be had soon.
        foreach (var idler in idle.Where(i => i.Age > lower))
        {
            var next = points.FindIndex(p => p >= idler.Age - late);
            if (next < 0)
            {
                continue;
            }

            targets.Add(new LadderTarget(idler.Id, points[next]));
            points.RemoveAt(next);
        }

        var young = idle.Where(i => i.Age <= lower).ToArray();
        var living = free.Length - useless.Length + tested.Length;

        // While tests run, or are about to, the bounds are about to move: nothing is opened for what they may say soon.
        var soon = tested.Length > 0 || targets.Any(t => free.Any(i => i.Id == t.Id && t.Gap - i.Age < width));
        var open = soon ? 0 : Open(Math.Min(Math.Min(points.Count - young.Length, settings.Slots - living), budget), living);

        // The longest gap goes to the oldest, and so on down: all are done soonest. With too few connections for all
        // points every so many-th point is taken.
        var hands = young.Length + open;
        if (hands < points.Count)
        {
            points = [.. Enumerable.Range(0, hands).Select(i => points[(int)((i + 0.5) * points.Count / hands)])];
        }

        targets.AddRange(points.AsEnumerable().Reverse().Zip(young, (point, idler) => new LadderTarget(idler.Id, point)));
        return new LadderStep { Finished = false, Targets = targets, Useless = useless, Open = open };
    }

    /// <summary>The gaps that divide what lies between the edges into parts narrower than wanted, ascending.</summary>
    private static List<TimeSpan> Points(List<TimeSpan> edges, TimeSpan width)
    {
        edges.Sort();
        var points = new List<TimeSpan>();
        for (var i = 0; i + 1 < edges.Count; i++)
        {
            var part = edges[i + 1] - edges[i];
            if (part <= width)
            {
                continue;
            }

            var parts = (int)Math.Ceiling(part / (width * 0.9));
            points.AddRange(Enumerable.Range(1, parts - 1).Select(k => edges[i] + (part * k / parts)));
        }

        return points;
    }

    /// <summary>The budget is not a reason to stop half-way: with no connection left, one more is opened.</summary>
    private static int Open(int wanted, int living) => living == 0 ? Math.Max(1, wanted) : Math.Max(0, wanted);
}
