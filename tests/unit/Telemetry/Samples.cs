using System.Net;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Endpoints;

namespace Sidecar.UnitTests.Telemetry;

/// <summary>Snapshots, configurations and incidents for the tests of what is told about them.</summary>
internal static class Samples
{
    public static readonly DateTimeOffset Noon = new(2026, 1, 1, 12, 0, 0, TimeSpan.Zero);

    /// <summary>As the agent names them.</summary>
    public static readonly IReadOnlyList<string> Guardrails = [.. Enum.GetValues<Guardrail>().Select(GuardrailNames.ToName)];

    public static SidecarConfiguration Configuration(params string[] upstreams) => new()
    {
        Agent = new AgentSection(),
        Upstreams = [.. upstreams.Select(name => new UpstreamSection { Name = name, Endpoints = [new EndpointPattern("10.0.2.2:5432", null, new IPNetwork(IPAddress.Parse("10.0.2.2"), 32), 5432)] })],
        Workers = [new WorkersSection { Name = "web", Unit = "uwsgi.service", Terminate = true }],
        Files = [],
    };

    public static ConnectionStatus Connection(
        Verdict verdict = Verdict.Healthy,
        string upstream = "orders-db",
        double idle = 1,
        double? stuck = null,
        bool? keepalive = true,
        int port = 40000,
        string executable = "/usr/bin/uwsgi",
        string why = "segments moved 1 s ago") => new()
        {
            Local = new IPEndPoint(IPAddress.Parse("10.0.1.2"), port),
            Peer = new IPEndPoint(IPAddress.Parse("10.0.2.2"), 5432),
            Pid = 4711,
            Executable = executable,
            Unit = "uwsgi.service",
            Upstream = upstream,
            Namespace = "own",
            Idle = TimeSpan.FromSeconds(idle),
            Verdict = verdict,
            Why = why,
            StuckFor = stuck is { } s ? TimeSpan.FromSeconds(s) : null,
            KeepaliveArmed = keepalive,
            Cookie = ulong.MaxValue,
        };

    public static UpstreamStatus Upstream(string name = "orders-db", bool? up = true, double? lower = 300, double? upper = 350, (int Connections, int Limit)? server = null) => new()
    {
        Name = name,
        Endpoint = "10.0.2.2:5432",
        PathUp = up,
        PathRoundTrip = up == true ? TimeSpan.FromMilliseconds(0.8) : null,
        PathServerAnswered = up == true,
        IdleTimeoutLower = lower is { } l ? TimeSpan.FromSeconds(l) : null,
        IdleTimeoutUpper = upper is { } u ? TimeSpan.FromSeconds(u) : null,
        ConnectionLimit = server?.Limit,
        ServerConnections = server?.Connections,
        Server = new ServerStatus { Role = "primary", IsRoleAsDeclared = true, ReplicationLag = TimeSpan.FromSeconds(0.25), Standbys = 1, OldestTransaction = TimeSpan.FromSeconds(3.5) },
        Advice = ["set keepalives_idle=150 in the application"],
    };

    public static WorkerStatus Worker(int index, double? share = null, double? cpu = 0.25, double? growth = null) => new()
    {
        Workers = "web",
        Index = index,
        Pid = 4711 + index,
        Connections = 2,
        RequestsInFlight = 1,
        TrafficShare = share,
        CpuShare = cpu,
        ResidentBytes = 50_000_000,
        ResidentGrowth = growth,
    };

    public static ListenerStatus Listener(int index, long waiting = 3, string address = "127.0.0.1:8000") => new()
    {
        Workers = "web",
        Index = index,
        Address = address,
        Namespace = "own",
        Pid = 4711,
        Waiting = waiting,
        Peak = 5,
        Limit = 5,
        IsCut = false,
        Drops = 7,
        Connections = 12,
    };

    public static GroupStatus Group(string name = "web", double? imbalance = 0.75) => new()
    {
        Workers = name,
        Processes = 5,
        Children = 4,
        Zombies = 2,
        CpuCores = 1.5,
        CpuImbalance = imbalance,
        BusyCores = 2,
        ParentResidentBytes = 80_000_000,
        ParentResidentGrowth = 512.5,
        GonePeersWaiting = 1,
        GonePeersServed = 3,
        GonePeerMax = TimeSpan.FromSeconds(42.5),
        Drops = 7,
    };

    public static HaproxyStatus Haproxy(string? problem = null) => new()
    {
        Name = "edge",
        Version = problem is null ? "2.6.12" : null,
        Problem = problem,
        Sessions = 40,
        SessionLimit = 2000,
        Backends =
        [
            new BackendStatus { Name = "www", ServersUp = 1, ServersDown = 1, ServersOther = 1, Down = ["web2"], Queue = 17, Sessions = 20, SessionLimit = 20, Downs = 2, OwnErrors = 12 },
            new BackendStatus { Name = "static", ServersUp = 1, ServersDown = 0, ServersOther = 0, Down = [], Queue = 0, Sessions = 3, SessionLimit = null, Downs = 0, OwnErrors = 0 },
        ],
    };

    public static CheckStatus Check(string name = "app", string? expected = "3.2.1", string? actual = "3.2.1", string? problem = null) =>
        new() { Name = name, Expected = expected, Actual = actual, Problem = problem };

    public static AgentSnapshot Snapshot(IReadOnlyList<ConnectionStatus>? connections = null, IReadOnlyList<UpstreamStatus>? upstreams = null, IReadOnlyList<string>? limitations = null, IReadOnlyList<WorkerStatus>? workers = null) => new()
    {
        Time = Noon,
        Scan = 42,
        Duration = TimeSpan.FromMilliseconds(3),
        Mode = "protect",
        Connections = connections ?? [Connection()],
        Upstreams = upstreams ?? [Upstream()],
        Workers = workers ?? [],
        Limitations = limitations ?? [],
    };

    public static LoopHealth Health(double silence = 0.5, bool firstScan = true, params string[] notPossible) => new()
    {
        SinceLastTick = TimeSpan.FromSeconds(silence),
        ScanInterval = TimeSpan.FromSeconds(1),
        FirstScanDone = firstScan,
        NotPossible = notPossible,
    };

    public static Incident Incident(string id, string outcome = "pending", string executable = "/usr/bin/uwsgi", string? withheldBy = null) => new()
    {
        Id = id,
        Time = Noon,
        Upstream = "orders-db",
        Cause = "stuck",
        Remedy = "recycle",
        Outcome = outcome,
        Pid = 4711,
        Executable = executable,
        Unit = "uwsgi.service",
        WithheldBy = withheldBy,
        Local = "10.0.1.2:40000",
        Peer = "10.0.2.2:5432",
        Why = "first unanswered send 2.1 s ago; a fresh connection took 0.8 ms",
        StuckSeconds = 2.1,
        Chain = [new ChainLink { Time = Noon, What = "the connection hangs" }],
        Evidence = new Dictionary<string, string>(StringComparer.Ordinal) { ["retransmits"] = "3" },
    };
}
