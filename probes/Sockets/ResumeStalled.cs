using System.Diagnostics;
using System.Runtime.InteropServices;
using Sidecar.Probes.Interop;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.Processes;
using Sidecar.Probes.Values;

namespace Sidecar.Probes.Sockets;

/// <summary>What came of making the kernel retransmit.</summary>
public enum ResumeResult
{
    /// <summary>It retransmitted at once, or its timer runs with the smallest timeout again.</summary>
    Sent,

    /// <summary>Nothing is stalled, the socket is not ESTABLISHED or is in repair mode, or the application asked to be told of ICMP errors (IP_RECVERR).</summary>
    LeftAlone,

    /// <summary>CAP_NET_RAW, or what a window probe needs, is missing; or packet sockets are forbidden to the service.</summary>
    NotPermitted,

    /// <summary>Process, descriptor or socket are no longer what was seen.</summary>
    Gone,

    /// <summary>The window probe was not seen to leave: dropped on this host, or its addresses were rewritten (NAT) on it.</summary>
    NotSeen,

    /// <summary>Anything else: the kernel took no notice of the message, or a call failed.</summary>
    Failed,
}

/// <summary>
/// Makes the kernel retransmit at once what another process's connection has in flight, where the path was away and is back and the retransmission
/// timer has backed off meanwhile, up to two minutes: an ICMP host unreachable for the segment that is unacknowledged, sent from this host to itself
/// (RFC 6069: loss of connectivity reverts one step of back-off, and retransmits when the shorter timeout has passed already).
/// Only for a connection that is proven alive: until the next acknowledgement clears it, the message stays behind as a soft error (sk_err_soft), which
/// getsockopt(SO_ERROR) tells whoever asks, and which a connection that times out ends with in place of ETIMEDOUT.
/// </summary>
/// <remarks>
/// tcp_ld_RTO_revert() takes the message only with the very sequence number of the oldest unacknowledged byte, which TCP_INFO does not tell. A window
/// probe carries the number before it, so one is sent and seen leaving. The packet socket that sees it costs every packet of the namespace a filter
/// run while it is open: keep an instance for one tick, no longer. Closing it waits for a grace period of RCU, so Dispose leaves that to the pool.
/// </remarks>
/// <param name="network">The network namespace of the connections; must outlive this.</param>
public sealed class ResumeStalled(NetworkNamespace network) : IDisposable
{
    /// <summary>A back-off of so many steps is two minutes (TCP_RTO_MAX) for any round-trip time.</summary>
    private const int MostMessages = 16;

    private static readonly TimeSpan SeenWithin = TimeSpan.FromMilliseconds(20);
    private static readonly TimeSpan Longest = TimeSpan.FromMilliseconds(30);

    private KernelHandle? _packets;
    private KernelHandle? _icmp;
    private KernelHandle? _icmp6;

    /// <summary>Opens what it needs in the calling thread's network namespace and closes it.</summary>
    /// <param name="detail">Why not; null where it worked.</param>
    public static bool IsPermitted(out string? detail)
    {
        using var icmp = Libc.Socket(Libc.AF_INET, Libc.SOCK_RAW | Libc.SOCK_CLOEXEC, Libc.IPPROTO_ICMP);
        detail = icmp.IsInvalid ? new KernelException("socket(SOCK_RAW)", Marshal.GetLastPInvokeError()).Message : null;
        if (icmp.IsInvalid)
        {
            return false;
        }

        using var packets = Libc.Socket(Libc.AF_PACKET, Libc.SOCK_DGRAM | Libc.SOCK_CLOEXEC, 0);
        detail = packets.IsInvalid ? new KernelException("socket(AF_PACKET)", Marshal.GetLastPInvokeError()).Message : null;
        return !packets.IsInvalid;
    }

    /// <summary>Makes one connection retransmit. Takes 30 ms at most, mostly well below one; never throws for what the kernel does.</summary>
    /// <param name="owner">A process that holds the socket.</param>
    /// <param name="descriptor">Its descriptor there.</param>
    /// <param name="key">The socket that is meant.</param>
    public ResumeResult TryResume(ProcessHandle owner, int descriptor, in SocketKey key)
    {
        var started = Stopwatch.GetTimestamp();
        try
        {
            return Examine(owner, descriptor, key) ?? Open(key) ?? Resume(owner, descriptor, key, started);
        }
        catch (KernelException)
        {
            return ResumeResult.Failed;
        }
    }

    public void Dispose()
    {
        _icmp?.Dispose();
        _icmp6?.Dispose();
        if (_packets is { } packets)
        {
            ThreadPool.UnsafeQueueUserWorkItem(static handle => handle.Dispose(), packets, preferLocal: false);
        }

        (_packets, _icmp, _icmp6) = (null, null, null);
    }

    /// <summary>Null when it is stalled and may be resumed.</summary>
    private static ResumeResult? Examine(ProcessHandle owner, int descriptor, in SocketKey key)
    {
        using var socket = ForeignSocket.Duplicate(owner, descriptor, key.Cookie, out var result);
        if (socket is null)
        {
            return Of(result);
        }

        // On an AF_INET6 socket that speaks IPv4 it is IP_RECVERR that counts.
        var reported6 = 0;
        if (!Libc.TryGetOption(socket, Libc.IPPROTO_IP, Libc.IP_RECVERR, out int reported)
            || (key.Family == Libc.AF_INET6 && !Libc.TryGetOption(socket, Libc.IPPROTO_IPV6, Libc.IPV6_RECVERR, out reported6)))
        {
            return ResumeResult.Failed;
        }

        Span<byte> buffer = stackalloc byte[512];
        var length = Libc.GetOption(socket, Libc.SOL_TCP, Libc.TCP_INFO, buffer);
        if (length < 1)
        {
            return ResumeResult.Failed;
        }

        return reported != 0 || reported6 != 0 || buffer[0] != (byte)TcpState.Established || !IsStalled(TcpInfo.Read(buffer[..length])) ? ResumeResult.LeftAlone : null;
    }

    private static bool IsStalled(in TcpInfo info) => info is { Unacked: > 0, Retransmits: > 0, Backoff: > 0 };

    /// <summary>Opens what is not open yet; null when all is there.</summary>
    private ResumeResult? Open(in SocketKey key)
    {
        var isV4 = key.Local.IsIPv4;
        if (_packets is not null && (isV4 ? _icmp : _icmp6) is not null)
        {
            return null;
        }

        var errno = network.Run(() => OpenSockets(isV4));
        return errno switch
        {
            0 => null,
            Libc.EPERM or Libc.EACCES or Libc.EAFNOSUPPORT => ResumeResult.NotPermitted,
            _ => ResumeResult.Failed,
        };
    }

    private int OpenSockets(bool isV4)
    {
        ref var icmp = ref isV4 ? ref _icmp : ref _icmp6;
        if (icmp is null)
        {
            icmp = Make(isV4 ? Libc.AF_INET : Libc.AF_INET6, Libc.SOCK_RAW, isV4 ? Libc.IPPROTO_ICMP : Libc.IPPROTO_ICMPV6);
            if (icmp is null)
            {
                return Marshal.GetLastPInvokeError();
            }

            // It sends only: whatever ICMP comes in is kept from its queue.
            Span<byte> all = stackalloc byte[32];
            all.Fill(0xff);
            _ = isV4
                ? Libc.TrySetOption(icmp, Libc.SOL_RAW, Libc.ICMP_FILTER, all[..4])
                : Libc.TrySetOption(icmp, Libc.IPPROTO_ICMPV6, Libc.ICMPV6_FILTER, all)
                    && Libc.TrySetOption(icmp, Libc.IPPROTO_IPV6, Libc.IPV6_UNICAST_HOPS, 255); // IPV6_MINHOPCOUNT is compared with it
        }

        if (_packets is null)
        {
            // Protocol 0 sees nothing until it is bound, and by then the filter stands.
            var packets = Make(Libc.AF_PACKET, Libc.SOCK_DGRAM, 0);
            if (packets is null || !Libc.TryAttachFilter(packets, QuotedUnreachable.Nothing) || !Libc.TryBindPackets(packets))
            {
                var errno = Marshal.GetLastPInvokeError();
                packets?.Dispose();
                return errno;
            }

            _packets = packets;
        }

        return 0;
    }

    private static KernelHandle? Make(int family, int type, int protocol)
    {
        var socket = Libc.Socket(family, type | Libc.SOCK_CLOEXEC, protocol);
        return socket.IsInvalid ? null : socket;
    }

    private ResumeResult Resume(ProcessHandle owner, int descriptor, in SocketKey key, long started)
    {
        var packets = _packets!;
        if (!Libc.TryAttachFilter(packets, QuotedUnreachable.Filter(key)))
        {
            return ResumeResult.Failed;
        }

        Span<byte> packet = stackalloc byte[128];
        while (Libc.Receive(packets, packet, Libc.MSG_DONTWAIT) > 0)
        {
            // of the connection before
        }

        var probed = WindowProbe.TrySend(owner, descriptor, key.Cookie);
        if (probed != TouchResult.Done)
        {
            return Of(probed);
        }

        if (!See(packets, out var sequence))
        {
            return ResumeResult.NotSeen;
        }

        return network.Diagnostics.TryGet(key, out var before) ? Revert(key, sequence + 1, before, started) : ResumeResult.Gone;
    }

    private static bool See(KernelHandle packets, out uint sequence)
    {
        Span<byte> packet = stackalloc byte[128];
        for (var started = Stopwatch.GetTimestamp(); SeenWithin - Stopwatch.GetElapsedTime(started) is { Ticks: > 0 } left;)
        {
            if (Libc.WaitReadable(packets, left) && Libc.Receive(packets, packet, Libc.MSG_DONTWAIT) is > 0 and var length
                && QuotedUnreachable.TryReadProbe(packet[..length], out sequence))
            {
                return true;
            }
        }

        sequence = 0;
        return false;
    }

    /// <summary>Each message takes back one step, until the timeout that is left has passed already and the kernel retransmits.</summary>
    private ResumeResult Revert(in SocketKey key, uint sequence, in SocketObservation before, long started)
    {
        var icmp = (key.Local.IsIPv4 ? _icmp : _icmp6)!;
        var message = QuotedUnreachable.Message(key, sequence);
        var address = QuotedUnreachable.Address(key);

        // A connection bound to an interface is found only by what seems to have come in there.
        if (!Libc.TrySetOption(icmp, Libc.SOL_SOCKET, Libc.SO_BINDTOIFINDEX, (int)key.Interface) && key.Interface != 0)
        {
            return ResumeResult.Failed;
        }

        var (info, unheeded) = (before.Info, 0);
        for (var sent = 0; IsStalled(info) && sent < MostMessages && unheeded < 3 && Stopwatch.GetElapsedTime(started) < Longest; sent++)
        {
            if (!Libc.TrySendTo(icmp, message, address))
            {
                return ResumeResult.Failed;
            }

            // Over loopback it has been handled when the call returns, unless the owner has the socket locked just now.
            if (!network.Diagnostics.TryGet(key, out var present))
            {
                return ResumeResult.Gone;
            }

            if (present.State != TcpState.Established || present.Info.TotalRetransmissions != before.Info.TotalRetransmissions || present.Info.BytesAcked != before.Info.BytesAcked)
            {
                return ResumeResult.Sent;
            }

            if (present.Info.Backoff == info.Backoff)
            {
                unheeded++;
                Thread.Sleep(1);
            }

            info = present.Info;
        }

        return IsStalled(info) ? ResumeResult.Failed : ResumeResult.Sent;
    }

    private static ResumeResult Of(TouchResult result) => result switch
    {
        TouchResult.Gone => ResumeResult.Gone,
        TouchResult.NotPermitted => ResumeResult.NotPermitted,
        TouchResult.WrongState => ResumeResult.LeftAlone,
        _ => ResumeResult.Failed,
    };
}
