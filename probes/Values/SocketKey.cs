using System.Runtime.InteropServices;

namespace Sidecar.Probes.Values;

/// <summary>Everything the kernel needs to find one socket again, and only that one.</summary>
/// <param name="Family">AF_INET or AF_INET6, as the dump said.</param>
/// <param name="Local">Local address and port.</param>
/// <param name="Peer">Remote address and port.</param>
/// <param name="Interface">Interface index the socket is bound to, or 0.</param>
/// <param name="Cookie">The socket's identity; a request with another socket's cookie is answered ENOENT.</param>
[StructLayout(LayoutKind.Auto)] // 64 bytes instead of 72
public readonly record struct SocketKey(int Family, TcpEndPoint Local, TcpEndPoint Peer, uint Interface, SocketCookie Cookie)
{
    public static SocketKey Of(in SocketObservation socket) => new(socket.Family, socket.Local, socket.Peer, socket.Interface, socket.Cookie);
}
