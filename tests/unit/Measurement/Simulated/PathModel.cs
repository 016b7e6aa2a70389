namespace Sidecar.UnitTests.Measurement.Simulated;

/// <summary>What a router, or a server, does to a connection whose time is over.</summary>
internal enum Ending
{
    /// <summary>Drops what comes.</summary>
    Silent,

    /// <summary>A router answers what the client sends by RST; a server sends RST.</summary>
    Reset,

    /// <summary>A server closes.</summary>
    Fin,

    /// <summary>A server says so, and closes.</summary>
    Announced,
}

/// <summary>What a server does to a connection beyond its limit.</summary>
internal enum Refusal
{
    Reset,
    Silence,
    AcceptAndClose,
}

/// <summary>Whose packets a router counts.</summary>
internal enum Counted
{
    Both,
    Client,
    Server,
}

/// <summary>Something on the way that keeps a state per connection.</summary>
/// <param name="Shortest">Shortest time for which it remembers, seconds.</param>
/// <param name="Longest">Longest time; each idle period has its own, evenly distributed.</param>
internal sealed record Router(double Shortest, double Longest, Ending Ending = Ending.Silent, bool DataOnly = false, Counted Counted = Counted.Both);

/// <summary>A path and the server at its end.</summary>
internal sealed record PathModel
{
    public required int Seed { get; init; }

    public IReadOnlyList<Router> Routers { get; init; } = [];

    /// <summary>A proxy acknowledges by itself; this lies behind it, and sees data only. Null: no proxy.</summary>
    public Router? BehindProxy { get; init; }

    public bool HasProxy { get; init; }

    /// <summary>Share of the packets that get lost, each way.</summary>
    public double Loss { get; init; }

    public double RoundTripSeconds { get; init; } = 0.001;

    /// <summary>Moments, in seconds from the start, at which all routers forget everything.</summary>
    public IReadOnlyList<double> Flushes { get; init; } = [];

    /// <summary>Nothing passes from the first second to the second one.</summary>
    public (double From, double To)? Outage { get; init; }

    /// <summary>The server ends sessions after so many seconds without data.</summary>
    public double? ServerLimit { get; init; }

    public Ending ServerEnding { get; init; } = Ending.Fin;

    /// <summary>The server's own keepalives, seconds.</summary>
    public double? ServerKeepalive { get; init; }

    /// <summary>Connections that the server takes.</summary>
    public int? Places { get; init; }

    public Refusal Refusal { get; init; }

    /// <summary>Places that the application holds all the time; one more it takes now and then.</summary>
    public int ApplicationPlaces { get; init; }

    /// <summary>The ladder may send data that the server answers.</summary>
    public bool HasPayload { get; init; }

    /// <summary>Sessions of PostgreSQL: the server announces its endings.</summary>
    public bool IsPostgreSql { get; init; }

    /// <summary>The ladder runs unasked.</summary>
    public bool IsGuest { get; init; }

    /// <summary>Longest gap to try, seconds.</summary>
    public double Max { get; init; } = 7800;

    /// <summary>No packet is lost, and nothing is forgotten before its time.</summary>
    public bool IsSteady => this is { Loss: 0, Flushes.Count: 0, Outage: null };

    /// <summary>All that end idle connections of the ladder's, in no order.</summary>
    public IReadOnlyList<(double Shortest, double Longest, Ending Ending, bool IsServer, bool DataOnly)> Ends()
    {
        var all = Routers.Select(r => (r.Shortest, r.Longest, r.Ending, IsServer: false, r.DataOnly)).ToList();
        if (HasPayload && BehindProxy is { } behind)
        {
            all.Add((behind.Shortest, behind.Longest, behind.Ending, false, true));
        }

        // Behind a proxy nothing is heard of a server whose connection has been forgotten before.
        if (ServerLimit is { } limit && !(BehindProxy?.Shortest < limit))
        {
            all.Add((limit, limit, ServerEnding, true, true));
        }

        return all;
    }
}
