using System.Net;

namespace Sidecar.Agent.Audit.Model;

/// <summary>A hop with the namespace it stands in.</summary>
internal readonly record struct PlacedHop(Hop Hop, ulong Namespace);

/// <summary>Which hop sends requests to which, by where the one connects to and the other listens. Bounded in work.</summary>
internal sealed class HopGraph
{
    private const int MostHops = 2000;
    private const int MostComparisons = 5_000_000;

    private readonly IReadOnlySet<IPAddress>? _local;
    private readonly List<PlacedHop> _hops;
    private readonly Dictionary<(int Port, string? Path), List<(PlacedHop Hop, Address Address)>> _listeners = [];
    private readonly Dictionary<Hop, List<PlacedHop>> _next = new(ReferenceEqualityComparer.Instance);
    private readonly Dictionary<Hop, IReadOnlyList<Hop>> _workers = new(ReferenceEqualityComparer.Instance);
    private int _left = MostComparisons;

    public HopGraph(AuditedStack stack)
    {
        _local = stack.LocalAddresses;
        _hops = [.. stack.Programs.SelectMany(program => program.Hops.Select(hop => new PlacedHop(hop, program.Namespace))).Take(MostHops)];
        foreach (var hop in _hops)
        {
            foreach (var listener in hop.Hop.Listens)
            {
                var key = (listener.Address.Port, listener.Address.Path);
                if (!_listeners.TryGetValue(key, out var list))
                {
                    _listeners[key] = list = [];
                }

                list.Add((hop, listener.Address));
            }
        }
    }

    public IReadOnlyList<PlacedHop> Hops => _hops;

    /// <summary>The hops that one sends requests to.</summary>
    public IReadOnlyList<PlacedHop> Next(in PlacedHop hop)
    {
        if (!_next.TryGetValue(hop.Hop, out var next))
        {
            var found = new HashSet<Hop>(ReferenceEqualityComparer.Instance) { hop.Hop };
            next = [];
            foreach (var target in hop.Hop.Targets)
            {
                next.AddRange(At(target.Address, hop.Namespace).Where(one => found.Add(one.Hop)));
            }

            _next[hop.Hop] = next;
        }

        return next;
    }

    /// <summary>The hops that are reached at an address.</summary>
    /// <param name="target">Where something connects to.</param>
    /// <param name="network">The namespace that it connects from; 0: not known.</param>
    public IEnumerable<PlacedHop> At(Address target, ulong network)
    {
        foreach (var (hop, address) in _listeners.GetValueOrDefault((target.Port, target.Path)) ?? [])
        {
            if (--_left < 0)
            {
                yield break;
            }

            if (target.Reaches(address, _local) && (network == hop.Namespace || network == 0 || hop.Namespace == 0 || IsShared(target)))
            {
                yield return hop;
            }
        }
    }

    /// <summary>The programs that do the work behind an address, the nearest first.</summary>
    public IReadOnlyList<Hop> WorkersAt(Address target, ulong network) => [.. At(target, network).SelectMany(WorkersBehind).Distinct<Hop>(ReferenceEqualityComparer.Instance)];

    /// <summary>The programs that do the work behind a hop, which may be itself, the nearest first.</summary>
    public IReadOnlyList<Hop> WorkersBehind(PlacedHop hop)
    {
        if (_workers.TryGetValue(hop.Hop, out var known))
        {
            return known;
        }

        var seen = new HashSet<Hop>(ReferenceEqualityComparer.Instance) { hop.Hop };
        var waiting = new Queue<PlacedHop>([hop]);
        var found = new List<Hop>();
        while (waiting.TryDequeue(out var one))
        {
            if (one.Hop.IsWorker)
            {
                found.Add(one.Hop);
                continue;
            }

            foreach (var next in Next(one))
            {
                if (--_left < 0)
                {
                    break;
                }

                if (seen.Add(next.Hop))
                {
                    waiting.Enqueue(next);
                }
            }
        }

        // Where there is none, there is none behind any of those that were passed either.
        foreach (var passed in found.Count == 0 ? seen : [hop.Hop])
        {
            _workers[passed] = found;
        }

        return found;
    }

    /// <summary>An address that means the same in every network namespace: a path in the file system, or one that is no loopback.</summary>
    private static bool IsShared(Address address) => address.Path is { } path ? path[0] != '@'
        : address.Host is { Length: > 0 } host && host != "localhost" && !(IPAddress.TryParse(host, out var ip) && IPAddress.IsLoopback(ip));
}
