using System.Net.Sockets;
using Shouldly;
using Sidecar.Agent.Action;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Tracking;
using Sidecar.CoreTests.Tracking;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.SockDiag;
using Sidecar.Probes.Values;
using Sidecar.UnitTests.Tracking;
using Xunit;

namespace Sidecar.UnitTests.SockDiag;

/// <summary>The real kernel, and connections of this process's own over loopback.</summary>
public sealed class SockDiagClientTests : IDisposable
{
    private readonly SockDiagClient _diagnostics = SockDiagClient.Open();
    private readonly Loopback _connection = new();

    public void Dispose()
    {
        _diagnostics.Dispose();
        _connection.Dispose();
    }

    [Theory]
    [InlineData("127.0.0.1")]
    [InlineData("::1")]
    [InlineData("::ffff:127.0.0.1")]
    public void A_dump_sees_own_connections_with_their_tcp_info(string address)
    {
        using var own = new Loopback(address);
        own.Client.Send("hello"u8);
        SocketObservation? found = null;
        _diagnostics.Dump(SockDiagClient.StatesOfConnections, [], withInfo: true, (in SocketObservation socket) =>
        {
            if (socket.Cookie == own.Cookie)
            {
                found = socket;
            }
        });
        var seen = found.ShouldNotBeNull();
        SocketKey.Of(seen).ShouldBe(own.Key);
        seen.State.ShouldBe(TcpState.Established);
        seen.Info.BytesSent.ShouldBe(5ul);
        seen.Inode.ShouldNotBe(0u);
    }

    [Fact]
    public void One_socket_is_read_by_its_cookie()
    {
        _connection.Server.Send("answer"u8);
        _diagnostics.TryGet(_connection.Key, out var socket).ShouldBeTrue();
        SocketKey.Of(socket).ShouldBe(_connection.Key);
        socket.ReceiveQueue.ShouldBe(6u);
        socket.Info.IsPresent.ShouldBeTrue();
    }

    [Fact]
    public void With_another_sockets_cookie_there_is_no_such_socket()
    {
        using var other = new Loopback();
        _diagnostics.TryGet(_connection.Key with { Cookie = other.Cookie }, out _).ShouldBeFalse();
        _diagnostics.TryGet(_connection.Key with { Cookie = SocketCookie.None }, out _).ShouldBeFalse();
        _diagnostics.TryGet(_connection.Key with { Cookie = default }, out _).ShouldBeFalse();
    }

    [Fact]
    public void A_closed_socket_is_gone()
    {
        var key = _connection.Key;
        _connection.Client.LingerState = new LingerOption(true, 0);
        _connection.Client.Close();
        _diagnostics.TryGet(key, out _).ShouldBeFalse();
        _diagnostics.Destroy(key).ShouldBe(DestroyResult.Gone);
    }

    [Fact]
    public async Task A_destroyed_connections_blocked_owner_gets_connection_aborted()
    {
        Root.Needed("SOCK_DESTROY is refused without CAP_NET_ADMIN");
        var call = Task.Run(() => Should.Throw<SocketException>(() => _connection.Client.Receive(new byte[1])));
        _diagnostics.Destroy(_connection.Key).ShouldBe(DestroyResult.Destroyed);
        (await call.WaitAsync(TimeSpan.FromSeconds(30))).SocketErrorCode.ShouldBe(SocketError.ConnectionAborted);
    }

    [Fact]
    public void Destroying_with_another_sockets_cookie_harms_neither()
    {
        using var other = new Loopback();
        _diagnostics.Destroy(_connection.Key with { Cookie = other.Cookie }).ShouldBe(DestroyResult.Gone);
        foreach (var connection in (Loopback[])[_connection, other])
        {
            connection.Client.Send("x"u8).ShouldBe(1);
            connection.Server.Receive(new byte[1]).ShouldBe(1);
        }
    }

    [Fact]
    public void Nothing_is_destroyed_without_a_cookie_and_no_listening_socket_ever()
    {
        Should.Throw<ArgumentException>(() => _diagnostics.Destroy(_connection.Key with { Cookie = SocketCookie.None }));
        Should.Throw<ArgumentException>(() => _diagnostics.Destroy(_connection.Key with { Cookie = default }));
        Should.Throw<ArgumentException>(() => _diagnostics.Destroy(_connection.Key with { Peer = default }));
    }

    [Fact]
    public void The_rehearsal_destroys_a_connection_of_its_own()
    {
        Root.Needed("SOCK_DESTROY is refused without CAP_NET_ADMIN");
        DestroyRehearsal.Run(out var detail).ShouldBe(DestroyResult.Destroyed, detail);
    }
}

/// <summary>The last scan before a recycle, on real connections.</summary>
public sealed class RecyclerTests : IDisposable
{
    private readonly NetworkNamespace _network = NetworkNamespace.OpenOwn(1);
    private readonly Loopback _connection = new();

    public void Dispose()
    {
        _connection.Dispose();
        _network.Dispose();
    }

    [Fact]
    public void A_connection_as_it_was_judged_is_released()
    {
        Root.Needed("SOCK_DESTROY is refused without CAP_NET_ADMIN");
        var tracked = Judged();
        Recycler.Recycle(tracked, _network).Result.ShouldBe(RecycleResult.Released);
        Should.Throw<SocketException>(() => _connection.Client.Send("x"u8)).SocketErrorCode.ShouldBe(SocketError.ConnectionAborted);
    }

    [Fact]
    public void A_connection_on_which_something_came_in_between_look_and_act_has_recovered()
    {
        var tracked = Judged();
        _connection.Server.Send("late answer"u8);
        Recycler.Recycle(tracked, _network).Result.ShouldBe(RecycleResult.Recovered);
        _connection.Client.Receive(new byte[20]).ShouldBe(11);
    }

    [Fact]
    public void A_resting_connection_that_its_worker_used_between_look_and_act_has_recovered()
    {
        var tracked = Judged();
        _connection.Client.Send("query"u8);
        Recycler.Recycle(tracked, _network).Result.ShouldBe(RecycleResult.Recovered);
    }

    [Fact]
    public void A_connection_that_is_gone_between_look_and_act_has_vanished()
    {
        var tracked = Judged();
        _connection.Client.LingerState = new LingerOption(true, 0);
        _connection.Client.Close();
        Recycler.Recycle(tracked, _network).Result.ShouldBe(RecycleResult.Vanished);
    }

    [Fact]
    public void A_connection_that_is_closing_is_left_to_close()
    {
        var tracked = Judged();
        _connection.Client.Shutdown(SocketShutdown.Send);
        Recycler.Recycle(tracked, _network).Result.ShouldBe(RecycleResult.Recovered);
    }

    [Theory]
    [InlineData(1u, 1u, 5u, 5u, 9ul, 9ul, true)]
    [InlineData(1u, 0u, 5u, 5u, 9ul, 9ul, false)] // answered
    [InlineData(1u, 1u, 5u, 6u, 9ul, 9ul, false)] // something came in
    [InlineData(1u, 1u, 5u, 5u, 9ul, 10ul, false)] // part of it is acknowledged
    [InlineData(0u, 1u, 5u, 5u, 9ul, 9ul, false)] // it rested, and has been used
    [InlineData(0u, 0u, 5u, 5u, 9ul, 9ul, true)]
    public void Only_what_has_not_moved_is_as_it_was_judged(uint unackedThen, uint unackedNow, uint inThen, uint inNow, ulong ackedThen, ulong ackedNow, bool same)
    {
        var judged = new TcpInfo { Length = 280, Unacked = unackedThen, SegmentsIn = inThen, BytesAcked = ackedThen };
        var present = TrackedConnectionTests.Socket(TimeSpan.Zero).Observe(TimeSpan.Zero) with
        {
            Info = new TcpInfo { Length = 280, Unacked = unackedNow, SegmentsIn = inNow, BytesAcked = ackedNow },
        };
        Recycle.IsAsJudged(new KeptObservation(present with { Info = judged }), present).ShouldBe(same);
        Recycle.IsAsJudged(new KeptObservation(present with { Info = judged }), present with { State = TcpState.CloseWait }).ShouldBeFalse();
    }

    private TrackedConnection Judged()
    {
        _network.Diagnostics.TryGet(_connection.Key, out var socket).ShouldBeTrue();
        var tracked = new PathTable().Track(_connection.Key, TestUpstream.Of($"127.0.0.1:{_connection.Port}"), 1, 33, TimeSpan.Zero);
        tracked.Update(socket, TimeSpan.FromSeconds(1000));
        return tracked;
    }
}
