using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;
using Shouldly;
using Sidecar.Probes.Listeners;
using Sidecar.Probes.Processes;
using Sidecar.Probes.SockDiag;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.UnitTests.Listeners;

/// <summary>What the real kernel says of accept queues, on sockets of this process's own.</summary>
public sealed class ListenersTests : IDisposable
{
    private readonly SockDiagClient _diagnostics = SockDiagClient.Open();
    private readonly List<Socket> _sockets = [];
    private readonly TemporaryDirectory _directory = new();

    public void Dispose()
    {
        _diagnostics.Dispose();
        _sockets.ForEach(socket => socket.Dispose());
        _directory.Dispose();
    }

    [Theory]
    [InlineData("127.0.0.1")]
    [InlineData("::1")]
    public void A_TCP_queue_shows_who_waits_and_takes_one_more_than_its_limit_before_it_drops(string address)
    {
        var listener = Listen(new IPEndPoint(IPAddress.Parse(address), 0), backlog: 5);
        var before = Find(listener);
        before.ShouldSatisfyAllConditions(l => l.Waiting.ShouldBe(0u), l => l.Limit.ShouldBe(5u), l => l.Drops.ShouldBe(0u));
        before.Local!.Value.ToEndPoint().ShouldBe(listener.LocalEndPoint);
        before.Name.ShouldBe(listener.LocalEndPoint!.ToString());

        for (var waiting = 1u; waiting <= 6; waiting++)
        {
            Connect(listener.LocalEndPoint!);
            Find(listener).Waiting.ShouldBe(waiting);
        }

        // The seventh SYN is not answered: its client tries again and again, and each try is a drop.
        var hung = new Socket(listener.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { Blocking = false };
        _sockets.Add(hung);
        var counters = ListenCounters.Read(Environment.ProcessId).ShouldNotBeNull();
        Should.Throw<SocketException>(() => hung.Connect(listener.LocalEndPoint!)).SocketErrorCode.ShouldBe(SocketError.WouldBlock);
        SpinWait.SpinUntil(() => Find(listener).Drops > 0, TimeSpan.FromSeconds(20)).ShouldBeTrue();
        Find(listener).Waiting.ShouldBe(6u);
        ListenCounters.Read(Environment.ProcessId)!.Value.Overflows.ShouldBeGreaterThan(counters.Overflows);
        ListenCounters.Read(Environment.ProcessId)!.Value.Drops.ShouldBeGreaterThan(counters.Drops);

        // Each accepted connection makes room.
        _sockets.Add(listener.Accept());
        SpinWait.SpinUntil(() => hung.Poll(0, SelectMode.SelectWrite), TimeSpan.FromSeconds(20)).ShouldBeTrue();
    }

    [Fact]
    public void A_Unix_queue_shows_who_waits_and_a_further_client_is_refused_without_a_drop()
    {
        var path = _directory.File("server.sock");
        var listener = Listen(new UnixDomainSocketEndPoint(path), backlog: 5);
        for (var waiting = 1u; waiting <= 6; waiting++)
        {
            Connect(new UnixDomainSocketEndPoint(path));
            Find(listener).ShouldSatisfyAllConditions(l => l.Waiting.ShouldBe(waiting), l => l.Limit.ShouldBe(5u), l => l.Name.ShouldBe(path), l => l.Local.ShouldBeNull());
        }

        var refused = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { Blocking = false };
        _sockets.Add(refused);
        Should.Throw<SocketException>(() => refused.Connect(new UnixDomainSocketEndPoint(path))).SocketErrorCode.ShouldBe(SocketError.WouldBlock);
        Find(listener).ShouldSatisfyAllConditions(l => l.Waiting.ShouldBe(6u), l => l.Drops.ShouldBe(0u));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void The_limit_is_the_backlog_cut_by_somaxconn(bool unix)
    {
        var most = uint.Parse(File.ReadAllText("/proc/sys/net/core/somaxconn"), CultureInfo.InvariantCulture);
        EndPoint address = unix ? new UnixDomainSocketEndPoint(_directory.File("cut.sock")) : new IPEndPoint(IPAddress.Loopback, 0);
        Find(Listen(address, backlog: (int)most + 1000)).Limit.ShouldBe(most);
    }

    [Fact]
    public void An_abstract_name_is_written_with_an_at_sign() =>
        Find(Listen(new UnixDomainSocketEndPoint("\0conn-sidecar-test-" + Environment.ProcessId), 1)).Name.ShouldBe("@conn-sidecar-test-" + Environment.ProcessId);

    [Fact]
    public void Of_a_TCP_client_that_went_away_the_kernel_tells_whether_it_waited_or_was_being_served()
    {
        var listener = Listen(new IPEndPoint(IPAddress.Loopback, 0), backlog: 5);
        var ports = SocketFilter.Compile([new FilterCondition(FilterEnd.Local, 0, 0, (ushort)((IPEndPoint)listener.LocalEndPoint!).Port)]);
        var served = Connect(listener.LocalEndPoint!);
        _sockets.Add(listener.Accept());
        var waiting = Connect(listener.LocalEndPoint!);
        Seen().ShouldBe([(true, false), (false, false)], ignoreOrder: true);
        served.Dispose();
        waiting.Dispose();
        SpinWait.SpinUntil(() => Seen().All(c => c.Gone), TimeSpan.FromSeconds(10)).ShouldBeTrue();
        Seen().ShouldBe([(true, true), (false, true)], ignoreOrder: true);

        List<(bool Accepted, bool Gone)> Seen()
        {
            var seen = new List<(bool, bool)>();
            _diagnostics.VisitServed(ports, c => seen.Add((c.IsAccepted, c.PeerIsGone)));
            return seen;
        }
    }

    [Fact]
    public void A_Unix_client_that_went_away_while_it_was_served_shows_and_one_that_waits_is_not_told_of()
    {
        var path = _directory.File("gone.sock");
        var listener = Listen(new UnixDomainSocketEndPoint(path), backlog: 5);
        var served = Connect(new UnixDomainSocketEndPoint(path));
        _sockets.Add(listener.Accept());
        Connect(new UnixDomainSocketEndPoint(path)); // unix_diag leaves out what has no inode yet
        Seen().ShouldBe([(true, false)]);
        served.Dispose();
        Seen().ShouldBe([(true, true)]);

        List<(bool Accepted, bool Gone)> Seen()
        {
            var seen = new List<(bool, bool)>();
            _diagnostics.VisitServedUnix(c =>
            {
                if (c.Name == path)
                {
                    seen.Add((c.IsAccepted, c.PeerIsGone));
                }
            });
            return seen;
        }
    }

    [Fact]
    public void Its_owner_is_found_by_its_inode()
    {
        var listener = Listen(new IPEndPoint(IPAddress.Loopback, 0), backlog: 1);
        var owners = new SocketOwners(new ProcessReader());
        var inode = Find(listener).Inode;
        owners.Resolve([inode], [Environment.ProcessId]);
        owners.Find(inode).ShouldHaveSingleItem().Process.Pid.ShouldBe(Environment.ProcessId);
    }

    [Theory]
    [InlineData("TcpExt: A ListenOverflows ListenDrops\nTcpExt: 1 2 3\nIpExt: B\nIpExt: 4\n", 2, 3)]
    [InlineData("IpExt: B\nIpExt: 4\nTcpExt: ListenDrops ListenOverflows\nTcpExt: 7 8\n", 8, 7)]
    public void Counters_are_found_by_their_names(string netstat, long overflows, long drops) =>
        ListenCounters.Parse(Encoding.ASCII.GetBytes(netstat)).ShouldBe(new ListenCounters(overflows, drops));

    [Theory]
    [InlineData("")]
    [InlineData("TcpExt: ListenOverflows ListenDrops\n")]
    [InlineData("TcpExt: ListenOverflows ListenDrops\nTcpExt: 1\n")]
    [InlineData("TcpExt: ListenOverflows ListenDrops\nTcpExt: 1 x\n")]
    [InlineData("TcpExt: ListenOverflows\nTcpExt: 1 2\n")]
    public void Counters_that_are_cut_or_spoilt_are_unknown(string netstat) => ListenCounters.Parse(Encoding.ASCII.GetBytes(netstat)).ShouldBeNull();

    private Socket Listen(EndPoint address, int backlog)
    {
        var socket = new Socket(address.AddressFamily, SocketType.Stream, address is IPEndPoint ? ProtocolType.Tcp : ProtocolType.Unspecified);
        _sockets.Add(socket);
        socket.Bind(address);
        socket.Listen(backlog);
        return socket;
    }

    private Socket Connect(EndPoint address)
    {
        var socket = new Socket(address.AddressFamily, SocketType.Stream, address is IPEndPoint ? ProtocolType.Tcp : ProtocolType.Unspecified);
        _sockets.Add(socket);
        socket.Connect(address);
        return socket;
    }

    private ListeningSocket Find(Socket listener)
    {
        var link = new FileInfo($"/proc/self/fd/{listener.Handle}").LinkTarget!;
        var inode = uint.Parse(link["socket:[".Length..^1], CultureInfo.InvariantCulture);
        return _diagnostics.ReadListeners().Single(l => l.Inode == inode);
    }
}
