using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Shouldly;
using Sidecar.Probes.Interop;
using Sidecar.Probes.Processes;
using Sidecar.Probes.SockDiag;
using Sidecar.Probes.Sockets;
using Sidecar.Probes.Values;
using Sidecar.UnitTests.Namespaces;
using Xunit;

namespace Sidecar.UnitTests.Sockets;

/// <summary>Window probes on real connections in a namespace of the test's own, whose loopback can be silenced.</summary>
public sealed class WindowProbeTests : IDisposable
{
    private static readonly TimeSpan Enough = TimeSpan.FromSeconds(30);

    private readonly LonelyNetwork _network = new();
    private readonly Socket _client;
    private readonly Socket _server;
    private readonly ProcessHandle _self;

    public WindowProbeTests()
    {
        (_client, _server) = _network.Connect();
        var processes = new ProcessReader();
        processes.TryReadStat(Environment.ProcessId, out var stat).ShouldBeTrue();
        _self = ProcessHandle.TryOpen(stat.Identity, processes, out _).ShouldNotBeNull();
    }

    public void Dispose()
    {
        _self.Dispose();
        _client.Dispose();
        _server.Dispose();
        _network.Dispose();
    }

    [Fact]
    public void A_live_idle_peer_answers_with_one_segment()
    {
        SpinWait.SpinUntil(() => Info.LastAckReceivedMilliseconds >= 150, Enough).ShouldBeTrue();
        var before = Info;
        Probe().ShouldBe(TouchResult.Done);
        SpinWait.SpinUntil(() => Info.SegmentsIn != before.SegmentsIn, Enough).ShouldBeTrue();
        var after = Info;
        after.SegmentsIn.ShouldBe(before.SegmentsIn + 1);
        after.SegmentsOut.ShouldBe(before.SegmentsOut + 1);
        after.LastAckReceivedMilliseconds.ShouldBeLessThan(before.LastAckReceivedMilliseconds);
        (after.BytesReceived, after.BytesSent, after.Unacked).ShouldBe((before.BytesReceived, before.BytesSent, before.Unacked));

        // Nothing of it reaches either application, and the connection works as before.
        (_client.Available, _server.Available).ShouldBe((0, 0));
        _client.Send("query"u8);
        _server.Receive(new byte[16]).ShouldBe(5);
    }

    [Fact]
    public void A_probe_within_half_a_second_of_the_last_is_not_answered_by_a_linux_peer()
    {
        _network.Run("sysctl", "-qw", "net.ipv4.tcp_invalid_ratelimit=60000"); // half a second made long enough to be tested
        var before = Info;
        Probe().ShouldBe(TouchResult.Done);
        SpinWait.SpinUntil(() => Info.SegmentsIn == before.SegmentsIn + 1, Enough).ShouldBeTrue();
        Probe().ShouldBe(TouchResult.Done);

        // Loopback delivers in order: once data that was sent later has been acknowledged, an answer would have been here.
        _client.Send("x"u8);
        SpinWait.SpinUntil(() => Info.BytesAcked == before.BytesAcked + 1, Enough).ShouldBeTrue();
        Info.SegmentsIn.ShouldBe(before.SegmentsIn + 2);
        Info.SegmentsOut.ShouldBe(before.SegmentsOut + 3);
    }

    [Fact]
    public void On_a_silent_path_it_moves_neither_the_retransmission_timer_nor_its_backoff()
    {
        _network.Silence();
        _client.Send("query"u8);
        for (var tries = 0; ; tries++)
        {
            tries.ShouldBeLessThan(10);

            // The timer has backed off and has more than 300 ms left: time for a probe between two retransmissions.
            SpinWait.SpinUntil(() => Info.Backoff >= 1 && Observe().TimerExpiresMilliseconds > 300, Enough).ShouldBeTrue();
            var (before, timerBefore, started) = (Info, Observe(), Stopwatch.GetTimestamp());
            Probe().ShouldBe(TouchResult.Done);
            var (after, timerAfter) = (Info, Observe());
            var passed = Stopwatch.GetElapsedTime(started).TotalMilliseconds;
            if (passed > 250)
            {
                continue; // this test was held up: a retransmission may have come in between
            }

            after.SegmentsOut.ShouldBe(before.SegmentsOut + 1);
            after.SegmentsIn.ShouldBe(before.SegmentsIn);
            (after.Backoff, after.RtoMicroseconds, after.TotalRetransmissions, after.Retransmits, after.Probes, after.Unacked)
                .ShouldBe((before.Backoff, before.RtoMicroseconds, before.TotalRetransmissions, before.Retransmits, before.Probes, before.Unacked));
            timerAfter.Timer.ShouldBe(timerBefore.Timer);
            timerAfter.TimerExpiresMilliseconds.ShouldBeInRange(timerBefore.TimerExpiresMilliseconds - (uint)passed - 20, timerBefore.TimerExpiresMilliseconds);
            return;
        }
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    public void The_address_reuse_that_the_application_chose_stays(int reuse)
    {
        Libc.TrySetOption(_client.SafeHandle, Libc.SOL_SOCKET, Libc.SO_REUSEADDR, reuse).ShouldBeTrue();
        var before = Info;
        Probe().ShouldBe(TouchResult.Done);
        Info.SegmentsOut.ShouldBe(before.SegmentsOut + 1);
        Reuse(_client).ShouldBe(reuse);
    }

    [Fact]
    public void With_another_cookie_nothing_is_sent()
    {
        var before = Info;
        WindowProbe.TrySend(_self, Descriptor, Loopback.CookieOf(_server)).ShouldBe(TouchResult.Gone);
        Info.SegmentsOut.ShouldBe(before.SegmentsOut);
    }

    [Fact]
    public void Without_the_capability_it_is_not_permitted_and_nothing_changes()
    {
        Libc.TrySetOption(_client.SafeHandle, Libc.SOL_SOCKET, Libc.SO_REUSEADDR, 1).ShouldBeTrue();
        var before = Info;
        CapabilityThread.Without(Probe, Capability.NetAdmin).ShouldBe(TouchResult.NotPermitted);
        (Info.SegmentsOut, Reuse(_client)).ShouldBe((before.SegmentsOut, 1));
        CapabilityThread.Without(Probe).ShouldBe(TouchResult.Done);
    }

    [Fact]
    public void A_listening_socket_is_never_touched()
    {
        using var listener = _network.Inside.CreateTcpSocket(AddressFamily.InterNetwork);
        Libc.TrySetOption(listener.SafeHandle, Libc.SOL_SOCKET, Libc.SO_REUSEADDR, 1).ShouldBeTrue();
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        listener.Listen(1);
        WindowProbe.TrySend(_self, (int)listener.Handle, Loopback.CookieOf(listener)).ShouldBe(TouchResult.WrongState);
        Reuse(listener).ShouldBe(1);
        using var client = _network.Inside.CreateTcpSocket(AddressFamily.InterNetwork);
        client.Connect(listener.LocalEndPoint!);
        using var accepted = listener.Accept();
        accepted.Connected.ShouldBeTrue();
    }

    [Fact]
    public void Nor_is_one_whose_peer_has_closed_since_the_kernel_sends_no_probe_then()
    {
        Libc.TrySetOption(_client.SafeHandle, Libc.SOL_SOCKET, Libc.SO_REUSEADDR, 1).ShouldBeTrue();
        _server.Shutdown(SocketShutdown.Send);
        _client.Receive(new byte[1]).ShouldBe(0);
        var before = Info;
        Probe().ShouldBe(TouchResult.WrongState);
        (Info.SegmentsOut, Reuse(_client)).ShouldBe((before.SegmentsOut, 1));
    }

    [Fact]
    public void One_that_somebody_checkpoints_stays_in_repair_mode()
    {
        Libc.TrySetOption(_client.SafeHandle, Libc.SOL_TCP, Libc.TCP_REPAIR, 1).ShouldBeTrue();
        var before = Info;
        Probe().ShouldBe(TouchResult.WrongState);
        Libc.TryGetOption(_client.SafeHandle, Libc.SOL_TCP, Libc.TCP_REPAIR, out int repair).ShouldBeTrue();
        (repair, Info.SegmentsOut).ShouldBe((1, before.SegmentsOut));
        Libc.TrySetOption(_client.SafeHandle, Libc.SOL_TCP, Libc.TCP_REPAIR, -1).ShouldBeTrue(); // TCP_REPAIR_OFF_NO_WP
    }

    [Fact]
    public void A_socket_of_another_kind_is_left_alone()
    {
        using var unix = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        WindowProbe.TrySend(_self, (int)unix.Handle, Loopback.CookieOf(unix)).ShouldBe(TouchResult.Failed);
    }

    [Fact]
    public void Of_another_process_it_probes_the_connection_and_of_one_that_has_exited_nothing()
    {
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        listener.Listen(1);
        var port = ((IPEndPoint)listener.LocalEndPoint!).Port;
        using var child = Process.Start(new ProcessStartInfo("bash", ["-c", $"exec 5<>/dev/tcp/127.0.0.1/{port}; exec sleep 300"]) { UseShellExecute = false })!;
        using var accepted = listener.Accept();
        var processes = new ProcessReader();
        processes.TryReadStat(child.Id, out var stat).ShouldBeTrue();
        using var owner = ProcessHandle.TryOpen(stat.Identity, processes, out _).ShouldNotBeNull();
        using var diagnostics = SockDiagClient.Open();
        var (from, to) = ((IPEndPoint)accepted.RemoteEndPoint!, (IPEndPoint)accepted.LocalEndPoint!);
        var theirs = Find(diagnostics, from.Port, to.Port);
        SpinWait.SpinUntil(() => processes.HoldsSocket(child.Id, 5, theirs.Inode), Enough).ShouldBeTrue();

        WindowProbe.TrySend(owner, 5, theirs.Cookie).ShouldBe(TouchResult.Done);
        SpinWait.SpinUntil(() => Find(diagnostics, from.Port, to.Port).Info.SegmentsIn == theirs.Info.SegmentsIn + 1, Enough).ShouldBeTrue();
        child.Kill();
        child.WaitForExit();
        WindowProbe.TrySend(owner, 5, theirs.Cookie).ShouldBe(TouchResult.Gone);
    }

    private int Descriptor => (int)_client.Handle;

    private TcpInfo Info
    {
        get
        {
            Span<byte> buffer = stackalloc byte[512];
            var length = Libc.GetOption(_client.SafeHandle, Libc.SOL_TCP, Libc.TCP_INFO, buffer);
            return TcpInfo.Read(buffer[..length]);
        }
    }

    private TouchResult Probe() => WindowProbe.TrySend(_self, Descriptor, Loopback.CookieOf(_client));

    private SocketObservation Observe() =>
        Find(_network.Inside.Diagnostics, ((IPEndPoint)_client.LocalEndPoint!).Port, ((IPEndPoint)_client.RemoteEndPoint!).Port);

    private static SocketObservation Find(SockDiagClient diagnostics, int local, int peer)
    {
        SocketObservation? found = null;
        diagnostics.Dump(SockDiagClient.StatesOfConnections, [], withInfo: true, (in SocketObservation socket) =>
            found = socket.Local.Port == local && socket.Peer.Port == peer ? socket : found);
        return found.ShouldNotBeNull();
    }

    private static int Reuse(Socket socket)
    {
        Libc.TryGetOption(socket.SafeHandle, Libc.SOL_SOCKET, Libc.SO_REUSEADDR, out int reuse).ShouldBeTrue();
        return reuse;
    }
}
