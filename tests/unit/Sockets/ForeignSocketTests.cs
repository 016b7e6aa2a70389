using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Shouldly;
using Sidecar.Probes.Processes;
using Sidecar.Probes.SockDiag;
using Sidecar.Probes.Sockets;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.UnitTests.Sockets;

/// <summary>A child process with a connection of its own, and its options set from outside.</summary>
public sealed class ForeignSocketTests : IDisposable
{
    private readonly Socket _listener = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
    private readonly Process _child;
    private readonly Socket _accepted;
    private readonly ProcessReader _processes = new();
    private readonly ProcessHandle _owner;
    private readonly int _descriptor;
    private readonly SocketCookie _cookie;

    public ForeignSocketTests()
    {
        Root.Needed("pidfd_getfd on another process needs CAP_SYS_PTRACE");
        _listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        _listener.Listen(1);
        var port = ((IPEndPoint)_listener.LocalEndPoint!).Port;
        _child = Process.Start(new ProcessStartInfo("bash", ["-c", $"exec 5<>/dev/tcp/127.0.0.1/{port}; exec sleep 300"]) { UseShellExecute = false })!;
        _accepted = _listener.Accept();
        var client = (IPEndPoint)_accepted.RemoteEndPoint!;
        using var diagnostics = SockDiagClient.Open();
        SocketObservation? found = null;
        diagnostics.Dump(SockDiagClient.StatesOfConnections, [], withInfo: false, (in SocketObservation socket) =>
        {
            if (socket.Local.Port == client.Port && socket.Peer.Port == port)
            {
                found = socket;
            }
        });
        _cookie = found.ShouldNotBeNull().Cookie;
        _processes.TryReadStat(_child.Id, out var stat).ShouldBeTrue();
        _owner = ProcessHandle.TryOpen(stat.Identity, _processes, out _).ShouldNotBeNull();
        _descriptor = 5;

        // The shell connects first and moves the descriptor to its place afterwards.
        SpinWait.SpinUntil(() => _processes.HoldsSocket(_child.Id, _descriptor, found.Value.Inode), TimeSpan.FromSeconds(30)).ShouldBeTrue();
    }

    public void Dispose()
    {
        _owner.Dispose();
        _child.Kill();
        _child.WaitForExit();
        _child.Dispose();
        _accepted.Dispose();
        _listener.Dispose();
    }

    [Fact]
    public void Keepalive_is_set_from_outside_and_stays()
    {
        ForeignSocket.TryRead(_owner, _descriptor, _cookie, out var before).ShouldBe(TouchResult.Done);
        before.Enabled.ShouldBeFalse();
        var wanted = before with { Enabled = true, Idle = TimeSpan.FromSeconds(30), Interval = TimeSpan.FromSeconds(12), Count = 11 };
        ForeignSocket.TryChange(_owner, _descriptor, _cookie, _ => wanted, out var seen, out var set).ShouldBe(TouchResult.Done);
        (seen, set).ShouldBe((before, wanted));
        ForeignSocket.TryRead(_owner, _descriptor, _cookie, out var after).ShouldBe(TouchResult.Done);
        after.ShouldBe(wanted);
    }

    [Fact]
    public void Deciding_for_nothing_changes_nothing()
    {
        ForeignSocket.TryChange(_owner, _descriptor, _cookie, _ => null, out _, out var set).ShouldBe(TouchResult.Done);
        set.ShouldBeNull();
        ForeignSocket.TryRead(_owner, _descriptor, _cookie, out var after).ShouldBe(TouchResult.Done);
        after.Enabled.ShouldBeFalse();
    }

    [Fact]
    public void With_another_cookie_the_descriptor_is_not_the_socket_that_was_meant()
    {
        var asked = false;
        ForeignSocket.TryChange(_owner, _descriptor, new SocketCookie(_cookie.Value + 1_000_000), options => { asked = true; return options with { Enabled = true }; }, out _, out _)
            .ShouldBe(TouchResult.Gone);
        asked.ShouldBeFalse();
        ForeignSocket.TryRead(_owner, _descriptor, _cookie, out var after).ShouldBe(TouchResult.Done);
        after.Enabled.ShouldBeFalse();
    }

    [Fact]
    public void A_descriptor_or_process_that_is_gone_is_gone()
    {
        ForeignSocket.TryRead(_owner, 99, _cookie, out _).ShouldBe(TouchResult.Gone);
        _child.Kill();
        _child.WaitForExit();
        ForeignSocket.TryRead(_owner, _descriptor, _cookie, out _).ShouldBe(TouchResult.Gone);
    }
}
