using System.Net;
using System.Net.Sockets;
using Shouldly;
using Sidecar.Probes.Ladder;
using Xunit;

namespace Sidecar.UnitTests.Paths;

/// <summary>A connection of the ladder to a server that does not keep silent.</summary>
public sealed class LadderConnectionTests : IAsyncLifetime
{
    private static readonly TimeSpan Idle = TimeSpan.FromMilliseconds(600);
    private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
    private TcpLadderConnection _connection = null!;
    private Socket _server = null!;

    public async Task InitializeAsync()
    {
        _listener.Start();
        var accepted = _listener.AcceptSocketAsync();
        _connection = await TcpLadderConnection.OpenAsync(null, (IPEndPoint)_listener.LocalEndpoint, default, TimeSpan.FromSeconds(5), CancellationToken.None);
        _server = await accepted;
        await Task.Delay(Idle);
        _connection.Scan(out _).ShouldBe(IdleScan.Idle);
        await _server.SendAsync("idle for too long"u8.ToArray());
        await Task.Delay(10);
    }

    public async Task DisposeAsync()
    {
        await _connection.DisposeAsync();
        _server.Dispose();
        _listener.Dispose();
    }

    [Fact]
    public async Task The_last_words_of_a_server_that_closes_are_no_refreshment()
    {
        _connection.Scan(out _).ShouldBe(IdleScan.Idle);
        _server.Shutdown(SocketShutdown.Send);
        await Task.Delay(10);

        _connection.Scan(out var age).ShouldBe(IdleScan.Ended);
        age.ShouldBeGreaterThan(Idle);
        var test = await _connection.TestAsync(CancellationToken.None);
        test.Loss.ShouldBe(LossKind.PeerClosed);
        test.Survived!.Value.ShouldBeGreaterThanOrEqualTo(Idle);
        test.Lost!.Value.ShouldBeGreaterThanOrEqualTo(test.Survived.Value);
    }

    [Fact]
    public async Task Words_that_nothing_follows_are_one()
    {
        _connection.Scan(out _).ShouldBe(IdleScan.Idle);
        await Task.Delay(300);

        _connection.Scan(out var age).ShouldBe(IdleScan.Refreshed);
        age.ShouldBeGreaterThan(Idle);
        _connection.Age.ShouldBeLessThan(age);
    }
}
