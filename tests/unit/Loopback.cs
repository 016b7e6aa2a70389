using System.Net;
using System.Net.Sockets;
using Sidecar.Probes.Interop;
using Sidecar.Probes.Values;

namespace Sidecar.UnitTests;

/// <summary>A real connection over loopback, both ends in this process.</summary>
internal sealed class Loopback : IDisposable
{
    private readonly Socket _listener;

    /// <summary>Connects to a listener of its own.</summary>
    /// <param name="address">127.x.y.z, ::1, or an IPv4-mapped address for a v6 socket that speaks v4.</param>
    internal Loopback(string address = "127.0.0.1")
    {
        var ip = IPAddress.Parse(address);
        _listener = new Socket(ip.IsIPv4MappedToIPv6 ? AddressFamily.InterNetwork : ip.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
        _listener.Bind(new IPEndPoint(ip.IsIPv4MappedToIPv6 ? ip.MapToIPv4() : ip, 0));
        _listener.Listen(8);
        Client = new Socket(ip.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        if (ip.IsIPv4MappedToIPv6)
        {
            Client.DualMode = true;
        }

        Client.Connect(new IPEndPoint(ip, Port));
        Server = _listener.Accept();
    }

    internal Socket Client { get; }

    internal Socket Server { get; }

    internal int Port => ((IPEndPoint)_listener.LocalEndPoint!).Port;

    internal SocketCookie Cookie => CookieOf(Client);

    /// <summary>As a dump would give it.</summary>
    internal SocketKey Key
    {
        get
        {
            var local = (IPEndPoint)Client.LocalEndPoint!;
            var peer = (IPEndPoint)Client.RemoteEndPoint!;
            return new SocketKey(
                Client.AddressFamily == AddressFamily.InterNetwork ? 2 : 10,
                TcpEndPoint.From(local.Address, local.Port),
                TcpEndPoint.From(peer.Address, peer.Port),
                0,
                Cookie);
        }
    }

    internal static SocketCookie CookieOf(Socket socket) =>
        Libc.TryGetOption(socket.SafeHandle, Libc.SOL_SOCKET, Libc.SO_COOKIE, out ulong cookie) ? new SocketCookie(cookie) : throw new InvalidOperationException("SO_COOKIE");

    public void Dispose()
    {
        Client.Dispose();
        Server.Dispose();
        _listener.Dispose();
    }
}

/// <summary>Tests that need root say so in one line instead of failing somewhere later.</summary>
internal static class Root
{
    internal static void Needed(string what)
    {
        if (!Environment.IsPrivilegedProcess)
        {
            throw new InvalidOperationException($"this test needs root: {what}");
        }
    }
}
