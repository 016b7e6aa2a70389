using System.Globalization;
using System.Net;

namespace Sidecar.Lab;

/// <summary>Single connections forgotten, handshakes answered by the router, a server out of reach, and a bundle with a dead leg.</summary>
public sealed partial class Router
{
    /// <summary>Forgets the TCP connections with this source address and port now, and no other.</summary>
    /// <exception cref="CommandFailedException">It knows none such.</exception>
    public Task ForgetAsync(IPEndPoint source) => _host.RunAsync(
        ["conntrack", "-D", "-p", "tcp", "--orig-src", source.Address.ToString(), "--orig-port-src", source.Port.ToString(CultureInfo.InvariantCulture)]);

    /// <summary>
    /// Answers the handshakes of the worker host itself from now on, and asks the server only when the client's ACK has come
    /// (nft synproxy). TCP-terminating balancers do the same. IPv4 and IPv6.
    /// </summary>
    public Task AnswerHandshakesAsync() => _host.RunAsync(["nft", "-f", "-"], """
        table inet answering {
            chain prerouting {
                type filter hook prerouting priority raw; policy accept;
                iifname "to-worker" tcp flags & (fin | syn | rst | ack) == syn notrack
            }
            chain forward {
                type filter hook forward priority filter - 1; policy accept;
                iifname "to-worker" meta l4proto tcp ct state invalid,untracked synproxy mss 1460 wscale 7 timestamp sack-perm
            }
        }

        """);

    /// <summary>Takes the database host out of reach, or back into it. No ICMP message tells.</summary>
    public Task SetServerAwayAsync(bool away) => _host.RunAsync(["nft", "-f", "-"], away
        ? """
          table inet away {
              chain postrouting {
                  type filter hook postrouting priority 300; policy accept;
                  oifname "to-database" drop
              }
          }

          """
        : "delete table inet away\n");

    /// <summary>
    /// Makes the way to the database a bundle of two legs that share connections by the parity of the client's port, and lets
    /// one of them die, or live again.
    /// </summary>
    /// <param name="parity">0: the leg of the even ports; 1: that of the odd ones.</param>
    /// <param name="dead">Whether it loses everything.</param>
    public Task SetLegDeadAsync(int parity, bool dead) => _host.RunAsync(["nft", "-f", "-"], dead
        ? $$"""
          table inet leg {
              chain prerouting {
                  type filter hook prerouting priority -310; policy accept;
                  iifname "to-worker" tcp sport & 1 == {{parity}} drop
                  iifname "to-database" tcp dport & 1 == {{parity}} drop
              }
          }

          """
        : "delete table inet leg\n");
}
