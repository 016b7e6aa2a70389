using Sidecar.Agent.Audit.Model;

namespace Sidecar.Agent.Audit.Findings;

/// <summary>
/// Who gives up first. In a well-made chain each stage waits longer than the one behind it, so that an error is found where
/// it happens and travels outwards as an answer; the work itself has the shortest limit. Pure.
/// </summary>
internal static class ChainFindings
{
    public static IEnumerable<AuditFinding> For(AuditedStack stack, IReadOnlyList<Chain> chains, LimitPlan plan) =>
        chains.SelectMany(chain => Order(chain, plan).Concat(NoLimit(chain, plan)).Concat(TooShort(chain, stack.LongestRequest, plan)).Concat(KeepAlive(chain, stack, plan)));

    private static IEnumerable<AuditFinding> Order(Chain chain, LimitPlan plan)
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
                Changes = [.. plan.For(innerHop, inner), .. plan.For(outerHop, outer)],
            };
        }
    }

    private static IEnumerable<AuditFinding> NoLimit(Chain chain, LimitPlan plan)
    {
        // A timeout that is missing is a finding of its own, and counts as what it is to become.
        var outer = chain.Limits.Where(pair => pair.Limit.Kind == LimitKind.Wait)
            .Select(pair => (pair.Hop, pair.Limit, Time: pair.Limit.Value ?? plan.ValueOf(pair.Hop, pair.Limit))).Where(one => one.Time is not null).ToList();
        if (outer.Count == 0)
        {
            yield break;
        }

        var (hop, least, time) = outer.MinBy(one => one.Time);
        foreach (var (worker, work) in chain.Limits.Where(pair => pair.Limit is { Kind: LimitKind.Work, Value: null } && pair.Hop.IsWorker))
        {
            yield return new AuditFinding
            {
                Id = "no-work-limit",
                Severity = Severity.Medium,
                Program = worker.Program,
                Place = worker.Place,
                What = $"{worker.Title}: {work.Setting} is not set",
                Consequence = $"{hop.Program} gives up after {Texts.Time(time)} ({least.Setting}); the worker goes on for nobody, as long as it takes, and its slot is lost for that time"
                    + (work.Form.Length == 0 ? $"; {worker.Program} has no such limit for workers of this kind" : ""),
                Changes = [.. plan.For(worker, work)],
            };
        }
    }

    private static IEnumerable<AuditFinding> TooShort(Chain chain, TimeSpan? longest, LimitPlan plan)
    {
        foreach (var (hop, limit) in chain.Limits.Where(pair => longest is not null && pair.Limit.Value <= longest))
        {
            yield return new AuditFinding
            {
                Id = "limit-too-short",
                Severity = Severity.High,
                Program = hop.Program,
                Place = limit.Place ?? hop.Place,
                What = $"{hop.Title}: {Texts.Setting(limit)}",
                Consequence = $"a request that is silent for {Texts.Time(longest)} is ended here after {Texts.Time(limit.Value)}; the client sees: {chain.SeenByClient(hop, limit)}",
                Changes = [.. plan.For(hop, limit)],
            };
        }
    }

    /// <summary>Whoever keeps connections for reuse must be the one that closes them.</summary>
    private static IEnumerable<AuditFinding> KeepAlive(Chain chain, AuditedStack stack, LimitPlan plan)
    {
        if (chain.BehindBalancer(stack) is not (var balancer, var idle, var behind, var limit) || limit.Value > (plan.ValueOf(balancer, idle) ?? idle.Value))
        {
            yield break;
        }

        yield return new AuditFinding
        {
            Id = "keepalive-race",
            Severity = Severity.Medium,
            Program = behind.Program,
            Place = limit.Place ?? behind.Place,
            What = $"{behind.Title}: {Texts.Setting(limit)}; the balancer keeps idle connections for {Texts.Time(plan.ValueOf(balancer, idle) ?? idle.Value)}",
            Consequence = $"{behind.Program} closes a connection that the balancer is about to use again; now and then a client sees: 502 Bad Gateway",
            Changes = [.. plan.For(behind, limit)],
        };
    }
}
