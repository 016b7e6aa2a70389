using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Telemetry;

/// <summary>Describes the world for readers: one immutable <see cref="AgentSnapshot"/>, in words where somebody reads it.</summary>
/// <param name="world">What is known; read on the loop's thread.</param>
/// <param name="settings">Settings of an upstream's server; null where there are none to be had.</param>
internal sealed class SnapshotBuilder(World world, Func<string, ServerSettings?> settings)
{
    private static readonly TimeSpan AdviceHolds = TimeSpan.FromSeconds(60);

    private readonly Dictionary<Upstream, ((TimeSpan? Limit, bool CountsDataOnly, ServerSettings? Settings) Facts, TimeSpan At, IReadOnlyList<string> Lines)> _advice = [];

    /// <summary>Connections and upstreams as they are; what else is in a snapshot is the caller's to add.</summary>
    /// <param name="now">Monotonic time.</param>
    /// <param name="took">How long the scan took.</param>
    /// <param name="inWords">All connections, each with its reason; else the silent ones, whose time the metrics count.</param>
    public AgentSnapshot Describe(TimeSpan now, TimeSpan took, bool inWords)
    {
        IReadOnlyCollection<TrackedConnection> told = inWords ? world.Connections.All : world.Silent;
        return new AgentSnapshot
        {
            Time = world.UtcNow,
            Scan = world.Connections.Scans,
            Duration = took,
            Mode = world.Configuration.Agent.Mode == AgentMode.Observe ? "observe" : "protect",
            Connections = [.. told
                .Where(connection => inWords || connection.Judged.Verdict is Verdict.Suspect or Verdict.Stuck or Verdict.Outage or Verdict.Partly)
                .Select(connection => Status(connection, now))],
            Upstreams = [.. world.Upstreams.Where(upstream => upstream.IsTold).Select(upstream => Status(upstream, now))],
            Limitations = [],
        };
    }

    private ConnectionStatus Status(TrackedConnection connection, TimeSpan now)
    {
        var owner = world.Owners.Find(connection.Last.Inode).First;
        var evidence = connection.Evidence(now);
        var session = SessionText.Of(world, connection, now, out var words);
        return new ConnectionStatus
        {
            Local = connection.Key.Local.ToEndPoint(),
            Peer = connection.Key.Peer.ToEndPoint(),
            Pid = owner?.Identity.Pid,
            Executable = owner?.Executable,
            Unit = owner?.Unit,
            Upstream = connection.Upstream.Name,
            Namespace = connection.NamespaceInode == world.OwnNamespace ? "own" : $"net:[{connection.NamespaceInode}]",
            Idle = evidence.Idle,
            Verdict = connection.Judged.Verdict,
            Why = words is null ? Explanation.Of(connection, now) : $"{Explanation.Of(connection, now)}; {words}",
            StuckFor = connection.Judged.Verdict is Verdict.Suspect or Verdict.Stuck or Verdict.Outage or Verdict.Partly ? (evidence.Stall ?? evidence.Probing)?.Silence : null,
            KeepaliveArmed = connection.Last.Timer switch
            {
                SocketTimer.Keepalive => true,
                SocketTimer.None => false,
                _ => null,
            },
            Cookie = connection.Cookie.Value,
            Session = session,
        };
    }

    private UpstreamStatus Status(Upstream upstream, TimeSpan now)
    {
        var last = world.Paths.All.Where(path => path.Upstream == upstream && path.Last is not null).Select(path => path.Last!).MaxBy(probe => probe.Ended);
        var (lower, upper) = IdleTimeout(upstream);
        var server = world.ServerAt(upstream.Name, now)?.Scan;
        return new UpstreamStatus
        {
            Name = upstream.Name,
            Endpoint = string.Join(", ", upstream.Section.Endpoints.Select(endpoint => endpoint.Text)),
            PathUp = last?.Up,
            PathRoundTrip = last is { Up: true } ? last.Result.Elapsed : null,
            PathServerAnswered = last is { Up: true, Result.ServerAnswered: true },
            IdleTimeoutLower = lower,
            IdleTimeoutUpper = upper,
            NotMeasured = world.Paths.All.FirstOrDefault(path => path.Upstream == upstream && path.NotMeasured is not null)?.NotMeasured,
            ConnectionLimit = server?.ConnectionLimit,
            ServerConnections = server?.Connections,
            Server = server?.Facts is { } facts ? Status(upstream.Section, server.IsInRecovery, facts) : null,
            Advice = Advice(upstream, upper is null ? null : lower, now),
        };
    }

    /// <summary>Kept for a while: it reads files of the host, and is wanted at every scan. What was survived is a limit only where something longer was not.</summary>
    private IReadOnlyList<string> Advice(Upstream upstream, TimeSpan? limit, TimeSpan now)
    {
        (TimeSpan? Limit, bool CountsDataOnly, ServerSettings? Settings) facts =
            (limit, world.Paths.All.Any(path => path.Upstream == upstream && path.CountsDataOnly), settings(upstream.Name));
        if (!_advice.TryGetValue(upstream, out var kept) || kept.Facts != facts || now - kept.At > AdviceHolds)
        {
            _advice[upstream] = kept = (facts, now, Advisor.For(upstream.Section, facts.Limit, facts.CountsDataOnly, facts.Settings));
        }

        return kept.Lines;
    }

    private static ServerStatus Status(UpstreamSection section, bool isStandby, ServerFacts facts)
    {
        var role = isStandby ? "standby" : facts.IsReadOnly ? "read-only" : "primary";
        return new ServerStatus
        {
            Role = role,
            IsRoleAsDeclared = section.ServerRole is { } wanted ? role == wanted : null,
            ReplicationLag = facts.ReplicationLag,
            Standbys = facts.Standbys,
            OldestTransaction = facts.OldestTransaction,
        };
    }

    /// <summary>As declared, or what the best observed of the upstream's paths is known to have.</summary>
    private (TimeSpan? Lower, TimeSpan? Upper) IdleTimeout(Upstream upstream)
    {
        if (upstream.Section.IdleTimeout is { Source: IdleTimeoutSource.Declared, Value: var declared })
        {
            return (declared, declared);
        }

        var best = world.Paths.All.Where(path => path.Upstream == upstream && path.Estimate is not null).Select(path => path.Estimate!).MaxBy(estimate => (estimate.Upper is not null, estimate.Count));
        return best is null ? (null, null) : (best.Lower > TimeSpan.Zero ? best.Lower : null, best.Upper);
    }
}
