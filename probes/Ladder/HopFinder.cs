using System.Buffers.Binary;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Sidecar.Probes.Namespaces;

namespace Sidecar.Probes.Ladder;

/// <summary>Where a path loses a connection's state, as far as the hops tell.</summary>
/// <param name="Hop">Address of the last hop that a forgotten connection's segments still reach; null when it is not known.</param>
/// <param name="Why">One line for people.</param>
public sealed record HopFinding(IPAddress? Hop, string Why);

/// <summary>
/// Sends keepalive probes of limited reach (IP_TTL) inside two connections of our own, a forgotten and a living one, and
/// compares which hops say "time exceeded". A router checks the hop limit before its firewall looks at the forwarded
/// segment (ip_forward), so the forgetful one still answers, and nothing behind it does. Needs CAP_NET_RAW to hear the
/// answers; the probes themselves are the kernel's own keepalives and can disturb nobody else.
/// </summary>
public static class HopFinder
{
    private const int MostHops = 24;
    private const int MostSilentInARow = 3;

    private static readonly TimeSpan Patience = TimeSpan.FromMilliseconds(250);

    /// <summary>Finds the hop. Both connections must have been idle for more than a second.</summary>
    /// <param name="network">Where the connections live; null: where this process does.</param>
    /// <param name="forgotten">A connection that the path has forgotten, with nothing unacknowledged.</param>
    /// <param name="living">One that works.</param>
    /// <param name="remote">The peer of both.</param>
    public static async Task<HopFinding> FindAsync(NetworkNamespace? network, OwnSocket forgotten, OwnSocket living, IPEndPoint remote, CancellationToken cancellation)
    {
        Socket ear;
        try
        {
            Socket Make() => new(remote.AddressFamily, SocketType.Raw, remote.AddressFamily == AddressFamily.InterNetworkV6 ? ProtocolType.IcmpV6 : ProtocolType.Icmp);
            ear = network is null ? Make() : network.Run(Make);
        }
        catch (SocketException e)
        {
            return new HopFinding(null, $"hops cannot be asked: {e.Message} (CAP_NET_RAW)");
        }

        using (ear)
        {
            ear.Bind(AnyAddress(remote));
            var known = await WalkAsync(ear, living, remote, MostHops, cancellation);
            if (!known.Reached && known.Hops.Any(h => h is not null))
            {
                return new HopFinding(null, "a living connection's probes did not reach the endpoint: the hops cannot be counted");
            }

            if (known.Hops.Count == 0)
            {
                return new HopFinding(null, "no hop between: the endpoint is on this network");
            }

            var reached = await WalkAsync(ear, forgotten, remote, known.Hops.All(h => h is null) ? 0 : known.Hops.Count + 1, cancellation);
            return Compare(known.Hops, reached.Hops);
        }
    }

    /// <summary>What follows from the hops that answered on the living and on the forgotten connection.</summary>
    internal static HopFinding Compare(IReadOnlyList<IPAddress?> living, IReadOnlyList<IPAddress?> forgotten)
    {
        if (living.All(h => h is null))
        {
            return new HopFinding(null, "the hops do not answer (ICMP is filtered): it cannot be known where the state is lost");
        }

        // By address, not by count: an answer that came late must not be taken for the next hop's.
        var last = -1;
        for (var i = 0; i < living.Count; i++)
        {
            if (living[i] is { } hop && forgotten.Contains(hop))
            {
                last = i;
            }
        }

        if (last < 0)
        {
            return new HopFinding(null, living[0] is null
                ? "the nearest hops do not answer: it cannot be known where the state is lost"
                : $"a forgotten connection's segments are not answered by the first hop {living[0]} either: they are dropped there on arrival, or on this host");
        }

        var next = last + 1 < living.Count ? living[last + 1] : null;
        if (last + 1 < living.Count && next is null)
        {
            return new HopFinding(null, $"lost at {living[last]} or at one of the hops behind it, which do not answer");
        }

        return new HopFinding(living[last], $"segments reach hop {last + 1} ({living[last]}) and go no further");
    }

    private static async Task<(List<IPAddress?> Hops, bool Reached)> WalkAsync(Socket ear, OwnSocket socket, IPEndPoint remote, int most, CancellationToken cancellation)
    {
        var hops = new List<IPAddress?>();
        var port = socket.LocalPort;
        try
        {
            for (var limit = 1; limit <= most; limit++)
            {
                var (hop, end) = await ProbeAsync(ear, socket, port, remote, limit, cancellation);
                if (end)
                {
                    // Silence before the end belongs to hops that do not answer.
                    return (hops, true);
                }

                hops.Add(hop);
                if (hops.Count >= MostSilentInARow + 1 && hops.TakeLast(MostSilentInARow + 1).All(h => h is null))
                {
                    break;
                }
            }

            return (hops, false);
        }
        finally
        {
            socket.StopKeepalive();
            socket.SetHopLimit(null);
        }
    }

    private static async Task<(IPAddress? Hop, bool End)> ProbeAsync(Socket ear, OwnSocket socket, int port, IPEndPoint remote, int limit, CancellationToken cancellation)
    {
        for (var attempt = 0; attempt < 2; attempt++)
        {
            if (!socket.TryReadInfo(out var before) || before.State != OwnSocketInfo.Established)
            {
                return (null, true);
            }

            socket.StopKeepalive();
            socket.SetHopLimit(limit);
            socket.FireKeepalive();
            var patience = Patience + (before.RoundTrip * 2);
            using var waiting = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            var heard = HearAsync(ear, port, remote, waiting.Token);
            for (var start = Stopwatch.GetTimestamp(); Stopwatch.GetElapsedTime(start) < patience && !heard.IsCompleted;)
            {
                await Task.WhenAny(heard, Task.Delay(10, cancellation));
                if (!socket.TryReadInfo(out var now) || now.State != OwnSocketInfo.Established || now.SegmentsIn != before.SegmentsIn)
                {
                    await waiting.CancelAsync();
                    await ((Task)heard).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
                    return (null, true);
                }
            }

            await waiting.CancelAsync();
            try
            {
                return (await heard, false);
            }
            catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
            {
                // Silence: once more, then it counts.
            }
        }

        return (null, false);
    }

    /// <summary>Waits for "time exceeded" about a segment from our port to the endpoint.</summary>
    private static async Task<IPAddress> HearAsync(Socket ear, int port, IPEndPoint remote, CancellationToken cancellation)
    {
        var buffer = new byte[2048];
        while (true)
        {
            var received = await ear.ReceiveFromAsync(buffer, SocketFlags.None, AnyAddress(remote), cancellation);
            if (IsAbout(buffer.AsSpan(0, received.ReceivedBytes), remote, port))
            {
                return ((IPEndPoint)received.RemoteEndPoint).Address;
            }
        }
    }

    /// <summary>Whether an ICMP message is "time exceeded in transit" about a TCP segment from <paramref name="port"/> to <paramref name="remote"/>.</summary>
    internal static bool IsAbout(ReadOnlySpan<byte> message, IPEndPoint remote, int port)
    {
        const int tcp = 6;
        Span<byte> address = stackalloc byte[16];
        if (!remote.Address.TryWriteBytes(address, out var addressLength))
        {
            return false;
        }

        ReadOnlySpan<byte> segment;
        ReadOnlySpan<byte> destination;
        if (remote.AddressFamily == AddressFamily.InterNetwork)
        {
            // IPv4 raw sockets deliver the IP header too: header, ICMP (8), the segment's IP header, its ports.
            const int timeExceeded = 11;
            if (message.Length < 20 || HeaderLength(message) is var outer && message.Length < outer + 8 + 20 || message[outer] != timeExceeded)
            {
                return false;
            }

            var inner = message[(outer + 8)..];
            if (inner[9] != tcp || inner.Length < HeaderLength(inner) + 4)
            {
                return false;
            }

            destination = inner.Slice(16, 4);
            segment = inner[HeaderLength(inner)..];
        }
        else
        {
            const int timeExceeded = 3;
            if (message.Length < 8 + 40 + 4 || message[0] != timeExceeded || message[8 + 6] != tcp)
            {
                return false;
            }

            destination = message.Slice(8 + 24, 16);
            segment = message[(8 + 40)..];
        }

        return destination.SequenceEqual(address[..addressLength])
            && BinaryPrimitives.ReadUInt16BigEndian(segment) == port
            && BinaryPrimitives.ReadUInt16BigEndian(segment[2..]) == remote.Port;
    }

    private static IPEndPoint AnyAddress(IPEndPoint remote) => new(remote.AddressFamily == AddressFamily.InterNetworkV6 ? IPAddress.IPv6Any : IPAddress.Any, 0);

    private static int HeaderLength(ReadOnlySpan<byte> ip) => (ip[0] & 0xf) * 4;
}
