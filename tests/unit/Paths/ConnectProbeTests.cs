using System.Net;
using System.Net.Sockets;
using Shouldly;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.Paths;
using Sidecar.Probes.Sockets;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.UnitTests.Paths;

public sealed class ConnectProbeTests : IDisposable
{
    private readonly NetworkNamespace _network = NetworkNamespace.OpenOwn(1);
    private readonly Socket _listener = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);

    public ConnectProbeTests() => _listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));

    public void Dispose()
    {
        _listener.Dispose();
        _network.Dispose();
    }

    [Fact]
    public async Task To_a_listening_server_it_succeeds_and_is_closed_by_a_fin()
    {
        _listener.Listen(1);
        var result = await Try(IPAddress.Loopback);
        result.Outcome.ShouldBe(ConnectProbeOutcome.Connected, result.Detail);
        result.SynRetransmissions.ShouldBe(0);
        using var accepted = await _listener.AcceptAsync();
        (await accepted.ReceiveAsync(new byte[1])).ShouldBe(0);
    }

    [Fact]
    public async Task It_comes_from_the_address_it_is_told()
    {
        _listener.Listen(1);
        (await Try(IPAddress.Parse("127.0.0.77"))).Outcome.ShouldBe(ConnectProbeOutcome.Connected);
        using var accepted = await _listener.AcceptAsync();
        ((IPEndPoint)accepted.RemoteEndPoint!).Address.ShouldBe(IPAddress.Parse("127.0.0.77"));
    }

    [Fact]
    public async Task From_an_address_that_is_no_longer_ours_the_kernel_chooses()
    {
        _listener.Listen(1);
        (await Try(IPAddress.Parse("192.0.2.77"))).Outcome.ShouldBe(ConnectProbeOutcome.Connected);
    }

    [Fact]
    public async Task Where_nothing_listens_it_is_refused() => (await Try(IPAddress.Loopback)).Outcome.ShouldBe(ConnectProbeOutcome.Refused);

    [Fact]
    public async Task In_the_kernels_table_it_is_known_as_our_own()
    {
        // A full accept queue: what comes next waits in SYN-SENT.
        _listener.Listen(0);
        using var first = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        await first.ConnectAsync(_listener.LocalEndPoint!);
        using var enough = new CancellationTokenSource();
        var attempt = ConnectProbe.TryAsync(_network, IPAddress.Loopback, (IPEndPoint)_listener.LocalEndPoint!, ConnectProbeProtocol.Tcp, TimeSpan.FromSeconds(20), enough.Token);

        SocketCookie? found = null;
        while (found is null)
        {
            attempt.IsCompleted.ShouldBeFalse();
            _network.Diagnostics.Dump(1u << (int)TcpState.SynSent, [], withInfo: false, (in SocketObservation socket) =>
                found = socket.Peer.Port == ((IPEndPoint)_listener.LocalEndPoint!).Port ? socket.Cookie : found);
        }

        OwnSockets.Contains(found.Value).ShouldBeTrue();
        await enough.CancelAsync();
        (await attempt).Outcome.ShouldBe(ConnectProbeOutcome.NotTried);
        OwnSockets.Contains(found.Value).ShouldBeTrue("a dump of before may still be read");
    }

    [Fact]
    public async Task Cancelled_it_says_nothing_of_the_path()
    {
        using var cancelled = new CancellationTokenSource();
        await cancelled.CancelAsync();
        (await ConnectProbe.TryAsync(_network, IPAddress.Loopback, (IPEndPoint)_listener.LocalEndPoint!, ConnectProbeProtocol.Tcp, TimeSpan.FromSeconds(1), cancelled.Token))
            .Outcome.ShouldBe(ConnectProbeOutcome.NotTried);
    }

    private Task<ConnectProbeResult> Try(IPAddress source) =>
        ConnectProbe.TryAsync(_network, source, (IPEndPoint)_listener.LocalEndPoint!, ConnectProbeProtocol.Tcp, TimeSpan.FromSeconds(20), CancellationToken.None);
}
