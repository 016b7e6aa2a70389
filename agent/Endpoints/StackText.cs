using System.Globalization;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Endpoints;

/// <summary>The stack in words, for <c>status</c> and the page.</summary>
internal static class StackText
{
    /// <summary><c>listens on 127.0.0.1:8000: 3 of 5 wait (5 in the last minute), 12 connections</c></summary>
    public static string Describe(ListenerView listener)
    {
        var text = string.Create(CultureInfo.InvariantCulture, $"listens on {listener.Address}: {listener.Waiting} of {listener.Limit} wait");
        if (listener.Peak > listener.Waiting)
        {
            text += string.Create(CultureInfo.InvariantCulture, $" ({listener.Peak} in the last minute)");
        }

        text += string.Create(CultureInfo.InvariantCulture, $", {Quantity.Of(listener.Connections, "connection")}");
        if (listener.Drops > 0)
        {
            text += string.Create(CultureInfo.InvariantCulture, $", {listener.Drops} dropped");
        }

        if (listener.CutBySomaxconn)
        {
            text += "; the limit is net.core.somaxconn";
        }

        return string.Equals(listener.Namespace, "own", StringComparison.Ordinal) ? text : $"{text}; {listener.Namespace}";
    }

    /// <summary><c>backend www: 1 up, 2 down (web2, web3); 17 queued; 40 of 60 sessions; 503 or other errors of its own 12</c></summary>
    public static string Describe(BackendView backend)
    {
        var text = string.Create(CultureInfo.InvariantCulture, $"backend {backend.Name}: {backend.ServersUp} up");
        if (backend.ServersDown > 0)
        {
            text += string.Create(CultureInfo.InvariantCulture, $", {backend.ServersDown} down ({string.Join(", ", backend.Down.Take(5))}{(backend.ServersDown > 5 ? " …" : "")})");
        }

        text += string.Create(CultureInfo.InvariantCulture, $"; {backend.Queued} queued; {(backend.SessionsLimit is { } limit ? $"{backend.Sessions} of {Quantity.Of(limit, "session")}" : Quantity.Of(backend.Sessions, "session"))}");
        return backend.OwnErrors + backend.ServerDowns == 0
            ? text
            : text + string.Create(CultureInfo.InvariantCulture, $"; went down {Quantity.Of(backend.ServerDowns, "time")}, {Quantity.Of(backend.OwnErrors, "error")} of HAProxy's own since the agent's start");
    }

    /// <summary><c>server: standby, 0.2s behind; 12 of 97 connections; oldest transaction 3s</c></summary>
    public static string Describe(ServerDocument server)
    {
        var text = $"server: {server.Role}{(server.RoleAsDeclared == false ? ", which is not the declared role" : "")}";
        text += server switch
        {
            { Role: "standby", ReplicationLagSeconds: { } lag } => $", {People(lag)} behind",
            { Standbys: > 0 } => string.Create(CultureInfo.InvariantCulture, $", {Quantity.Of(server.Standbys, "standby")}{(server.ReplicationLagSeconds is { } behind ? $", up to {People(behind)} behind" : "")}"),
            _ => "",
        };
        if (server is { Connections: { } connections, ConnectionsLimit: { } limit })
        {
            text += string.Create(CultureInfo.InvariantCulture, $"; {connections} of {Quantity.Of(limit, "connection")}");
        }

        return server.OldestTransactionSeconds is { } oldest ? $"{text}; oldest transaction {People(oldest)}" : text;
    }

    private static string People(double seconds) => Duration.ForPeople(TimeSpan.FromSeconds(Math.Max(0, seconds)));

    /// <summary><c>3.2.1 as expected</c></summary>
    public static string Describe(CheckView check) => check switch
    {
        { Ok: true } => $"{check.Actual} as expected",
        { Ok: false } => $"{check.Actual}, expected {check.Expected}",
        _ => $"not known: {check.Problem}",
    };

    /// <summary><c>5 processes, 4 children, 1 not reaped; 1.2 cores, share of the busiest 0.8 above even</c></summary>
    public static string Describe(GroupView group)
    {
        var parts = new List<string> { string.Create(CultureInfo.InvariantCulture, $"{Quantity.Of(group.Processes, "process", "processes")}, {Quantity.Of(group.Children, "child", "children")}") };
        if (group.Zombies > 0)
        {
            parts.Add(string.Create(CultureInfo.InvariantCulture, $"{Quantity.Of(group.Zombies, "child", "children")} not reaped"));
        }

        if (group.CpuCores is { } cores)
        {
            parts.Add(string.Create(CultureInfo.InvariantCulture, $"{cores:0.##} {(cores == 1 ? "core" : "cores")}")
                + (group.CpuImbalance is { } imbalance ? string.Create(CultureInfo.InvariantCulture, $", imbalance {imbalance:0.##}") : ""));
        }

        if (group.GonePeersServed + group.GonePeersWaiting > 0)
        {
            parts.Add(string.Create(CultureInfo.InvariantCulture, $"{group.GonePeersServed} served and {Quantity.Of(group.GonePeersWaiting, "waiting connection")} without a client, for up to ")
                + Duration.ForPeople(TimeSpan.FromSeconds(group.GonePeerMaxSeconds)));
        }

        return string.Join("; ", parts);
    }
}
