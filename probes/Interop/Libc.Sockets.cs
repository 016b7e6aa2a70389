using System.Runtime.InteropServices;

namespace Sidecar.Probes.Interop;

/// <summary>The socket calls System.Net.Sockets has no room for: netlink, and options on duplicated descriptors.</summary>
internal static partial class Libc
{
    internal const int AF_INET = 2;
    internal const int AF_INET6 = 10;
    internal const int AF_NETLINK = 16;
    internal const int SOCK_DGRAM = 2;
    internal const int SOCK_STREAM = 1;
    internal const int SOCK_RAW = 3;
    internal const int SOCK_CLOEXEC = 0x80000;
    internal const int IPPROTO_TCP = 6;
    internal const int NETLINK_SOCK_DIAG = 4;

    internal const int SOL_SOCKET = 1;
    internal const int SO_KEEPALIVE = 9;
    internal const int SO_RCVBUF = 8;
    internal const int SO_RCVTIMEO = 20;
    internal const int SO_COOKIE = 57;
    internal const int SO_NETNS_COOKIE = 71;

    internal const int SOL_TCP = 6;
    internal const int TCP_KEEPIDLE = 4;
    internal const int TCP_KEEPINTVL = 5;
    internal const int TCP_KEEPCNT = 6;
    internal const int TCP_INFO = 11;
    internal const int TCP_USER_TIMEOUT = 18;

    [LibraryImport("libc", EntryPoint = "socket", SetLastError = true)]
    private static partial int MakeSocket(int domain, int type, int protocol);

    /// <summary>socket(2); the handle is invalid, with errno set, where it failed.</summary>
    internal static KernelHandle Socket(int domain, int type, int protocol) => new(MakeSocket(domain, type, protocol));

    [LibraryImport("libc", EntryPoint = "send", SetLastError = true)]
    private static unsafe partial nint Send(SafeHandle socket, byte* buffer, nuint length, int flags);

    internal static unsafe int Send(SafeHandle socket, ReadOnlySpan<byte> data)
    {
        fixed (byte* p = data)
        {
            return (int)Send(socket, p, (nuint)data.Length, 0);
        }
    }

    internal const int MSG_TRUNC = 0x20;
    internal const int MSG_DONTWAIT = 0x40;

    [LibraryImport("libc", EntryPoint = "recv", SetLastError = true)]
    private static unsafe partial nint Receive(SafeHandle socket, byte* buffer, nuint length, int flags);

    internal static unsafe int Receive(SafeHandle socket, Span<byte> buffer, int flags)
    {
        fixed (byte* p = buffer)
        {
            return (int)Receive(socket, p, (nuint)buffer.Length, flags);
        }
    }

    [LibraryImport("libc", EntryPoint = "getsockopt", SetLastError = true)]
    private static unsafe partial int GetSockOpt(SafeHandle socket, int level, int name, void* value, uint* length);

    [LibraryImport("libc", EntryPoint = "setsockopt", SetLastError = true)]
    private static unsafe partial int SetSockOpt(SafeHandle socket, int level, int name, void* value, uint length);

    /// <summary>Reads a fixed-size option; false with errno set on failure.</summary>
    internal static unsafe bool TryGetOption<T>(SafeHandle socket, int level, int name, out T value)
        where T : unmanaged
    {
        T read = default;
        var length = (uint)sizeof(T);
        var ok = GetSockOpt(socket, level, name, &read, &length) == 0;
        value = read;
        return ok;
    }

    /// <summary>Reads an option of variable length (TCP_INFO); returns its length, or -1 with errno set.</summary>
    internal static unsafe int GetOption(SafeHandle socket, int level, int name, Span<byte> value)
    {
        var length = (uint)value.Length;
        fixed (byte* p = value)
        {
            return GetSockOpt(socket, level, name, p, &length) == 0 ? (int)length : -1;
        }
    }

    /// <summary>Sets an integer option; false with errno set on failure.</summary>
    internal static unsafe bool TrySetOption(SafeHandle socket, int level, int name, int value) =>
        SetSockOpt(socket, level, name, &value, sizeof(int)) == 0;

    [StructLayout(LayoutKind.Sequential)]
    internal struct TimeVal
    {
        internal long Seconds;
        internal long Microseconds;
    }

    internal static unsafe bool TrySetReceiveTimeout(SafeHandle socket, TimeSpan timeout)
    {
        var value = new TimeVal { Seconds = (long)timeout.TotalSeconds, Microseconds = timeout.Ticks % TimeSpan.TicksPerSecond / TimeSpan.TicksPerMicrosecond };
        return SetSockOpt(socket, SOL_SOCKET, SO_RCVTIMEO, &value, (uint)sizeof(TimeVal)) == 0;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct SockAddrNetlink
    {
        internal ushort Family;
        internal ushort Padding;
        internal uint PortId;
        internal uint Groups;
    }

    [LibraryImport("libc", EntryPoint = "connect", SetLastError = true)]
    private static unsafe partial int Connect(SafeHandle socket, void* address, uint length);

    [LibraryImport("libc", EntryPoint = "bind", SetLastError = true)]
    private static unsafe partial int Bind(SafeHandle socket, void* address, uint length);

    /// <summary>Makes a netlink socket a member of these multicast groups (bit 0 is group 1).</summary>
    internal static unsafe bool TryBindNetlink(SafeHandle socket, uint groups)
    {
        var address = new SockAddrNetlink { Family = AF_NETLINK, Groups = groups };
        return Bind(socket, &address, (uint)sizeof(SockAddrNetlink)) == 0;
    }

    /// <summary>Connects a netlink socket to port 0, the kernel.</summary>
    internal static unsafe bool TryConnectNetlinkToKernel(SafeHandle socket)
    {
        var address = new SockAddrNetlink { Family = AF_NETLINK };
        return Connect(socket, &address, (uint)sizeof(SockAddrNetlink)) == 0;
    }
}
