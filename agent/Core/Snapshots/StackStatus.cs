namespace Sidecar.Agent.Core.Snapshots;

/// <summary>One listening address of a [workers:…] group as an operator sees it; where several sockets share it, the fullest.</summary>
public sealed record ListenerStatus
{
    /// <summary>Name of its [workers:…] section.</summary>
    public required string Workers { get; init; }

    /// <summary>Its number in the group, from 0, in the order of the addresses; kept while the agent lives.</summary>
    public required int Index { get; init; }

    /// <summary>Address and port, path of a Unix socket, or <c>@name</c> of an abstract one.</summary>
    public required string Address { get; init; }

    /// <summary>Network namespace: <c>own</c>, or <c>net:[inode]</c>.</summary>
    public required string Namespace { get; init; }

    /// <summary>A process that listens there.</summary>
    public required int Pid { get; init; }

    /// <summary>Connections that wait to be accepted.</summary>
    public required long Waiting { get; init; }

    /// <summary>Most that waited at a scan of the last minute.</summary>
    public required long Peak { get; init; }

    /// <summary>Most that may wait: the application's backlog, cut by net.core.somaxconn.</summary>
    public required long Limit { get; init; }

    /// <summary>Whether the limit is the host's and not the application's: its backlog is as large or larger.</summary>
    public required bool IsCut { get; init; }

    /// <summary>Connections dropped because the queue was full, since it began to listen. TCP only.</summary>
    public required long Drops { get; init; }

    /// <summary>Connections that were accepted and are open, a few seconds old at most; of TCP those that wait as well.</summary>
    public required int Connections { get; init; }
}

/// <summary>All processes of one [workers:…] group as an operator sees them.</summary>
public sealed record GroupStatus
{
    /// <summary>Name of the section.</summary>
    public required string Workers { get; init; }

    /// <summary>Live processes.</summary>
    public required int Processes { get; init; }

    /// <summary>Live children of those, of the group or not.</summary>
    public required int Children { get; init; }

    /// <summary>Children that have ended and that their parent has not waited for.</summary>
    public required int Zombies { get; init; }

    /// <summary>CPU time of all of them per time, over the last seconds; 1 is one core. Null at the first scan.</summary>
    public required double? CpuCores { get; init; }

    /// <summary>
    /// How unevenly those without children of the group share the CPU time: 0 is evenly, 1 is one for all. Null where there
    /// are fewer than two, or next to nothing is computed.
    /// </summary>
    public required double? CpuImbalance { get; init; }

    /// <summary>Cores on which those that computed ran last.</summary>
    public required int BusyCores { get; init; }

    /// <summary>Resident memory of the largest process that has children; null where none has.</summary>
    public required long? ParentResidentBytes { get; init; }

    /// <summary>Slope of that over the last ten minutes, bytes per second; null in the first minute.</summary>
    public required double? ParentResidentGrowth { get; init; }

    /// <summary>Connections whose client left while they waited to be accepted. TCP only.</summary>
    public required int GonePeersWaiting { get; init; }

    /// <summary>Connections whose client left while a worker has them.</summary>
    public required int GonePeersServed { get; init; }

    /// <summary>Longest time since a client of those was first seen gone.</summary>
    public required TimeSpan GonePeerMax { get; init; }

    /// <summary>Connections dropped at full queues since the agent's start.</summary>
    public required long Drops { get; init; }
}
