using System.Net;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Snapshots;

namespace Sidecar.UnitTests;

/// <summary>Snapshots and incidents as a scan would make them.</summary>
internal static class Snapshots
{
    public static AgentSnapshot Of(params ConnectionStatus[] connections) => new()
    {
        Time = new DateTimeOffset(2026, 3, 4, 5, 6, 7, TimeSpan.Zero),
        Scan = 42,
        Duration = TimeSpan.FromMilliseconds(3.5),
        Mode = "protect",
        Connections = connections,
        Upstreams = [Upstream("db", "10.0.2.2:5432")],
        Limitations = [],
    };

    public static UpstreamStatus Upstream(string name, string endpoint) => new()
    {
        Name = name,
        Endpoint = endpoint,
        PathUp = true,
        PathRoundTrip = TimeSpan.FromMilliseconds(0.6),
        PathServerAnswered = true,
        IdleTimeoutLower = TimeSpan.FromSeconds(300),
        IdleTimeoutUpper = TimeSpan.FromSeconds(350),
        Advice = [],
    };

    public static ConnectionStatus Connection(int port = 40001, Verdict verdict = Verdict.Healthy) => new()
    {
        Local = new IPEndPoint(IPAddress.Parse("10.0.1.2"), port),
        Peer = new IPEndPoint(IPAddress.Parse("::ffff:10.0.2.2"), 5432),
        Pid = 1234,
        Executable = "/usr/bin/uwsgi-core",
        Unit = "uwsgi.service",
        Upstream = "db",
        Namespace = "own",
        Idle = TimeSpan.FromSeconds(12.3456789),
        Verdict = verdict,
        Why = "segments moved 12 s ago",
        StuckFor = verdict == Verdict.Stuck ? TimeSpan.FromSeconds(2.5) : null,
        KeepaliveArmed = false,
        Cookie = ulong.MaxValue,
    };

    public static Incident Incident(int number) => new()
    {
        Id = $"20260304T050607.{number:000}-1",
        Time = new DateTimeOffset(2026, 3, 4, 5, 6, 7, number, TimeSpan.Zero),
        Upstream = "db",
        Cause = "stuck",
        Remedy = "recycle",
        Outcome = "released",
        Pid = 1234,
        Executable = "/usr/bin/uwsgi-core",
        WithheldBy = null,
        Local = "10.0.1.2:40001",
        Peer = "10.0.2.2:5432",
        Why = "no answer for 2.5 s while a fresh connection succeeded",
        ReleaseSeconds = 2.6,
    };
}
