using System.Globalization;

namespace Sidecar.Probes.Processes;

/// <summary>What this process uses, as /proc/self says (proc(5)).</summary>
/// <param name="Cpu">User and system time of all its threads, to 10 ms.</param>
/// <param name="ResidentBytes">Resident set.</param>
/// <param name="VirtualBytes">Address space.</param>
/// <param name="Started">Wall clock, as the host has it now; null where the time of the boot is not told.</param>
/// <param name="Descriptors">Open descriptors.</param>
/// <param name="MostDescriptors">RLIMIT_NOFILE; null where there is none.</param>
public sealed record OwnProcess(TimeSpan Cpu, long ResidentBytes, long VirtualBytes, DateTimeOffset? Started, long Descriptors, long? MostDescriptors)
{
    /// <summary>Reads it; null where /proc cannot be read.</summary>
    public static OwnProcess? Read()
    {
        try
        {
            var stat = File.ReadAllText("/proc/self/stat");
            var fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' '); // from field 3 on
            return new OwnProcess(
                TimeSpan.FromSeconds((Number(fields[14 - 3]) + Number(fields[15 - 3])) / ProcessUsage.TicksPerSecond),
                (long)Number(fields[24 - 3]) * Environment.SystemPageSize,
                (long)Number(fields[23 - 3]),
                Field("/proc/stat", "btime ") is { } boot ? DateTimeOffset.FromUnixTimeSeconds((long)Number(boot)).AddSeconds(Number(fields[22 - 3]) / ProcessUsage.TicksPerSecond) : null,
                Directory.EnumerateFileSystemEntries("/proc/self/fd").Count() - 1, // the one that it is read through
                Field("/proc/self/limits", "Max open files ") is { } limit && long.TryParse(limit, CultureInfo.InvariantCulture, out var most) ? most : null);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or FormatException or IndexOutOfRangeException)
        {
            return null;
        }
    }

    /// <summary>The first word behind a line's name; null where there is no such line.</summary>
    private static string? Field(string file, string name) =>
        File.ReadLines(file).FirstOrDefault(line => line.StartsWith(name, StringComparison.Ordinal))?[name.Length..].Trim().Split(' ')[0];

    private static double Number(string text) => double.Parse(text, CultureInfo.InvariantCulture);
}
