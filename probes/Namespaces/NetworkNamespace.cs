using System.Net.Sockets;
using System.Runtime.InteropServices;
using Sidecar.Probes.Interop;
using Sidecar.Probes.SockDiag;
using Sidecar.Probes.Values;

namespace Sidecar.Probes.Namespaces;

/// <summary>
/// A network namespace: its sock_diag client, and a way to make sockets inside. A socket belongs for ever to the
/// namespace in which it was made, so only its making needs setns(2). An open instance keeps the namespace alive:
/// dispose it when no process lives there any more.
/// </summary>
public sealed class NetworkNamespace : IDisposable
{
    private readonly KernelHandle? _descriptor;
    private ClosedSockets? _closed;
    private TcpCounterFile? _counters;

    /// <summary>A namespace over a client that is set up already; tests give one whose other end is theirs.</summary>
    internal NetworkNamespace(ulong inode, KernelHandle? descriptor, SockDiagClient diagnostics)
    {
        Inode = inode;
        _descriptor = descriptor;
        Diagnostics = diagnostics;
    }

    /// <summary>Inode number of the namespace, as in /proc/PID/ns/net.</summary>
    public ulong Inode { get; }

    /// <summary>True for the namespace this process itself lives in.</summary>
    public bool IsOwn => _descriptor is null;

    /// <summary>Reads and destroys sockets of this namespace.</summary>
    public SockDiagClient Diagnostics { get; }

    /// <summary>Sockets of this namespace that have come to their end, from the first use on.</summary>
    /// <exception cref="KernelException">The kernel does not announce them.</exception>
    public ClosedSockets Closed => _closed ??= Run(ClosedSockets.Open);

    /// <summary>What the kernel has counted of TCP here; null where it cannot be read.</summary>
    public TcpCounters? Counters => (_counters ??= Run(TcpCounterFile.Open)).Read();

    /// <summary><c>own</c>, or <c>net:[inode]</c>.</summary>
    public string Name => IsOwn ? "own" : $"net:[{Inode}]";

    /// <summary>The namespace of this process.</summary>
    /// <exception cref="KernelException">sock_diag cannot be had.</exception>
    public static NetworkNamespace OpenOwn(ulong inode) => new(inode, null, SockDiagClient.Open());

    /// <summary>Opens another namespace by its path in /proc.</summary>
    /// <param name="inode">The inode that is expected there.</param>
    /// <param name="path">/proc/PID/ns/net.</param>
    /// <exception cref="KernelException">Not permitted (CAP_SYS_ADMIN, CAP_SYS_PTRACE), or gone.</exception>
    public static NetworkNamespace Open(ulong inode, string path)
    {
        var descriptor = Libc.OpenHandle(path, Libc.O_RDONLY | Libc.O_CLOEXEC);
        if (descriptor.IsInvalid)
        {
            throw new KernelException("open " + path, Marshal.GetLastPInvokeError());
        }

        try
        {
            return new NetworkNamespace(inode, descriptor, SockDiagClient.Open(make => Inside(descriptor, make)));
        }
        catch
        {
            descriptor.Dispose();
            throw;
        }
    }

    /// <summary>Makes a TCP socket that lives in this namespace; it may be used from any thread afterwards.</summary>
    /// <exception cref="KernelException">setns was refused.</exception>
    /// <exception cref="SocketException">The socket could not be made.</exception>
    public Socket CreateTcpSocket(AddressFamily family) => Run(() => new Socket(family, SocketType.Stream, ProtocolType.Tcp));

    /// <summary>Runs something that makes a descriptor inside this namespace, on a thread of its own where it is another one.</summary>
    /// <exception cref="KernelException">setns was refused.</exception>
    public T Run<T>(Func<T> make) => _descriptor is null ? make() : Inside(_descriptor, make);

    public void Dispose()
    {
        Diagnostics.Dispose();
        _closed?.Dispose();
        _counters?.Dispose();
        _descriptor?.Dispose();
    }

    /// <summary>
    /// setns changes the calling thread only and thread-pool threads are shared, so the work gets a thread of its own,
    /// which ends afterwards and takes the foreign namespace with it.
    /// </summary>
    private static T Inside<T>(KernelHandle descriptor, Func<T> work)
    {
        T result = default!;
        Exception? failure = null;
        var thread = new Thread(
            () =>
            {
                try
                {
                    if (Libc.SetNs(descriptor, Libc.CLONE_NEWNET) != 0)
                    {
                        throw new KernelException("setns(CLONE_NEWNET)", Marshal.GetLastPInvokeError());
                    }

                    result = work();
                }
                catch (Exception e)
                {
                    failure = e;
                }
            },
            maxStackSize: 256 * 1024)
        {
            IsBackground = true,
            Name = "netns",
        };
        thread.Start();
        thread.Join();
        if (failure is not null)
        {
            throw failure is KernelException kernel ? new KernelException(kernel.Call, kernel.Errno) : failure;
        }

        return result;
    }
}
