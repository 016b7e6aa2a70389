namespace Sidecar.Agent.Audit.Model;

/// <summary>The way of a request, from the client's side to the database's.</summary>
internal sealed record Chain(IReadOnlyList<Hop> Hops)
{
    private const int MostChains = 200;
    private const int MostHops = 16;
    private const int MostSteps = 20_000;

    /// <summary>All limits that run while nothing is heard, the outermost first.</summary>
    public IReadOnlyList<(Hop Hop, Limit Limit)> Limits => [.. Hops.SelectMany(hop => hop.Limits.Select(limit => (hop, limit)))];

    /// <summary>The limit that ends a silent request first; the outer one where two are equal. Null: none ends it.</summary>
    public (Hop Hop, Limit Limit)? First
    {
        get
        {
            (Hop, Limit)? first = null;
            var least = TimeSpan.MaxValue;
            foreach (var (hop, limit) in Limits)
            {
                if (limit.Value is { } value && value < least)
                {
                    (first, least) = ((hop, limit), value);
                }
            }

            return first;
        }
    }

    /// <summary>The balancer in front and what keeps its idle connections; null where either is not known.</summary>
    public (Hop Balancer, Limit Idle, Hop Behind, Limit KeepAlive)? BehindBalancer(AuditedStack stack) =>
        stack.Front.Count > 0 && Hops.Count > stack.Front.Count && ReferenceEquals(Hops[0], stack.Front[0])
        && stack.Front[^1] is { Limits: [var idle, ..] } balancer && Hops[stack.Front.Count] is { KeepAlive: { } keepAlive } behind && keepAlive.Value > TimeSpan.Zero
            ? (balancer, idle, behind, keepAlive)
            : null;

    /// <summary>What the client sees when a limit of one of its hops is reached.</summary>
    public string SeenByClient(Hop hop, Limit limit)
    {
        switch (limit.Ending)
        {
            case Ending.GatewayTimeout:
                return "504 Gateway Timeout";
            case Ending.BadGateway:
                return "502 Bad Gateway";
            case Ending.ServerError:
                return "500 Internal Server Error";
        }

        for (var i = 0; i < Hops.Count && !ReferenceEquals(Hops[i], hop); i++)
        {
            if (Hops[i].AnswersForOthers)
            {
                return "502 Bad Gateway";
            }
        }

        return "the connection closed without an answer";
    }

    /// <summary>
    /// All ways through the programs: each begins at a hop that no other leads to. What stands in front goes before those
    /// that listen on TCP, each of the databases behind the workers.
    /// </summary>
    public static IReadOnlyList<Chain> Build(AuditedStack stack, HopGraph graph)
    {
        var reached = new HashSet<Hop>(ReferenceEqualityComparer.Instance);
        foreach (var hop in graph.Hops)
        {
            reached.UnionWith(graph.Next(hop).Select(next => next.Hop));
        }

        var roots = graph.Hops.Where(hop => !reached.Contains(hop.Hop)).ToList();
        var chains = new List<Chain>();
        var steps = 0;
        foreach (var root in roots.Count > 0 ? roots : graph.Hops)
        {
            Follow(root, []);
        }

        return chains;

        void Follow(PlacedHop hop, List<Hop> before)
        {
            // Proxies that lead to each other in circles have more ways through them than can be walked.
            if (chains.Count >= MostChains || before.Count >= MostHops || ++steps > MostSteps || before.Exists(one => ReferenceEquals(one, hop.Hop)))
            {
                return;
            }

            List<Hop> way = [.. before, hop.Hop];
            var behind = graph.Next(hop);
            foreach (var one in behind)
            {
                Follow(one, way);
            }

            if (behind.Count == 0)
            {
                var isServed = way[0].Listens.Any(listener => !listener.Address.IsUnix);
                IReadOnlyList<Hop>[] ends = hop.Hop.IsWorker && stack.Databases.Count > 0 ? [.. stack.Databases.Select(database => new[] { database })] : [[]];
                chains.AddRange(ends.Select(end => new Chain([.. isServed ? stack.Front : [], .. way, .. end])));
            }
        }
    }
}
