using System.Diagnostics.Metrics;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Processes;

namespace Sidecar.Agent.Telemetry;

/// <summary>
/// The agent's instruments, on the meter <c>conn-sidecar</c>: what dotnet-counters, OTLP and <c>/metrics</c> see is the
/// same. The loop calls the event methods and publishes one snapshot per scan; no method blocks or throws.
/// </summary>
/// <remarks>
/// Instrument names are the metric names without the <c>_total</c> that text formats add to counters. Label values
/// come from the configuration and from fixed lists only: no pid, port or address.
/// </remarks>
internal sealed class SidecarMetrics : IDisposable
{
    public const string MeterName = "conn-sidecar";
    private const string Prefix = "conn_sidecar_";

    private readonly Meter _meter;
    private readonly IReadOnlyList<string> _guardrails;
    private readonly Counter<long> _nudges;
    private readonly Counter<long> _recycled;
    private readonly Counter<long> _resumed;
    private readonly Counter<long> _terminated;
    private readonly Counter<long> _withheld;
    private readonly Counter<long> _incidents;
    private readonly Counter<long> _listenDrops;
    private readonly Counter<long> _listenOverflows;
    private readonly Counter<long> _serverDowns;
    private readonly Counter<long> _ownErrors;
    private readonly Counter<double> _blackout;
    private readonly Histogram<double> _stuckDuration;
    private readonly Histogram<double> _scanDuration;
    private volatile Lazy<ScanGauges> _gauges = new(ScanGauges.Empty);
    private volatile Measurement<long>[] _scanSockets = [];
    private volatile Measurement<double>[] _lastScan = [];
    private volatile string[] _workerGroups = [];
    private readonly Dictionary<string, long> _seenDrops = new(StringComparer.Ordinal);
    private readonly Dictionary<(string Haproxy, string Backend), (long Downs, long Errors)> _seenBackends = [];
    private readonly HashSet<string> _declared = new(StringComparer.Ordinal);
    private volatile Measurement<long>[] _reloadSucceeded = [];
    private volatile Measurement<double>[] _reloadedAt = [];
    private long _seenOverflows;
    private DateTimeOffset? _lastPublished;

    /// <summary>Makes the meter and its instruments.</summary>
    /// <param name="version">The agent's version, for <c>build_info</c>.</param>
    /// <param name="guardrails">Names of all guardrails, so that their counters start at zero.</param>
    /// <param name="process">What the agent's own process uses; null: as the kernel says.</param>
    public SidecarMetrics(string version, IReadOnlyList<string> guardrails, Func<OwnProcess?>? process = null)
    {
        _guardrails = guardrails;
        _meter = new Meter(MeterName, version);
        Aggregator = new MetricAggregator(_meter);

        _nudges = _meter.CreateCounter<long>(Prefix + "nudges", "{nudge}", "Keepalive probes sent on request, by what became of them.");
        _recycled = _meter.CreateCounter<long>(Prefix + "recycled_connections", "{connection}", "Connections closed under their owner so that its pool reconnects, by reason.");
        _resumed = _meter.CreateCounter<long>(Prefix + "resumed_connections", "{connection}", "Live connections that were made to retransmit at once after an outage.");
        _terminated = _meter.CreateCounter<long>(Prefix + "terminated_workers", "{signal}", "Signals sent to workers that hung first.");
        _withheld = _meter.CreateCounter<long>(Prefix + "withheld_remedies", "{remedy}", "Remedies not carried out, by the guardrail that withheld them.");
        _incidents = _meter.CreateCounter<long>(Prefix + "incidents", "{incident}", "Incidents recorded, by the verdict that led to them.");

        _listenDrops = _meter.CreateCounter<long>(Prefix + "listen_drops", "{connection}", "Connections dropped because an accept queue of the group was full.");
        _listenOverflows = _meter.CreateCounter<long>(Prefix + "listen_overflows", "{connection}", "Times that a connection found a full accept queue, in all network namespaces of the groups.");
        _serverDowns = _meter.CreateCounter<long>(Prefix + "haproxy_server_downs", "{event}", "Times that a server of the backend went down.");
        _ownErrors = _meter.CreateCounter<long>(Prefix + "haproxy_own_errors", "{request}", "Requests that HAProxy answered with 5xx itself; without HTTP, connections that no server took.");

        _blackout = _meter.CreateCounter<double>(Prefix + "blackout_seconds", "s", "Time that connections waited in vain (suspect, stuck or outage), summed over connections.");

        _stuckDuration = _meter.CreateHistogram(
            Prefix + "stuck_duration_seconds",
            "s",
            "Time from the first unanswered send to release.",
            advice: new InstrumentAdvice<double> { HistogramBucketBoundaries = [0.25, 0.5, 1, 2, 3, 5, 10, 30, 60, 120, 300, 900] });
        _scanDuration = _meter.CreateHistogram(
            Prefix + "scan_duration_seconds",
            "s",
            "Duration of one scan of the kernel's socket tables.",
            advice: new InstrumentAdvice<double> { HistogramBucketBoundaries = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5] });

        ProcessGauges.Create(_meter, process ?? OwnProcess.Read);
        Measurement<long>[] build = [new(1, Tag("version", version))];
        _meter.CreateObservableGauge(Prefix + "build_info", () => build, null, "Constant 1, labelled with the version of the agent.");
        _meter.CreateObservableGauge(Prefix + "scan_sockets", () => _scanSockets, "{socket}", "Sockets that the last scan read.");
        _meter.CreateObservableGauge(Prefix + "last_scan_timestamp_seconds", () => _lastScan, "s", "Unix time at which the last scan ended.");
        _meter.CreateObservableGauge(Prefix + "config_last_reload_successful", () => _reloadSucceeded, null, "1 if the configuration was taken when it was last read, 0 if it was refused and an earlier one is in force.");
        _meter.CreateObservableGauge(Prefix + "config_last_reload_success_timestamp_seconds", () => _reloadedAt, "s", "Unix time at which the configuration in force was taken.");
        _meter.CreateObservableGauge(Prefix + "protecting", () => _gauges.Value.Protecting, null, "1 in mode protect, 0 in mode observe.");
        _meter.CreateObservableGauge(Prefix + "limitations", () => _gauges.Value.Limitations, null, "Number of things that the agent cannot do here; status lists them.");
        _meter.CreateObservableGauge(Prefix + "source_up", () => _gauges.Value.Sources, null, "1 if what the configuration names was found and could be read, 0 if not; status says why.");
        _meter.CreateObservableGauge(Prefix + "connections", () => _gauges.Value.Connections, "{connection}", "Watched connections by verdict.");
        _meter.CreateObservableGauge(Prefix + "connection_idle_max_seconds", () => _gauges.Value.IdleMax, "s", "Longest time for which a watched connection has been idle.");
        _meter.CreateObservableGauge(Prefix + "keepalive_armed_connections", () => _gauges.Value.KeepaliveArmed, "{connection}", "Watched connections on which a keepalive timer runs.");
        _meter.CreateObservableGauge(Prefix + "path_up", () => _gauges.Value.PathUp, null, "1 if the last fresh connection to the upstream succeeded, 0 if it failed, absent while none was needed.");
        _meter.CreateObservableGauge(Prefix + "path_round_trip_seconds", () => _gauges.Value.RoundTrip, "s", "Duration of the last successful fresh connection to the upstream.");
        _meter.CreateObservableGauge(Prefix + "path_idle_timeout_seconds", () => _gauges.Value.IdleTimeout, "s", "Bounds of the idle timeout of the path to the upstream; absent while unknown.");
        _meter.CreateObservableGauge(Prefix + "worker_processes", () => _gauges.Value.WorkerProcesses, "{process}", "Live processes of the group that hold or held a watched connection.");
        _meter.CreateObservableGauge(Prefix + "worker_connections", () => _gauges.Value.WorkerConnections, "{connection}", "Watched connections that the worker holds.");
        _meter.CreateObservableGauge(Prefix + "worker_requests_in_flight", () => _gauges.Value.WorkerRequests, "{request}", "Watched connections of the worker on which an answer is awaited.");
        _meter.CreateObservableGauge(Prefix + "worker_traffic_share", () => _gauges.Value.WorkerTraffic, null, "The worker's share of its group's bytes on watched connections over the last minute; absent where there were none.");
        _meter.CreateObservableGauge(Prefix + "worker_cpu_share", () => _gauges.Value.WorkerCpu, null, "CPU time of the worker per time, over the last seconds; 1 is one core.");
        _meter.CreateObservableGauge(Prefix + "worker_resident_bytes", () => _gauges.Value.WorkerResident, "By", "Resident memory of the worker.");
        _meter.CreateObservableGauge(Prefix + "worker_resident_growth_bytes_per_second", () => _gauges.Value.WorkerGrowth, "By/s", "Slope of the worker's resident memory over the last ten minutes; absent in its first.");
        _meter.CreateObservableGauge(Prefix + "listen_queue_connections", () => _gauges.Value.QueueWaiting, "{connection}", "Connections that wait to be accepted on a listening address of the group.");
        _meter.CreateObservableGauge(Prefix + "listen_queue_peak_connections", () => _gauges.Value.QueuePeak, "{connection}", "Most connections that waited there at a scan of the last minute.");
        _meter.CreateObservableGauge(Prefix + "listen_queue_limit", () => _gauges.Value.QueueLimit, "{connection}", "Most connections that may wait there: the application's backlog, cut by net.core.somaxconn.");
        _meter.CreateObservableGauge(Prefix + "listener_connections", () => _gauges.Value.ListenerConnections, "{connection}", "Open connections that came through the listening address.");
        _meter.CreateObservableGauge(Prefix + "group_processes", () => _gauges.Value.GroupProcesses, "{process}", "Live processes of the group.");
        _meter.CreateObservableGauge(Prefix + "group_cpu_cores", () => _gauges.Value.GroupCpu, null, "CPU time of the group's processes per time, over the last seconds; 1 is one core.");
        _meter.CreateObservableGauge(Prefix + "group_cpu_imbalance", () => _gauges.Value.GroupImbalance, null, "How unevenly the group's processes share their CPU time: 0 evenly, 1 one for all; absent where there is nothing to share.");
        _meter.CreateObservableGauge(Prefix + "group_busy_cores", () => _gauges.Value.GroupBusyCores, null, "Cores on which the processes that computed ran last.");
        _meter.CreateObservableGauge(Prefix + "child_processes", () => _gauges.Value.Children, "{process}", "Live children of the group's processes.");
        _meter.CreateObservableGauge(Prefix + "zombie_children", () => _gauges.Value.Zombies, "{process}", "Children of the group's processes that have ended and were not waited for.");
        _meter.CreateObservableGauge(Prefix + "parent_resident_bytes", () => _gauges.Value.ParentResident, "By", "Resident memory of the group's largest process that has children.");
        _meter.CreateObservableGauge(Prefix + "parent_resident_growth_bytes_per_second", () => _gauges.Value.ParentGrowth, "By/s", "Slope of that memory over the last ten minutes; absent in the first.");
        _meter.CreateObservableGauge(Prefix + "gone_peers", () => _gauges.Value.GonePeers, "{connection}", "Connections whose client went away while they waited to be accepted, or were served.");
        _meter.CreateObservableGauge(Prefix + "gone_peer_max_seconds", () => _gauges.Value.GonePeerMax, "s", "Longest time for which a connection that is served has had no client.");
        _meter.CreateObservableGauge(Prefix + "haproxy_up", () => _gauges.Value.HaproxyUp, null, "1 if the last read of the stats socket succeeded, 0 if it failed.");
        _meter.CreateObservableGauge(Prefix + "haproxy_sessions", () => _gauges.Value.HaproxySessions, "{connection}", "Connections of the whole process.");
        _meter.CreateObservableGauge(Prefix + "haproxy_sessions_limit", () => _gauges.Value.HaproxySessionLimit, "{connection}", "Most connections of the whole process (maxconn).");
        _meter.CreateObservableGauge(Prefix + "haproxy_servers", () => _gauges.Value.HaproxyServers, "{server}", "Servers of the backend by state.");
        _meter.CreateObservableGauge(Prefix + "haproxy_queued_requests", () => _gauges.Value.HaproxyQueue, "{request}", "Requests that wait for a slot of the backend or of one of its servers.");
        _meter.CreateObservableGauge(Prefix + "haproxy_backend_sessions", () => _gauges.Value.HaproxyBackendSessions, "{request}", "Requests at the servers of the backend.");
        _meter.CreateObservableGauge(Prefix + "haproxy_backend_sessions_limit", () => _gauges.Value.HaproxyBackendLimit, "{request}", "Sum of maxconn of the backend's servers in use; absent where one has none.");
        _meter.CreateObservableGauge(Prefix + "check_ok", () => _gauges.Value.ChecksOk, null, "1 if both sides of the check say the same, 0 if not; absent where one is not known.");
        _meter.CreateObservableGauge(Prefix + "server_role", () => _gauges.Value.ServerRole, null, "1 for what the database server is (primary, standby, read-only), 0 for the others; absent without a dsn-file.");
        _meter.CreateObservableGauge(Prefix + "server_role_as_declared", () => _gauges.Value.ServerRoleAsDeclared, null, "1 if the server has the role that the configuration asks for, 0 if not; absent where it asks for none.");
        _meter.CreateObservableGauge(Prefix + "server_replication_lag_seconds", () => _gauges.Value.ReplicationLag, "s", "Of a standby its own lag, of a primary that of its slowest standby; absent where there is none.");
        _meter.CreateObservableGauge(Prefix + "server_standbys", () => _gauges.Value.Standbys, "{standby}", "Standbys that are connected to the server.");
        _meter.CreateObservableGauge(Prefix + "server_connections", () => _gauges.Value.ServerConnections, "{connection}", "Client sessions on the server, from everywhere.");
        _meter.CreateObservableGauge(Prefix + "server_connections_limit", () => _gauges.Value.ServerConnectionsLimit, "{connection}", "Sessions that the server allows ordinary roles together.");
        _meter.CreateObservableGauge(Prefix + "server_oldest_transaction_seconds", () => _gauges.Value.OldestTransaction, "s", "Age of the oldest open transaction on the server; absent where there is none.");
    }

    /// <summary>The meter, for exporters that are attached to it by reference.</summary>
    public Meter Meter => _meter;

    /// <summary>The state behind <c>/metrics</c>.</summary>
    public MetricAggregator Aggregator { get; }

    /// <summary>
    /// Brings the counters of everything the configuration declares into being, at zero, and ends those of what it does not name
    /// any more. Called at start and after each reload; counters that exist keep their values. Built-in upstreams have theirs
    /// once they are used.
    /// </summary>
    public void Declare(SidecarConfiguration configuration)
    {
        Keep([_nudges, _recycled, _incidents, _withheld, _resumed, _blackout, _stuckDuration], [.. configuration.Upstreams.Select(upstream => upstream.Name)]);
        Keep([_terminated, _listenDrops], [.. configuration.Workers.Select(workers => workers.Name)]);
        Keep([_serverDowns, _ownErrors], [.. configuration.Haproxies.Select(haproxy => haproxy.Name)]);
        _declared.IntersectWith(configuration.Upstreams.Select(upstream => upstream.Name));
        foreach (var upstream in configuration.Upstreams.Where(upstream => !upstream.IsBuiltIn))
        {
            Declare(upstream.Name);
        }

        // The counts in a snapshot begin anew with each configuration.
        _seenDrops.Clear();
        foreach (var backend in _seenBackends.Keys)
        {
            _seenBackends[backend] = (0, 0);
        }

        _seenOverflows = 0;
        _listenOverflows.Add(0);
        _workerGroups = [.. configuration.Workers.Select(workers => workers.Name)];
        foreach (var workers in configuration.Workers)
        {
            _listenDrops.Add(0, Tag("workers", workers.Name));
            foreach (var signal in KnownLabels.Signals)
            {
                _terminated.Add(0, Tag("workers", workers.Name), Tag("signal", signal));
            }
        }
    }

    /// <summary>The configuration has been read and taken.</summary>
    /// <param name="at">When, wall clock.</param>
    public void ConfigurationTaken(DateTimeOffset at)
    {
        _reloadSucceeded = [new(1)];
        _reloadedAt = [new(at.ToUnixTimeMilliseconds() / 1000.0)];
    }

    /// <summary>The configuration has been read and refused; the earlier one is in force.</summary>
    public void ConfigurationRefused() => _reloadSucceeded = [new(0)];

    /// <summary>A keepalive probe was sent on request; <paramref name="outcome"/> is what became of it.</summary>
    public void Nudged(string upstream, string outcome) => _nudges.Add(1, Tag("upstream", upstream), Tag("outcome", outcome));

    /// <summary>A connection was recycled because it was <c>expired</c> or <c>stuck</c>.</summary>
    public void Recycled(string upstream, string reason) => _recycled.Add(1, Tag("upstream", upstream), Tag("reason", reason));

    /// <summary>A live connection was made to retransmit what an outage had left in flight.</summary>
    public void Resumed(string upstream) => _resumed.Add(1, Tag("upstream", upstream));

    /// <summary>A worker of the group was sent <c>TERM</c> or <c>KILL</c>.</summary>
    public void Terminated(string workers, string signal) => _terminated.Add(1, Tag("workers", workers), Tag("signal", signal));

    /// <summary>A guardrail withheld a remedy.</summary>
    public void Withheld(string upstream, string remedy, string guardrail) =>
        _withheld.Add(1, Tag("upstream", upstream), Tag("remedy", remedy), Tag("guardrail", guardrail));

    /// <summary>An incident was recorded (once per incident, not per update).</summary>
    public void IncidentRecorded(string upstream, string cause) => _incidents.Add(1, Tag("upstream", upstream), Tag("cause", cause));

    /// <summary>A stuck connection came free, <paramref name="stuck"/> after its first unanswered send.</summary>
    public void Released(string upstream, TimeSpan stuck) => _stuckDuration.Record(stuck.TotalSeconds, Tag("upstream", upstream));

    /// <summary>A scan ended.</summary>
    /// <param name="duration">How long it took.</param>
    /// <param name="sockets">How many sockets it read.</param>
    /// <param name="endedAt">When it ended, wall clock.</param>
    public void Scanned(TimeSpan duration, int sockets, DateTimeOffset endedAt)
    {
        _scanDuration.Record(duration.TotalSeconds);
        _scanSockets = [new(sockets)];
        _lastScan = [new(endedAt.ToUnixTimeMilliseconds() / 1000.0)];
    }

    /// <summary>
    /// Makes one scan's findings what the gauges show. They are summed up when somebody reads them, once. Called by the loop
    /// alone.
    /// </summary>
    /// <param name="snapshot">The scan; where it describes only some of the connections, the tallies have them all.</param>
    /// <param name="tallied">The upstreams with their connections counted; null: as the snapshot has them.</param>
    public void Publish(AgentSnapshot snapshot, IReadOnlyList<Upstream>? tallied = null)
    {
        if (_lastPublished is { } before && snapshot.Time > before)
        {
            // No more than the stall itself has lasted: a clock that was stepped forward adds nothing.
            var since = snapshot.Time - before;
            foreach (var connection in snapshot.Connections)
            {
                if (connection.StuckFor is { } stuck)
                {
                    _blackout.Add((stuck < since ? stuck : since).TotalSeconds, Tag("upstream", connection.Upstream));
                }
            }
        }

        _lastPublished = snapshot.Time;
        foreach (var upstream in snapshot.Upstreams)
        {
            Declare(upstream.Name);
        }

        foreach (var group in snapshot.Groups)
        {
            _listenDrops.Add(Math.Max(0, group.Drops - _seenDrops.GetValueOrDefault(group.Workers)), Tag("workers", group.Workers));
            _seenDrops[group.Workers] = group.Drops;
        }

        _listenOverflows.Add(Math.Max(0, snapshot.ListenOverflows - _seenOverflows));
        _seenOverflows = snapshot.ListenOverflows;
        foreach (var (haproxy, backend) in ScanGauges.Backends(snapshot))
        {
            // A backend comes into being with its first scan, at zero: its name is not known before.
            var (downs, errors) = _seenBackends.GetValueOrDefault((haproxy, backend.Name));
            _serverDowns.Add(Math.Max(0, backend.Downs - downs), Tag("haproxy", haproxy), Tag("proxy", backend.Name));
            _ownErrors.Add(Math.Max(0, backend.OwnErrors - errors), Tag("haproxy", haproxy), Tag("proxy", backend.Name));
            _seenBackends[(haproxy, backend.Name)] = (backend.Downs, backend.OwnErrors);
        }

        ForgetBackends(snapshot);

        var groups = _workerGroups;
        var counted = tallied?.Where(upstream => upstream.IsTold).Select(upstream => new ScanGauges.Sum(upstream)).ToArray();
        var shown = counted is null ? snapshot : snapshot with { Connections = [] };
        _gauges = new(() => ScanGauges.From(shown, groups, counted));
    }

    public void Dispose()
    {
        Aggregator.Dispose();
        _meter.Dispose();
    }

    private void Declare(string upstream)
    {
        if (!_declared.Add(upstream))
        {
            return;
        }

        var tag = Tag("upstream", upstream);
        foreach (var outcome in KnownLabels.NudgeOutcomes)
        {
            _nudges.Add(0, tag, Tag("outcome", outcome));
        }

        foreach (var reason in KnownLabels.RecycleReasons)
        {
            _recycled.Add(0, tag, Tag("reason", reason));
        }

        foreach (var cause in KnownLabels.Causes)
        {
            _incidents.Add(0, tag, Tag("cause", cause));
        }

        foreach (var remedy in KnownLabels.Remedies)
        {
            foreach (var guardrail in _guardrails)
            {
                _withheld.Add(0, tag, Tag("remedy", remedy), Tag("guardrail", guardrail));
            }
        }

        _resumed.Add(0, tag);
        _blackout.Add(0, tag);
        Aggregator.Ensure(_stuckDuration, tag);
    }

    private void Keep(IEnumerable<Instrument> instruments, HashSet<string> names)
    {
        foreach (var instrument in instruments)
        {
            Aggregator.Keep(instrument, names);
        }
    }

    /// <summary>The series of backends that are no more: names that come and go leave nothing behind.</summary>
    private void ForgetBackends(AgentSnapshot snapshot)
    {
        if (_seenBackends.Count == 0)
        {
            return;
        }

        var present = snapshot.Haproxies.SelectMany(haproxy => haproxy.Backends.Select(backend => (haproxy.Name, backend.Name))).ToHashSet();
        foreach (var gone in _seenBackends.Keys.Where(known => !present.Contains(known)).ToList())
        {
            _seenBackends.Remove(gone);
            Aggregator.Forget(_serverDowns, Tag("haproxy", gone.Haproxy), Tag("proxy", gone.Backend));
            Aggregator.Forget(_ownErrors, Tag("haproxy", gone.Haproxy), Tag("proxy", gone.Backend));
        }
    }

    private static KeyValuePair<string, object?> Tag(string name, string value) => new(name, value);
}
