using System.Collections.Concurrent;
using Sidecar.Probes.Values;

namespace Sidecar.Probes.Sockets;

/// <summary>
/// The sockets of this process that measure or try a path, by their cookies. Whoever watches the kernel's table must
/// leave these alone: they are no worker's, and a keepalive armed on one would spoil what it measures.
/// </summary>
public static class OwnSockets
{
    /// <summary>A dump that was taken before one was closed may be read after: so many that were closed are still known.</summary>
    private const int MostClosed = 1024;

    private static readonly ConcurrentDictionary<SocketCookie, bool> All = new();
    private static readonly ConcurrentQueue<SocketCookie> Closed = new();

    /// <summary>A socket of our own, before it connects; a cookie is never used twice until the host boots again.</summary>
    public static void Add(SocketCookie cookie) => All[cookie] = true;

    /// <summary>It has been closed.</summary>
    public static void Remove(SocketCookie cookie)
    {
        Closed.Enqueue(cookie);
        while (Closed.Count > MostClosed && Closed.TryDequeue(out var oldest))
        {
            All.TryRemove(oldest, out _);
        }
    }

    /// <summary>Whether a socket in the kernel's table is one of them.</summary>
    public static bool Contains(SocketCookie cookie) => All.ContainsKey(cookie);
}
