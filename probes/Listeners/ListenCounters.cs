using System.Globalization;

namespace Sidecar.Probes.Listeners;

/// <summary>
/// What full accept queues have cost in a network namespace since it was made: TcpExt of /proc/PID/net/netstat.
/// </summary>
/// <param name="Overflows">Times that a connection found the accept queue full.</param>
/// <param name="Drops">Connections dropped by listening sockets, for that and for other reasons.</param>
public readonly record struct ListenCounters(long Overflows, long Drops)
{
    /// <summary>Reads them in the namespace of a process; null where it has gone or may not be read.</summary>
    public static ListenCounters? Read(int pid)
    {
        try
        {
            return Parse(File.ReadAllText($"/proc/{pid}/net/netstat"));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>A line of names, then a line of numbers in the same order, each beginning with <c>TcpExt:</c>.</summary>
    internal static ListenCounters? Parse(string netstat)
    {
        var lines = netstat.Split('\n').Where(line => line.StartsWith("TcpExt:", StringComparison.Ordinal)).Take(2).ToList();
        if (lines.Count < 2)
        {
            return null;
        }

        var names = lines[0].Split(' ');
        var values = lines[1].Split(' ');
        return Number("ListenOverflows") is { } overflows && Number("ListenDrops") is { } drops ? new ListenCounters(overflows, drops) : null;

        long? Number(string name) => Array.IndexOf(names, name) is > 0 and var at && at < values.Length
            && long.TryParse(values[at], NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var value) ? value : null;
    }
}
