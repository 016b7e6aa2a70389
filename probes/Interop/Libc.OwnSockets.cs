using System.Runtime.InteropServices;

namespace Sidecar.Probes.Interop;

/// <summary>What is done with a library's sockets in this process by their descriptors.</summary>
internal static partial class Libc
{
    internal const int SO_ERROR = 4;
    internal const int SO_LINGER = 13;
    internal const int IPPROTO_IP = 0;
    internal const int IP_TTL = 2;
    internal const int IPPROTO_IPV6 = 41;
    internal const int IPV6_UNICAST_HOPS = 16;

    [StructLayout(LayoutKind.Sequential)]
    private struct Linger
    {
        internal int OnOff;
        internal int Seconds;
    }

    [LibraryImport("libc", EntryPoint = "getpeername", SetLastError = true)]
    private static unsafe partial int GetPeerName(int fd, void* address, uint* length);

    /// <summary>The peer's sockaddr; returns its length, or -1 with errno set.</summary>
    internal static unsafe int GetPeerName(int fd, Span<byte> address)
    {
        var length = (uint)address.Length;
        fixed (byte* p = address)
        {
            return GetPeerName(fd, p, &length) == 0 ? (int)length : -1;
        }
    }

    [LibraryImport("libc", EntryPoint = "getsockname", SetLastError = true)]
    private static unsafe partial int GetSockName(int fd, void* address, uint* length);

    /// <summary>The local sockaddr; returns its length, or -1 with errno set.</summary>
    internal static unsafe int GetSockName(int fd, Span<byte> address)
    {
        var length = (uint)address.Length;
        fixed (byte* p = address)
        {
            return GetSockName(fd, p, &length) == 0 ? (int)length : -1;
        }
    }

    /// <summary>Ends both directions; -1 with errno set when the socket is not connected any more.</summary>
    internal static int ShutdownBoth(int fd) => Shutdown(fd, 2);

    [LibraryImport("libc", EntryPoint = "shutdown", SetLastError = true)]
    private static partial int Shutdown(int fd, int how);

    /// <summary>Lets close() discard what is unsent and send RST.</summary>
    internal static unsafe bool TrySetAbortOnClose(int fd)
    {
        var linger = new Linger { OnOff = 1, Seconds = 0 };
        return SetSockOpt(fd, SOL_SOCKET, SO_LINGER, &linger, (uint)sizeof(Linger)) == 0;
    }
}
