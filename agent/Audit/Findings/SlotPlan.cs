using Sidecar.Agent.Audit.Model;

namespace Sidecar.Agent.Audit.Findings;

/// <summary>
/// One <c>maxconn</c> for each server of HAProxy. Several servers, often of several proxies, lead to the same workers:
/// together they must not promise more slots than there are. Backups take over from the others of their proxy, so that of
/// the two the larger sum counts. Pure.
/// </summary>
internal sealed class SlotPlan
{
    private readonly List<Group> _groups;
    private readonly Dictionary<HaproxyServer, Group> _groupOf = new(ReferenceEqualityComparer.Instance);
    private readonly Dictionary<HaproxyServer, int> _planned = new(ReferenceEqualityComparer.Instance);

    public SlotPlan(AuditedStack stack, HopGraph graph)
    {
        var index = new Dictionary<Hop, int>(ReferenceEqualityComparer.Instance);
        foreach (var hop in graph.Hops)
        {
            index.TryAdd(hop.Hop, index.Count);
        }

        _groups =
        [
            .. stack.Programs.SelectMany(program => program.Backends.SelectMany(backend => backend.Servers.Where(server => server.Address is not null)
                    .Select(server => (Backend: backend, Server: server, Workers: graph.WorkersAt(server.Address!, program.Namespace)))))
                .Where(one => one.Workers.Count > 0 && one.Workers.All(worker => worker.Slots is not null))
                .GroupBy(one => string.Join(',', one.Workers.Select(worker => index[worker]).Order()), StringComparer.Ordinal)
                .Select(group => new Group(group.First().Workers, [.. group.GroupBy(one => one.Backend).Select(one => new Pool(one.Key, [.. one.Select(entry => entry.Server)]))])),
        ];
        foreach (var group in _groups)
        {
            foreach (var server in group.Servers)
            {
                _groupOf[server] = group;
            }

            Share(group);
        }
    }

    /// <summary>The slots of all workers behind a server; null: not known.</summary>
    public long? SlotsBehind(HaproxyServer server) => _groupOf.GetValueOrDefault(server)?.Slots;

    /// <summary>The line of a server without a maxconn, and those of others that must leave room for it; none: the slots are not known.</summary>
    public IReadOnlyList<Change> ChangesWith(HaproxyServer server) => _groupOf.TryGetValue(server, out var group)
        ? [.. new[] { server }.Concat(group.Servers.Where(other => other.MaxConnections is not null)).Select(ChangeOf).OfType<Change>()]
        : [];

    /// <summary>Workers to which more is let through than they have slots, unless each server has the least that there is.</summary>
    public IEnumerable<AuditFinding> Oversubscribed()
    {
        foreach (var group in _groups)
        {
            var counted = group.Pools.SelectMany(pool => pool.Counted.Where(server => server.MaxConnections is not null)
                .Select(server => $"{pool.Backend.Name}/{server.Name} {(server.Count > 1 ? $"{Texts.Number(server.Count)} × " : "")}{Texts.Number(server.MaxConnections!.Value)}")).ToList();
            var changes = group.Servers.Select(ChangeOf).OfType<Change>().ToList();
            if (group.Sum <= group.Slots || !group.Servers.Any(server => server.MaxConnections > _planned[server]))
            {
                continue;
            }

            yield return new AuditFinding
            {
                Id = "haproxy-oversubscribed",
                Severity = Severity.Medium,
                Program = "haproxy",
                Place = group.Pools[0].Counted[0].Place,
                What = $"maxconn of {string.Join(" + ", counted.Take(6))}{(counted.Count > 6 ? " + …" : "")} = {Texts.Number(group.Sum)} for {Texts.Number(group.Slots)} slots of {string.Join(" and ", group.Workers.Take(3).Select(worker => $"{worker.Title} ({worker.Place})"))}",
                Consequence = $"{Texts.Number(group.Sum - group.Slots)} requests more than there are slots are let through; they wait where HAProxy cannot give them to another server",
                Changes = changes,
            };
        }
    }

    private Change? ChangeOf(HaproxyServer server) => _planned.TryGetValue(server, out var most) && most != server.MaxConnections
        ? new Change(server.Place, $"{server.Keyword} {server.Name} … maxconn {Texts.Number(most)}", IsNew: false)
        : null;

    private void Share(Group group)
    {
        // What is set stays where it fits, and those without get what is left.
        var open = group.Pools.Where(pool => pool.Servers.Any(server => server.MaxConnections is null)).ToList();
        var left = group.Slots - group.Sum;
        var fits = left >= 0;
        foreach (var pool in open)
        {
            var most = pool.Sum + (left / open.Count);
            foreach (var kind in pool.Kinds)
            {
                var without = kind.Where(server => server.MaxConnections is null).ToList();
                var each = (most - Pool.SumOf(kind)) / Math.Max(1, without.Sum(server => server.Count));
                fits &= without.Count == 0 || each >= 1;
                without.ForEach(server => _planned[server] = (int)Math.Clamp(each, 1, int.MaxValue));
            }
        }

        foreach (var server in group.Servers.Where(server => server.MaxConnections is not null))
        {
            _planned[server] = server.MaxConnections!.Value;
        }

        if (fits)
        {
            return;
        }

        // Otherwise all get the same share, at least one.
        foreach (var kind in group.Pools.SelectMany(pool => pool.Kinds))
        {
            var each = Math.Max(1, group.Slots / group.Pools.Count / kind.Sum(server => server.Count));
            kind.ForEach(server => _planned[server] = (int)Math.Min(int.MaxValue, each));
        }
    }

    /// <summary>All servers that lead to the same workers.</summary>
    private sealed record Group(IReadOnlyList<Hop> Workers, IReadOnlyList<Pool> Pools)
    {
        public long Slots { get; } = Workers.Sum(worker => (long)worker.Slots!.Value);

        public long Sum => Pools.Sum(pool => pool.Sum);

        public IEnumerable<HaproxyServer> Servers => Pools.SelectMany(pool => pool.Servers);
    }

    /// <summary>Those of one proxy.</summary>
    private sealed record Pool(HaproxyBackend Backend, IReadOnlyList<HaproxyServer> Servers)
    {
        /// <summary>The ordinary ones, and the backups.</summary>
        public IReadOnlyList<List<HaproxyServer>> Kinds => [.. Servers.GroupBy(server => server.IsBackup).Select(kind => kind.ToList())];

        /// <summary>Those of whom the larger sum is.</summary>
        public List<HaproxyServer> Counted => Kinds.MaxBy(SumOf)!;

        public long Sum => SumOf(Counted);

        public static long SumOf(IEnumerable<HaproxyServer> servers) => servers.Sum(server => (long)server.Count * (server.MaxConnections ?? 0));
    }
}
