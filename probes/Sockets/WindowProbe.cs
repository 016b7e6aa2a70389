using System.Runtime.InteropServices;
using Sidecar.Probes.Interop;
using Sidecar.Probes.Processes;
using Sidecar.Probes.Values;

namespace Sidecar.Probes.Sockets;

/// <summary>
/// Asks the peer of another process's live connection for an acknowledgement, now: a segment without data and with the sequence number before the
/// oldest unacknowledged one (RFC 9293, 3.10.7.4: answered by an acknowledgement). A live peer's answer shows in TCP_INFO as one more segment in,
/// and last_ack_recv restarts.
/// </summary>
/// <remarks>
/// Leaving repair mode sends such a probe (net/ipv4/tcp.c, tcp_send_window_probe), and leaving is permitted to a socket that never was in it. It
/// changes neither retransmission timer nor its back-off, only sk_reuse, which becomes 0 and is put back. A Linux peer answers at most one in 500 ms
/// (net.ipv4.tcp_invalid_ratelimit): a second probe within that time proves nothing by its silence.
/// </remarks>
public static class WindowProbe
{
    private const byte Established = 1;

    /// <summary>Sends one probe. The answer, if any, is read from TCP_INFO afterwards; nothing waits for it here.</summary>
    /// <param name="owner">A process that holds the socket.</param>
    /// <param name="descriptor">Its descriptor there.</param>
    /// <param name="cookie">The socket that is meant; another one behind the descriptor is <see cref="TouchResult.Gone"/>.</param>
    /// <returns>
    /// <see cref="TouchResult.Done"/> when the probe was sent; <see cref="TouchResult.NotPermitted"/> without CAP_SYS_PTRACE, or CAP_NET_ADMIN in the
    /// user namespace of the socket's network; <see cref="TouchResult.WrongState"/> for a socket that is not ESTABLISHED (the kernel sends none
    /// then, and a listening socket is never touched) or that is in repair mode, where somebody checkpoints it.
    /// </returns>
    public static TouchResult TrySend(ProcessHandle owner, int descriptor, SocketCookie cookie)
    {
        using var socket = ForeignSocket.Duplicate(owner, descriptor, cookie, out var result);
        if (socket is null)
        {
            return result;
        }

        // The first byte of TCP_INFO is the state; a socket of another protocol has no such option.
        Span<byte> state = stackalloc byte[1];
        if (Libc.GetOption(socket, Libc.SOL_TCP, Libc.TCP_INFO, state) != 1
            || !Libc.TryGetOption(socket, Libc.SOL_TCP, Libc.TCP_REPAIR, out int repair)
            || !Libc.TryGetOption(socket, Libc.SOL_SOCKET, Libc.SO_REUSEADDR, out int reuse))
        {
            return TouchResult.Failed;
        }

        if (state[0] != Established || repair != 0)
        {
            return TouchResult.WrongState;
        }

        if (!Libc.TrySetOption(socket, Libc.SOL_TCP, Libc.TCP_REPAIR, Libc.TCP_REPAIR_OFF))
        {
            return Marshal.GetLastPInvokeError() is Libc.EPERM or Libc.EACCES ? TouchResult.NotPermitted : TouchResult.Failed;
        }

        // Where it was 0 it still is. A value of 2 (SK_FORCE_REUSE) belongs to repair mode alone.
        return reuse == 0 || Libc.TrySetOption(socket, Libc.SOL_SOCKET, Libc.SO_REUSEADDR, 1) ? TouchResult.Done : TouchResult.Failed;
    }
}
