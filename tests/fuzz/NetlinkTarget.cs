using System.Runtime.InteropServices;
using Sidecar.Probes;
using Sidecar.Probes.Interop;
using Sidecar.Probes.SockDiag;
using Sidecar.Probes.Values;
using Sidecar.Simulator;

namespace Sidecar.Fuzz;

/// <summary>
/// The client of sock_diag, at the other end of a pair of sockets: answers that are truncated, too large, interrupted,
/// for another question, refusals, and none at all.
/// </summary>
internal sealed partial class NetlinkTarget : FuzzTarget
{
    private const int AF_UNIX = 1;
    private const int SOCK_NONBLOCK = 0x800;

    /// <summary>The kernel's queue of datagrams may be as short as ten.</summary>
    private const int MostDatagrams = 8;

    private readonly KernelHandle _kernel;
    private readonly KernelHandle _agent;
    private readonly SockDiagClient _client;
    private readonly byte[] _request = new byte[4096];
    private uint _sequence;

    internal NetlinkTarget()
    {
        var pair = new int[2];
        if (SocketPair(AF_UNIX, Libc.SOCK_DGRAM | Libc.SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0)
        {
            throw new KernelException("socketpair", Marshal.GetLastPInvokeError());
        }

        _kernel = new KernelHandle(pair[0]);
        _agent = new KernelHandle(pair[1]);
        _client = new SockDiagClient(_agent);
    }

    internal override void Try(Dice dice)
    {
        _sequence++;
        if (dice.Chance(0.5))
        {
            TryDump(dice);
        }
        else
        {
            TryOne(dice);
        }

        Drain(_kernel);
    }

    public override void Dispose()
    {
        base.Dispose();
        _client.Dispose();
        _kernel.Dispose();
    }

    private void Drain(KernelHandle socket)
    {
        while (Libc.Receive(socket, _request, 0) > 0)
        {
        }
    }

    private void TryDump(Dice dice)
    {
        var isWhole = dice.Chance(0.3);
        if (isWhole || dice.Chance(0.5))
        {
            // Else the rest of an earlier answer stays before this one, as after a dump that was given up.
            Drain(_agent);
        }

        var interrupted = false;
        var sent = new List<ulong>();
        var bytes = 0;
        for (var datagrams = dice.Choose(0, MostDatagrams - 1); datagrams > 0; datagrams--)
        {
            var datagram = new List<byte>();
            for (var messages = dice.Choose(1, 6); messages > 0; messages--)
            {
                var cookie = dice.Next();
                var flags = dice.Chance(0.02) ? InetDiagWire.NLM_F_DUMP_INTR : (ushort)2;
                interrupted |= flags == InetDiagWire.NLM_F_DUMP_INTR;
                sent.Add(cookie);
                datagram.AddRange(isWhole
                    ? DiagMessages.Message(InetDiagWire.TCPDIAG_GETSOCK, flags, _sequence, DiagMessages.Socket(dice, cookie))
                    : Any(dice, cookie, flags));
            }

            bytes += SendFromKernel(isWhole ? [.. datagram] : dice.Damage([.. datagram]));
        }

        if (isWhole || dice.Chance(0.7))
        {
            bytes += SendFromKernel(DiagMessages.Message(InetDiagWire.NLMSG_DONE, 2, _sequence, new byte[4]));
        }

        var seen = new List<ulong>();
        try
        {
            var result = _client.Dump(0xfff, [], withInfo: true, (in SocketObservation socket) => seen.Add(socket.Cookie.Value));
            Hold(result.Sockets == seen.Count, $"{result.Sockets} sockets are told of, {seen.Count} were visited");
            Hold(!isWhole || (result.Interrupted == interrupted && result.Malformed == 0 && seen.SequenceEqual(sent)), "a whole dump was read otherwise than it was written");
        }
        catch (KernelException e)
        {
            Hold(!isWhole, $"a whole dump was refused: {e.Message}");
        }

        Hold(seen.Count <= bytes / InetDiagWire.MessageSize, "more sockets were seen than fit into what was sent");
    }

    private void TryOne(Dice dice)
    {
        var cookie = dice.Pick<ulong>(1, 0x1234567890, ulong.MaxValue - 1);
        var key = new SocketKey(2, new TcpEndPoint(1, 2), new TcpEndPoint(3, 5432), 0, new SocketCookie(cookie));
        var destroys = dice.Chance(0.5);
        var errno = dice.Pick(0, 1, 2, 2, 95, 105, int.MaxValue, int.MinValue);
        var isPlain = dice.Chance(0.3);
        var isShort = !isPlain && dice.Chance(0.05);
        if (isShort)
        {
            Drain(_agent);
            SendFromKernel(DiagMessages.Message(InetDiagWire.SOCK_DIAG_BY_FAMILY, 0, _sequence, dice.Bytes(dice.Choose(0, InetDiagWire.MessageSize - 1))));
        }
        else if (isPlain)
        {
            Drain(_agent);
            SendFromKernel(DiagMessages.Message(InetDiagWire.NLMSG_ERROR, 0, _sequence, BitConverter.GetBytes(-errno)));
        }
        else
        {
            for (var datagrams = dice.Choose(0, 3); datagrams > 0; datagrams--)
            {
                SendFromKernel(dice.Damage(Any(dice, dice.Chance(0.5) ? cookie : dice.Next(), 0)));
            }
        }

        try
        {
            if (destroys)
            {
                var result = _client.Destroy(key);
                Hold(!isPlain || result == (errno switch
                {
                    0 => DestroyResult.Destroyed,
                    2 => DestroyResult.Gone,
                    1 => DestroyResult.NotPermitted,
                    _ => DestroyResult.NotSupported,
                }), $"errno {errno} was taken for {result}");
            }
            else if (_client.TryGet(key, out var socket))
            {
                Hold(socket.Cookie.Value == cookie, "another socket was taken for the one that was asked for");
                Hold(!isPlain, "a refusal was taken for a socket");
            }
            else
            {
                Hold(!isPlain || errno == 2, $"errno {errno} was taken for gone");
                Hold(!isShort, "a message that cannot be read was taken for gone");
            }
        }
        catch (KernelException)
        {
            Hold(!isPlain || errno is not 2, "ENOENT was not taken for gone");
        }

    }

    private byte[] Any(Dice dice, ulong cookie, ushort flags)
    {
        var sequence = dice.Chance(0.9) ? _sequence : _sequence - (uint)dice.Choose(1, 100);
        return dice.Unit() switch
        {
            < 0.55 => DiagMessages.Message(dice.Chance(0.5) ? InetDiagWire.TCPDIAG_GETSOCK : InetDiagWire.SOCK_DIAG_BY_FAMILY, flags, sequence, DiagMessages.Socket(dice, cookie)),
            < 0.65 => DiagMessages.Message(InetDiagWire.NLMSG_ERROR, flags, sequence, BitConverter.GetBytes((int)dice.Edge())),
            < 0.7 => DiagMessages.Message(InetDiagWire.NLMSG_DONE, flags, sequence, BitConverter.GetBytes(-dice.Choose(0, 130))),
            < 0.75 => DiagMessages.Message(dice.Pick(InetDiagWire.NLMSG_DONE, InetDiagWire.NLMSG_ERROR), flags, sequence, dice.Bytes(dice.Choose(0, 3))),
            < 0.95 => DiagMessages.Message((ushort)dice.Edge(), (ushort)dice.Edge(), sequence, dice.Bytes(dice.Choose(0, 200))),
            < 0.99 => dice.Bytes(dice.Choose(1, 300)),
            _ => new byte[70_000],
        };
    }

    /// <summary>An empty datagram would be taken for the end of the socket, which netlink has not.</summary>
    private int SendFromKernel(byte[] datagram) => datagram.Length == 0 ? 0 : Math.Max(0, Libc.Send(_kernel, datagram));

    [LibraryImport("libc", EntryPoint = "socketpair", SetLastError = true)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int SocketPair(int domain, int type, int protocol, [Out] int[] pair);
}
