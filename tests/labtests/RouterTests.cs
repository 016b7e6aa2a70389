using System.Net;
using System.Net.Sockets;
using Npgsql;

namespace Sidecar.LabTests;

/// <summary>Each behaviour of the lab's router does what its name says.</summary>
public sealed class RouterTests
{
    [Fact]
    public async Task A_router_that_resets_ends_the_forgotten_connection_at_once()
    {
        await using var blackout = await Blackout.PrepareAsync(new LabOptions { Router = RouterBehaviour.Reset });
        var sleeper = blackout.Client.WakeSleeper();

        (await SteadyClient.EndsWithinAsync(sleeper, Wait.Seconds(10))).ShouldBeTrue();
        sleeper.Outcome.ShouldBe(RequestOutcome.Refused);
        sleeper.Error.ShouldNotBeNull().ShouldStartWith("OperationalError: server closed the connection unexpectedly");
    }

    [Fact]
    public async Task A_plain_router_forgets_nothing()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { Router = RouterBehaviour.Forward, IdleTimeout = Wait.Seconds(2) });
        await lab.Web.WarmUpAsync();
        await Task.Delay(Wait.Seconds(6));

        (await lab.Web.GetAsync(4)).Error.ShouldBeNull();
    }

    [Fact]
    public async Task The_idle_timeout_can_be_changed_while_connections_stand()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { IdleTimeout = Wait.Seconds(600) });
        var pids = await lab.Web.WarmUpAsync();
        // A delayed acknowledgement (40 ms) of the warm-up would take the new timeout over.
        await Task.Delay(Wait.Seconds(0.5));
        await lab.Router.SetIdleTimeoutAsync(Wait.Seconds(1));
        await lab.Web.GetAsync(4);

        var sockets = await lab.DatabaseSocketsAsync();
        var sleeper = sockets.Single(s => s.Pid == pids[3]).Local;
        var other = sockets.Single(s => s.Pid == pids[0]).Local;
        await Wait.UntilAsync("the router forgets", async () => !await lab.Router.KnowsAsync(sleeper), Wait.Seconds(10));
        (await lab.Router.KnowsAsync(other)).ShouldBeTrue();
    }

    [Fact]
    public async Task Behind_source_NAT_the_database_sees_the_router()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { Masquerade = true });
        await lab.Web.WarmUpAsync();
        var local = (await lab.DatabaseSocketsAsync())[0].Local.Address;

        var seen = await ClientAddressesAsync(lab);
        seen.Count.ShouldBe(4);
        seen.ShouldAllBe(a => !a.Equals(local));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Workers_in_a_namespace_of_their_own_reach_the_database_over_either_family(bool ipv6)
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { Container = true, IPv6 = ipv6 });
        await lab.Web.WarmUpAsync();

        var sockets = await lab.DatabaseSocketsAsync();
        sockets.Count.ShouldBe(4);
        sockets.ShouldAllBe(s => s.Peer.AddressFamily == (ipv6 ? AddressFamily.InterNetworkV6 : AddressFamily.InterNetwork));
        (await SocketState.ListAsync(lab.Network.Worker, lab.Database.EndPoint)).ShouldBeEmpty();
        (await ClientAddressesAsync(lab)).ShouldAllBe(a => a.Equals(sockets[0].Local.Address));
    }

    [Fact]
    public async Task Packet_loss_is_made_up_for_by_retransmission()
    {
        // Retransmissions are soon further apart than the usual timeout: what they are to bring would be forgotten meanwhile, and a lost
        // answer has no timer at the client.
        await using var lab = await TestLab.StartAsync(new LabOptions { IdleTimeout = Wait.Seconds(600) });
        await lab.Web.WarmUpAsync();
        await lab.Router.SetLossAsync(30);
        for (var i = 0; i < 30; i++)
        {
            (await lab.Web.GetAsync(1).WaitAsync(Wait.Seconds(300))).Error.ShouldBeNull();
        }

        (await lab.DatabaseSocketsAsync()).ShouldContain(s => s.Details.Contains("bytes_retrans:"));
        await lab.Router.SetLossAsync(0);
    }

    [Theory]
    [InlineData(LabLink.Worker)]
    [InlineData(LabLink.Database)]
    public async Task What_was_sent_while_a_link_was_down_arrives_when_it_is_up_again(LabLink link)
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { IdleTimeout = Wait.Seconds(600) });
        await lab.Web.WarmUpAsync();
        await lab.Network.SetLinkAsync(link, up: false);
        var answer = lab.Web.GetAsync(1);
        await Wait.UntilAsync("it is retransmitted", async () => (await lab.DatabaseSocketsAsync()).Any(s => s.Timer.StartsWith("on,")), Wait.Seconds(5));
        answer.IsCompleted.ShouldBeFalse();

        await lab.Network.SetLinkAsync(link, up: true);
        (await answer).Error.ShouldBeNull();
    }

    private static async Task<IReadOnlyList<IPAddress>> ClientAddressesAsync(TestLab lab)
    {
        await using var connection = await lab.Database.ConnectLocallyAsync();
        await using var command = new NpgsqlCommand("SELECT client_addr FROM pg_stat_activity WHERE client_addr IS NOT NULL", connection);
        await using var reader = await command.ExecuteReaderAsync();
        var addresses = new List<IPAddress>();
        while (await reader.ReadAsync())
        {
            addresses.Add(reader.GetFieldValue<IPAddress>(0));
        }

        return addresses;
    }
}
