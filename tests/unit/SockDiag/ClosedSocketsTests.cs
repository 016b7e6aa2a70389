using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Shouldly;
using Sidecar.Probes.SockDiag;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.UnitTests.SockDiag;

/// <summary>The kernel's announcements, on loopback.</summary>
public sealed class ClosedSocketsTests
{
    [Fact]
    public async Task A_connection_that_was_closed_is_announced_with_its_cookie_and_its_last_numbers()
    {
        using var closed = ClosedSockets.Open();
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        SocketCookie cookie;
        using (var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp))
        {
            await client.ConnectAsync(listener.LocalEndpoint);
            using var server = await listener.AcceptSocketAsync();
            await client.SendAsync(new byte[5]);
            await server.ReceiveAsync(new byte[5]);
            using var diagnostics = SockDiagClient.Open();
            diagnostics.TryFind(Of(client.LocalEndPoint), Of(client.RemoteEndPoint), 0, out var open).ShouldBeTrue();
            cookie = open.Cookie;
            closed.Drain((in SocketObservation socket) => socket.Cookie.ShouldNotBe(cookie)).ShouldBeTrue();
        }

        SocketObservation? found = null;
        for (var waited = Stopwatch.StartNew(); found is null && waited.Elapsed < TimeSpan.FromSeconds(30); await Task.Delay(20))
        {
            closed.Drain((in SocketObservation socket) => found = socket.Cookie == cookie ? socket : found);
        }

        found.ShouldNotBeNull().State.ShouldBe(TcpState.Close);
        found.Value.Info.BytesSent.ShouldBe(5ul);
        found.Value.Info.BytesAcked.ShouldBe(5ul + 2, "SYN and FIN count");
    }

    [Fact]
    public void Where_nothing_was_closed_it_does_not_wait()
    {
        using var closed = ClosedSockets.Open();
        closed.Drain((in SocketObservation _) => { });
        closed.Drain((in SocketObservation _) => { }).ShouldBeTrue();
    }

    private static TcpEndPoint Of(EndPoint? end) => TcpEndPoint.From(((IPEndPoint)end!).Address, ((IPEndPoint)end).Port);
}
