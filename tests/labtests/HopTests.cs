using System.Net;
using System.Net.Sockets;
using System.Text.Json;

namespace Sidecar.LabTests;

/// <summary>Three hops, one of which forgets: <c>worker – first – second – server</c>.</summary>
public sealed class HopTests
{
    [Theory]
    [InlineData("first", "10.79.1.1")]
    [InlineData("second", "10.79.2.2")]
    public async Task The_hop_that_forgets_is_named(string forgetful, string address)
    {
        await using var hops = await ThreeHops.CreateAsync(forgetful, filterIcmp: false);

        var measured = await hops.MeasureAsync();

        measured.GetProperty("class").GetString().ShouldBe("silent-drop");
        measured.GetProperty("hop").GetString().ShouldBe(address, measured.ToString());
    }

    [Fact]
    public async Task With_ICMP_filtered_it_says_that_it_cannot_know()
    {
        await using var hops = await ThreeHops.CreateAsync("second", filterIcmp: true);

        var measured = await hops.MeasureAsync();

        measured.GetProperty("class").GetString().ShouldBe("silent-drop");
        measured.GetProperty("hop").ValueKind.ShouldBe(JsonValueKind.Null);
        measured.GetProperty("hop_reason").GetString()!.ShouldContain("cannot be known");
    }

    /// <summary>Namespaces of the test's own, removed with it.</summary>
    private sealed class ThreeHops : IAsyncDisposable
    {
        private const int Port = 7000;
        private static readonly TimeSpan Timeout = TimeSpan.FromSeconds(6);

        private static readonly string[] Roles = ["worker", "first", "second", "server"];
        private readonly string _id = Guid.NewGuid().ToString("n")[..8];
        private readonly Dictionary<string, NetworkNamespace> _hosts;
        private Socket? _listener;

        private ThreeHops() => _hosts = Roles.ToDictionary(r => r, r => new NetworkNamespace($"hops-{_id}-{r}"));

        public static async Task<ThreeHops> CreateAsync(string forgetful, bool filterIcmp)
        {
            var hops = new ThreeHops();
            try
            {
                await hops.BuildAsync(forgetful, filterIcmp);
                return hops;
            }
            catch
            {
                await hops.DisposeAsync();
                throw;
            }
        }

        public async Task<JsonElement> MeasureAsync()
        {
            var result = await _hosts["worker"].TryRunAsync([AgentProcess.Binary, "measure", $"10.79.3.2:{Port}", "--json", "--max", "20s"]);
            result.ExitCode.ShouldBe(0, result.Error);
            return JsonDocument.Parse(result.Output).RootElement;
        }

        public async ValueTask DisposeAsync()
        {
            _listener?.Dispose();
            foreach (var host in _hosts.Values)
            {
                await Command.TryRunAsync("ip", ["netns", "del", host.Name]);
            }
        }

        private async Task BuildAsync(string forgetful, bool filterIcmp)
        {
            foreach (var host in _hosts.Values)
            {
                await Command.RunAsync("ip", ["netns", "add", host.Name]);
                await host.IpAsync("link set lo up");
            }

            await LinkAsync("worker", "first", 1);
            await LinkAsync("first", "second", 2);
            await LinkAsync("second", "server", 3);
            await _hosts["worker"].IpAsync("route add default via 10.79.1.1");
            await _hosts["first"].IpAsync("route add 10.79.3.0/24 via 10.79.2.2");
            await _hosts["second"].IpAsync("route add 10.79.1.0/24 via 10.79.2.1");
            await _hosts["server"].IpAsync("route add default via 10.79.3.1");
            foreach (var router in new[] { "first", "second" })
            {
                await _hosts[router].SysctlAsync("net.ipv4.ip_forward=1");
                if (filterIcmp)
                {
                    await _hosts[router].RunAsync(["nft", "-f", "-"], "table ip quiet { chain output { type filter hook output priority filter; icmp type time-exceeded drop; }; }\n");
                }
            }

            await _hosts[forgetful].RunAsync(["nft", "-f", "-"], """
                table inet router {
                    chain forward {
                        type filter hook forward priority filter; policy drop;
                        ct state established,related accept
                        ct state invalid drop
                        tcp flags & (fin | syn | rst | ack) == syn ct state new accept
                        meta l4proto != tcp accept
                    }
                }

                """);
            await _hosts[forgetful].SysctlAsync("net.netfilter.nf_conntrack_tcp_loose=0", $"net.netfilter.nf_conntrack_tcp_timeout_established={(int)Timeout.TotalSeconds}");
            _listener = _hosts["server"].Inside(() => new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp));
            _listener.Bind(new IPEndPoint(IPAddress.Any, Port));
            _listener.Listen(64);
        }

        private Task LinkAsync(string left, string right, int number) => _hosts[left].IpAsync(
            $"link add to-{right} type veth peer name to-{left} netns {_hosts[right].Name}",
            $"addr add 10.79.{number}.{(number == 1 ? 2 : 1)}/24 dev to-{right}",
            $"link set to-{right} up").ContinueWith(
                _ => _hosts[right].IpAsync(
                    $"addr add 10.79.{number}.{(number == 1 ? 1 : 2)}/24 dev to-{left}",
                    $"link set to-{left} up"),
                TaskScheduler.Default).Unwrap();
    }
}
