using Sidecar.Probes.Values;

namespace Sidecar.Probes.Listeners;

/// <summary>
/// One listening socket and its accept queue. The limit is the one that holds: listen(2) cuts the application's backlog by
/// net.core.somaxconn. The kernel lets one connection more than that into the queue.
/// </summary>
public sealed record ListeningSocket
{
    /// <summary>Address and port; null for a Unix socket.</summary>
    public required TcpEndPoint? Local { get; init; }

    /// <summary>Path of a Unix socket, <c>@name</c> for an abstract one; for TCP the address and port as text.</summary>
    public required string Name { get; init; }

    public required uint Inode { get; init; }

    /// <summary>Connections that wait to be accepted.</summary>
    public required uint Waiting { get; init; }

    /// <summary>Most that may wait, as cut by net.core.somaxconn when the socket began to listen.</summary>
    public required uint Limit { get; init; }

    /// <summary>
    /// Connections dropped because the queue was full, since the socket was made. TCP only: a Unix socket drops none, its
    /// clients wait in connect(2) or get EAGAIN.
    /// </summary>
    public required uint Drops { get; init; }
}

/// <summary>A connection of a server: the end that was accepted, or waits to be.</summary>
public readonly record struct ServedConnection
{
    /// <summary>The server's end; null for a Unix socket.</summary>
    public required TcpEndPoint? Local { get; init; }

    /// <summary>Name of the Unix socket that was connected to; null for TCP.</summary>
    public required string? Name { get; init; }

    public required SocketCookie Cookie { get; init; }

    /// <summary>False while it waits in the accept queue: no process holds it yet.</summary>
    public required bool IsAccepted { get; init; }

    /// <summary>The client has closed its end (CLOSE_WAIT; for a Unix socket its shutdown flag).</summary>
    public required bool PeerIsGone { get; init; }
}
