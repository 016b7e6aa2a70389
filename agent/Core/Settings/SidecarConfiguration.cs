using System.Net;

namespace Sidecar.Agent.Core.Settings;

/// <summary>Whether remedies are carried out (<c>protect</c>) or only recorded as withheld (<c>observe</c>).</summary>
public enum AgentMode
{
    Observe,
    Protect,
}

/// <summary>What is spoken on an upstream's connections: what a connect probe asks, to prove the server and not a proxy.</summary>
public enum UpstreamProtocol
{
    /// <summary>Not known: a handshake proves no more than that something accepts.</summary>
    Tcp,

    /// <summary>An SSLRequest; with a DSN its sessions are seen as well.</summary>
    PostgreSql,

    /// <summary>The server's greeting.</summary>
    MySql,

    /// <summary>PING.</summary>
    Redis,

    /// <summary>OPTIONS.</summary>
    Http,

    /// <summary>A ClientHello.</summary>
    Tls,
}

/// <summary>Which end of the watched connections this host is.</summary>
public enum UpstreamDirection
{
    /// <summary>This host's processes connect to the endpoint (workers in front of a database).</summary>
    Outbound,

    /// <summary>The endpoint is a server on this host; its accepted sockets are watched (the database host).</summary>
    Inbound,
}

/// <summary>How an upstream's idle timeout is known.</summary>
public enum IdleTimeoutSource
{
    /// <summary>By measurement (<c>measure</c>).</summary>
    Measure,

    /// <summary>From the configuration (a duration).</summary>
    Declared,

    /// <summary>The path forgets nothing (<c>none</c>).</summary>
    None,
}

/// <summary>What restarts a path's idle clock.</summary>
public enum IdleClock
{
    /// <summary>Any segment, a keepalive too: routers, firewalls, NAT, most balancers.</summary>
    Segments,

    /// <summary>Only segments with data: proxies and balancers that end the connection and make another.</summary>
    Data,
}

/// <summary>The <c>idle-timeout</c> key: <c>measure</c>, <c>none</c> or a duration.</summary>
/// <param name="Source">Which of the three was written.</param>
/// <param name="Value">The declared duration; zero unless <paramref name="Source"/> is <see cref="IdleTimeoutSource.Declared"/>.</param>
public readonly record struct IdleTimeoutSetting(IdleTimeoutSource Source, TimeSpan Value);

/// <summary>
/// One entry of an <c>endpoint</c> list: an address, a CIDR or a host name, with a port.
/// </summary>
/// <param name="Text">As written in the file.</param>
/// <param name="Host">The host name to resolve, or null where <paramref name="Network"/> is given.</param>
/// <param name="Network">Address and prefix length, or null where <paramref name="Host"/> is given.</param>
/// <param name="Port">TCP port, 1 to 65535.</param>
public sealed record EndpointPattern(string Text, string? Host, IPNetwork? Network, int Port);

/// <summary>The <c>[agent]</c> section.</summary>
public sealed record AgentSection
{
    public AgentMode Mode { get; init; } = AgentMode.Protect;

    /// <summary>Address of the metrics and status endpoint; null when switched off (<c>listen = none</c>).</summary>
    public IPEndPoint? Listen { get; init; } = new(IPAddress.Loopback, 10042);

    /// <summary>Names by which the endpoint may be asked, beside those that the host knows of itself.</summary>
    public IReadOnlyList<string> HostNames { get; init; } = [];

    public string StateDirectory { get; init; } = "/var/lib/conn-sidecar";

    /// <summary>Where the control socket (<c>control.sock</c>, mode 0660) lives.</summary>
    public string RuntimeDirectory { get; init; } = "/run/conn-sidecar";

    /// <summary>Time between two full scans of the kernel's socket table.</summary>
    public TimeSpan ScanInterval { get; init; } = TimeSpan.FromSeconds(1);

    /// <summary>Whether other network namespaces (containers) are looked at too (<c>network-namespaces = all | own</c>).</summary>
    public bool AllNetworkNamespaces { get; init; } = true;

    /// <summary>Where metrics are pushed to over OTLP/HTTP, with the path of the request; null: nowhere.</summary>
    public Uri? OtlpEndpoint { get; init; }
}

/// <summary>An <c>[upstream:NAME]</c> section.</summary>
public sealed record UpstreamSection
{
    public required string Name { get; init; }

    /// <summary>Endpoints as declared; never empty.</summary>
    public required IReadOnlyList<EndpointPattern> Endpoints { get; init; }

    public UpstreamProtocol Protocol { get; init; } = UpstreamProtocol.Tcp;

    public UpstreamDirection Direction { get; init; } = UpstreamDirection.Outbound;

    public IdleTimeoutSetting IdleTimeout { get; init; } = new(IdleTimeoutSource.Measure, TimeSpan.Zero);

    /// <summary>What restarts the path's idle clock, as declared; a measurement may find out more.</summary>
    public IdleClock RefreshedBy { get; init; } = IdleClock.Segments;

    public bool Keepalive { get; init; } = true;

    public bool Recycle { get; init; } = true;

    /// <summary>
    /// KEEPCNT × KEEPINTVL ends no connection sooner than this; null (<c>kernel</c>): than the kernel would without the agent.
    /// </summary>
    public TimeSpan? DeadAfter { get; init; }

    /// <summary>File (mode 0600) with an Npgsql or libpq connection string, or null.</summary>
    public string? DsnFile { get; init; }

    /// <summary>The role that the server has to have for <c>/check/db</c> (<c>primary</c> or <c>standby</c>); null: any.</summary>
    public string? ServerRole { get; init; }

    /// <summary>
    /// True for the built-in upstream of an agent without configuration: its endpoints match every non-loopback
    /// address, where an explicitly declared endpoint may name loopback.
    /// </summary>
    public bool IsBuiltIn { get; init; }
}

/// <summary>How many terminations are allowed in which time (<c>budget = 3/h</c>).</summary>
/// <param name="Count">Terminations.</param>
/// <param name="Period">In this sliding period.</param>
public readonly record struct TerminationBudget(int Count, TimeSpan Period);

/// <summary>A <c>[workers:NAME]</c> section: which processes belong to the group. Criteria that are given must all hold.</summary>
public sealed record WorkersSection
{
    public required string Name { get; init; }

    /// <summary>systemd unit (last element of the process's cgroup path that ends in .service or .scope).</summary>
    public string? Unit { get; init; }

    /// <summary>User name or numeric uid the process runs as.</summary>
    public string? User { get; init; }

    /// <summary>Absolute path of the executable (/proc/PID/exe), or its file name.</summary>
    public string? Executable { get; init; }

    public bool Terminate { get; init; }

    /// <summary>Time between SIGTERM and SIGKILL.</summary>
    public TimeSpan Grace { get; init; } = TimeSpan.FromSeconds(5);

    public TerminationBudget Budget { get; init; } = new(3, TimeSpan.FromHours(1));
}

/// <summary>A <c>[haproxy:NAME]</c> section: an HAProxy of this host that is looked at.</summary>
/// <param name="Name">Name of the section.</param>
/// <param name="Socket">Path of its stats socket.</param>
public sealed record HaproxySection(string Name, string Socket);

/// <summary>One side of a check: a command or a query.</summary>
/// <param name="Command">Absolute path and arguments, or null.</param>
/// <param name="Query">SQL, or null.</param>
public sealed record CheckSide(IReadOnlyList<string>? Command, string? Query);

/// <summary>A <c>[check:NAME]</c> section: two texts, such as versions, that have to be the same.</summary>
public sealed record CheckSection
{
    public required string Name { get; init; }

    public required CheckSide Expected { get; init; }

    public required CheckSide Actual { get; init; }

    /// <summary>The upstream whose dsn-file queries use, or null where there is no query.</summary>
    public string? Upstream { get; init; }

    /// <summary>User that commands run as; null: the agent's own, and nobody where that is root.</summary>
    public string? User { get; init; }

    public TimeSpan Interval { get; init; } = TimeSpan.FromMinutes(1);

    /// <summary>How long a command may take.</summary>
    public TimeSpan Timeout { get; init; } = TimeSpan.FromSeconds(5);
}

/// <summary>Everything the agent was told. Immutable; a reload makes a new one.</summary>
public sealed record SidecarConfiguration
{
    public required AgentSection Agent { get; init; }

    public required IReadOnlyList<UpstreamSection> Upstreams { get; init; }

    public required IReadOnlyList<WorkersSection> Workers { get; init; }

    public IReadOnlyList<HaproxySection> Haproxies { get; init; } = [];

    public IReadOnlyList<CheckSection> Checks { get; init; } = [];

    /// <summary>The files that were read, in order; empty where the built-in configuration is in force.</summary>
    public required IReadOnlyList<string> Files { get; init; }

    /// <summary>What is allowed but probably not meant, one line each with file and line; empty where there is nothing to say.</summary>
    public IReadOnlyList<string> Warnings { get; init; } = [];
}
