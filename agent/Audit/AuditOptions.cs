using Sidecar.Agent.Configuration;

namespace Sidecar.Agent.Audit;

/// <summary>What is to be audited.</summary>
internal sealed record AuditOptions
{
    /// <summary>Configurations that are named: program and path. With any of them nothing else is read.</summary>
    public IReadOnlyList<(string Program, string Path)> Files { get; init; } = [];

    /// <summary>Another root directory, whose files alone are read; null: this host.</summary>
    public string? Root { get; init; }

    /// <summary>Names in front of this host.</summary>
    public IReadOnlyList<EndpointPattern> Balancers { get; init; } = [];

    /// <summary>After how long without a byte the balancer closes a connection; null: not known.</summary>
    public TimeSpan? BalancerTimeout { get; init; }

    /// <summary>How long a request may be silent that is to be answered; null: nobody said.</summary>
    public TimeSpan? LongestRequest { get; init; }

    /// <summary>Whether the host's processes, kernel and names are looked at too.</summary>
    public bool IsLive => Files.Count == 0 && Root is null;
}
