using Sidecar.Agent.Audit.Model;

namespace Sidecar.Agent.Audit.Findings;

/// <summary>What in HAProxy's servers and timeouts makes a spike into an outage. Pure.</summary>
internal static class HaproxyFindings
{
    /// <summary>A request that waits for a slot in a spike should not be given up sooner.</summary>
    private static readonly TimeSpan SpikeWait = TimeSpan.FromSeconds(15);

    /// <summary>Less does not survive two lost SYNs, which are sent again after 1 and 3 seconds.</summary>
    private static readonly TimeSpan LeastConnect = TimeSpan.FromSeconds(4);

    private static readonly TimeSpan GoodConnect = TimeSpan.FromSeconds(5);

    private static readonly TimeSpan GoodQueue = TimeSpan.FromSeconds(60);

    public static IEnumerable<AuditFinding> For(AuditedStack stack, HopGraph graph, LimitPlan plan)
    {
        var sections = stack.Programs.SelectMany(program => program.Backends.Select(backend => (Program: program, Backend: backend))).ToList();
        var slots = new SlotPlan(stack, graph);
        return Timeouts([.. sections.Select(section => section.Backend)])
            .Concat(sections.SelectMany(section => Missing(section.Backend, plan).Concat(MaxConnections(section.Backend, slots)).Concat(Backups(section.Backend)).Concat(Checks(graph, section.Program, section.Backend))))
            .Concat(slots.Oversubscribed());
    }

    /// <summary>A line of <c>defaults</c> is told once, with all sections that it holds for.</summary>
    private static IEnumerable<AuditFinding> Timeouts(IReadOnlyList<HaproxyBackend> backends)
    {
        foreach (var group in backends.Select(backend => (Backend: backend, Queue: backend.QueueTimeout ?? backend.ConnectTimeout, IsOwn: backend.QueueTimeout is not null))
            .Where(one => one.Queue is { } queue && queue.Value > TimeSpan.Zero && queue.Value < SpikeWait).GroupBy(one => (one.Queue!.Value, one.IsOwn)))
        {
            var (queue, isOwn) = group.Key;
            yield return new AuditFinding
            {
                Id = "haproxy-queue-timeout",
                Severity = Severity.High,
                Program = "haproxy",
                Place = queue.Place,
                What = Names(group.Select(one => one.Backend)) + (isOwn ? $": timeout queue {Texts.Time(queue.Value)}" : $": timeout connect {Texts.Time(queue.Value)}, and no timeout queue of its own"),
                Consequence = $"in a spike a request that waits {Texts.Time(queue.Value)} for a free slot is answered 503, although the spike would be over soon",
                Changes = [new Change(queue.Place, $"timeout queue {Texts.Time(GoodQueue)}", IsNew: !isOwn)],
            };
        }

        foreach (var group in backends.Where(backend => backend.ConnectTimeout is { } connect && connect.Value > TimeSpan.Zero && connect.Value < LeastConnect
            && backend.Servers.Any(server => server.Address is { IsUnix: false })).GroupBy(backend => backend.ConnectTimeout!.Value))
        {
            yield return new AuditFinding
            {
                Id = "haproxy-connect-timeout",
                Severity = Severity.Low,
                Program = "haproxy",
                Place = group.Key.Place,
                What = $"{Names(group)}: timeout connect {Texts.Time(group.Key.Value)}",
                Consequence = "a connection whose first packet is dropped because an accept queue is full is given up before the kernel sends it again twice (after 1 and 3 seconds)",
                Changes = [new Change(group.Key.Place, "timeout connect 5s", IsNew: false)],
            };
        }
    }

    private static IEnumerable<AuditFinding> Missing(HaproxyBackend backend, LimitPlan plan)
    {
        if (backend.MissingTimeouts.Count == 0)
        {
            yield break;
        }

        yield return new AuditFinding
        {
            Id = "haproxy-timeout-missing",
            Severity = Severity.Medium,
            Program = "haproxy",
            Place = backend.Place,
            What = $"{backend.Name}: {string.Join(", ", backend.MissingTimeouts.Select(limit => "no " + limit.Setting))}",
            Consequence = "a connection that has died in silence is kept for ever and takes a slot",
            Changes = [.. backend.MissingTimeouts.SelectMany(limit => limit.Setting != "timeout connect" ? [plan.Missing(limit, GoodQueue)] : Connect(plan.Missing(limit, GoodConnect)))],
        };

        // Without a timeout queue the new one would hold for the queue too.
        IReadOnlyList<Change> Connect(Change connect) => backend.QueueTimeout is null ? [connect, new Change(connect.Place, $"timeout queue {Texts.Time(GoodQueue)}", IsNew: true)] : [connect];
    }

    private static IEnumerable<AuditFinding> MaxConnections(HaproxyBackend backend, SlotPlan plan)
    {
        foreach (var server in backend.Servers.Where(server => server.MaxConnections is null))
        {
            var slots = plan.SlotsBehind(server);
            yield return new AuditFinding
            {
                Id = "haproxy-no-maxconn",
                Severity = Severity.High,
                Program = "haproxy",
                Place = server.Place,
                What = $"{backend.Name}: server {server.Name} has no maxconn",
                Consequence = $"a spike is passed on whole{(slots is { } some ? $" to {Texts.Number(some)} worker slots" : "")}: it waits in an accept queue that overflows, instead of in HAProxy's queue, which is long and fair"
                    + (slots is null ? "; how many worker slots are behind it, which maxconn should be, is not known" : ""),
                Changes = plan.ChangesWith(server),
            };
        }
    }

    private static IEnumerable<AuditFinding> Backups(HaproxyBackend backend)
    {
        var backups = backend.Servers.Where(server => server.IsBackup).ToList();
        var count = backups.Sum(server => server.Count);
        var ordinary = backend.Servers.Sum(server => server.Count) - count;
        if (backend.AllBackups || count == 0 || (count == 1 && ordinary < 2))
        {
            yield break;
        }

        yield return new AuditFinding
        {
            Id = "haproxy-no-allbackups",
            Severity = count > 1 ? Severity.Medium : Severity.Low,
            Program = "haproxy",
            Place = backups[0].Place,
            What = count > 1
                ? $"{backend.Name}: {Texts.Number(count)} backup servers, and no option allbackups"
                : $"{backend.Name}: one backup server for {Texts.Number(ordinary)} others",
            Consequence = count > 1
                ? $"when the others are down, {backups[0].Name} alone takes the whole load, and the remaining backups stand idle"
                : $"when the others are down, {backups[0].Name} alone takes the load of all of them; a second backup server shares it",
            Changes = [new Change(backend.NoAllBackups ?? backend.Place, "option allbackups", IsNew: backend.NoAllBackups is null)],
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

        var rate = byWorker.Sum(one => one.Server.Count / one.Server.CheckInterval.TotalSeconds);
        var workers = byWorker[0].Workers!;
        yield return new AuditFinding
        {
            Id = "haproxy-check-takes-workers",
            Severity = Severity.Medium,
            Program = "haproxy",
            Place = check.Place,
            What = string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{backend.Name}: option httpchk asks {workers.Title} itself, {rate:0.##} times a second")
                + (workers.Slots is { } slots ? $", which has {Texts.Number(slots)} slots" : ""),
            Consequence = "when all workers are busy the check waits behind them and fails: a server that is only busy is marked down, and its load falls on the others; check alone only connects, and a path that the web server answers itself would do as well",
            Changes = [new Change(check.Place, "no option httpchk", IsNew: false)],
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

            if (graph.WorkersBehind(hop) is [var workers, ..])
            {
                return workers;
            }
        }

        return null;
    }

    private static string Names(IEnumerable<HaproxyBackend> backends)
    {
        var names = backends.Select(backend => backend.Name).Distinct(StringComparer.Ordinal).ToList();
        return string.Join(", ", names.Take(6)) + (names.Count > 6 ? $" and {Texts.Number(names.Count - 6)} more" : "");
    }
}
