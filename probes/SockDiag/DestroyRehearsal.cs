using System.Net;
using System.Net.Sockets;
using Sidecar.Probes.Values;

namespace Sidecar.Probes.SockDiag;

/// <summary>
/// Destroys a connection of the agent's own over loopback, to find out whether it could destroy another one. Only doing
/// it tells: the kernel checks whether the socket exists before it checks the capability.
/// </summary>
public static class DestroyRehearsal
{
    /// <summary>Rehearses in the calling thread's network namespace; never throws.</summary>
    /// <param name="detail">What went wrong, where the result alone does not say it.</param>
    /// <returns><see cref="DestroyResult.Destroyed"/> when it works; <see cref="DestroyResult.Gone"/> when the rehearsal itself failed.</returns>
    public static DestroyResult Run(out string? detail)
    {
        detail = null;
        try
        {
            using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
            listener.Listen(1);
            using var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            client.Connect(listener.LocalEndPoint!);
            using var accepted = listener.Accept();
            if (!Interop.Libc.TryGetOption(client.SafeHandle, Interop.Libc.SOL_SOCKET, Interop.Libc.SO_COOKIE, out ulong cookie))
            {
                detail = "SO_COOKIE cannot be read";
                return DestroyResult.Gone;
            }

            var local = (IPEndPoint)client.LocalEndPoint!;
            var peer = (IPEndPoint)client.RemoteEndPoint!;
            var key = new SocketKey(
                Interop.Libc.AF_INET, TcpEndPoint.From(local.Address, local.Port), TcpEndPoint.From(peer.Address, peer.Port), 0, new SocketCookie(cookie));
            using var diagnostics = SockDiagClient.Open();
            var result = diagnostics.Destroy(key);
            if (result == DestroyResult.Gone)
            {
                detail = "the kernel did not find the agent's own socket";
            }

            return result;
        }
        catch (Exception e) when (e is SocketException or KernelException)
        {
            detail = e.Message;
            return DestroyResult.Gone;
        }
    }
}
