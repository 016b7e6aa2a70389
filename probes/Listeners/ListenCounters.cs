using Sidecar.Probes.Namespaces;

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
            return Parse(File.ReadAllBytes($"/proc/{pid}/net/netstat"));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    internal static ListenCounters? Parse(ReadOnlySpan<byte> netstat) =>
        ProcNetTable.Find(netstat, "TcpExt:"u8, "ListenOverflows"u8) is { } overflows && ProcNetTable.Find(netstat, "TcpExt:"u8, "ListenDrops"u8) is { } drops
            ? new ListenCounters(overflows, drops)
            : null;
}
