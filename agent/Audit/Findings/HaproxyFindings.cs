using Sidecar.Agent.Audit.Model;

namespace Sidecar.Agent.Audit.Findings;

/// <summary>What in HAProxy's servers and timeouts makes a spike into an outage. Pure.</summary>
internal static class HaproxyFindings
{
    /// <summary>A request that waits for a slot in a spike should not be given up sooner.</summary>
    private static readonly TimeSpan SpikeWait = TimeSpan.FromSeconds(15);

    /// <summary>Less does not survive two lost SYNs, which are sent again after 1 and 3 seconds.</summary>
    private static readonly TimeSpan LeastConnect = TimeSpan.FromSeconds(4);

    private static readonly TimeSpan GoodQueue = TimeSpan.FromSeconds(60);

    public static IEnumerable<AuditFinding> For(AuditedStack stack, HopGraph graph)
    {
        foreach (var program in stack.Programs)
        {
            foreach (var backend in program.Backends)
            {
                foreach (var finding in Timeouts(backend).Concat(MaxConnections(graph, program, backend)).Concat(Backups(backend)).Concat(Checks(graph, program, backend)))
                {
                    yield return finding;
                }
            }
        }

        foreach (var finding in Oversubscribed(stack, graph))
        {
            yield return finding;
        }
    }

    private static IEnumerable<AuditFinding> Timeouts(HaproxyBackend backend)
    {
        if (backend.MissingTimeouts.Count > 0)
        {
            yield return new AuditFinding
            {
                Id = "haproxy-timeout-missing",
                Severity = Severity.Medium,
                Program = "haproxy",
                Place = backend.Place,
                What = $"{backend.Name}: no timeout {string.Join(", no timeout ", backend.MissingTimeouts)}",
                Consequence = "a connection that has died in silence is kept for ever and takes a slot",
                Changes = [.. backend.MissingTimeouts.Select(which => new Change(backend.Place, $"timeout {which} {(which == "connect" ? "5s" : "60s")}", IsNew: true))],
            };
        }

        if ((backend.QueueTimeout ?? backend.ConnectTimeout) is { } queue && queue.Value > TimeSpan.Zero && queue.Value < SpikeWait)
        {
            var own = backend.QueueTimeout is not null;
            yield return new AuditFinding
            {
                Id = "haproxy-queue-timeout",
                Severity = Severity.High,
                Program = "haproxy",
                Place = queue.Place,
                What = own ? $"{backend.Name}: timeout queue {Texts.Time(queue.Value)}" : $"{backend.Name}: timeout connect {Texts.Time(queue.Value)}, and no timeout queue of its own",
                Consequence = $"in a spike a request that waits {Texts.Time(queue.Value)} for a free slot is answered 503, although the spike would be over soon",
                Changes = [new Change(queue.Place, $"timeout queue {Texts.Time(GoodQueue)}", IsNew: !own)],
            };
        }

        if (backend.ConnectTimeout is { } connect && connect.Value > TimeSpan.Zero && connect.Value < LeastConnect && backend.Servers.Any(server => server.Address is { IsUnix: false }))
        {
            yield return new AuditFinding
            {
                Id = "haproxy-connect-timeout",
                Severity = Severity.Low,
                Program = "haproxy",
                Place = connect.Place,
                What = $"{backend.Name}: timeout connect {Texts.Time(connect.Value)}",
                Consequence = "a connection whose first packet is dropped because an accept queue is full is given up before the kernel sends it again twice (after 1 and 3 seconds)",
                Changes = [new Change(connect.Place, "timeout connect 5s", IsNew: false)],
            };
        }
    }

    private static IEnumerable<AuditFinding> MaxConnections(HopGraph graph, ProgramFacts program, HaproxyBackend backend)
    {
        foreach (var server in backend.Servers.Where(server => server.MaxConnections is null))
        {
            var slots = Workers(graph, program, server)?.Slots;
            yield return new AuditFinding
            {
                Id = "haproxy-no-maxconn",
                Severity = Severity.High,
                Program = "haproxy",
                Place = server.Place,
                What = $"{backend.Name}: server {server.Name} has no maxconn",
                Consequence = $"a spike is passed on whole{(slots is { } some ? $" to {Texts.Number(some)} worker slots" : "")}: it waits in an accept queue that overflows, instead of in HAProxy's queue, which is long and fair",
                Changes = [new Change(server.Place, $"server {server.Name} … maxconn {(slots is { } fits ? Texts.Number(fits) : "N, with N the worker slots behind it")}", IsNew: false)],
            };
        }
    }

    /// <summary>Several servers, often of several proxies, lead to the same workers: together they must not promise more slots than there are.</summary>
    private static IEnumerable<AuditFinding> Oversubscribed(AuditedStack stack, HopGraph graph)
    {
        var servers = stack.Programs.SelectMany(program => program.Backends.SelectMany(backend => backend.Servers
            .Where(server => server is { MaxConnections: not null, Address: not null }).Select(server => (program, backend, server, Workers: Workers(graph, program, server)))));
        foreach (var group in servers.Where(one => one.Workers is { Slots: not null }).GroupBy(one => one.Workers!))
        {
            // Backups take over from the others: of the two the larger sum counts.
            var sum = group.GroupBy(one => one.backend).Sum(backend => Math.Max(
                backend.Where(one => !one.server.IsBackup).Sum(one => (long)one.server.MaxConnections!.Value),
                backend.Where(one => one.server.IsBackup).Sum(one => (long)one.server.MaxConnections!.Value)));
            var slots = group.Key.Slots!.Value;
            if (sum <= slots)
            {
                continue;
            }

            var lines = group.Select(one => $"{one.backend.Name}/{one.server.Name} {Texts.Number(one.server.MaxConnections!.Value)}").ToList();
            var first = group.First();
            yield return new AuditFinding
            {
                Id = "haproxy-oversubscribed",
                Severity = Severity.Medium,
                Program = "haproxy",
                Place = first.server.Place,
                What = $"maxconn of {string.Join(" + ", lines.Take(6))}{(lines.Count > 6 ? " + …" : "")} = {Texts.Number(sum)} for {Texts.Number(slots)} slots of {group.Key.Title} ({group.Key.Place})",
                Consequence = $"{Texts.Number(sum - slots)} requests more than there are slots are let through; they wait where HAProxy cannot give them to another server",
                Changes = [.. group.Select(one => new Change(one.server.Place, $"server {one.server.Name} … maxconn {Texts.Number(Math.Max(1, slots / lines.Count))}", IsNew: false))],
            };
        }
    }

    private static IEnumerable<AuditFinding> Backups(HaproxyBackend backend)
    {
        var backups = backend.Servers.Where(server => server.IsBackup).ToList();
        var ordinary = backend.Servers.Count - backups.Count;
        if (backend.AllBackups || backups.Count == 0 || (backups.Count == 1 && ordinary < 2))
        {
            yield break;
        }

        yield return new AuditFinding
        {
            Id = "haproxy-no-allbackups",
            Severity = backups.Count > 1 ? Severity.Medium : Severity.Low,
            Program = "haproxy",
            Place = backups[0].Place,
            What = backups.Count > 1
                ? $"{backend.Name}: {Texts.Number(backups.Count)} backup servers, and no option allbackups"
                : $"{backend.Name}: one backup server for {Texts.Number(ordinary)} others",
            Consequence = backups.Count > 1
                ? $"when the others are down, {backups[0].Name} alone takes the whole load, and the remaining backups stand idle"
                : $"when the others are down, {backups[0].Name} alone takes the load of all of them",
            Changes = [new Change(backend.Place, backups.Count > 1 ? "option allbackups" : "option allbackups, and a second backup server", IsNew: true)],
        };
    }

    private static IEnumerable<AuditFinding> Checks(HopGraph graph, ProgramFacts program, HaproxyBackend backend)
    {
        if (backend.HttpCheck is not { } check)
        {
            yield break;
        }

        var byWorker = backend.Servers.Where(server => server is { IsCheckedInPlace: true, Address: not null })
            .Select(server => (Server: server, Workers: TakenByCheck(graph, program, server, check.Path))).Where(one => one.Workers is not null).ToList();
        if (byWorker.Count == 0)
        {
            yield break;
        }

        var rate = byWorker.Sum(one => 1 / one.Server.CheckInterval.TotalSeconds);
        var workers = byWorker[0].Workers!;
        yield return new AuditFinding
        {
            Id = "haproxy-check-takes-workers",
            Severity = Severity.Medium,
            Program = "haproxy",
            Place = check.Place,
            What = string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{backend.Name}: option httpchk asks {workers.Title} itself, {rate:0.##} times a second")
                + (workers.Slots is { } slots ? $", which has {Texts.Number(slots)} slots" : ""),
            Consequence = "when all workers are busy the check waits behind them and fails: a server that is only busy is marked down, and its load falls on the others",
            Changes =
            [
                new Change(check.Place, "a path that the web server answers itself, or no option httpchk: check then only connects", IsNew: false),
            ],
        };
    }

    /// <summary>The workers that answer a check, or null where something in front of them does.</summary>
    private static Hop? TakenByCheck(HopGraph graph, ProgramFacts program, HaproxyServer server, string path)
    {
        foreach (var hop in graph.At(server.Address!, program.Namespace))
        {
            if (hop.Hop.AnswersItself?.Invoke(path) != false)
            {
                continue;
            }

            if (graph.WorkersBehind(hop) is { } workers)
            {
                return workers;
            }
        }

        return null;
    }

    private static Hop? Workers(HopGraph graph, ProgramFacts program, HaproxyServer server) =>
        server.Address is null ? null : graph.WorkersAt(server.Address, program.Namespace);
}
