using Sidecar.Agent.Core.Snapshots;

namespace Sidecar.Agent.Endpoints;

/// <summary>The stack around the workers, as <c>/api/v1/stack</c> and <c>status --json</c> have it.</summary>
internal sealed record StackDocument
{
    /// <summary>When the scan ended, UTC.</summary>
    public required DateTimeOffset Time { get; init; }
    public required IReadOnlyList<ListenerView> Listeners { get; init; }
    public required IReadOnlyList<GroupView> Groups { get; init; }

    public required IReadOnlyList<HaproxyView> Haproxies { get; init; }
    public required IReadOnlyList<CheckView> Checks { get; init; }

    public static StackDocument From(AgentSnapshot snapshot) => new()
    {
        Time = snapshot.Time,
        Listeners = [.. snapshot.Listeners.Select(ListenerView.From)],
        Groups = [.. snapshot.Groups.Select(GroupView.From)],
        Haproxies = [.. snapshot.Haproxies.Select(HaproxyView.From)],
        Checks = [.. snapshot.Checks.Select(CheckView.From)],
    };
}

/// <summary>One HAProxy.</summary>
internal sealed record HaproxyView
{
    public required string Name { get; init; }
    public required string? Version { get; init; }
    public required string? Problem { get; init; }
    public required long Sessions { get; init; }
    public required long SessionsLimit { get; init; }
    public required IReadOnlyList<BackendView> Backends { get; init; }

    public static HaproxyView From(HaproxyStatus haproxy) => new()
    {
        Name = haproxy.Name,
        Version = haproxy.Version,
        Problem = haproxy.Problem,
        Sessions = haproxy.Sessions,
        SessionsLimit = haproxy.SessionLimit,
        Backends = [.. haproxy.Backends.Select(BackendView.From)],
    };
}

/// <summary>One backend of it.</summary>
internal sealed record BackendView
{
    public required string Name { get; init; }
    public required int ServersUp { get; init; }
    public required int ServersDown { get; init; }
    public required int ServersOther { get; init; }
    public required IReadOnlyList<string> Down { get; init; }
    public required long Queued { get; init; }
    public required long Sessions { get; init; }
    public required long? SessionsLimit { get; init; }
    public required long ServerDowns { get; init; }
    public required long OwnErrors { get; init; }

    public static BackendView From(BackendStatus backend) => new()
    {
        Name = backend.Name,
        ServersUp = backend.ServersUp,
        ServersDown = backend.ServersDown,
        ServersOther = backend.ServersOther,
        Down = backend.Down,
        Queued = backend.Queue,
        Sessions = backend.Sessions,
        SessionsLimit = backend.SessionLimit,
        ServerDowns = backend.Downs,
        OwnErrors = backend.OwnErrors,
    };
}

/// <summary>One check.</summary>
internal sealed record CheckView(string Name, bool? Ok, string? Expected, string? Actual, string? Problem)
{
    public static CheckView From(CheckStatus check) => new(check.Name, check.IsMatch, check.Expected, check.Actual, check.Problem);
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
