using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Sidecar.Probes.Interop;
using Sidecar.Probes.SockDiag;
using Sidecar.Probes.Values;

namespace Sidecar.Probes.Processes;

/// <summary>What the kernel is and lets us do, where it can be asked or tried without touching anybody else.</summary>
public static class HostFacts
{
    /// <summary>As uname -r says it; null without proc.</summary>
    public static string? KernelRelease => Read("/proc/sys/kernel/osrelease");

    /// <summary>kernel.yama.ptrace_scope, 0 to 3; null where Yama is not there.</summary>
    public static int? YamaScope => (int?)Sysctl("kernel.yama.ptrace_scope");

    /// <summary>
    /// A kernel setting that is one number, by its name in sysctl(8); those of the network are the calling thread's network
    /// namespace's. Null where there is none, or it cannot be read.
    /// </summary>
    public static long? Sysctl(string name) =>
        long.TryParse(Read("/proc/sys/" + name.Replace('.', '/')), NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var value) ? value : null;

    /// <summary>Opens a raw TCP socket and closes it.</summary>
    /// <param name="detail">Why not; null where it worked.</param>
    public static bool CanOpenRawSocket(out string? detail)
    {
        using var socket = Libc.Socket(Libc.AF_INET, Libc.SOCK_RAW | Libc.SOCK_CLOEXEC, Libc.IPPROTO_TCP);
        detail = socket.IsInvalid ? new KernelException("socket(SOCK_RAW)", Marshal.GetLastPInvokeError()).Message : null;
        return !socket.IsInvalid;
    }

    /// <summary>Finds a listening socket of our own through sock_diag and reads how much TCP_INFO this kernel gives.</summary>
    /// <param name="detail">Why not; null where it worked.</param>
    /// <returns>Bytes of TCP_INFO; 0 where it failed.</returns>
    public static int SeeOwnSocket(out string? detail)
    {
        try
        {
            using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
            listener.Listen(1);
            using var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            client.Connect(listener.LocalEndPoint!);
            var (local, peer) = ((IPEndPoint)client.LocalEndPoint!, (IPEndPoint)client.RemoteEndPoint!);
            using var diagnostics = SockDiagClient.Open();
            if (!diagnostics.TryFind(TcpEndPoint.From(local.Address, local.Port), TcpEndPoint.From(peer.Address, peer.Port), 0, out var seen) || !seen.Info.IsPresent)
            {
                detail = "the kernel did not show the agent's own socket";
                return 0;
            }

            Span<byte> info = stackalloc byte[512];
            detail = null;
            return Libc.GetOption(client.SafeHandle, Libc.SOL_TCP, Libc.TCP_INFO, info);
        }
        catch (Exception e) when (e is SocketException or KernelException)
        {
            detail = e.Message;
            return 0;
        }
    }

    private static string? Read(string path)
    {
        try
        {
            return File.ReadAllText(path).Trim();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }
}
