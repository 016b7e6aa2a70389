using System.Text.Json;
using System.Text.Json.Serialization;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Snapshots;

namespace Sidecar.Agent.Endpoints;

/// <summary>What <c>status --json</c> prints and the control socket answers; the names are fixed for programs.</summary>
internal sealed record StatusDocument
{
    /// <summary>When the scan ended, UTC.</summary>
    public required DateTimeOffset Time { get; init; }

    /// <summary>True where a running agent answered, false for a scan of the command's own.</summary>
    public required bool Running { get; init; }

    public required string Version { get; init; }
    public required string Mode { get; init; }

    /// <summary>Number of the scan, from 1.</summary>
    public required long Scan { get; init; }

    /// <summary>How long the scan took.</summary>
    public required double ScanDurationSeconds { get; init; }
    public required IReadOnlyList<string> Limitations { get; init; }
    public required IReadOnlyList<UpstreamView> Upstreams { get; init; }

    public IReadOnlyList<ListenerView> Listeners { get; init; } = [];
    public IReadOnlyList<GroupView> Groups { get; init; } = [];
    public IReadOnlyList<HaproxyView> Haproxies { get; init; } = [];
    public IReadOnlyList<CheckView> Checks { get; init; } = [];

    /// <summary>Lazy on the way out: a hundred thousand connections are written without a second list of them.</summary>
    public required IEnumerable<ConnectionView> Connections { get; init; }

    public static StatusDocument From(AgentSnapshot snapshot, bool running) => new()
    {
        Time = snapshot.Time,
        Running = running,
        Version = ProductVersion.Text,
        Mode = snapshot.Mode,
        Scan = snapshot.Scan,
        ScanDurationSeconds = Seconds(snapshot.Duration),
        Limitations = snapshot.Limitations,
        Upstreams = [.. snapshot.Upstreams.Select(UpstreamView.From)],
        Listeners = [.. snapshot.Listeners.Select(ListenerView.From)],
        Groups = [.. snapshot.Groups.Select(GroupView.From)],
        Haproxies = [.. snapshot.Haproxies.Select(HaproxyView.From)],
        Checks = [.. snapshot.Checks.Select(CheckView.From)],
        Connections = snapshot.Connections.Select(ConnectionView.From),
    };

    /// <summary>To the microsecond: more digits are noise.</summary>
    internal static double Seconds(TimeSpan value) => Math.Round(value.TotalSeconds, 6);
}

/// <summary>One upstream in <see cref="StatusDocument"/>.</summary>
internal sealed record UpstreamView
{
    public required string Name { get; init; }
    public required string Endpoint { get; init; }
    public required bool? PathUp { get; init; }
    public required double? PathRoundTripSeconds { get; init; }

    /// <summary>Whether the server itself answered, or only a handshake was completed, as a proxy completes it too.</summary>
    public required bool PathServerAnswered { get; init; }
    public required double? IdleTimeoutLowerSeconds { get; init; }
    public required double? IdleTimeoutUpperSeconds { get; init; }

    /// <summary>Why the last measurement of it has no result; null where it has one, or there was none.</summary>
    public string? NotMeasured { get; init; }

    /// <summary>Connections that the server allows ordinary roles together; null where it was not asked.</summary>
    public int? ConnectionLimit { get; init; }

    /// <summary>Connections that the server has, from everywhere; null where it was not asked.</summary>
    public int? ServerConnections { get; init; }
    public required IReadOnlyList<string> Advice { get; init; }

    /// <summary>The database server, where it was asked; else null.</summary>
    public ServerDocument? Server { get; init; }

    public static UpstreamView From(UpstreamStatus upstream) => new()
    {
        Name = upstream.Name,
        Endpoint = upstream.Endpoint,
        PathUp = upstream.PathUp,
        PathRoundTripSeconds = Seconds(upstream.PathRoundTrip),
        PathServerAnswered = upstream.PathServerAnswered,
        IdleTimeoutLowerSeconds = Seconds(upstream.IdleTimeoutLower),
        IdleTimeoutUpperSeconds = Seconds(upstream.IdleTimeoutUpper),
        NotMeasured = upstream.NotMeasured,
        ConnectionLimit = upstream.ConnectionLimit,
        ServerConnections = upstream.ServerConnections,
        Advice = upstream.Advice,
        Server = upstream.Server is { } server ? ServerDocument.From(server, upstream) : null,
    };

    private static double? Seconds(TimeSpan? value) => value is { } known ? StatusDocument.Seconds(known) : null;
}

/// <summary>The server in <see cref="UpstreamView"/>.</summary>
internal sealed record ServerDocument
{
    public required string Role { get; init; }
    public required bool? RoleAsDeclared { get; init; }
    public required double? ReplicationLagSeconds { get; init; }
    public required int Standbys { get; init; }
    public required int? Connections { get; init; }
    public required int? ConnectionsLimit { get; init; }
    public required double? OldestTransactionSeconds { get; init; }

    public static ServerDocument From(ServerStatus server, UpstreamStatus upstream) => new()
    {
        Role = server.Role,
        RoleAsDeclared = server.IsRoleAsDeclared,
        ReplicationLagSeconds = server.ReplicationLag is { } lag ? StatusDocument.Seconds(lag) : null,
        Standbys = server.Standbys,
        Connections = upstream.ServerConnections,
        ConnectionsLimit = upstream.ConnectionLimit,
        OldestTransactionSeconds = server.OldestTransaction is { } oldest ? StatusDocument.Seconds(oldest) : null,
    };
}

/// <summary>One connection in <see cref="StatusDocument"/>.</summary>
internal sealed record ConnectionView
{
    public required string Local { get; init; }
    public required string Peer { get; init; }
    public required int? Pid { get; init; }
    public required string? Executable { get; init; }
    public required string? Unit { get; init; }
    public required string Upstream { get; init; }
    public required string Namespace { get; init; }
    public required double IdleSeconds { get; init; }
    public required string Verdict { get; init; }
    public required string Why { get; init; }
    public required double? StuckSeconds { get; init; }

    /// <summary>Whether a keepalive timer runs; null where unknown.</summary>
    public required bool? Keepalive { get; init; }

    /// <summary>A string, because 64 bits do not survive programs that read numbers as doubles.</summary>
    public required string Cookie { get; init; }

    /// <summary>The server's side, where it is known for certain; else null.</summary>
    public SessionView? Session { get; init; }

    public static ConnectionView From(ConnectionStatus connection) => new()
    {
        Local = EndpointSyntax.Format(connection.Local),
        Peer = EndpointSyntax.Format(connection.Peer),
        Pid = connection.Pid,
        Executable = connection.Executable,
        Unit = connection.Unit,
        Upstream = connection.Upstream,
        Namespace = connection.Namespace,
        IdleSeconds = StatusDocument.Seconds(connection.Idle),
        Verdict = connection.Verdict.ToName(),
        Why = connection.Why,
        StuckSeconds = connection.StuckFor is { } stuck ? StatusDocument.Seconds(stuck) : null,
        Keepalive = connection.KeepaliveArmed,
        Cookie = connection.Cookie.ToString(System.Globalization.CultureInfo.InvariantCulture),
        Session = connection.Session is { } session ? SessionView.From(session) : null,
    };
}

/// <summary>The server's side of a connection in <see cref="ConnectionView"/>.</summary>
internal sealed record SessionView
{
    /// <summary>As pg_stat_activity names it: <c>active</c>, <c>idle</c>, <c>idle in transaction</c> …</summary>
    public required string State { get; init; }

    /// <summary>Age of the query in progress; null while none runs.</summary>
    public required double? QuerySeconds { get; init; }

    /// <summary>Age of the transaction in progress; null outside one.</summary>
    public required double? TransactionSeconds { get; init; }
    public required int BackendPid { get; init; }

    public static SessionView From(SessionStatus session) => new()
    {
        State = session.State,
        QuerySeconds = session.Query is { } query ? StatusDocument.Seconds(query) : null,
        TransactionSeconds = session.Transaction is { } transaction ? StatusDocument.Seconds(transaction) : null,
        BackendPid = session.BackendPid,
    };
}

/// <summary>Answer to <c>ping</c>.</summary>
internal sealed record PingDocument(string Version, int Pid);

/// <summary>Answer to anything that cannot be answered.</summary>
internal sealed record ErrorDocument(string Error);

/// <summary>
/// JSON of the control socket, without reflection. Metadata mode: only its converters write a long sequence in pieces.
/// </summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower, GenerationMode = JsonSourceGenerationMode.Metadata)]
[JsonSerializable(typeof(StatusDocument))]
[JsonSerializable(typeof(StackDocument))]
[JsonSerializable(typeof(PingDocument))]
[JsonSerializable(typeof(ErrorDocument))]
[JsonSerializable(typeof(IReadOnlyList<Incident>))]
internal sealed partial class ControlJson : JsonSerializerContext
{
    private static ControlJson? _indented;

    /// <summary>The same, laid out for reading.</summary>
    public static ControlJson Indented => _indented ??= new ControlJson(new JsonSerializerOptions(Default.Options) { WriteIndented = true });
}
