using System.Runtime.InteropServices;
using Sidecar.Probes.Interop;

namespace Sidecar.Probes.SockDiag;

/// <summary>
/// The kernel's announcements of TCP sockets that have come to their end (the multicast groups SKNLGRP_INET_TCP_DESTROY
/// and SKNLGRP_INET6_TCP_DESTROY, include/uapi/linux/sock_diag.h). Each comes when the last descriptor is closed, with
/// the socket's cookie and its last TCP_INFO, whose ages run on. It sees the network namespace in which it was made. Not
/// for use by two threads at once.
/// </summary>
public sealed class ClosedSockets : IDisposable
{
    private const uint Groups = (1u << 0) | (1u << 2);
    private const int BufferSize = 16 * 1024;

    /// <summary>More than this in one go are left for the next.</summary>
    private const int MostAtOnce = 10_000;

    private readonly KernelHandle _socket;
    private readonly byte[] _buffer = GC.AllocateArray<byte>(BufferSize, pinned: true);

    private ClosedSockets(KernelHandle socket) => _socket = socket;

    /// <summary>Begins to listen in the calling thread's network namespace.</summary>
    /// <exception cref="KernelException">The kernel has no such groups, or does not permit it.</exception>
    public static ClosedSockets Open()
    {
        var handle = Libc.Socket(Libc.AF_NETLINK, Libc.SOCK_DGRAM | Libc.SOCK_CLOEXEC, Libc.NETLINK_SOCK_DIAG);
        if (handle.IsInvalid)
        {
            throw new KernelException("socket(NETLINK_SOCK_DIAG)", Marshal.GetLastPInvokeError());
        }

        if (!Libc.TryBindNetlink(handle, Groups) || !Libc.TryConnectNetlinkToKernel(handle))
        {
            var errno = Marshal.GetLastPInvokeError();
            handle.Dispose();
            throw new KernelException("bind(SKNLGRP_INET_TCP_DESTROY)", errno);
        }

        return new ClosedSockets(handle);
    }

    /// <summary>Visits the sockets that were announced since the last call. Never waits.</summary>
    /// <returns>False where some were lost because they came faster than they were taken.</returns>
    public bool Drain(SocketVisitor visitor)
    {
        var complete = true;
        for (var taken = 0; taken < MostAtOnce; taken++)
        {
            var length = Libc.Receive(_socket, _buffer, Libc.MSG_DONTWAIT | Libc.MSG_TRUNC);
            if (length < 0)
            {
                switch (Marshal.GetLastPInvokeError())
                {
                    case Libc.EINTR:
                        continue;
                    case Libc.ENOBUFS:
                        complete = false;
                        continue;
                    default:
                        return complete;
                }
            }

            if (length > _buffer.Length)
            {
                complete = false;
                continue;
            }

            ReadOnlySpan<byte> rest = _buffer.AsSpan(0, length);
            while (InetDiagWire.TryNext(ref rest, out var message, out _))
            {
                if (message.Type == InetDiagWire.SOCK_DIAG_BY_FAMILY && InetDiagWire.TryReadSocket(message.Payload, out var socket))
                {
                    visitor(in socket);
                }
            }
        }

        return complete;
    }

    public void Dispose() => _socket.Dispose();
}
