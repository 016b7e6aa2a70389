using System.Net;
using System.Net.Sockets;
using System.Text;
using Shouldly;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.Processes;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.UnitTests.Namespaces;

public sealed class TcpCountersTests
{
    [Fact]
    public void What_is_opened_and_closed_is_counted_however_often_the_file_is_read()
    {
        using var network = NetworkNamespace.OpenOwn(new ProcessReader().ReadNetworkNamespace(Environment.ProcessId));
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        listener.Listen(8);
        for (var i = 0; i < 3; i++)
        {
            var before = network.Counters.ShouldNotBeNull();
            using var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            client.Connect(listener.LocalEndPoint!);
            using var accepted = listener.Accept();

            // One end opens actively, the other passively; other tests open connections too.
            network.Counters.ShouldNotBeNull().Opens.ShouldBeGreaterThanOrEqualTo(before.Opens + 2);
        }
    }

    [Theory]
    [InlineData("Ip: A\nIp: 1\nTcp: RtoMin ActiveOpens PassiveOpens CurrEstab RetransSegs\nTcp: 200 1 2 3 4\nUdp: B\nUdp: 5\n", 3, 3, 4)]
    [InlineData("Tcp: RetransSegs CurrEstab PassiveOpens MaxConn ActiveOpens\nTcp: 9 8 7 -1 6", 13, 8, 9)]
    public void They_are_found_by_their_names(string snmp, long opens, long established, long retransmissions) =>
        TcpCounterFile.Parse(Encoding.ASCII.GetBytes(snmp)).ShouldBe(new TcpCounters(opens, established, retransmissions));

    [Theory]
    [InlineData("")]
    [InlineData("Tcp: ActiveOpens PassiveOpens CurrEstab RetransSegs\n")]
    [InlineData("Tcp: ActiveOpens PassiveOpens CurrEstab RetransSegs\nTcp: 1 2 3")]
    [InlineData("Tcp: ActiveOpens PassiveOpens CurrEstab RetransSegs\nTcp: 1 2 3 4x\n")]
    [InlineData("Tcp: ActiveOpens PassiveOpens CurrEstab\nTcp: 1 2 3 4\n")]
    [InlineData("TcpExt: ActiveOpens PassiveOpens CurrEstab RetransSegs\nTcpExt: 1 2 3 4\n")]
    public void Those_that_are_cut_or_spoilt_are_unknown(string snmp) => TcpCounterFile.Parse(Encoding.ASCII.GetBytes(snmp)).ShouldBeNull();
}
