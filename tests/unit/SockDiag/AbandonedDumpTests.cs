using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Shouldly;
using Sidecar.Probes;
using Sidecar.Probes.Interop;
using Sidecar.Probes.Listeners;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.Processes;
using Sidecar.Probes.SockDiag;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.UnitTests.SockDiag;

/// <summary>
/// Dumps that are given up midway, on a table that fills the receive buffer (net.core.rmem_default, 208 KiB) many times, in
/// a network namespace of its own.
/// </summary>
public sealed class AbandonedDumpTests : IDisposable
{
    private const int Connections = 3000;

    private readonly Process _child;
    private readonly NetworkNamespace _network;
    private readonly List<Socket> _sockets = [];

    public AbandonedDumpTests()
    {
        Root.Needed("a network namespace cannot be made without CAP_SYS_ADMIN");
        _child = Process.Start(new ProcessStartInfo("unshare", ["--net", "sh", "-ec", "ip link set lo up; echo ready; exec sleep 300"])
        {
            UseShellExecute = false,
            RedirectStandardOutput = true,
        })!;
        _child.StandardOutput.ReadLine().ShouldBe("ready");
        var processes = new ProcessReader();
        _network = NetworkNamespace.Open(processes.ReadNetworkNamespace(_child.Id), processes.NetworkNamespacePath(_child.Id));
        _network.Run(() =>
        {
            using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
            listener.Listen(8);
            for (var i = 0; i < Connections; i++)
            {
                var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
                _sockets.Add(client);
                client.Connect(listener.LocalEndPoint!);
                _sockets.Add(listener.Accept());
            }

            return true;
        });
    }

    public void Dispose()
    {
        foreach (var socket in _sockets)
        {
            socket.Dispose();
        }

        _network.Dispose();
        _child.Kill();
        _child.WaitForExit();
        _child.Dispose();
    }

    [Fact]
    public void After_a_dump_that_its_visitor_gave_up_every_request_is_answered_and_for_the_same_namespace()
    {
        for (var times = 0; times < 3; times++)
        {
            GiveUp(_network.Diagnostics);
            SeeAll(_network.Diagnostics);
        }

        GiveUp(_network.Diagnostics);
        _network.Diagnostics.ReadListeners().ShouldBeEmpty("the listeners of this process's own namespace are not asked for");
        GiveUp(_network.Diagnostics);
        var key = KeyOf(_sockets[0]);
        _network.Diagnostics.TryGet(key, out _).ShouldBeTrue();
        GiveUp(_network.Diagnostics);
        _network.Diagnostics.Destroy(key).ShouldBe(DestroyResult.Destroyed);
    }

    [Fact]
    public void After_a_dump_whose_answers_overran_the_receive_buffer_the_next_one_is_whole()
    {
        KernelHandle? made = null;
        KernelHandle Make() => made = _network.Run(SockDiagClient.OpenSocket);
        using var client = new SockDiagClient(Make(), Make);
        var first = made;

        // The kernel's answers to these fill the buffer behind the dump's, and it says ENOBUFS.
        var request = new byte[256];
        var length = InetDiagWire.WriteSingle(request, 999, InetDiagWire.SOCK_DIAG_BY_FAMILY, InetDiagWire.NLM_F_REQUEST, KeyOf(_sockets[0]), InetDiagWire.ExtensionInfo);
        var isOverrun = false;
        Should.Throw<KernelException>(() => client.Dump(SockDiagClient.StatesOfConnections, [], withInfo: true, (in SocketObservation _) =>
        {
            for (var i = 0; i < 3000 && !isOverrun; i++)
            {
                Libc.Send(first!, request.AsSpan(0, length));
            }

            isOverrun = true;
        })).Errno.ShouldBe(Libc.ENOBUFS);
        SeeAll(client);
        made.ShouldNotBe(first);
    }

    [Fact]
    public void A_socket_of_another_namespace_is_not_taken_instead()
    {
        using var client = _network.Run(SockDiagClient.Open);
        GiveUp(client);

        // This thread is in another namespace than the one in which the client was opened.
        Should.Throw<KernelException>(() => client.TryGet(KeyOf(_sockets[0]), out _)).Errno.ShouldBe(Libc.EINVAL);
    }

    [Fact]
    public void A_client_that_was_disposed_while_a_dump_was_given_up_stays_disposed()
    {
        var client = SockDiagClient.Open(_network.Run);
        Should.Throw<OperationCanceledException>(() => client.Dump(SockDiagClient.StatesOfConnections, [], withInfo: true, (in SocketObservation _) =>
        {
            client.Dispose();
            throw new OperationCanceledException();
        }));
        Should.Throw<ObjectDisposedException>(() => client.Destroy(KeyOf(_sockets[0])));
        _sockets[0].Send("x"u8).ShouldBe(1);
    }

    [Fact]
    public void Nothing_is_written_to_a_descriptor_that_a_disposed_client_had()
    {
        using var first = _network.Run(SockDiagClient.OpenSocket);
        var number = (int)first.DangerousGetHandle();
        var client = new SockDiagClient(first);
        client.Dispose();

        // The number is given out anew, to sockets that would carry out the request.
        var others = new List<KernelHandle>();
        try
        {
            for (var i = 0; i < 64; i++)
            {
                others.Add(_network.Run(SockDiagClient.OpenSocket));
            }

            Should.Throw<ObjectDisposedException>(() => client.Destroy(KeyOf(_sockets[0])));
            Should.Throw<ObjectDisposedException>(() => client.TryGet(KeyOf(_sockets[0]), out _));
            Should.Throw<ObjectDisposedException>(() => client.Dump(SockDiagClient.StatesOfConnections, [], withInfo: false, (in SocketObservation _) => { }));
            _sockets[0].Send("x"u8).ShouldBe(1, $"descriptor {number}");
        }
        finally
        {
            others.ForEach(other => other.Dispose());
        }
    }

    [Fact]
    public void A_client_disposed_in_the_middle_of_a_dump_reads_no_further()
    {
        var client = SockDiagClient.Open(_network.Run);
        var seen = 0;
        Should.Throw<ObjectDisposedException>(() => client.Dump(SockDiagClient.StatesOfConnections, [], withInfo: true, (in SocketObservation _) =>
        {
            seen++;
            client.Dispose();
        }));
        seen.ShouldBeInRange(1, Connections);
    }

    private static void GiveUp(SockDiagClient client) =>
        Should.Throw<OperationCanceledException>(() =>
            client.Dump(SockDiagClient.StatesOfConnections, [], withInfo: true, (in SocketObservation _) => throw new OperationCanceledException()));

    private static void SeeAll(SockDiagClient client)
    {
        var result = client.Dump(SockDiagClient.StatesOfConnections, [], withInfo: true, (in SocketObservation _) => { });
        result.Sockets.ShouldBe(2 * Connections);
        result.IsComplete.ShouldBeTrue();
    }

    private static SocketKey KeyOf(Socket socket)
    {
        var local = (IPEndPoint)socket.LocalEndPoint!;
        var peer = (IPEndPoint)socket.RemoteEndPoint!;
        return new SocketKey(
            Libc.AF_INET, TcpEndPoint.From(local.Address, local.Port), TcpEndPoint.From(peer.Address, peer.Port), 0, Loopback.CookieOf(socket));
    }
}
