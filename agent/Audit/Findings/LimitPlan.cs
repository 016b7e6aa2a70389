using Sidecar.Agent.Audit.Model;
using Sidecar.Agent.Audit.Reading;

namespace Sidecar.Agent.Audit.Findings;

/// <summary>
/// One value for each line that sets a time limit, the same for all chains that the line is part of, so that in each of them
/// every stage waits longer than the one behind it. The worker's own limit says how long a request may take and is kept, or
/// where it has none the innermost limit that somebody has set. What stands further out is raised where it is too short;
/// what waits longer than something outside is lowered. A balancer elsewhere is not changed unless a request must pass it. Pure.
/// </summary>
internal sealed class LimitPlan
{
    /// <summary>What a missing timeout is set to where nothing behind it needs more.</summary>
    private static readonly TimeSpan Usual = TimeSpan.FromSeconds(60);

    private readonly Dictionary<(Place, string), Clock> _clocks = [];

    /// <summary>Lines that hold for several stages of one chain, so that each needs a line of its own.</summary>
    private readonly HashSet<(Place, string)> _shared = [];

    public LimitPlan(AuditedStack stack, IReadOnlyList<Chain> chains)
    {
        List<Clock> order;
        do
        {
            _clocks.Clear();
            Connect(chains);
        }
        while (!TryOrder(out order));

        foreach (var clock in Enumerable.Reverse(order))
        {
            clock.Weigh(stack.LongestRequest);
        }

        order.ForEach(clock => clock.Settle());
        foreach (var chain in chains)
        {
            KeepLonger(stack, chain);
        }
    }

    /// <summary>All lines that change.</summary>
    public IEnumerable<Change> All => _clocks.Values.Select(clock => clock.Change).OfType<Change>();

    /// <summary>What a limit should be at least, for one behind it, in whole seconds.</summary>
    public static TimeSpan Above(TimeSpan inner) => Seconds(Math.Ceiling((inner + Margin(inner)).TotalSeconds));

    /// <summary>What a limit should be at most, for one in front of it, in whole seconds and at least one.</summary>
    public static TimeSpan Below(TimeSpan outer) => Seconds(Math.Max(1, Math.Floor((outer - Margin(outer)).TotalSeconds)));

    /// <summary>The lines to change for a limit, and for a clock that runs beside it.</summary>
    public IEnumerable<Change> For(Hop hop, Limit limit) =>
        new[] { limit, limit.Beside }.OfType<Limit>().Select(one => _clocks.GetValueOrDefault(LineOf(hop, one).Key)?.Change).OfType<Change>();

    /// <summary>The line for a timeout that is not set.</summary>
    /// <param name="limit">The limit.</param>
    /// <param name="usual">What it is set to where it is no part of any chain.</param>
    public Change Missing(Limit limit, TimeSpan usual)
    {
        var (key, form, isNew) = LineOf(null, limit);
        return _clocks.GetValueOrDefault(key)?.Change ?? new Change(key.Place, Limit.Line(form, usual), isNew);
    }

    /// <summary>What a limit is once the lines are changed; null: none.</summary>
    public TimeSpan? ValueOf(Hop hop, Limit limit) => _clocks.GetValueOrDefault(LineOf(hop, limit).Key) is { } clock ? clock.Value : limit.Value;

    private static TimeSpan Margin(TimeSpan value) => Seconds(Math.Max(1, Math.Ceiling(value.TotalSeconds / 10)));

    private static TimeSpan Seconds(double seconds) => TimeSpan.FromSeconds(seconds);

    private static TimeSpan Most(IEnumerable<TimeSpan> values) => values.DefaultIfEmpty(TimeSpan.Zero).Max();

    private void Connect(IReadOnlyList<Chain> chains)
    {
        foreach (var chain in chains)
        {
            var waits = false;
            foreach (var (hop, limit) in chain.Limits)
            {
                var clock = ClockOf(hop, limit);
                waits |= limit.Kind == LimitKind.Wait && clock.IsThere;
                clock.IsToBeSet |= limit is { Kind: LimitKind.Work, Value: null, Form.Length: > 0 } && hop.IsWorker && waits;
            }
        }

        foreach (var chain in chains)
        {
            List<Clock> outer = [];
            foreach (var (hop, limit) in chain.Limits)
            {
                var clock = ClockOf(hop, limit);
                if (!clock.IsThere)
                {
                    continue;
                }

                foreach (var one in outer)
                {
                    one.Inner.Add(clock);
                    clock.Outer.Add(one);
                }

                outer = limit.Beside is { } beside ? [clock, ClockOf(hop, beside)] : [clock];
            }
        }
    }

    /// <summary>The outermost first. False where a line holds for several stages of one chain, and has been parted.</summary>
    private bool TryOrder(out List<Clock> order)
    {
        var left = new HashSet<Clock>(_clocks.Values);
        order = Free(left, clock => clock.Outer);
        var circle = new HashSet<Clock>(left);
        Free(circle, clock => clock.Inner);
        var known = _shared.Count;
        _shared.UnionWith(circle.Select(clock => clock.Key));
        if (_shared.Count > known)
        {
            return false;
        }

        order.AddRange(left); // proxies that lead to each other in circles: no values are right for all of them
        return true;
    }

    /// <summary>Takes away, again and again, those of which none of the others stands on that side.</summary>
    private static List<Clock> Free(HashSet<Clock> left, Func<Clock, HashSet<Clock>> side)
    {
        var free = new List<Clock>();
        for (var round = left.ToList(); round.Count > 0;)
        {
            round = [.. left.Where(clock => !side(clock).Overlaps(left))];
            left.ExceptWith(round);
            free.AddRange(round);
        }

        return free;
    }

    /// <summary>Whoever keeps connections for reuse must be the one that closes them.</summary>
    private void KeepLonger(AuditedStack stack, Chain chain)
    {
        if (chain.BehindBalancer(stack) is { } pair && ValueOf(pair.Balancer, pair.Idle) is { } idle)
        {
            var clock = ClockOf(pair.Behind, pair.KeepAlive);
            clock.Value = clock.Value is { } value && value > idle ? value : Above(idle);
        }
    }

    private Clock ClockOf(Hop hop, Limit limit)
    {
        var line = LineOf(hop, limit);
        if (!_clocks.TryGetValue(line.Key, out var clock))
        {
            _clocks[line.Key] = clock = new Clock(line.Key, limit, line.Form, line.IsNew, hop.Program == "postgresql");
        }

        return clock;
    }

    private ((Place Place, string Setting) Key, string Form, bool IsNew) LineOf(Hop? hop, Limit limit)
    {
        if (limit.Place is { } place && (limit.Own is null || !_shared.Contains((place, limit.Setting))))
        {
            return ((place, limit.Setting), limit.Form, false);
        }

        var own = limit.Own ?? new OwnLine(hop!.Place, limit.Setting, limit.Form, IsOption: false);
        return ((own.Place, own.Setting), own.Form, !own.IsOption);
    }

    /// <summary>A line, there already or to be added, with the clocks in front of it and behind it in any chain.</summary>
    private sealed class Clock((Place Place, string Setting) key, Limit limit, string form, bool isNew, bool isDatabase)
    {
        private TimeSpan _least;
        private TimeSpan _needed;
        private TimeSpan _likely;

        public (Place Place, string Setting) Key => key;

        public HashSet<Clock> Outer { get; } = [];

        public HashSet<Clock> Inner { get; } = [];

        /// <summary>A limit of the worker that is not there, while something in front gives up.</summary>
        public bool IsToBeSet { get; set; }

        public bool IsThere => limit.Value is not null || limit.IsAskedFor || IsToBeSet;

        public TimeSpan? Value { get; set; } = limit.Value;

        public Change? Change => Value is { } value && value != limit.Value ? new Change(key.Place, Limit.Line(form, value), isNew) : null;

        /// <summary>How long it must be at least, for those behind it, which are weighed before.</summary>
        /// <param name="request">How long a request may be silent; null: not said.</param>
        public void Weigh(TimeSpan? request)
        {
            // What holds in any case.
            var least = Most(Inner.Select(inner => inner._least));
            _least = Most([request is { } longest ? Above(longest) : Seconds(1), request is null ? Seconds(Math.Floor(least.TotalSeconds) + 1) : Above(least)]);
            if (limit.Value is { } value && value > least && value > (request ?? TimeSpan.Zero) && value < _least)
            {
                _least = value;
            }

            if (isDatabase)
            {
                return; // the timeout of the agent's own role says nothing of the application's requests
            }

            // What lets the work take as long as it may now.
            var needed = Most(Inner.Select(inner => inner._needed));
            var decides = limit.Value is not null && (limit.Kind == LimitKind.Work || limit.Place is not null);
            _needed = needed == TimeSpan.Zero ? (decides ? limit.Value!.Value : TimeSpan.Zero)
                : limit.Value is { } now && now > needed && now < Above(needed) ? now : Above(needed);
            _likely = Most([_least, Wanted]);
        }

        /// <summary>Its value, once those in front of it have theirs.</summary>
        public void Settle()
        {
            if (!IsThere)
            {
                return;
            }

            var outer = Outer.Select(one => one.Value).OfType<TimeSpan>().DefaultIfEmpty(TimeSpan.MaxValue).Min();
            var wanted = IsToBeSet ? outer : Wanted;
            Value = Most([_least, wanted < outer ? wanted : outer < TimeSpan.MaxValue ? Below(outer) : Usual]);
        }

        private TimeSpan Wanted
        {
            get
            {
                if (limit.IsElsewhere)
                {
                    return limit.Value!.Value;
                }

                var needed = Most(Inner.Select(inner => inner._needed));
                if (limit.Value is { } value && value > needed)
                {
                    return value;
                }

                if (IsToBeSet)
                {
                    return needed;
                }

                // One that is too short is raised so far that those behind it can stay as they are.
                var raised = Inner.Count == 0 ? TimeSpan.Zero : Above(Most(Inner.Select(inner => inner._likely)));
                return limit.Value is null ? Most([Usual, raised]) : raised;
            }
        }
    }
}
