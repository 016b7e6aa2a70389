using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text.RegularExpressions;

namespace Sidecar.Lab;

/// <summary>A TCP socket as <c>ss</c> shows it: the lab's own eyes, independent of the agent's.</summary>
/// <param name="State">As ss names it, such as <c>ESTAB</c>.</param>
/// <param name="ReceiveQueue">Bytes received and not yet read.</param>
/// <param name="SendQueue">Bytes sent and not yet acknowledged.</param>
/// <param name="Local">This end.</param>
/// <param name="Peer">The other end.</param>
/// <param name="Inode">Inode of the socket; 0 where nobody owns it.</param>
/// <param name="Pid">A process that holds it; null where none does.</param>
/// <param name="Timer">What follows <c>timer:</c>, such as <c>on,304ms,3</c> or <c>keepalive,2sec,0</c>; empty where none runs.</param>
/// <param name="Details">The whole line.</param>
public sealed partial record SocketState(
    string State, long ReceiveQueue, long SendQueue, IPEndPoint Local, IPEndPoint Peer, ulong Inode, int? Pid, string Timer, string Details)
{
    /// <summary>Sockets of a namespace that are connected to this peer.</summary>
    public static async Task<IReadOnlyList<SocketState>> ListAsync(NetworkNamespace host, IPEndPoint peer)
    {
        var output = await host.RunAsync(["ss", "-HOtnoiep", "dst", Bracketed(peer.Address), "dport", "=", $"{peer.Port}"]);
        return [.. output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(Parse)];
    }

    /// <summary>Destroys this socket in the kernel, as an administrator would by hand.</summary>
    public Task DestroyAsync(NetworkNamespace host) =>
        // ss complains about the families that it finds nothing in; what came of it shows in the socket's owner.
        host.TryRunAsync(["ss", "-tK", "src", Bracketed(Local.Address), "sport", "=", $"{Local.Port}"]);

    private static string Bracketed(IPAddress address) => address.AddressFamily == AddressFamily.InterNetworkV6 ? $"[{address}]" : address.ToString();

    private static SocketState Parse(string line)
    {
        var fields = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        var inode = InodePattern().Match(line);
        return new SocketState(
            fields[0],
            long.Parse(fields[1], CultureInfo.InvariantCulture),
            long.Parse(fields[2], CultureInfo.InvariantCulture),
            IPEndPoint.Parse(fields[3]),
            IPEndPoint.Parse(fields[4]),
            inode.Success ? ulong.Parse(inode.Groups["inode"].ValueSpan, CultureInfo.InvariantCulture) : 0,
            PidPattern().Match(line) is { Success: true } pid ? int.Parse(pid.Groups["pid"].ValueSpan, CultureInfo.InvariantCulture) : null,
            TimerPattern().Match(line) is { Success: true } timer ? timer.Groups["timer"].Value : "",
            line);
    }

    [GeneratedRegex(@"\bino:(?<inode>\d+)", RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1000)]
    private static partial Regex InodePattern();

    [GeneratedRegex(@"\bpid=(?<pid>\d+)", RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1000)]
    private static partial Regex PidPattern();

    [GeneratedRegex(@"\btimer:\((?<timer>[^)]*)\)", RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1000)]
    private static partial Regex TimerPattern();
}
