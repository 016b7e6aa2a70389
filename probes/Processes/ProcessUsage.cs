using System.Buffers.Text;
using Sidecar.Probes.Values;

namespace Sidecar.Probes.Processes;

/// <summary>What a process has used, as /proc/PID/stat says (proc(5)).</summary>
/// <param name="Identity">Pid and start time.</param>
/// <param name="Cpu">User and system time of all its threads since its start, to 10 ms.</param>
/// <param name="ResidentBytes">Resident set; the kernel counts it per CPU, so it may lag by some pages.</param>
/// <param name="LastCpu">Number of the CPU that it last ran on; -1 where it is not told.</param>
public readonly record struct ProcessUsage(ProcessIdentity Identity, TimeSpan Cpu, long ResidentBytes, int LastCpu = -1)
{
    /// <summary>USER_HZ: what the kernel counts in towards user space, 100 on all architectures that .NET runs on.</summary>
    internal const long TicksPerSecond = 100;

    /// <summary>Parses a stat line: utime is field 14, stime 15, starttime 22, rss 24 (pages), processor 39.</summary>
    internal static bool TryParse(ReadOnlySpan<byte> line, long pageSize, out ProcessUsage usage)
    {
        usage = default;
        var open = line.IndexOf((byte)'(');
        var close = line.LastIndexOf((byte)')');
        if (open < 2 || close < open || close + 3 > line.Length || !Utf8Parser.TryParse(line[..open], out int pid, out _))
        {
            return false;
        }

        long user = 0;
        long system = 0;
        ulong start = 0;
        var read = false;
        var rest = line[(close + 2)..];
        for (var field = 3; ; field++)
        {
            var end = rest.IndexOf((byte)' ');
            switch (field)
            {
                case 14 when !Utf8Parser.TryParse(rest, out user, out _):
                case 15 when !Utf8Parser.TryParse(rest, out system, out _):
                case 22 when !Utf8Parser.TryParse(rest, out start, out _):
                    return false;
                case 24:
                    if (!Utf8Parser.TryParse(rest, out long pages, out _))
                    {
                        return false;
                    }

                    usage = new ProcessUsage(new ProcessIdentity(pid, start), Used(user, system), pages * pageSize);
                    read = true;
                    break;
                case 39:
                    usage = Utf8Parser.TryParse(rest, out int processor, out _) ? usage with { LastCpu = processor } : usage;
                    return true;
            }

            if (end < 0)
            {
                return read;
            }

            rest = rest[(end + 1)..];
        }
    }

    /// <summary>The kernel's counters stay far below; numbers that no time has are none.</summary>
    private static TimeSpan Used(long user, long system) =>
        user >= 0 && system >= 0 && (double)user + system < TimeSpan.MaxValue.TotalSeconds ? TimeSpan.FromSeconds(((double)user + system) / TicksPerSecond) : TimeSpan.Zero;
}
