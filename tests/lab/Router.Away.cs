namespace Sidecar.Lab;

/// <summary>The router is away for a while, with or without its table at the end, or swallows what is too large.</summary>
public sealed partial class Router
{
    /// <summary>
    /// From now on nothing passes, in either direction, and nobody is told: no RST, no ICMP, no link that goes down. Before
    /// connection tracking, so that the table does not learn of what is lost.
    /// </summary>
    public Task GoAwayAsync() => _host.RunAsync(["nft", "-f", "-"], """
        table inet away {
            chain prerouting {
                type filter hook prerouting priority -310; policy drop;
            }
        }

        """);

    /// <summary>Everything passes again.</summary>
    /// <param name="withTable">It still knows its connections, as after a cable was out; otherwise none, as after a restart.</param>
    /// <returns>When that was, on CLOCK_MONOTONIC: just before, so that what it sets free ends later.</returns>
    public async Task<TimeSpan> ComeBackAsync(bool withTable)
    {
        if (!withTable)
        {
            // While nothing passes: a packet between the two steps would be of a connection that is still known.
            await ForgetAsync();
        }

        var back = DatabaseClients.Now;
        await _host.RunAsync(["nft", "delete", "table", "inet", "away"]);
        return back;
    }

    /// <summary>
    /// Packets larger than this are dropped without an ICMP message, in one direction: a path whose true MTU nobody learns.
    /// </summary>
    /// <param name="bytes">Largest IP packet that passes.</param>
    /// <param name="from">The link on whose side the senders are: of queries <see cref="LabLink.Worker"/>.</param>
    public Task SwallowLargerThanAsync(int bytes, LabLink from) => _host.RunAsync(["nft", "-f", "-"], $$"""
        table inet hole {
            chain prerouting {
                type filter hook prerouting priority -310; policy accept;
                iifname "{{(from == LabLink.Worker ? "to-worker" : "to-database")}}" meta l4proto tcp meta length > {{bytes}} counter drop
            }
        }

        """);

    /// <summary>Packets of all sizes pass again.</summary>
    public Task SwallowNothingAsync() => _host.RunAsync(["nft", "delete", "table", "inet", "hole"]);
}
