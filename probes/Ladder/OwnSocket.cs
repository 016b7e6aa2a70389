using System.Buffers.Binary;
using System.Globalization;
using System.Net;
using Sidecar.Probes.Interop;
using Sidecar.Probes.Values;

namespace Sidecar.Probes.Ladder;

/// <summary>What the kernel says about one of our own sockets.</summary>
/// <param name="State">TCP state as in net/tcp_states.h.</param>
/// <param name="RoundTrip">Smoothed round-trip time.</param>
/// <param name="BytesReceived">Payload received so far.</param>
/// <param name="SegmentsIn">Segments received so far, pure acknowledgements included.</param>
/// <param name="SegmentsOut">Segments sent so far, keepalive probes included.</param>
/// <param name="Unacknowledged">Segments in flight.</param>
/// <param name="SinceHeard">
/// Time since data or an acknowledgement came in, by the kernel's clock: nothing of the last exchange is older, and only
/// what this side sent in answer can be younger.
/// </param>
public readonly record struct OwnSocketInfo(
    byte State,
    TimeSpan RoundTrip,
    ulong BytesReceived,
    uint SegmentsIn,
    uint SegmentsOut,
    uint Unacknowledged,
    TimeSpan SinceHeard)
{
    /// <summary>TCP_ESTABLISHED.</summary>
    public const byte Established = 1;

    /// <summary>TCP_CLOSE: reset, or given up.</summary>
    public const byte Closed = 7;
}

/// <summary>The socket under a ladder connection: <see cref="OwnSocket"/>, or a simulated one in tests. What each member does is said there.</summary>
public interface ILadderSocket
{
    SocketCookie Cookie { get; }

    int LocalPort { get; }

    bool TryReadInfo(out OwnSocketInfo info);

    void FireKeepalive();

    void StopKeepalive();

    void KeepAliveEvery(TimeSpan interval);

    int TakeError();

    void AbortOnClose();

    void Shutdown();
}

/// <summary>
/// A view of a TCP socket of this process by its descriptor, for what the owning library does not offer. It owns
/// nothing and closes nothing. The descriptor may be closed and given out anew behind its back, so the socket's
/// cookie is compared before each use; a socket that has gone reads as gone.
/// </summary>
public sealed class OwnSocket : ILadderSocket
{
    private readonly KernelHandle _descriptor;

    private OwnSocket(KernelHandle descriptor, SocketCookie cookie)
    {
        _descriptor = descriptor;
        Cookie = cookie;
    }

    public SocketCookie Cookie { get; }

    /// <summary>The socket behind a descriptor, or null when there is none.</summary>
    public static OwnSocket? FromDescriptor(int descriptor) =>
        KernelHandle.Borrow(descriptor) is var borrowed && TryGetCookie(borrowed, out var cookie) ? new OwnSocket(borrowed, cookie) : null;

    /// <summary>All TCP sockets of this process that are connected to <paramref name="peer"/>.</summary>
    public static IReadOnlyList<OwnSocket> ConnectedTo(IPEndPoint peer)
    {
        var wanted = TcpEndPoint.From(peer.Address, peer.Port);
        var found = new List<OwnSocket>();
        foreach (var entry in Directory.EnumerateFileSystemEntries("/proc/self/fd"))
        {
            if (int.TryParse(Path.GetFileName(entry), NumberStyles.None, CultureInfo.InvariantCulture, out var descriptor)
                && TryGetPeer(KernelHandle.Borrow(descriptor), out var connected)
                && connected == wanted
                && FromDescriptor(descriptor) is { } socket)
            {
                found.Add(socket);
            }
        }

        return found;
    }

    /// <summary>Reads TCP_INFO; false when the socket has been closed.</summary>
    public bool TryReadInfo(out OwnSocketInfo info)
    {
        info = default;
        Span<byte> buffer = stackalloc byte[280];
        if (!IsCurrent())
        {
            return false;
        }

        var length = Libc.GetOption(_descriptor, Libc.SOL_TCP, Libc.TCP_INFO, buffer);
        if (length < 0)
        {
            return false;
        }

        var read = TcpInfo.Read(buffer[..length]);
        info = new OwnSocketInfo(
            buffer[0],
            TimeSpan.FromMicroseconds(read.RttMicroseconds),
            read.BytesReceived,
            read.SegmentsIn,
            read.SegmentsOut,
            read.Unacked,
            TimeSpan.FromMilliseconds(Math.Min(read.LastDataReceivedMilliseconds, read.LastAckReceivedMilliseconds)));
        return read.HasSegments;
    }

    /// <summary>
    /// Sends a keepalive probe now (the timer fires at once when TCP_KEEPIDLE is below the elapsed idle time), and
    /// another each second until <see cref="StopKeepalive"/>. Needs an idle time of more than a second.
    /// </summary>
    public void FireKeepalive()
    {
        Set(Libc.SOL_TCP, Libc.TCP_KEEPINTVL, 1);
        Set(Libc.SOL_TCP, Libc.TCP_KEEPCNT, 100);
        Set(Libc.SOL_SOCKET, Libc.SO_KEEPALIVE, 1);
        Set(Libc.SOL_TCP, Libc.TCP_KEEPIDLE, 1);
    }

    public void StopKeepalive() => Set(Libc.SOL_SOCKET, Libc.SO_KEEPALIVE, 0);

    /// <summary>Lets the kernel send a keepalive after each <paramref name="interval"/> (whole seconds, at least one) without traffic.</summary>
    public void KeepAliveEvery(TimeSpan interval)
    {
        var seconds = Math.Clamp((int)interval.TotalSeconds, 1, 32767);
        Set(Libc.SOL_TCP, Libc.TCP_KEEPINTVL, seconds);
        Set(Libc.SOL_TCP, Libc.TCP_KEEPCNT, 20);
        Set(Libc.SOL_TCP, Libc.TCP_KEEPIDLE, seconds);
        Set(Libc.SOL_SOCKET, Libc.SO_KEEPALIVE, 1);
    }

    /// <summary>The local port; 0 when the socket has been closed.</summary>
    public int LocalPort
    {
        get
        {
            Span<byte> address = stackalloc byte[128];
            return IsCurrent() && Libc.GetSockName(_descriptor, address) >= 4 ? BinaryPrimitives.ReadUInt16BigEndian(address[2..]) : 0;
        }
    }

    /// <summary>How many routers what is sent from now on may pass; null: the system's default again.</summary>
    public void SetHopLimit(int? hops)
    {
        // -1 is "the default" for both; the option of the other family fails, and that is all.
        Set(Libc.IPPROTO_IP, Libc.IP_TTL, hops ?? -1);
        Set(Libc.IPPROTO_IPV6, Libc.IPV6_UNICAST_HOPS, hops ?? -1);
    }

    /// <summary>The socket's pending error (SO_ERROR, an errno), which is cleared by reading it; 0 for none.</summary>
    public int TakeError() =>
        IsCurrent() && Libc.TryGetOption<int>(_descriptor, Libc.SOL_SOCKET, Libc.SO_ERROR, out var value) ? value : 0;

    /// <summary>Makes the coming close discard what is unsent and send RST: a lost connection must not linger as an orphan.</summary>
    public void AbortOnClose()
    {
        if (IsCurrent())
        {
            Libc.TrySetAbortOnClose(_descriptor);
        }
    }

    /// <summary>Ends both directions, so that a call blocked in the owning library returns.</summary>
    public void Shutdown()
    {
        // A failure means that the connection has ended already.
        if (IsCurrent())
        {
            _ = Libc.ShutdownBoth(_descriptor);
        }
    }

    private void Set(int level, int option, int value)
    {
        // A failure means that the socket has just gone; the next reading says so.
        if (IsCurrent())
        {
            Libc.TrySetOption(_descriptor, level, option, value);
        }
    }

    private bool IsCurrent() => TryGetCookie(_descriptor, out var cookie) && cookie == Cookie;

    private static bool TryGetCookie(KernelHandle descriptor, out SocketCookie cookie)
    {
        var found = Libc.TryGetOption<ulong>(descriptor, Libc.SOL_SOCKET, Libc.SO_COOKIE, out var value);
        cookie = new SocketCookie(value);
        return found;
    }

    private static bool TryGetPeer(KernelHandle descriptor, out TcpEndPoint peer)
    {
        // sockaddr_in: family, port, 4 bytes of address; sockaddr_in6: family, port, flow, 16 bytes of address.
        peer = default;
        Span<byte> address = stackalloc byte[128];
        var length = Libc.GetPeerName(descriptor, address);
        if (length < 8)
        {
            return false;
        }

        var family = BinaryPrimitives.ReadUInt16LittleEndian(address);
        var port = BinaryPrimitives.ReadUInt16BigEndian(address[2..]);
        peer = family switch
        {
            Libc.AF_INET => TcpEndPoint.From(new IPAddress(address.Slice(4, 4)), port),
            Libc.AF_INET6 when length >= 28 => TcpEndPoint.From(new IPAddress(address.Slice(8, 16)), port),
            _ => default,
        };
        return peer.Port != 0;
    }
}
