using Sidecar.Agent.Audit.Model;

namespace Sidecar.Agent.Audit.Findings;

/// <summary>
/// Who gives up first. In a well-made chain each stage waits longer than the one behind it, so that an error is found where
/// it happens and travels outwards as an answer; the work itself has the shortest limit. Pure.
/// </summary>
internal static class ChainFindings
{
    public static IEnumerable<AuditFinding> For(AuditedStack stack, IReadOnlyList<Chain> chains) =>
        chains.SelectMany(chain => Order(chain).Concat(NoLimit(chain)).Concat(TooShort(chain, stack.LongestRequest)).Concat(KeepAlive(chain, stack)));

    /// <summary>What an outer limit should be at least, for an inner one; and the other way round.</summary>
    internal static TimeSpan Above(TimeSpan inner) => inner + Margin(inner);

    internal static TimeSpan Below(TimeSpan outer) => outer - Margin(outer) is var below && below >= TimeSpan.FromSeconds(1) ? TimeSpan.FromSeconds(Math.Floor(below.TotalSeconds)) : TimeSpan.FromSeconds(1);

    private static TimeSpan Margin(TimeSpan value) => TimeSpan.FromSeconds(Math.Max(1, Math.Ceiling(value.TotalSeconds / 10)));

    private static IEnumerable<AuditFinding> Order(Chain chain)
    {
        var limits = chain.Limits.Where(pair => pair.Limit.Value is not null).ToList();
        for (var i = 0; i + 1 < limits.Count; i++)
        {
            var (outerHop, outer) = limits[i];
            var (innerHop, inner) = limits[i + 1];
            if (outer.Value > inner.Value)
            {
                continue;
            }

            var seen = chain.SeenByClient(outerHop, outer);
            var same = outer.Value == inner.Value;
            yield return new AuditFinding
            {
                Id = "chain-order",
                Severity = innerHop.Program == "postgresql" ? Severity.Medium : Severity.High,
                Program = outerHop.Program,
                Place = outer.Place ?? outerHop.Place,
                What = $"{outerHop.Title}: {Texts.Setting(outer)}, and {innerHop.Title} behind it: {Texts.Setting(inner)}",
                Consequence = same
                    ? $"after {Texts.Time(outer.Value)} of silence both give up at the same time, and chance decides what the client sees: {seen}, or what {innerHop.Program} answers"
                    : $"after {Texts.Time(outer.Value)} of silence {outerHop.Program} closes first; the client sees: {seen}. {innerHop.Program} goes on for nobody until {Texts.Time(inner.Value)}, holds its slot, and finds a broken pipe",
                Changes = [Texts.Set(innerHop, inner, Below(outer.Value!.Value)), Texts.Set(outerHop, outer, Above(inner.Value!.Value))],
            };
        }
    }

    private static IEnumerable<AuditFinding> NoLimit(Chain chain)
    {
        var outer = chain.Limits.Where(pair => pair.Limit is { Kind: LimitKind.Wait, Value: not null }).ToList();
        if (outer.Count == 0)
        {
            yield break;
        }

        var (hop, least) = outer.MinBy(pair => pair.Limit.Value);
        foreach (var (worker, work) in chain.Limits.Where(pair => pair.Limit is { Kind: LimitKind.Work, Value: null } && pair.Hop.IsWorker))
        {
            yield return new AuditFinding
            {
                Id = "no-work-limit",
                Severity = Severity.Medium,
                Program = worker.Program,
                Place = worker.Place,
                What = $"{worker.Title}: {work.Setting} is not set",
                Consequence = $"{hop.Program} gives up after {Texts.Time(least.Value)} ({least.Setting}); the worker goes on for nobody, as long as it takes, and its slot is lost for that time",
                Changes = [Texts.Set(worker, work, Below(least.Value!.Value))],
            };
        }
    }

    private static IEnumerable<AuditFinding> TooShort(Chain chain, TimeSpan? longest)
    {
        foreach (var (hop, limit) in chain.Limits.Where(pair => longest is not null && pair.Limit.Value <= longest))
        {
            // Each stage further out needs a little more.
            var outwards = chain.Limits.Reverse().TakeWhile(pair => !ReferenceEquals(pair.Limit, limit)).Count(pair => pair.Limit.Value is not null);
            var needed = longest!.Value;
            for (var i = 0; i <= outwards; i++)
            {
                needed = Above(needed);
            }

            yield return new AuditFinding
            {
                Id = "limit-too-short",
                Severity = Severity.High,
                Program = hop.Program,
                Place = limit.Place ?? hop.Place,
                What = $"{hop.Title}: {Texts.Setting(limit)}",
                Consequence = $"a request that is silent for {Texts.Time(longest)} is ended here after {Texts.Time(limit.Value)}; the client sees: {chain.SeenByClient(hop, limit)}",
                Changes = [Texts.Set(hop, limit, needed)],
            };
        }
    }

    /// <summary>Whoever keeps connections for reuse must be the one that closes them.</summary>
    private static IEnumerable<AuditFinding> KeepAlive(Chain chain, AuditedStack stack)
    {
        if (stack.Front.Count == 0 || chain.Hops.Count <= stack.Front.Count || !ReferenceEquals(chain.Hops[0], stack.Front[0]))
        {
            yield break;
        }

        var balancer = stack.Front[^1];
        var behind = chain.Hops[stack.Front.Count];
        if (balancer.Limits is not [{ Value: { } idle }, ..] || behind.KeepAlive is not { Value: { } kept } limit || kept > idle || kept == TimeSpan.Zero)
        {
            yield break;
        }

        yield return new AuditFinding
        {
            Id = "keepalive-race",
            Severity = Severity.Medium,
            Program = behind.Program,
            Place = limit.Place ?? behind.Place,
            What = $"{behind.Title}: {Texts.Setting(limit)}; the balancer keeps idle connections for {Texts.Time(idle)}",
            Consequence = $"{behind.Program} closes a connection that the balancer is about to use again; now and then a client sees: 502 Bad Gateway",
            Changes = [Texts.Set(behind, limit, Above(idle))],
        };
    }
}
