using Sidecar.Agent.Audit.Model;
using Sidecar.Agent.Audit.Reading;
using Sidecar.Probes.Processes;

namespace Sidecar.Agent.Audit;

/// <summary>What is to be audited, and what the agent knows that findings need.</summary>
internal sealed record AuditOptions
{
    /// <summary>Configurations that are named: program and path. With any of them nothing else is read.</summary>
    public IReadOnlyList<(string Program, string Path)> Files { get; init; } = [];

    /// <summary>Another root directory, whose files alone are read; null: this host.</summary>
    public string? Root { get; init; }

    /// <summary>Names or addresses in front of this host.</summary>
    public IReadOnlyList<NameToCheck> Balancers { get; init; } = [];

    /// <summary>The first of them as the user wrote it; empty: there is none.</summary>
    public string BalancerName { get; init; } = "";

    /// <summary>After how long without a byte the balancer closes a connection; null: not known.</summary>
    public TimeSpan? BalancerTimeout { get; init; }

    /// <summary>How long a request may be silent that is to be answered; null: nobody said.</summary>
    public TimeSpan? LongestRequest { get; init; }

    /// <summary>Whether the host's processes, kernel and names are looked at too.</summary>
    public bool IsLive => Files.Count == 0 && Root is null;

    /// <summary>Whether programs in network namespaces other than the auditor's own are audited too.</summary>
    public bool AllNetworkNamespaces { get; init; }

    /// <summary>Whether a process is one of the workers that the agent's configuration names.</summary>
    public Func<ProcessReader, ProcessStat, bool> IsWorker { get; init; } = (_, _) => false;

    /// <summary>Names of the agent's own configuration, to be tried like the balancers'.</summary>
    public IReadOnlyList<NameToCheck> Names { get; init; } = [];

    /// <summary>Reads the agent's upstreams; asked once, and for this host alone.</summary>
    public Func<UpstreamFacts> ReadUpstreams { get; init; } = () => new UpstreamFacts();
}

/// <summary>A name whose addresses are to be tried.</summary>
/// <param name="Host">Name or address.</param>
/// <param name="Port">TCP port.</param>
/// <param name="Source">Where the name comes from.</param>
internal readonly record struct NameToCheck(string Host, int Port, string Source);

/// <summary>What the agent knows of its upstreams.</summary>
internal sealed record UpstreamFacts
{
    public IReadOnlyList<WatchedUpstream> Upstreams { get; init; } = [];

    /// <summary>A last hop for each upstream whose server could be asked.</summary>
    public IReadOnlyList<Hop> Databases { get; init; } = [];

    public IReadOnlyList<Note> Notes { get; init; } = [];
}
