using System.Buffers.Binary;
using System.Globalization;
using System.Net;
using System.Runtime.InteropServices;

namespace Sidecar.Probes.Ladder;

/// <summary>What the kernel says about one of our own sockets (<c>struct tcp_info</c>, linux/tcp.h).</summary>
/// <param name="State">TCP state as in net/tcp_states.h: 1 established, 7 closed, 8 close-wait.</param>
/// <param name="SinceLastAck">Time since anything was acknowledged to us; restarts on the answer to a keepalive.</param>
/// <param name="RoundTrip">Smoothed round-trip time.</param>
/// <param name="BytesReceived">Payload received so far.</param>
/// <param name="SegmentsIn">Segments received so far, pure acknowledgements included.</param>
/// <param name="SegmentsOut">Segments sent so far.</param>
/// <param name="Unacknowledged">Segments in flight.</param>
public readonly record struct OwnSocketInfo(
    byte State,
    TimeSpan SinceLastAck,
    TimeSpan RoundTrip,
    ulong BytesReceived,
    uint SegmentsIn,
    uint SegmentsOut,
    uint Unacknowledged)
{
    public const byte Established = 1;
    public const byte Closed = 7;
    public const byte CloseWait = 8;

    // tcpi_segs_in ends here; every kernel since 4.2 reports at least this much.
    internal const int NeededLength = 144;

    internal static OwnSocketInfo Parse(ReadOnlySpan<byte> info) => new(
        info[0],
        TimeSpan.FromMilliseconds(U32(info, 56)),
        TimeSpan.FromMicroseconds(U32(info, 68)),
        BinaryPrimitives.ReadUInt64LittleEndian(info[128..]),
        U32(info, 140),
        U32(info, 136),
        U32(info, 24));

    private static uint U32(ReadOnlySpan<byte> info, int offset) => BinaryPrimitives.ReadUInt32LittleEndian(info[offset..]);
}

/// <summary>
/// A view of a TCP socket of this process by its descriptor, for what the owning library does not offer. It owns
/// nothing and closes nothing. The descriptor may be closed and given out anew behind its back, so the socket's
/// cookie is compared before each use; a socket that has gone reads as gone.
/// </summary>
public sealed partial class OwnSocket
{
    private const int SolSocket = 1;
    private const int SoError = 4;
    private const int SoKeepAlive = 9;
    private const int SoLinger = 13;
    private const int SoCookie = 57;
    private const int IpProtoTcp = 6;
    private const int TcpKeepIdle = 4;
    private const int TcpKeepInterval = 5;
    private const int TcpKeepCount = 6;
    private const int TcpInfo = 11;
    private const int ShutdownBoth = 2;

    private readonly int _descriptor;

    private OwnSocket(int descriptor, ulong cookie)
    {
        _descriptor = descriptor;
        Cookie = cookie;
    }

    /// <summary>The kernel's cookie of the socket.</summary>
    public ulong Cookie { get; }

    /// <summary>The socket behind a descriptor, or null when there is none.</summary>
    public static OwnSocket? FromDescriptor(int descriptor) =>
        TryGetCookie(descriptor, out var cookie) ? new OwnSocket(descriptor, cookie) : null;

    /// <summary>All TCP sockets of this process that are connected to <paramref name="peer"/>.</summary>
    public static IReadOnlyList<OwnSocket> ConnectedTo(IPEndPoint peer)
    {
        var found = new List<OwnSocket>();
        foreach (var entry in Directory.EnumerateFileSystemEntries("/proc/self/fd"))
        {
            if (int.TryParse(Path.GetFileName(entry), NumberStyles.None, CultureInfo.InvariantCulture, out var descriptor)
                && TryGetPeer(descriptor, out var connected)
                && connected.Equals(peer)
                && FromDescriptor(descriptor) is { } socket)
            {
                found.Add(socket);
            }
        }

        return found;
    }

    /// <summary>Reads TCP_INFO; false when the socket has been closed.</summary>
    public unsafe bool TryReadInfo(out OwnSocketInfo info)
    {
        info = default;
        if (!IsCurrent())
            return false;

        Span<byte> buffer = stackalloc byte[280];
        var length = buffer.Length;
        fixed (byte* pointer = buffer)
        {
            if (GetSockOpt(_descriptor, IpProtoTcp, TcpInfo, pointer, ref length) != 0 || length < OwnSocketInfo.NeededLength)
                return false;
        }

        info = OwnSocketInfo.Parse(buffer[..length]);
        return true;
    }

    /// <summary>
    /// Sends a keepalive probe now (tcp_keepalive_timer fires at once when TCP_KEEPIDLE is below the elapsed idle
    /// time), and another each second until <see cref="StopKeepalive"/>. Needs an idle time of more than a second.
    /// </summary>
    public void FireKeepalive()
    {
        Set(IpProtoTcp, TcpKeepInterval, 1);
        Set(IpProtoTcp, TcpKeepCount, 20);
        Set(SolSocket, SoKeepAlive, 1);
        Set(IpProtoTcp, TcpKeepIdle, 1);
    }

    public void StopKeepalive() => Set(SolSocket, SoKeepAlive, 0);

    /// <summary>Lets the kernel send a keepalive after each <paramref name="interval"/> (whole seconds, at least one) without traffic.</summary>
    public void KeepAliveEvery(TimeSpan interval)
    {
        var seconds = Math.Clamp((int)interval.TotalSeconds, 1, 32767);
        Set(IpProtoTcp, TcpKeepInterval, seconds);
        Set(IpProtoTcp, TcpKeepCount, 20);
        Set(IpProtoTcp, TcpKeepIdle, seconds);
        Set(SolSocket, SoKeepAlive, 1);
    }

    /// <summary>The socket's pending error (SO_ERROR), which is cleared by reading it; 0 for none.</summary>
    public unsafe int TakeError()
    {
        var value = 0;
        var length = sizeof(int);
        return IsCurrent() && GetSockOpt(_descriptor, SolSocket, SoError, &value, ref length) == 0 ? value : 0;
    }

    /// <summary>Makes the coming close discard what is unsent and send RST: a lost connection must not linger as an orphan.</summary>
    public unsafe void AbortOnClose()
    {
        var linger = stackalloc int[] { 1, 0 };
        if (IsCurrent())
            _ = SetSockOpt(_descriptor, SolSocket, SoLinger, linger, 2 * sizeof(int));
    }

    /// <summary>Ends both directions, so that a call blocked in the owning library returns.</summary>
    public void Shutdown()
    {
        if (IsCurrent())
            _ = ShutdownSocket(_descriptor, ShutdownBoth);
    }

    private unsafe void Set(int level, int option, int value)
    {
        // A failure means that the socket has just gone; the next look at it says so.
        if (IsCurrent())
            _ = SetSockOpt(_descriptor, level, option, &value, sizeof(int));
    }

    private bool IsCurrent() => TryGetCookie(_descriptor, out var cookie) && cookie == Cookie;

    private static unsafe bool TryGetCookie(int descriptor, out ulong cookie)
    {
        ulong value = 0;
        var length = sizeof(ulong);
        var result = GetSockOpt(descriptor, SolSocket, SoCookie, &value, ref length);
        cookie = value;
        return result == 0;
    }

    private static unsafe bool TryGetPeer(int descriptor, out IPEndPoint peer)
    {
        const int afInet = 2;
        const int afInet6 = 10;
        peer = new IPEndPoint(IPAddress.None, 0);
        Span<byte> address = stackalloc byte[128];
        var length = address.Length;
        fixed (byte* pointer = address)
        {
            if (GetPeerName(descriptor, pointer, ref length) != 0)
                return false;
        }

        var family = BinaryPrimitives.ReadUInt16LittleEndian(address);
        var port = BinaryPrimitives.ReadUInt16BigEndian(address[2..]);
        if (family == afInet && length >= 8)
        {
            peer = new IPEndPoint(new IPAddress(address.Slice(4, 4)), port);
            return true;
        }

        if (family == afInet6 && length >= 28)
        {
            var ip = new IPAddress(address.Slice(8, 16), BinaryPrimitives.ReadUInt32LittleEndian(address[24..]));
            // .NET connects IPv4 destinations through dual-mode sockets.
            peer = new IPEndPoint(ip.IsIPv4MappedToIPv6 ? ip.MapToIPv4() : ip, port);
            return true;
        }

        return false;
    }

    [LibraryImport("libc", EntryPoint = "getsockopt", SetLastError = true)]
    private static unsafe partial int GetSockOpt(int descriptor, int level, int option, void* value, ref int length);

    [LibraryImport("libc", EntryPoint = "setsockopt", SetLastError = true)]
    private static unsafe partial int SetSockOpt(int descriptor, int level, int option, void* value, int length);

    [LibraryImport("libc", EntryPoint = "getpeername", SetLastError = true)]
    private static unsafe partial int GetPeerName(int descriptor, void* address, ref int length);

    [LibraryImport("libc", EntryPoint = "shutdown", SetLastError = true)]
    private static partial int ShutdownSocket(int descriptor, int how);
}
