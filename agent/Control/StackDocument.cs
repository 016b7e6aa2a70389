using Sidecar.Agent.Tracking;

namespace Sidecar.Agent.Control;

/// <summary>The stack around the workers, as <c>/api/v1/stack</c> and <c>status --json</c> have it.</summary>
internal sealed record StackDocument
{
    /// <summary>When the look ended, UTC.</summary>
    public required DateTimeOffset Time { get; init; }
    public required IReadOnlyList<ListenerView> Listeners { get; init; }
    public required IReadOnlyList<GroupView> Groups { get; init; }

    public static StackDocument From(AgentSnapshot snapshot) => new()
    {
        Time = snapshot.Time,
        Listeners = [.. snapshot.Listeners.Select(ListenerView.From)],
        Groups = [.. snapshot.Groups.Select(GroupView.From)],
    };
}

/// <summary>One accept queue.</summary>
internal sealed record ListenerView
{
    public required string Workers { get; init; }

    /// <summary>The value of the label <c>listener</c> in the metrics.</summary>
    public required int Listener { get; init; }
    public required string Address { get; init; }
    public required string Namespace { get; init; }
    public required int Pid { get; init; }
    public required long Waiting { get; init; }
    public required long Peak { get; init; }
    public required long Limit { get; init; }
    public required bool CutBySomaxconn { get; init; }
    public required long Drops { get; init; }
    public required int Connections { get; init; }

    public static ListenerView From(ListenerStatus listener) => new()
    {
        Workers = listener.Workers,
        Listener = listener.Index,
        Address = listener.Address,
        Namespace = listener.Namespace,
        Pid = listener.Pid,
        Waiting = listener.Waiting,
        Peak = listener.Peak,
        Limit = listener.Limit,
        CutBySomaxconn = listener.IsCut,
        Drops = listener.Drops,
        Connections = listener.Connections,
    };
}

/// <summary>The processes of one group.</summary>
internal sealed record GroupView
{
    public required string Workers { get; init; }
    public required int Processes { get; init; }
    public required int Children { get; init; }
    public required int Zombies { get; init; }
    public required double? CpuCores { get; init; }
    public required double? CpuImbalance { get; init; }
    public required int BusyCores { get; init; }
    public required long? ParentResidentBytes { get; init; }
    public required int GonePeersWaiting { get; init; }
    public required int GonePeersServed { get; init; }
    public required double GonePeerMaxSeconds { get; init; }

    public static GroupView From(GroupStatus group) => new()
    {
        Workers = group.Workers,
        Processes = group.Processes,
        Children = group.Children,
        Zombies = group.Zombies,
        CpuCores = group.CpuCores is { } cores ? Math.Round(cores, 3) : null,
        CpuImbalance = group.CpuImbalance is { } imbalance ? Math.Round(imbalance, 3) : null,
        BusyCores = group.BusyCores,
        ParentResidentBytes = group.ParentResidentBytes,
        GonePeersWaiting = group.GonePeersWaiting,
        GonePeersServed = group.GonePeersServed,
        GonePeerMaxSeconds = StatusDocument.Seconds(group.GonePeerMax),
    };
}
