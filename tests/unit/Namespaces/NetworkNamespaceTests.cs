using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Shouldly;
using Sidecar.Probes;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.Paths;
using Sidecar.Probes.Processes;
using Sidecar.Probes.SockDiag;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.UnitTests.Namespaces;

/// <summary>Another network namespace, made by a child process and gone with it.</summary>
public sealed class NetworkNamespaceTests : IDisposable
{
    private readonly Process _child;
    private readonly ProcessReader _processes = new();

    public NetworkNamespaceTests()
    {
        Root.Needed("a network namespace cannot be made without CAP_SYS_ADMIN");

        // 192.0.2.0/24 (TEST-NET-1) leads into a veth pair at whose other end nobody has that address: a black hole.
        _child = Process.Start(new ProcessStartInfo(
            "unshare",
            ["--net", "sh", "-ec", "ip link set lo up; ip link add hole type veth peer name end; ip addr add 192.0.2.1/24 dev hole; ip link set hole up; ip link set end up; ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev hole; echo ready; exec sleep 300"])
        {
            UseShellExecute = false,
            RedirectStandardOutput = true,
        })!;
        _child.StandardOutput.ReadLine().ShouldBe("ready");
    }

    public void Dispose()
    {
        _child.Kill();
        _child.WaitForExit();
        _child.Dispose();
    }

    [Fact]
    public void Sockets_made_inside_are_seen_there_and_nowhere_else()
    {
        using var inside = Open();
        using var listener = inside.CreateTcpSocket(AddressFamily.InterNetwork);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        listener.Listen(1);
        using var client = inside.CreateTcpSocket(AddressFamily.InterNetwork);
        client.Connect(listener.LocalEndPoint!);
        var cookie = Loopback.CookieOf(client);
        Sees(inside, cookie).ShouldBeTrue();
        using var own = NetworkNamespace.OpenOwn(_processes.ReadNetworkNamespace(Environment.ProcessId));
        Sees(own, cookie).ShouldBeFalse();
        own.IsOwn.ShouldBeTrue();
        inside.IsOwn.ShouldBeFalse();
        inside.Name.ShouldBe($"net:[{inside.Inode}]");

        // setns is per thread and the thread has ended: this process is where it was.
        _processes.ReadNetworkNamespace(Environment.ProcessId).ShouldBe(own.Inode);
    }

    [Fact]
    public void A_namespace_that_is_not_there_is_refused() =>
        Should.Throw<KernelException>(() => NetworkNamespace.Open(1, "/proc/999999999/ns/net")).Errno.ShouldBe(2);

    [Fact]
    public async Task A_fresh_connection_into_a_black_hole_times_out()
    {
        using var inside = Open();
        var result = await ConnectProbe.TryAsync(inside, IPAddress.Parse("192.0.2.1"), new IPEndPoint(IPAddress.Parse("192.0.2.9"), 5432), ConnectProbeProtocol.Tcp, TimeSpan.FromSeconds(0.4), CancellationToken.None);
        result.Outcome.ShouldBe(ConnectProbeOutcome.TimedOut, result.Detail);
        result.Elapsed.ShouldBeGreaterThan(TimeSpan.FromSeconds(0.3));
    }

    [Fact]
    public async Task And_one_to_nowhere_is_unreachable()
    {
        using var inside = Open();
        var result = await ConnectProbe.TryAsync(inside, IPAddress.Parse("192.0.2.1"), new IPEndPoint(IPAddress.Parse("198.51.100.1"), 5432), ConnectProbeProtocol.Tcp, TimeSpan.FromSeconds(5), CancellationToken.None);
        result.Outcome.ShouldBe(ConnectProbeOutcome.Unreachable, result.Detail);
    }

    private NetworkNamespace Open() => NetworkNamespace.Open(_processes.ReadNetworkNamespace(_child.Id), _processes.NetworkNamespacePath(_child.Id));

    private static bool Sees(NetworkNamespace network, SocketCookie cookie)
    {
        var seen = false;
        network.Diagnostics.Dump(SockDiagClient.StatesOfConnections, [], withInfo: false, (in SocketObservation socket) => seen |= socket.Cookie == cookie);
        return seen;
    }
}
