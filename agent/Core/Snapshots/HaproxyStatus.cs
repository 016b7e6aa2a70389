namespace Sidecar.Agent.Core.Snapshots;

/// <summary>One HAProxy of a [haproxy:…] section as an operator sees it.</summary>
public sealed record HaproxyStatus
{
    /// <summary>Name of the section.</summary>
    public required string Name { get; init; }

    /// <summary>Its version; null where the last scan failed.</summary>
    public required string? Version { get; init; }

    /// <summary>Why the last scan failed, or null.</summary>
    public required string? Problem { get; init; }

    /// <summary>Connections of the whole process, and its maxconn.</summary>
    public required long Sessions { get; init; }
    public required long SessionLimit { get; init; }

    /// <summary>Its backends, in the order of its configuration.</summary>
    public required IReadOnlyList<BackendStatus> Backends { get; init; }
}

/// <summary>One backend of an HAProxy.</summary>
public sealed record BackendStatus
{
    public required string Name { get; init; }

    /// <summary>Servers in use, down, and neither (maintenance, draining).</summary>
    public required int ServersUp { get; init; }
    public required int ServersDown { get; init; }
    public required int ServersOther { get; init; }

    /// <summary>Names of the servers that are down.</summary>
    public required IReadOnlyList<string> Down { get; init; }

    /// <summary>Requests that wait for a slot, of the backend and of its servers.</summary>
    public required long Queue { get; init; }

    /// <summary>Requests at its servers.</summary>
    public required long Sessions { get; init; }

    /// <summary>Sum of maxconn of its servers in use; null where one has none.</summary>
    public required long? SessionLimit { get; init; }

    /// <summary>Times that a server went down, since the agent's start.</summary>
    public required long Downs { get; init; }

    /// <summary>
    /// Requests that HAProxy answered with 5xx itself (503: no server, or none in time; 504: no answer), since the agent's
    /// start; where HTTP is not spoken, connections that no server took.
    /// </summary>
    public required long OwnErrors { get; init; }
}

/// <summary>One [check:…] section as an operator sees it.</summary>
public sealed record CheckStatus
{
    public required string Name { get; init; }

    /// <summary>What each side said; null where it said nothing.</summary>
    public required string? Expected { get; init; }
    public required string? Actual { get; init; }

    /// <summary>Why there is no result, or null.</summary>
    public required string? Problem { get; init; }

    /// <summary>Whether both say the same; null where one is not known.</summary>
    public bool? IsMatch => Expected is null || Actual is null ? null : string.Equals(Expected, Actual, StringComparison.Ordinal);
}
