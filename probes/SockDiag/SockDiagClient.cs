using System.Runtime.InteropServices;
using Sidecar.Probes.Interop;
using Sidecar.Probes.Values;

namespace Sidecar.Probes.SockDiag;

/// <summary>Called for each socket of a dump. The observation is passed by reference and must not be kept by it.</summary>
public delegate void SocketVisitor(in SocketObservation socket);

/// <summary>What came of asking the kernel to destroy a socket.</summary>
public enum DestroyResult
{
    /// <summary>Destroyed: the owner's blocked call returned ECONNABORTED.</summary>
    Destroyed,

    /// <summary>ENOENT: already gone, or not the socket that was meant. Nothing happened.</summary>
    Gone,

    /// <summary>EPERM: CAP_NET_ADMIN in the socket's user namespace is missing.</summary>
    NotPermitted,

    /// <summary>EOPNOTSUPP: the kernel was built without CONFIG_INET_DIAG_DESTROY.</summary>
    NotSupported,
}

/// <summary>Called for each message of a dump that has the wanted type; false where it could not be read.</summary>
internal delegate bool MessageVisitor(ReadOnlySpan<byte> payload);

/// <summary>Writes a dump request with this sequence number into the buffer; returns its length.</summary>
internal delegate int RequestWriter(Span<byte> buffer, uint sequence);

/// <summary>How a dump ended.</summary>
/// <param name="Sockets">Sockets visited.</param>
/// <param name="Interrupted">NLM_F_DUMP_INTR was set: the table changed meanwhile and some may be missing.</param>
/// <param name="Malformed">Messages that could not be read and were skipped.</param>
public readonly record struct DumpResult(int Sockets, bool Interrupted, int Malformed)
{
    /// <summary>
    /// Whether all that the kernel told was read. Only then does a socket that was not visited say anything, and even then a
    /// dump may have passed it over: the kernel resumes by bucket and index.
    /// </summary>
    public bool IsComplete => !Interrupted && Malformed == 0;
}

/// <summary>
/// One NETLINK_SOCK_DIAG socket. It sees the network namespace in which it was made, for its whole life, and keeps that
/// namespace alive. Not for use by two threads at once.
/// </summary>
public sealed class SockDiagClient : IDisposable
{
    /// <summary>The kernel never fills more than 32 KiB per recv of a dump.</summary>
    private const int ReceiveBufferSize = 64 * 1024;

    private readonly Func<KernelHandle>? _reopen;
    private readonly Lock _closing = new();
    private KernelHandle _socket;
    private bool _isDisposed;

    /// <summary>The end of a dump has not been read: until it is, the kernel refuses every other dump on this socket (EBUSY).</summary>
    private bool _isDumping;

    private readonly byte[] _buffer = GC.AllocateArray<byte>(ReceiveBufferSize, pinned: true);
    private readonly byte[] _request = new byte[InetDiagWire.MaximumDumpSize];
    private uint _sequence;

    /// <summary>A client over a socket that is set up already; tests give one whose other end is theirs.</summary>
    /// <param name="socket">The socket, which the client closes.</param>
    /// <param name="reopen">Makes another one after a dump that was given up; null: the same one is used on.</param>
    internal SockDiagClient(KernelHandle socket, Func<KernelHandle>? reopen = null)
    {
        _socket = socket;
        _reopen = reopen;
    }

    /// <summary>
    /// Opens a client in the calling thread's network namespace. Whoever calls from a thread that does not stay in that
    /// namespace uses the other overload.
    /// </summary>
    /// <exception cref="KernelException">The kernel has no NETLINK_SOCK_DIAG, or descriptors are used up.</exception>
    public static SockDiagClient Open() => new(OpenSocket(), OpenSocket);

    /// <summary>Opens a client in the namespace in which <paramref name="inside"/> runs what it is given, now and later.</summary>
    /// <exception cref="KernelException">The namespace cannot be entered, the kernel has no NETLINK_SOCK_DIAG, or descriptors are used up.</exception>
    internal static SockDiagClient Open(Func<Func<KernelHandle>, KernelHandle> inside) => new(inside(OpenSocket), () => inside(OpenSocket));

    /// <summary>A socket in the calling thread's network namespace.</summary>
    internal static KernelHandle OpenSocket()
    {
        var handle = Libc.Socket(Libc.AF_NETLINK, Libc.SOCK_DGRAM | Libc.SOCK_CLOEXEC, Libc.NETLINK_SOCK_DIAG);
        if (handle.IsInvalid)
        {
            throw new KernelException("socket(NETLINK_SOCK_DIAG)", Marshal.GetLastPInvokeError());
        }

        // A connected netlink socket takes messages from the kernel (port 0) only, not from other processes.
        if (!Libc.TryConnectNetlinkToKernel(handle))
        {
            var errno = Marshal.GetLastPInvokeError();
            handle.Dispose();
            throw new KernelException("connect(NETLINK_SOCK_DIAG)", errno);
        }

        // A dump is answered in the calling thread's own system calls, so an answer that takes seconds is no answer.
        Libc.TrySetReceiveTimeout(handle, TimeSpan.FromSeconds(5));
        return handle;
    }

    /// <summary>States of connections that can carry data, as a mask for <see cref="Dump"/>.</summary>
    public const uint StatesOfConnections = (1u << (int)TcpState.Established) | (1u << (int)TcpState.CloseWait);

    /// <summary>
    /// Visits every TCP socket, IPv4 and IPv6, in <paramref name="states"/> that passes the filter.
    /// A socket that is absent from one dump may still be open: the kernel resumes a dump by bucket and index.
    /// </summary>
    /// <param name="states">Bit mask of 1 &lt;&lt; state.</param>
    /// <param name="filter">Bytecode of <see cref="SocketFilter.Compile"/>; empty for all.</param>
    /// <param name="withInfo">Whether TCP_INFO is asked for (408 instead of 124 bytes a socket).</param>
    /// <param name="visitor">Called for each socket, on this thread. It makes no request of this client; what it throws ends the dump.</param>
    /// <exception cref="KernelException">The request was refused or the answer broke off (ENOBUFS, EINTR beyond retry, timeout).</exception>
    /// <exception cref="ObjectDisposedException">The client has been disposed, perhaps meanwhile.</exception>
    public DumpResult Dump(uint states, ReadOnlySpan<byte> filter, bool withInfo, SocketVisitor visitor)
    {
        var length = InetDiagWire.WriteDump(_request, ++_sequence, states, withInfo ? InetDiagWire.ExtensionInfo : (byte)0, filter);
        return DumpMessages(_request.AsSpan(0, length), InetDiagWire.TCPDIAG_GETSOCK, "sock_diag dump", payload =>
        {
            if (!InetDiagWire.TryReadSocket(payload, out var socket))
            {
                return false;
            }

            visitor(in socket);
            return true;
        });
    }

    /// <summary>Sends the dump request that <paramref name="write"/> puts together, and visits every message of the wanted type.</summary>
    internal DumpResult DumpMessages(RequestWriter write, ushort type, string what, MessageVisitor visitor) =>
        DumpMessages(_request.AsSpan(0, write(_request, ++_sequence)), type, what, visitor);

    /// <summary>Sends a dump request that carries the newest sequence number and visits every message of the wanted type.</summary>
    private DumpResult DumpMessages(ReadOnlySpan<byte> request, ushort type, string what, MessageVisitor visitor)
    {
        Send(request, what);
        _isDumping = true;
        var sockets = 0;
        var malformed = 0;
        var interrupted = false;
        while (true)
        {
            ReadOnlySpan<byte> rest = Receive(what);
            bool broken;
            while (InetDiagWire.TryNext(ref rest, out var message, out broken))
            {
                if (message.Sequence != _sequence)
                {
                    continue; // the tail of an earlier request that was given up
                }

                interrupted |= (message.Flags & InetDiagWire.NLM_F_DUMP_INTR) != 0;
                switch (message.Type)
                {
                    case InetDiagWire.NLMSG_DONE:
                        _isDumping = false;
                        if (message.Errno > 0)
                        {
                            throw new KernelException(what, message.Errno);
                        }

                        return new DumpResult(sockets, interrupted, malformed);
                    case InetDiagWire.NLMSG_ERROR:
                        _isDumping = false; // it was refused
                        throw new KernelException(what, message.Errno);
                    case var other when other == type && visitor(message.Payload):
                        sockets++;
                        break;
                    default:
                        malformed++;
                        break;
                }
            }

            if (broken)
            {
                malformed++;
            }
        }
    }

    /// <summary>Reads one socket by its key. False when it is gone (ENOENT).</summary>
    /// <exception cref="KernelException">Any other refusal.</exception>
    public bool TryGet(in SocketKey key, out SocketObservation socket)
    {
        socket = default;
        return !key.Cookie.IsNone && TryGetAny(key, out socket) && socket.Cookie == key.Cookie;
    }

    /// <summary>
    /// Finds the connection with these two ends, whoever owns it, in whatever state but TIME_WAIT. False when there is none.
    /// </summary>
    /// <exception cref="KernelException">The request was refused.</exception>
    public bool TryFind(in TcpEndPoint local, in TcpEndPoint peer, uint device, out SocketObservation socket)
    {
        // Sockets of AF_INET6 that carry IPv4 are found as IPv4. Without a connection the kernel answers with the listener.
        var key = new SocketKey(local.IsIPv4 ? Libc.AF_INET : Libc.AF_INET6, local, peer, device, SocketCookie.None);
        return TryGetAny(key, out socket) && socket.Local == local && socket.Peer == peer && socket.State is not (TcpState.Listen or TcpState.TimeWait);
    }

    private bool TryGetAny(in SocketKey key, out SocketObservation socket)
    {
        socket = default;
        var sequence = ++_sequence;
        var length = InetDiagWire.WriteSingle(_request, sequence, InetDiagWire.SOCK_DIAG_BY_FAMILY, InetDiagWire.NLM_F_REQUEST, key, InetDiagWire.ExtensionInfo);
        Send(_request.AsSpan(0, length), "sock_diag get");
        while (true)
        {
            ReadOnlySpan<byte> rest = Receive("sock_diag get");
            while (InetDiagWire.TryNext(ref rest, out var message, out _))
            {
                if (message.Sequence != sequence)
                {
                    continue;
                }

                if (message.Type == InetDiagWire.SOCK_DIAG_BY_FAMILY)
                {
                    // What cannot be read is not gone: nobody knows.
                    return InetDiagWire.TryReadSocket(message.Payload, out socket) ? true : throw new KernelException("sock_diag get: no socket", Libc.EBADMSG);
                }

                return message is { Type: InetDiagWire.NLMSG_ERROR, Errno: Libc.ENOENT } ? false : throw new KernelException("sock_diag get", message.Errno);
            }
        }
    }

    /// <summary>
    /// Destroys exactly the socket <paramref name="key"/> names: its owner's calls return ECONNABORTED, its peer is sent
    /// a RST. The caller must have read it just before; a cookie is required, and LISTEN sockets are never asked for.
    /// </summary>
    /// <exception cref="ArgumentException">The key has no cookie.</exception>
    /// <exception cref="KernelException">A refusal other than those of <see cref="DestroyResult"/>.</exception>
    public DestroyResult Destroy(in SocketKey key)
    {
        if (key.Cookie.IsNone || key.Peer.Port == 0)
        {
            throw new ArgumentException("a socket is destroyed by its cookie and its connection, or not at all", nameof(key));
        }

        var sequence = ++_sequence;
        var length = InetDiagWire.WriteSingle(_request, sequence, InetDiagWire.SOCK_DESTROY, InetDiagWire.NLM_F_REQUEST | InetDiagWire.NLM_F_ACK, key, 0);
        Send(_request.AsSpan(0, length), "SOCK_DESTROY");
        while (true)
        {
            ReadOnlySpan<byte> rest = Receive("SOCK_DESTROY");
            while (InetDiagWire.TryNext(ref rest, out var message, out _))
            {
                if (message.Sequence != sequence || message.Type != InetDiagWire.NLMSG_ERROR)
                {
                    continue;
                }

                return message.Errno switch
                {
                    0 => DestroyResult.Destroyed,
                    Libc.ENOENT => DestroyResult.Gone,
                    Libc.EPERM => DestroyResult.NotPermitted,
                    Libc.EOPNOTSUPP => DestroyResult.NotSupported,
                    var errno => throw new KernelException("SOCK_DESTROY", errno),
                };
            }
        }
    }

    public void Dispose()
    {
        lock (_closing)
        {
            _isDisposed = true;
            _socket.Dispose();
        }
    }

    /// <summary>
    /// Leaves a dump that was given up behind, with the socket that it is tied to. Reading it to its end would take as long as
    /// the dump itself; and after an ENOBUFS of the kernel's allocator no end comes, since only reading a message makes the
    /// kernel go on (netlink_recvmsg).
    /// </summary>
    private void Reopen()
    {
        if (_reopen is null)
        {
            return;
        }

        ObjectDisposedException.ThrowIf(_isDisposed, this);
        var fresh = _reopen();

        // A netlink socket sees the namespace in which it was made: one of another namespace would answer for other sockets.
        if (NamespaceOf(fresh) != NamespaceOf(_socket))
        {
            fresh.Dispose();
            throw new KernelException("socket(NETLINK_SOCK_DIAG): in another network namespace", Libc.EINVAL);
        }

        lock (_closing)
        {
            if (_isDisposed)
            {
                fresh.Dispose();
                throw new ObjectDisposedException(nameof(SockDiagClient));
            }

            _socket.Dispose();
            _socket = fresh;
        }

        _isDumping = false;
    }

    /// <summary>SO_NETNS_COOKIE of a socket; null before Linux 5.14, which has none.</summary>
    private static ulong? NamespaceOf(KernelHandle socket) =>
        Libc.TryGetOption(socket, Libc.SOL_SOCKET, Libc.SO_NETNS_COOKIE, out ulong cookie) ? cookie : null;

    private void Send(ReadOnlySpan<byte> request, string what)
    {
        if (_isDumping)
        {
            Reopen();
        }

        while (Libc.Send(_socket, request) < 0)
        {
            var errno = Marshal.GetLastPInvokeError();
            if (errno != Libc.EINTR)
            {
                throw new KernelException(what, errno);
            }
        }
    }

    private Span<byte> Receive(string what)
    {
        while (true)
        {
            var length = Libc.Receive(_socket, _buffer, Libc.MSG_TRUNC);
            if (length > _buffer.Length)
            {
                throw new KernelException(what + ": message larger than the buffer", Libc.ENOBUFS);
            }

            if (length > 0)
            {
                return _buffer.AsSpan(0, length);
            }

            var errno = length == 0 ? Libc.EBADF : Marshal.GetLastPInvokeError();
            if (errno == Libc.EAGAIN)
            {
                throw new KernelException(what + ": no answer", Libc.ETIMEDOUT);
            }

            if (errno != Libc.EINTR)
            {
                throw new KernelException(what, errno);
            }
        }
    }
}
