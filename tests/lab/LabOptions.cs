namespace Sidecar.Lab;

/// <summary>What the router does with a packet of a connection that it has forgotten.</summary>
public enum RouterBehaviour
{
    /// <summary>It drops the packet and tells nobody.</summary>
    SilentDrop,

    /// <summary>It answers with a RST.</summary>
    Reset,

    /// <summary>It forgets nothing: a plain router.</summary>
    Forward,
}

/// <summary>A link of the router.</summary>
public enum LabLink
{
    /// <summary>To the worker host: its own interface loses the carrier.</summary>
    Worker,

    /// <summary>To the database host: the router answers that there is no route.</summary>
    Database,
}

/// <summary>How a lab is built.</summary>
public sealed record LabOptions
{
    /// <summary>After how long without a packet the router forgets a connection.</summary>
    public TimeSpan IdleTimeout { get; init; } = TimeSpan.FromSeconds(10);

    public RouterBehaviour Router { get; init; } = RouterBehaviour.SilentDrop;

    /// <summary>
    /// The router's idle clock restarts only with data (a segment with PSH), not with keepalives, as that of some balancers
    /// does. IPv4 only, without NAT; the timeout stays as it is.
    /// </summary>
    public bool CountsDataOnly { get; init; }

    /// <summary>Source NAT: the database sees the router's address.</summary>
    public bool Masquerade { get; init; }

    /// <summary>The application talks to the database over IPv6 instead of IPv4.</summary>
    public bool IPv6 { get; init; }

    /// <summary>The workers stand in a namespace of their own that is routed through the worker host.</summary>
    public bool Container { get; init; }

    /// <summary>uWSGI workers; 0: the database alone, for workers that a test brings itself.</summary>
    public int Workers { get; init; } = 4;

    /// <summary>Backlog of the workers' sockets; null: uWSGI's own, 100.</summary>
    public int? Backlog { get; init; }

    /// <summary>TCP keepalive that the application sets on its connections; null: off, as in an untouched stack.</summary>
    public TimeSpan? ApplicationKeepalive { get; init; }

    /// <summary>The application leaves keepalive to its driver: libpq switches it on, with the system's times.</summary>
    public bool DriversKeepalive { get; init; }

    /// <summary>Role of the application on the database: <c>postgres</c>, a superuser, or <c>web</c>, an ordinary one.</summary>
    public string ApplicationRole { get; init; } = "postgres";

    /// <summary>Whether the database and the workers are started; without them only the network stands.</summary>
    public bool Servers { get; init; } = true;
}
