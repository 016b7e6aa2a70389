using System.Diagnostics.Metrics;
using System.Runtime.InteropServices;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Core.Tracking;

namespace Sidecar.Agent.Telemetry;

/// <summary>What the gauges show after one scan: immutable, summed up by the first scrape that reads it, then read by any number.</summary>
internal sealed class ScanGauges
{
    public static readonly ScanGauges Empty = new();

    public Measurement<long>[] Protecting { get; private init; } = [];
    public Measurement<long>[] Limitations { get; private init; } = [];
    public Measurement<long>[] Sources { get; private init; } = [];
    public Measurement<long>[] Connections { get; private init; } = [];
    public Measurement<double>[] IdleMax { get; private init; } = [];
    public Measurement<long>[] KeepaliveArmed { get; private init; } = [];
    public Measurement<long>[] PathUp { get; private init; } = [];
    public Measurement<double>[] RoundTrip { get; private init; } = [];
    public Measurement<double>[] IdleTimeout { get; private init; } = [];

    public Measurement<long>[] WorkerProcesses { get; private init; } = [];
    public Measurement<long>[] WorkerConnections { get; private init; } = [];
    public Measurement<long>[] WorkerRequests { get; private init; } = [];
    public Measurement<double>[] WorkerTraffic { get; private init; } = [];
    public Measurement<double>[] WorkerCpu { get; private init; } = [];
    public Measurement<long>[] WorkerResident { get; private init; } = [];
    public Measurement<double>[] WorkerGrowth { get; private init; } = [];

    public Measurement<long>[] QueueWaiting { get; private init; } = [];
    public Measurement<long>[] QueuePeak { get; private init; } = [];
    public Measurement<long>[] QueueLimit { get; private init; } = [];
    public Measurement<long>[] ListenerConnections { get; private init; } = [];
    public Measurement<long>[] GroupProcesses { get; private init; } = [];
    public Measurement<double>[] GroupCpu { get; private init; } = [];
    public Measurement<double>[] GroupImbalance { get; private init; } = [];
    public Measurement<long>[] GroupBusyCores { get; private init; } = [];
    public Measurement<long>[] Children { get; private init; } = [];
    public Measurement<long>[] Zombies { get; private init; } = [];
    public Measurement<long>[] ParentResident { get; private init; } = [];
    public Measurement<double>[] ParentGrowth { get; private init; } = [];
    public Measurement<long>[] GonePeers { get; private init; } = [];
    public Measurement<double>[] GonePeerMax { get; private init; } = [];

    public Measurement<long>[] HaproxyUp { get; private init; } = [];
    public Measurement<long>[] HaproxySessions { get; private init; } = [];
    public Measurement<long>[] HaproxySessionLimit { get; private init; } = [];
    public Measurement<long>[] HaproxyServers { get; private init; } = [];
    public Measurement<long>[] HaproxyQueue { get; private init; } = [];
    public Measurement<long>[] HaproxyBackendSessions { get; private init; } = [];
    public Measurement<long>[] HaproxyBackendLimit { get; private init; } = [];
    public Measurement<long>[] ChecksOk { get; private init; } = [];
    public Measurement<long>[] ServerRole { get; private init; } = [];
    public Measurement<long>[] ServerRoleAsDeclared { get; private init; } = [];
    public Measurement<double>[] ReplicationLag { get; private init; } = [];
    public Measurement<long>[] Standbys { get; private init; } = [];
    public Measurement<long>[] ServerConnections { get; private init; } = [];
    public Measurement<long>[] ServerConnectionsLimit { get; private init; } = [];
    public Measurement<double>[] OldestTransaction { get; private init; } = [];

    /// <summary>Sums a scan up.</summary>
    /// <param name="snapshot">The scan.</param>
    /// <param name="workerGroups">Names of the [workers:…] sections; one without processes counts 0.</param>
    /// <param name="counted">The connections of the snapshot's upstreams, counted; null: those in the snapshot are counted.</param>
    public static ScanGauges From(AgentSnapshot snapshot, IReadOnlyList<string> workerGroups, IReadOnlyList<Sum>? counted = null)
    {
        var sums = new Dictionary<string, Sum>(StringComparer.Ordinal);
        foreach (var upstream in snapshot.Upstreams)
        {
            sums[upstream.Name] = new Sum(upstream.Name);
        }

        foreach (var sum in counted ?? [])
        {
            sums[sum.Upstream] = sum;
        }

        foreach (var connection in counted is null ? snapshot.Connections : [])
        {
            ref var sum = ref CollectionsMarshal.GetValueRefOrAddDefault(sums, connection.Upstream, out _);
            sum ??= new Sum(connection.Upstream);
            sum.Verdicts[(int)connection.Verdict]++;
            if (connection.Idle > sum.IdleMax)
            {
                sum.IdleMax = connection.Idle;
            }

            if (connection.KeepaliveArmed == true)
            {
                sum.KeepaliveArmed++;
            }
        }

        var connections = new List<Measurement<long>>(sums.Count * VerdictNames.All.Count);
        var idleMax = new List<Measurement<double>>(sums.Count);
        var armed = new List<Measurement<long>>(sums.Count);
        foreach (var (name, sum) in sums)
        {
            foreach (var verdict in VerdictNames.All)
            {
                connections.Add(new(sum.Verdicts[(int)verdict], Tag("upstream", name), Tag("verdict", verdict.ToName())));
            }

            idleMax.Add(new(sum.IdleMax.TotalSeconds, Tag("upstream", name)));
            armed.Add(new(sum.KeepaliveArmed, Tag("upstream", name)));
        }

        var pathUp = new List<Measurement<long>>();
        var roundTrip = new List<Measurement<double>>();
        var idleTimeout = new List<Measurement<double>>();
        foreach (var upstream in snapshot.Upstreams)
        {
            if (upstream.PathUp is { } up)
            {
                pathUp.Add(new(up ? 1 : 0, Tag("upstream", upstream.Name)));
            }

            if (upstream.PathRoundTrip is { } rtt)
            {
                roundTrip.Add(new(rtt.TotalSeconds, Tag("upstream", upstream.Name)));
            }

            if (upstream.IdleTimeoutLower is { } lower)
            {
                idleTimeout.Add(new(lower.TotalSeconds, Tag("upstream", upstream.Name), Tag("bound", "lower")));
            }

            if (upstream.IdleTimeoutUpper is { } upper)
            {
                idleTimeout.Add(new(upper.TotalSeconds, Tag("upstream", upstream.Name), Tag("bound", "upper")));
            }
        }

        var processes = workerGroups.ToDictionary(name => name, _ => 0, StringComparer.Ordinal);
        List<Measurement<long>> workerConnections = [], requests = [], resident = [];
        List<Measurement<double>> traffic = [], cpu = [], growth = [];
        foreach (var worker in snapshot.Workers)
        {
            CollectionsMarshal.GetValueRefOrAddDefault(processes, worker.Workers, out _)++;
            if (worker.Index >= KnownLabels.WorkerNumbers.Count)
            {
                continue;
            }

            KeyValuePair<string, object?>[] tags = [Tag("workers", worker.Workers), Tag("worker", KnownLabels.WorkerNumbers[worker.Index])];
            workerConnections.Add(new(worker.Connections, tags));
            requests.Add(new(worker.RequestsInFlight, tags));
            resident.Add(new(worker.ResidentBytes, tags));
            if (worker.TrafficShare is { } share)
            {
                traffic.Add(new(share, tags));
            }

            if (worker.CpuShare is { } cores)
            {
                cpu.Add(new(cores, tags));
            }

            if (worker.ResidentGrowth is { } slope)
            {
                growth.Add(new(slope, tags));
            }
        }

        return new ScanGauges
        {
            Protecting = [new(string.Equals(snapshot.Mode, "protect", StringComparison.Ordinal) ? 1 : 0)],
            Limitations = [new(snapshot.Limitations.Count - snapshot.Sources.Count(source => source.Problem is not null))],
            Sources = [.. snapshot.Sources.Select(source => new Measurement<long>(source.Problem is null ? 1 : 0, Tag("kind", source.Kind), Tag("name", source.Name)))],
            Connections = [.. connections],
            IdleMax = [.. idleMax],
            KeepaliveArmed = [.. armed],
            PathUp = [.. pathUp],
            RoundTrip = [.. roundTrip],
            IdleTimeout = [.. idleTimeout],
            WorkerProcesses = [.. processes.Select(group => new Measurement<long>(group.Value, Tag("workers", group.Key)))],
            WorkerConnections = [.. workerConnections],
            WorkerRequests = [.. requests],
            WorkerTraffic = [.. traffic],
            WorkerCpu = [.. cpu],
            WorkerResident = [.. resident],
            WorkerGrowth = [.. growth],
            QueueWaiting = Queues(snapshot, listener => listener.Waiting),
            QueuePeak = Queues(snapshot, listener => listener.Peak),
            QueueLimit = Queues(snapshot, listener => listener.Limit),
            ListenerConnections = Queues(snapshot, listener => listener.Connections),
            GroupProcesses = Groups<long>(snapshot, group => group.Processes),
            GroupCpu = Groups(snapshot, group => group.CpuCores),
            GroupImbalance = Groups(snapshot, group => group.CpuImbalance),
            GroupBusyCores = Groups<long>(snapshot, group => group.BusyCores),
            Children = Groups<long>(snapshot, group => group.Children),
            Zombies = Groups<long>(snapshot, group => group.Zombies),
            ParentResident = Groups(snapshot, group => group.ParentResidentBytes),
            ParentGrowth = Groups(snapshot, group => group.ParentResidentGrowth),
            GonePeers = [.. snapshot.Groups.SelectMany(group => KnownLabels.Stages.Zip(
                [group.GonePeersWaiting, group.GonePeersServed],
                (stage, count) => new Measurement<long>(count, Tag("workers", group.Workers), Tag("stage", stage))))],
            ServerRole = [.. snapshot.Upstreams.Where(upstream => upstream.Server is not null).SelectMany(upstream => KnownLabels.ServerRoles.Select(role =>
                new Measurement<long>(upstream.Server!.Role == role ? 1 : 0, Tag("upstream", upstream.Name), Tag("role", role))))],
            ServerRoleAsDeclared = Upstreams<long>(snapshot, upstream => upstream.Server?.IsRoleAsDeclared is { } right ? right ? 1 : 0 : null),
            ReplicationLag = Upstreams(snapshot, upstream => upstream.Server?.ReplicationLag?.TotalSeconds),
            Standbys = Upstreams<long>(snapshot, upstream => upstream.Server?.Standbys),
            ServerConnections = Upstreams<long>(snapshot, upstream => upstream.ServerConnections),
            ServerConnectionsLimit = Upstreams<long>(snapshot, upstream => upstream.ConnectionLimit),
            OldestTransaction = Upstreams(snapshot, upstream => upstream.Server?.OldestTransaction?.TotalSeconds),
            HaproxyUp = [.. snapshot.Haproxies.Select(haproxy => new Measurement<long>(haproxy.Version is null ? 0 : 1, Tag("haproxy", haproxy.Name)))],
            HaproxySessions = [.. snapshot.Haproxies.Where(haproxy => haproxy.Version is not null).Select(haproxy => new Measurement<long>(haproxy.Sessions, Tag("haproxy", haproxy.Name)))],
            HaproxySessionLimit = [.. snapshot.Haproxies.Where(haproxy => haproxy.Version is not null).Select(haproxy => new Measurement<long>(haproxy.SessionLimit, Tag("haproxy", haproxy.Name)))],
            HaproxyServers = [.. Backends(snapshot).SelectMany(pair => KnownLabels.ServerStates.Zip(
                [pair.Backend.ServersUp, pair.Backend.ServersDown, pair.Backend.ServersOther],
                (state, count) => new Measurement<long>(count, Tag("haproxy", pair.Haproxy), Tag("proxy", pair.Backend.Name), Tag("state", state))))],
            HaproxyQueue = Backends(snapshot, backend => backend.Queue),
            HaproxyBackendSessions = Backends(snapshot, backend => backend.Sessions),
            HaproxyBackendLimit = Backends(snapshot, backend => backend.SessionLimit),
            ChecksOk = [.. snapshot.Checks.Where(check => check.IsMatch is not null).Select(check => new Measurement<long>(check.IsMatch == true ? 1 : 0, Tag("check", check.Name)))],
            GonePeerMax = Groups<double>(snapshot, group => group.GonePeerMax.TotalSeconds),
        };
    }

    /// <summary>What is shown of each HAProxy that answers.</summary>
    public static IEnumerable<(string Haproxy, BackendStatus Backend)> Backends(AgentSnapshot snapshot) => snapshot.Haproxies
        .Where(haproxy => haproxy.Version is not null)
        .SelectMany(haproxy => haproxy.Backends.Take(KnownLabels.MostBackends).Select(backend => (haproxy.Name, backend)));

    private static Measurement<long>[] Backends(AgentSnapshot snapshot, Func<BackendStatus, long?> value) =>
        [.. Backends(snapshot).Where(pair => value(pair.Backend) is not null)
            .Select(pair => new Measurement<long>(value(pair.Backend)!.Value, Tag("haproxy", pair.Haproxy), Tag("proxy", pair.Backend.Name)))];

    private static Measurement<long>[] Queues(AgentSnapshot snapshot, Func<ListenerStatus, long> value) =>
        [.. snapshot.Listeners.Where(listener => listener.Index < KnownLabels.ListenerNumbers.Count).Select(listener => new Measurement<long>(
            value(listener), Tag("workers", listener.Workers), Tag("listener", KnownLabels.ListenerNumbers[listener.Index])))];

    private static Measurement<T>[] Upstreams<T>(AgentSnapshot snapshot, Func<UpstreamStatus, T?> value)
        where T : struct =>
        [.. snapshot.Upstreams.Where(upstream => value(upstream) is not null).Select(upstream => new Measurement<T>(value(upstream)!.Value, Tag("upstream", upstream.Name)))];

    private static Measurement<T>[] Groups<T>(AgentSnapshot snapshot, Func<GroupStatus, T?> value)
        where T : struct =>
        [.. snapshot.Groups.Where(group => value(group) is not null).Select(group => new Measurement<T>(value(group)!.Value, Tag("workers", group.Workers)))];

    private static KeyValuePair<string, object?> Tag(string name, string value) => new(name, value);

    /// <summary>The connections of one upstream, counted.</summary>
    internal sealed class Sum(string upstream)
    {
        /// <summary>As they are counted now.</summary>
        public Sum(Upstream upstream)
            : this(upstream.Name)
        {
            foreach (var verdict in VerdictNames.All)
            {
                Verdicts[(int)verdict] = upstream.Tally.Of(verdict);
            }

            IdleMax = upstream.Tally.IdleMax;
            KeepaliveArmed = upstream.Tally.KeepaliveArmed;
        }

        public string Upstream { get; } = upstream;
        public long[] Verdicts { get; } = new long[VerdictNames.All.Count];
        public TimeSpan IdleMax { get; set; }
        public long KeepaliveArmed { get; set; }
    }
}
