using Sidecar.Agent.Audit.Model;
using Sidecar.Agent.Audit.Reading;

namespace Sidecar.Agent.Audit.Findings;

/// <summary>Accept queues: what programs ask for, what the kernel grants, and what holds in the end. Pure.</summary>
internal static class QueueFindings
{
    /// <summary>Shorter queues overflow in any spike: a second of connections does not fit.</summary>
    public const int SmallBacklog = 64;

    /// <summary>What a queue that is too short is set to, where the kernel grants it.</summary>
    private const int GoodBacklog = 1024;

    /// <summary>Linux's own default since 5.4; the former one was 128.</summary>
    private const int GoodSomaxconn = 4096;

    /// <summary>Below this a default backlog that is cut is worth fixing too.</summary>
    private const int SmallSomaxconn = 1024;

    public static IEnumerable<AuditFinding> For(AuditedStack stack) =>
        Somaxconn(stack).Concat(SynBacklog(stack)).Concat(Small(stack)).Concat(Live(stack));

    private static IEnumerable<AuditFinding> Somaxconn(AuditedStack stack)
    {
        foreach (var kernel in stack.Sysctls)
        {
            if (!kernel.Values.TryGetValue("net.core.somaxconn", out var somaxconn) || somaxconn.Value is not { } limit)
            {
                continue;
            }

            var cut = new List<string>();
            var most = GoodSomaxconn;
            var isExplicit = false;
            foreach (var program in stack.Programs.Where(program => program.Namespace == kernel.Namespace || program.Namespace == 0))
            {
                foreach (var (listener, backlog) in program.Hops.SelectMany(hop => hop.Listens).Select(listener => (listener, Backlog: IsSmall(listener) ? Good(limit) : listener.Backlog))
                    .Where(one => one.Backlog > limit && (one.listener.BacklogPlace is not null || limit < SmallSomaxconn)))
                {
                    var asks = backlog == listener.Backlog ? "asks for" : "should ask for";
                    var line = $"{program.Program} {asks} {Texts.Number(backlog!.Value)}{(listener.BacklogPlace is { } place ? $" ({place})" : " (its default)")}";
                    if (!cut.Contains(line))
                    {
                        cut.Add(line);
                    }

                    isExplicit |= listener.BacklogPlace is not null;
                    most = Math.Max(most, backlog.Value);
                }
            }

            // What other programs ask for is not known, but that they get as much as there is.
            cut.AddRange(stack.Listeners.Where(live => limit < SmallBacklog && live.Namespace == kernel.Namespace && live.Limit == limit && Set(stack, live) is null && !IsControl(stack, live))
                .Select(live => $"{live.Owner ?? "an unknown process"} asks for that or more").Distinct(StringComparer.Ordinal));

            if (cut.Count == 0)
            {
                continue;
            }

            yield return new AuditFinding
            {
                Id = "somaxconn",
                Severity = isExplicit || limit < 256 ? Severity.High : Severity.Medium,
                Program = "kernel",
                Place = somaxconn.Place,
                What = $"net.core.somaxconn = {Texts.Number(limit)}, but {Join(cut)}",
                Consequence = $"accept queues hold {Texts.Number(limit)} connections whatever the programs ask for; in a spike the rest is dropped, and clients try again after 1, 3 and 7 seconds",
                Changes = [new Change(IsFile(somaxconn.Place) ? somaxconn.Place : new Place("/etc/sysctl.d/90-listen.conf", 0), $"net.core.somaxconn = {Texts.Number(most)}", !IsFile(somaxconn.Place))],
            };
        }
    }

    private static IEnumerable<AuditFinding> SynBacklog(AuditedStack stack)
    {
        foreach (var kernel in stack.Sysctls)
        {
            if (!kernel.Values.TryGetValue("net.ipv4.tcp_max_syn_backlog", out var backlog) || backlog.Value is not (>= 0 and < 256)
                || !kernel.Values.TryGetValue("net.ipv4.tcp_syncookies", out var cookies) || cookies.Value != 0
                || !stack.Programs.Any(program => program.Namespace == kernel.Namespace && program.Hops.Any(hop => hop.Listens.Any(listener => !listener.Address.IsUnix))))
            {
                continue;
            }

            yield return new AuditFinding
            {
                Id = "syn-backlog",
                Severity = Severity.Low,
                Program = "kernel",
                Place = backlog.Place,
                What = $"net.ipv4.tcp_max_syn_backlog = {Texts.Number(backlog.Value.Value)} with net.ipv4.tcp_syncookies = 0",
                Consequence = "connections of a spike are dropped before they reach an accept queue",
                Changes = [new Change(IsFile(backlog.Place) ? backlog.Place : new Place("/etc/sysctl.d/90-listen.conf", 0), "net.ipv4.tcp_max_syn_backlog = 4096", !IsFile(backlog.Place))],
            };
        }
    }

    /// <summary>A backlog that somebody has set too small.</summary>
    private static IEnumerable<AuditFinding> Small(AuditedStack stack)
    {
        // One line may set it for several addresses, and one address serve several hops.
        foreach (var group in Listeners(stack).Where(one => IsSmall(one.Listener)).GroupBy(one => (one.Listener.BacklogPlace!, one.Listener.BacklogForm)))
        {
            var (program, hop, listener) = group.First();
            var backlog = listener.Backlog!.Value;
            var addresses = group.Select(one => one.Listener.Address.ToString()).Distinct(StringComparer.Ordinal).ToList();
            yield return new AuditFinding
            {
                Id = "backlog-small",
                Severity = Severity.High,
                Program = program.Program,
                Place = group.Key.Item1,
                What = $"{hop.Title}: {string.Join(", ", addresses.Take(4))}{(addresses.Count > 4 ? ", …" : "")} {(addresses.Count > 1 ? "have" : "has")} a backlog of {Texts.Number(backlog)}",
                Consequence = Overflow(listener.Address, backlog),
                Changes = [Longer(stack, program.Namespace, group.Key.Item1, listener, isNew: false)],
            };
        }
    }

    private static bool IsSmall(Listener listener) => listener is { Backlog: < SmallBacklog, BacklogPlace: not null };

    /// <summary>As much as the kernel grants; where that is too little itself, it is to grant more.</summary>
    private static int Good(long? somaxconn) => somaxconn is >= SmallBacklog and < GoodBacklog ? (int)somaxconn : GoodBacklog;

    private static Change Longer(AuditedStack stack, ulong network, Place place, Listener listener, bool isNew) =>
        new(place, listener.BacklogForm.Replace("{0}", Texts.Number(Good(Kernel(stack, network))), StringComparison.Ordinal), isNew);

    private static IEnumerable<AuditFinding> Live(AuditedStack stack)
    {
        foreach (var live in stack.Listeners)
        {
            var found = Set(stack, live);
            var set = found?.Listener;
            var owner = new Place(live.Owner ?? "owner not known", 0);
            if (IsControl(stack, live) || (live.Limit < SmallBacklog && live.Limit == Kernel(stack, live.Namespace)))
            {
                continue; // its own socket for orders and statistics; or somaxconn cuts it
            }

            if (live.Limit < SmallBacklog && set?.BacklogPlace is null)
            {
                yield return new AuditFinding
                {
                    Id = "backlog-small",
                    Severity = Severity.High,
                    Program = "kernel",
                    Place = owner,
                    What = $"{live.Address} of {live.Owner ?? "an unknown process"} has an accept queue of {Texts.Number(live.Limit)}{(live.Limit == 5 ? ", the default of Python's socketserver" : "")}",
                    Consequence = Overflow(live.Address, live.Limit),
                    Changes = [found is { Listener.BacklogForm.Length: > 0 } known ? Longer(stack, live.Namespace, known.Listener.At ?? known.Hop.Place, known.Listener, isNew: !known.Listener.BacklogForm.Contains('…'))
                        : new Change(owner, "listen(1024) in the program (socketserver: request_queue_size = 1024)", IsNew: false)],
                };
            }
            else if (set is { Backlog: { } wanted, BacklogPlace: { } place } && Kernel(stack, live.Namespace) is { } somaxconn && live.Limit < Math.Min(wanted, somaxconn))
            {
                yield return new AuditFinding
                {
                    Id = "backlog-stale",
                    Severity = Severity.Medium,
                    Program = "kernel",
                    Place = place,
                    What = $"{live.Address} of {live.Owner ?? "an unknown process"} has an accept queue of {Texts.Number(live.Limit)}, where {Texts.Number(Math.Min(wanted, somaxconn))} is set",
                    Consequence = "what is set holds from the next start of the program only",
                    Changes = [new Change(owner, "restart it", IsNew: false)],
                };
            }
        }
    }

    private static bool Is((ProgramFacts Program, Hop Hop, Listener Listener) set, LiveListener live) =>
        (set.Program.Namespace == live.Namespace || set.Program.Namespace == 0)
        && (set.Listener.Address == live.Address || (set.Listener.Address.Port == live.Address.Port && !live.Address.IsUnix && !set.Listener.Address.IsUnix
            && (live.Address.Host!.Length == 0 || set.Listener.Address.Host == "localhost")));

    private static (ProgramFacts Program, Hop Hop, Listener Listener)? Set(AuditedStack stack, LiveListener live)
    {
        foreach (var one in Listeners(stack))
        {
            if (Is(one, live))
            {
                return one;
            }
        }

        return null;
    }

    /// <summary>A Unix socket of a program whose configuration is read, on which it takes no requests: its master's, or that of its statistics.</summary>
    private static bool IsControl(AuditedStack stack, LiveListener live) => live is { IsKnown: true, Address.IsUnix: true } && Set(stack, live) is null;

    private static long? Kernel(AuditedStack stack, ulong network) =>
        stack.Sysctls.FirstOrDefault(kernel => kernel.Namespace == network)?.Values.GetValueOrDefault("net.core.somaxconn").Value;

    private static IEnumerable<(ProgramFacts Program, Hop Hop, Listener Listener)> Listeners(AuditedStack stack) =>
        stack.Programs.SelectMany(program => program.Hops.SelectMany(hop => hop.Listens.Select(listener => (program, hop, listener))));

    private static string Overflow(Address address, long backlog) => address.IsUnix
        ? $"the connection after the {Texts.Number(backlog + 1)}th that waits is refused or held up in connect(2), and whoever waits there takes a slot of the stage in front"
        : $"the connection after the {Texts.Number(backlog + 1)}th that waits is dropped, and its client tries again after 1, 3 and 7 seconds";

    private static bool IsFile(Place place) => place.Line > 0;

    private static string Join(List<string> lines) => lines.Count <= 4 ? string.Join(", ", lines) : string.Join(", ", lines.Take(4)) + $" and {Texts.Number(lines.Count - 4)} more";
}
