using System.Diagnostics.Metrics;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Tracking;

namespace Sidecar.Agent.Telemetry;

/// <summary>
/// The agent's instruments, on the meter <c>conn-sidecar</c>: what dotnet-counters, OTLP and <c>/metrics</c> see is the
/// same. The loop calls the event methods and publishes one snapshot per look; no method blocks or throws.
/// </summary>
/// <remarks>
/// Instrument names are the metric names without the <c>_total</c> that text formats add to counters. Label values
/// come from the configuration and from fixed lists only: no pid, port or address.
/// </remarks>
internal sealed class SidecarMetrics : IDisposable
{
    public const string MeterName = "conn-sidecar";
    private const string Prefix = "conn_sidecar_";

    private readonly Meter meter;
    private readonly IReadOnlyList<string> guardrails;
    private readonly Counter<long> nudges;
    private readonly Counter<long> recycled;
    private readonly Counter<long> terminated;
    private readonly Counter<long> withheld;
    private readonly Counter<long> incidents;
    private readonly Counter<long> listenDrops;
    private readonly Counter<long> listenOverflows;
    private readonly Counter<long> serverDowns;
    private readonly Counter<long> ownErrors;
    private readonly Counter<double> blackout;
    private readonly Histogram<double> stuckDuration;
    private readonly Histogram<double> scanDuration;
    private volatile ScanGauges gauges = ScanGauges.Empty;
    private volatile Measurement<long>[] scanSockets = [];
    private volatile Measurement<double>[] lastScan = [];
    private volatile string[] workerGroups = [];
    private readonly Dictionary<string, long> seenDrops = new(StringComparer.Ordinal);
    private readonly Dictionary<(string Haproxy, string Backend), (long Downs, long Errors)> seenBackends = [];
    private long seenOverflows;
    private DateTimeOffset? lastPublished;

    /// <summary>Makes the meter and its instruments.</summary>
    /// <param name="version">The agent's version, for <c>build_info</c>.</param>
    /// <param name="guardrails">Names of all guardrails, so that their counters start at zero.</param>
    public SidecarMetrics(string version, IReadOnlyList<string> guardrails)
    {
        this.guardrails = guardrails;
        meter = new Meter(MeterName, version);
        Aggregator = new MetricAggregator(meter);

        nudges = meter.CreateCounter<long>(Prefix + "nudges", "{nudge}", "Keepalive probes sent on request, by what became of them.");
        recycled = meter.CreateCounter<long>(Prefix + "recycled_connections", "{connection}", "Connections closed under their owner so that its pool reconnects, by reason.");
        terminated = meter.CreateCounter<long>(Prefix + "terminated_workers", "{signal}", "Signals sent to workers that hung first.");
        withheld = meter.CreateCounter<long>(Prefix + "withheld_remedies", "{remedy}", "Remedies not carried out, by the guardrail that withheld them.");
        incidents = meter.CreateCounter<long>(Prefix + "incidents", "{incident}", "Incidents recorded, by the verdict that led to them.");

        listenDrops = meter.CreateCounter<long>(Prefix + "listen_drops", "{connection}", "Connections dropped because an accept queue of the group was full.");
        listenOverflows = meter.CreateCounter<long>(Prefix + "listen_overflows", "{connection}", "Times that a connection found a full accept queue, in all network namespaces of the groups.");
        serverDowns = meter.CreateCounter<long>(Prefix + "haproxy_server_downs", "{event}", "Times that a server of the backend went down.");
        ownErrors = meter.CreateCounter<long>(Prefix + "haproxy_own_errors", "{request}", "Requests that HAProxy answered with 5xx itself; without HTTP, connections that no server took.");

        blackout = meter.CreateCounter<double>(Prefix + "blackout_seconds", "s", "Time that connections waited in vain (suspect, stuck or outage), summed over connections.");

        stuckDuration = meter.CreateHistogram(
            Prefix + "stuck_duration_seconds",
            "s",
            "Time from the first unanswered send to release.",
            advice: new InstrumentAdvice<double> { HistogramBucketBoundaries = [0.25, 0.5, 1, 2, 3, 5, 10, 30, 60, 120, 300, 900] });
        scanDuration = meter.CreateHistogram(
            Prefix + "scan_duration_seconds",
            "s",
            "Duration of one look at the kernel's socket tables.",
            advice: new InstrumentAdvice<double> { HistogramBucketBoundaries = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5] });

        Measurement<long>[] build = [new(1, Tag("version", version))];
        meter.CreateObservableGauge(Prefix + "build_info", () => build, null, "Constant 1, labelled with the version of the agent.");
        meter.CreateObservableGauge(Prefix + "scan_sockets", () => scanSockets, "{socket}", "Sockets that the last look read.");
        meter.CreateObservableGauge(Prefix + "last_scan_timestamp_seconds", () => lastScan, "s", "Unix time at which the last look ended.");
        meter.CreateObservableGauge(Prefix + "protecting", () => gauges.Protecting, null, "1 in mode protect, 0 in mode observe.");
        meter.CreateObservableGauge(Prefix + "limitations", () => gauges.Limitations, null, "Number of things that the agent cannot do here; status lists them.");
        meter.CreateObservableGauge(Prefix + "connections", () => gauges.Connections, "{connection}", "Watched connections by verdict.");
        meter.CreateObservableGauge(Prefix + "connection_idle_max_seconds", () => gauges.IdleMax, "s", "Longest time for which a watched connection has been idle.");
        meter.CreateObservableGauge(Prefix + "keepalive_armed_connections", () => gauges.KeepaliveArmed, "{connection}", "Watched connections on which a keepalive timer runs.");
        meter.CreateObservableGauge(Prefix + "path_up", () => gauges.PathUp, null, "1 if the last fresh connection to the upstream succeeded, 0 if it failed, absent while none was needed.");
        meter.CreateObservableGauge(Prefix + "path_round_trip_seconds", () => gauges.RoundTrip, "s", "Duration of the last successful fresh connection to the upstream.");
        meter.CreateObservableGauge(Prefix + "path_idle_timeout_seconds", () => gauges.IdleTimeout, "s", "Bounds of the idle timeout of the path to the upstream; absent while unknown.");
        meter.CreateObservableGauge(Prefix + "worker_processes", () => gauges.WorkerProcesses, "{process}", "Live processes of the group that hold or held a watched connection.");
        meter.CreateObservableGauge(Prefix + "worker_connections", () => gauges.WorkerConnections, "{connection}", "Watched connections that the worker holds.");
        meter.CreateObservableGauge(Prefix + "worker_requests_in_flight", () => gauges.WorkerRequests, "{request}", "Watched connections of the worker on which an answer is awaited.");
        meter.CreateObservableGauge(Prefix + "worker_traffic_share", () => gauges.WorkerTraffic, null, "The worker's share of its group's bytes on watched connections over the last minute; absent where there were none.");
        meter.CreateObservableGauge(Prefix + "worker_cpu_share", () => gauges.WorkerCpu, null, "CPU time of the worker per time, over the last seconds; 1 is one core.");
        meter.CreateObservableGauge(Prefix + "worker_resident_bytes", () => gauges.WorkerResident, "By", "Resident memory of the worker.");
        meter.CreateObservableGauge(Prefix + "worker_resident_growth_bytes_per_second", () => gauges.WorkerGrowth, "By/s", "Slope of the worker's resident memory over the last ten minutes; absent in its first.");
        meter.CreateObservableGauge(Prefix + "listen_queue_connections", () => gauges.QueueWaiting, "{connection}", "Connections that wait to be accepted on a listening address of the group.");
        meter.CreateObservableGauge(Prefix + "listen_queue_peak_connections", () => gauges.QueuePeak, "{connection}", "Most connections that waited there at a look of the last minute.");
        meter.CreateObservableGauge(Prefix + "listen_queue_limit", () => gauges.QueueLimit, "{connection}", "Most connections that may wait there: the application's backlog, cut by net.core.somaxconn.");
        meter.CreateObservableGauge(Prefix + "listener_connections", () => gauges.ListenerConnections, "{connection}", "Open connections that came through the listening address.");
        meter.CreateObservableGauge(Prefix + "group_processes", () => gauges.GroupProcesses, "{process}", "Live processes of the group.");
        meter.CreateObservableGauge(Prefix + "group_cpu_cores", () => gauges.GroupCpu, null, "CPU time of the group's processes per time, over the last seconds; 1 is one core.");
        meter.CreateObservableGauge(Prefix + "group_cpu_imbalance", () => gauges.GroupImbalance, null, "How unevenly the group's processes share their CPU time: 0 evenly, 1 one for all; absent where there is nothing to share.");
        meter.CreateObservableGauge(Prefix + "group_busy_cores", () => gauges.GroupBusyCores, null, "Cores on which the processes that computed ran last.");
        meter.CreateObservableGauge(Prefix + "child_processes", () => gauges.Children, "{process}", "Live children of the group's processes.");
        meter.CreateObservableGauge(Prefix + "zombie_children", () => gauges.Zombies, "{process}", "Children of the group's processes that have ended and were not waited for.");
        meter.CreateObservableGauge(Prefix + "parent_resident_bytes", () => gauges.ParentResident, "By", "Resident memory of the group's largest process that has children.");
        meter.CreateObservableGauge(Prefix + "parent_resident_growth_bytes_per_second", () => gauges.ParentGrowth, "By/s", "Slope of that memory over the last ten minutes; absent in the first.");
        meter.CreateObservableGauge(Prefix + "gone_peers", () => gauges.GonePeers, "{connection}", "Connections whose client went away while they waited to be accepted, or were served.");
        meter.CreateObservableGauge(Prefix + "gone_peer_max_seconds", () => gauges.GonePeerMax, "s", "Longest time for which a connection that is served has had no client.");
        meter.CreateObservableGauge(Prefix + "haproxy_up", () => gauges.HaproxyUp, null, "1 if the last look at the stats socket succeeded, 0 if it failed.");
        meter.CreateObservableGauge(Prefix + "haproxy_sessions", () => gauges.HaproxySessions, "{connection}", "Connections of the whole process.");
        meter.CreateObservableGauge(Prefix + "haproxy_sessions_limit", () => gauges.HaproxySessionLimit, "{connection}", "Most connections of the whole process (maxconn).");
        meter.CreateObservableGauge(Prefix + "haproxy_servers", () => gauges.HaproxyServers, "{server}", "Servers of the backend by state.");
        meter.CreateObservableGauge(Prefix + "haproxy_queued_requests", () => gauges.HaproxyQueue, "{request}", "Requests that wait for a slot of the backend or of one of its servers.");
        meter.CreateObservableGauge(Prefix + "haproxy_backend_sessions", () => gauges.HaproxyBackendSessions, "{request}", "Requests at the servers of the backend.");
        meter.CreateObservableGauge(Prefix + "haproxy_backend_sessions_limit", () => gauges.HaproxyBackendLimit, "{request}", "Sum of maxconn of the backend's servers in use; absent where one has none.");
        meter.CreateObservableGauge(Prefix + "check_ok", () => gauges.ChecksOk, null, "1 if both sides of the check say the same, 0 if not; absent where one is not known.");
        meter.CreateObservableGauge(Prefix + "server_role", () => gauges.ServerRole, null, "1 for what the database server is (primary, standby, read-only), 0 for the others; absent without a dsn-file.");
        meter.CreateObservableGauge(Prefix + "server_role_as_declared", () => gauges.ServerRoleAsDeclared, null, "1 if the server has the role that the configuration asks for, 0 if not; absent where it asks for none.");
        meter.CreateObservableGauge(Prefix + "server_replication_lag_seconds", () => gauges.ReplicationLag, "s", "Of a standby its own lag, of a primary that of its slowest standby; absent where there is none.");
        meter.CreateObservableGauge(Prefix + "server_standbys", () => gauges.Standbys, "{standby}", "Standbys that are connected to the server.");
        meter.CreateObservableGauge(Prefix + "server_connections", () => gauges.ServerConnections, "{connection}", "Client sessions on the server, from everywhere.");
        meter.CreateObservableGauge(Prefix + "server_connections_limit", () => gauges.ServerConnectionsLimit, "{connection}", "Sessions that the server allows ordinary roles together.");
        meter.CreateObservableGauge(Prefix + "server_oldest_transaction_seconds", () => gauges.OldestTransaction, "s", "Age of the oldest open transaction on the server; absent where there is none.");
    }

    /// <summary>The meter, for exporters that are attached to it by reference.</summary>
    public Meter Meter => meter;

    /// <summary>The state behind <c>/metrics</c>.</summary>
    public MetricAggregator Aggregator { get; }

    /// <summary>
    /// Brings the counters of everything the configuration declares into being, at zero. Called at start and after
    /// each reload; counters that exist keep their values.
    /// </summary>
    public void Declare(SidecarConfiguration configuration)
    {
        foreach (var upstream in configuration.Upstreams)
        {
            foreach (var outcome in KnownLabels.NudgeOutcomes)
                nudges.Add(0, Tag("upstream", upstream.Name), Tag("outcome", outcome));
            foreach (var reason in KnownLabels.RecycleReasons)
                recycled.Add(0, Tag("upstream", upstream.Name), Tag("reason", reason));
            foreach (var cause in KnownLabels.Causes)
                incidents.Add(0, Tag("upstream", upstream.Name), Tag("cause", cause));
            foreach (var remedy in KnownLabels.Remedies)
            {
                foreach (var guardrail in guardrails)
                    withheld.Add(0, Tag("upstream", upstream.Name), Tag("remedy", remedy), Tag("guardrail", guardrail));
            }

            blackout.Add(0, Tag("upstream", upstream.Name));
            Aggregator.Ensure(stuckDuration, Tag("upstream", upstream.Name));
        }

        // The counts in a snapshot begin anew with each configuration.
        seenDrops.Clear();
        seenBackends.Clear();
        seenOverflows = 0;
        listenOverflows.Add(0);
        workerGroups = [.. configuration.Workers.Select(workers => workers.Name)];
        foreach (var workers in configuration.Workers)
        {
            listenDrops.Add(0, Tag("workers", workers.Name));
            foreach (var signal in KnownLabels.Signals)
                terminated.Add(0, Tag("workers", workers.Name), Tag("signal", signal));
        }
    }

    /// <summary>A keepalive probe was sent on request; <paramref name="outcome"/> is what became of it.</summary>
    public void Nudged(string upstream, string outcome) => nudges.Add(1, Tag("upstream", upstream), Tag("outcome", outcome));

    /// <summary>A connection was recycled because it was <c>expired</c> or <c>stuck</c>.</summary>
    public void Recycled(string upstream, string reason) => recycled.Add(1, Tag("upstream", upstream), Tag("reason", reason));

    /// <summary>A worker of the group was sent <c>TERM</c> or <c>KILL</c>.</summary>
    public void Terminated(string workers, string signal) => terminated.Add(1, Tag("workers", workers), Tag("signal", signal));

    /// <summary>A guardrail withheld a remedy.</summary>
    public void Withheld(string upstream, string remedy, string guardrail) =>
        withheld.Add(1, Tag("upstream", upstream), Tag("remedy", remedy), Tag("guardrail", guardrail));

    /// <summary>An incident was recorded (once per incident, not per update).</summary>
    public void IncidentRecorded(string upstream, string cause) => incidents.Add(1, Tag("upstream", upstream), Tag("cause", cause));

    /// <summary>A stuck connection came free, <paramref name="stuck"/> after its first unanswered send.</summary>
    public void Released(string upstream, TimeSpan stuck) => stuckDuration.Record(stuck.TotalSeconds, Tag("upstream", upstream));

    /// <summary>A look ended.</summary>
    /// <param name="duration">How long it took.</param>
    /// <param name="sockets">How many sockets it read.</param>
    /// <param name="endedAt">When it ended, wall clock.</param>
    public void Scanned(TimeSpan duration, int sockets, DateTimeOffset endedAt)
    {
        scanDuration.Record(duration.TotalSeconds);
        scanSockets = [new(sockets)];
        lastScan = [new(endedAt.ToUnixTimeMilliseconds() / 1000.0)];
    }

    /// <summary>
    /// Makes one look's findings what the gauges show. The sums are made here, once, and not at each scrape. Called by
    /// the loop alone.
    /// </summary>
    /// <param name="snapshot">The look; where it describes only some of the connections, the tallies have them all.</param>
    /// <param name="tallied">The upstreams with their connections counted; null: as the snapshot has them.</param>
    public void Publish(AgentSnapshot snapshot, IReadOnlyList<Upstream>? tallied = null)
    {
        if (lastPublished is { } before && snapshot.Time > before)
        {
            // No more than the stall itself has lasted: a clock that was stepped forward adds nothing.
            var since = snapshot.Time - before;
            foreach (var connection in snapshot.Connections)
            {
                if (connection.StuckFor is { } stuck)
                    blackout.Add((stuck < since ? stuck : since).TotalSeconds, Tag("upstream", connection.Upstream));
            }
        }

        lastPublished = snapshot.Time;
        foreach (var group in snapshot.Groups)
        {
            listenDrops.Add(Math.Max(0, group.Drops - seenDrops.GetValueOrDefault(group.Workers)), Tag("workers", group.Workers));
            seenDrops[group.Workers] = group.Drops;
        }

        listenOverflows.Add(Math.Max(0, snapshot.ListenOverflows - seenOverflows));
        seenOverflows = snapshot.ListenOverflows;
        foreach (var (haproxy, backend) in ScanGauges.Backends(snapshot))
        {
            // A backend comes into being with its first look, at zero: its name is not known before.
            var (downs, errors) = seenBackends.GetValueOrDefault((haproxy, backend.Name));
            serverDowns.Add(Math.Max(0, backend.Downs - downs), Tag("haproxy", haproxy), Tag("proxy", backend.Name));
            ownErrors.Add(Math.Max(0, backend.OwnErrors - errors), Tag("haproxy", haproxy), Tag("proxy", backend.Name));
            seenBackends[(haproxy, backend.Name)] = (backend.Downs, backend.OwnErrors);
        }

        gauges = ScanGauges.From(snapshot, workerGroups, tallied);
    }

    public void Dispose()
    {
        Aggregator.Dispose();
        meter.Dispose();
    }

    private static KeyValuePair<string, object?> Tag(string name, string value) => new(name, value);
}
