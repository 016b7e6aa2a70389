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
    private static unsafe partial int GetPeerName(SafeHandle socket, void* address, uint* length);

    /// <summary>The peer's sockaddr; returns its length, or -1 with errno set.</summary>
    internal static unsafe int GetPeerName(SafeHandle socket, Span<byte> address)
    {
        var length = (uint)address.Length;
        fixed (byte* p = address)
        {
            return GetPeerName(socket, p, &length) == 0 ? (int)length : -1;
        }
    }

    [LibraryImport("libc", EntryPoint = "getsockname", SetLastError = true)]
    private static unsafe partial int GetSockName(SafeHandle socket, void* address, uint* length);

    /// <summary>The local sockaddr; returns its length, or -1 with errno set.</summary>
    internal static unsafe int GetSockName(SafeHandle socket, Span<byte> address)
    {
        var length = (uint)address.Length;
        fixed (byte* p = address)
        {
            return GetSockName(socket, p, &length) == 0 ? (int)length : -1;
        }
    }

    /// <summary>Ends both directions; -1 with errno set when the socket is not connected any more.</summary>
    internal static int ShutdownBoth(SafeHandle socket) => Shutdown(socket, 2);

    [LibraryImport("libc", EntryPoint = "shutdown", SetLastError = true)]
    private static partial int Shutdown(SafeHandle socket, int how);

    /// <summary>Lets close() discard what is unsent and send RST.</summary>
    internal static unsafe bool TrySetAbortOnClose(SafeHandle socket)
    {
        var linger = new Linger { OnOff = 1, Seconds = 0 };
        return SetSockOpt(socket, SOL_SOCKET, SO_LINGER, &linger, (uint)sizeof(Linger)) == 0;
    }
}
