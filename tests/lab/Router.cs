using System.Net;
using System.Net.Sockets;

namespace Sidecar.Lab;

/// <summary>
/// The forgetful router: connection tracking that forgets idle connections and takes no packet of a connection that
/// it does not know, as stateful firewalls, NAT gateways and load balancers do.
/// </summary>
public sealed partial class Router
{
    private readonly NetworkNamespace _host;

    private Router(NetworkNamespace host) => _host = host;

    internal static async Task<Router> ConfigureAsync(NetworkNamespace host, LabOptions options)
    {
        var router = new Router(host);
        // Only this namespace tracks connections, so only here is something forgotten. Loss comes before tracking:
        // what is lost on the wire the router has not seen.
        var rules = """
            table inet wire {
                chain prerouting {
                    type filter hook prerouting priority raw; policy accept;
                }
            }

            """;
        if (options.CountsDataOnly)
        {
            rules += $$"""
                table inet router {
                    set known {
                        type ipv4_addr . inet_service . ipv4_addr . inet_service
                        flags dynamic,timeout
                        timeout {{(int)options.IdleTimeout.TotalSeconds}}s
                    }
                    chain forward {
                        type filter hook forward priority filter; policy drop;
                        meta l4proto != tcp accept
                        tcp flags & (fin | syn | rst | ack) == syn update @known { ip saddr . tcp sport . ip daddr . tcp dport } accept
                        ip saddr . tcp sport . ip daddr . tcp dport @known jump outwards
                        ip daddr . tcp dport . ip saddr . tcp sport @known jump inwards
                    }
                    chain outwards {
                        tcp flags & psh == psh update @known { ip saddr . tcp sport . ip daddr . tcp dport }
                        accept
                    }
                    chain inwards {
                        tcp flags & psh == psh update @known { ip daddr . tcp dport . ip saddr . tcp sport }
                        accept
                    }
                }

                """;
        }
        else if (options.Router != RouterBehaviour.Forward)
        {
            var forgotten = options.Router == RouterBehaviour.Reset ? "meta l4proto tcp reject with tcp reset" : "drop";
            rules += $$"""
                table inet router {
                    chain forward {
                        type filter hook forward priority filter; policy drop;
                        ct state established,related accept
                        ct state invalid {{forgotten}}
                        tcp flags & (fin | syn | rst | ack) == syn ct state new accept
                        meta l4proto != tcp accept
                    }
                }

                """;
        }

        if (options.Masquerade)
        {
            rules += """
                table inet nat {
                    chain postrouting {
                        type nat hook postrouting priority srcnat; policy accept;
                        oifname "to-database" masquerade
                    }
                }

                """;
        }

        await host.RunAsync(["nft", "-f", "-"], rules);
        // Without loose=0 a packet in mid-stream would silently open a new entry.
        await host.SysctlAsync("net.netfilter.nf_conntrack_tcp_loose=0");
        await router.SetIdleTimeoutAsync(options.IdleTimeout);
        return router;
    }

    /// <summary>Changes after how long the router forgets; each connection takes it over with its next packet.</summary>
    public Task SetIdleTimeoutAsync(TimeSpan timeout) =>
        _host.SysctlAsync($"net.netfilter.nf_conntrack_tcp_timeout_established={(int)timeout.TotalSeconds}");

    /// <summary>Loses this share of the TCP packets that arrive, in each direction.</summary>
    public Task SetLossAsync(int percent) => _host.RunAsync(["nft", "-f", "-"],
        "flush chain inet wire prerouting\n" +
        (percent == 0 ? "" : $"add rule inet wire prerouting meta l4proto tcp numgen random mod 100 < {percent} drop\n"));

    /// <summary>Whether it knows a TCP connection with this source address and port.</summary>
    public async Task<bool> KnowsAsync(IPEndPoint source)
    {
        var family = source.AddressFamily == AddressFamily.InterNetworkV6 ? "ipv6" : "ipv4";
        var table = await _host.RunAsync(["conntrack", "-L", "-p", "tcp", "-f", family, "--orig-src", source.Address.ToString()]);
        return table.Contains($" sport={source.Port} ", StringComparison.Ordinal);
    }

    /// <summary>Forgets all connections now.</summary>
    public Task ForgetAsync() => _host.RunAsync(["conntrack", "-F"]);
}
