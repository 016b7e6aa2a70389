using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Shouldly;
using Sidecar.Probes.Interop;
using Sidecar.Probes.Processes;
using Sidecar.Probes.Sockets;
using Sidecar.Probes.Values;
using Sidecar.UnitTests.Namespaces;
using Xunit;
using Xunit.Abstractions;

namespace Sidecar.UnitTests.Sockets;

/// <summary>Stalled connections of another namespace, whose TCP segments can be dropped there and let through again.</summary>
public sealed class ResumeStalledTests : IDisposable
{
    private const int EHOSTUNREACH = 113;

    private static readonly TimeSpan Enough = TimeSpan.FromSeconds(60);

    private readonly ITestOutputHelper _output;
    private readonly LonelyNetwork _network = new();
    private readonly List<Socket> _sockets = [];
    private readonly ProcessHandle _self;
    private readonly ResumeStalled _resume;

    public ResumeStalledTests(ITestOutputHelper output)
    {
        _output = output;
        var processes = new ProcessReader();
        processes.TryReadStat(Environment.ProcessId, out var stat).ShouldBeTrue();
        _self = ProcessHandle.TryOpen(stat.Identity, processes, out _).ShouldNotBeNull();
        _resume = new ResumeStalled(_network.Inside);
    }

    public void Dispose()
    {
        _resume.Dispose();
        _self.Dispose();
        _sockets.ForEach(socket => socket.Dispose());
        _network.Dispose();
    }

    [Fact]
    public void Connections_that_were_stalled_for_twenty_seconds_go_on_at_once()
    {
        (Socket Client, Socket Server)[] all = [Connect("127.0.0.1"), Connect("::1"), Connect("::ffff:127.0.0.1")];
        Cut();
        foreach (var (client, _) in all)
        {
            client.Send("query"u8);
        }

        // The seventh timeout would come at about 27 s.
        var cut = Stopwatch.StartNew();
        SpinWait.SpinUntil(() => cut.Elapsed > TimeSpan.FromSeconds(18) && all.All(pair => Info(pair.Client).Backoff >= 6 && Observe(pair.Client).TimerExpiresMilliseconds > 3000), Enough).ShouldBeTrue();
        Restore();
        foreach (var (client, server) in all)
        {
            var (before, timer) = (Info(client), Observe(client).TimerExpiresMilliseconds);
            server.Available.ShouldBe(0);
            WindowProbe.TrySend(_self, (int)client.Handle, Loopback.CookieOf(client)).ShouldBe(TouchResult.Done);
            SpinWait.SpinUntil(() => Info(client).SegmentsIn == before.SegmentsIn + 1, Enough).ShouldBeTrue();
            var started = Stopwatch.StartNew();
            Resume(client).ShouldBe(ResumeResult.Sent);
            var called = started.Elapsed;
            SpinWait.SpinUntil(() => server.Available == 5 && Info(client).Unacked == 0, Enough).ShouldBeTrue();
            _output.WriteLine($"{client.LocalEndPoint}: back-off {before.Backoff}, timer {timer} ms; call {called.TotalMicroseconds:F0} us, resumed after {started.ElapsedMilliseconds} ms");
            started.Elapsed.ShouldBeLessThan(TimeSpan.FromMilliseconds(500));
            Error(client).ShouldBe(0);
        }
    }

    [Fact]
    public void On_a_dead_path_it_costs_a_retransmission_and_ends_nothing()
    {
        var (client, server) = Connect("127.0.0.1");
        Cut();
        client.Send("query"u8);
        SpinWait.SpinUntil(() => Info(client).Backoff >= 3, Enough).ShouldBeTrue();
        var before = Info(client);
        Resume(client).ShouldBe(ResumeResult.Sent);
        var after = Info(client);
        (after.TotalRetransmissions - before.TotalRetransmissions).ShouldBeInRange(0u, 2u);
        after.Unacked.ShouldBe(before.Unacked);

        // Whoever asks for SO_ERROR before the next acknowledgement is told of the soft error: the price of an alarm that was false.
        Error(client).ShouldBe(EHOSTUNREACH);
        Observe(client).State.ShouldBe(TcpState.Established);
        Restore();
        SpinWait.SpinUntil(() => server.Available == 5, Enough).ShouldBeTrue();
    }

    [Fact]
    public void A_connection_that_is_not_stalled_is_left_alone()
    {
        var (client, server) = Connect("127.0.0.1");
        var before = Info(client);
        Resume(client).ShouldBe(ResumeResult.LeftAlone);
        Info(client).SegmentsOut.ShouldBe(before.SegmentsOut);
        client.Send("query"u8);
        server.Receive(new byte[16]).ShouldBe(5);
    }

    [Theory]
    [InlineData("127.0.0.1", Libc.IPPROTO_IP, Libc.IP_RECVERR)]
    [InlineData("::ffff:127.0.0.1", Libc.IPPROTO_IP, Libc.IP_RECVERR)]
    [InlineData("::1", Libc.IPPROTO_IPV6, Libc.IPV6_RECVERR)]
    public void An_application_that_wants_to_be_told_of_icmp_errors_is_told_of_none(string address, int level, int option)
    {
        var (client, _) = Connect(address);
        Libc.TrySetOption(client.SafeHandle, level, option, 1).ShouldBeTrue();
        Stall(client);
        var before = Info(client);
        Resume(client).ShouldBe(ResumeResult.LeftAlone);
        var after = Info(client);
        (after.SegmentsOut - after.TotalRetransmissions, Error(client)).ShouldBe((before.SegmentsOut - before.TotalRetransmissions, 0));
    }

    [Fact]
    public void Without_the_capability_it_is_not_permitted_and_nothing_is_sent()
    {
        var (client, _) = Connect("127.0.0.1");
        Stall(client);
        var before = Info(client);
        CapabilityThread.Without(() => Resume(client), Capability.NetRaw).ShouldBe(ResumeResult.NotPermitted);
        var after = Info(client);
        (after.SegmentsOut - after.TotalRetransmissions).ShouldBe(before.SegmentsOut - before.TotalRetransmissions);
    }

    [Fact]
    public void Another_socket_behind_the_descriptor_is_not_touched()
    {
        var (client, server) = Connect("127.0.0.1");
        Stall(client);
        _resume.TryResume(_self, (int)server.Handle, SocketKey.Of(Observe(client))).ShouldBe(ResumeResult.Gone);
    }

    private (Socket Client, Socket Server) Connect(string address)
    {
        var ip = IPAddress.Parse(address);
        var plain = ip.IsIPv4MappedToIPv6 ? ip.MapToIPv4() : ip;
        using var listener = _network.Inside.CreateTcpSocket(plain.AddressFamily);
        listener.Bind(new IPEndPoint(plain, 0));
        listener.Listen(1);
        var client = _network.Inside.CreateTcpSocket(ip.AddressFamily);
        client.NoDelay = true;
        if (ip.IsIPv4MappedToIPv6)
        {
            client.DualMode = true;
        }

        client.Connect(new IPEndPoint(ip, ((IPEndPoint)listener.LocalEndPoint!).Port));
        var server = listener.Accept();
        _sockets.AddRange([client, server]);
        return (client, server);
    }

    private void Cut() => _network.Run("nft", "add table inet cut; add chain inet cut everything { type filter hook input priority 0; }; add rule inet cut everything meta l4proto tcp drop");

    private void Restore() => _network.Run("nft", "delete table inet cut");

    private void Stall(Socket client)
    {
        Cut();
        client.Send("query"u8);
        SpinWait.SpinUntil(() => Info(client).Backoff >= 2, Enough).ShouldBeTrue();
    }

    private ResumeResult Resume(Socket client) => _resume.TryResume(_self, (int)client.Handle, SocketKey.Of(Observe(client)));

    private SocketObservation Observe(Socket client)
    {
        var (local, peer) = ((IPEndPoint)client.LocalEndPoint!, (IPEndPoint)client.RemoteEndPoint!);
        _network.Inside.Diagnostics.TryFind(TcpEndPoint.From(local.Address, local.Port), TcpEndPoint.From(peer.Address, peer.Port), 0, out var socket).ShouldBeTrue();
        return socket;
    }

    private static TcpInfo Info(Socket socket)
    {
        Span<byte> buffer = stackalloc byte[512];
        return TcpInfo.Read(buffer[..Libc.GetOption(socket.SafeHandle, Libc.SOL_TCP, Libc.TCP_INFO, buffer)]);
    }

    private static int Error(Socket socket)
    {
        Libc.TryGetOption(socket.SafeHandle, Libc.SOL_SOCKET, Libc.SO_ERROR, out int error).ShouldBeTrue();
        return error;
    }
}
