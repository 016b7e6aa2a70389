using Sidecar.Probes.Processes;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Observation;

/// <summary>CPU and memory of the processes of each group, looked at every few seconds.</summary>
internal sealed class GroupMonitor(ProcessReader processes)
{
    /// <summary>Less CPU time than this in a group, in cores, is not shared by anybody: timers and health checks.</summary>
    private const double WorthSharing = 0.1;

    /// <summary>A process that used less than this computed nothing.</summary>
    private const double Computed = 0.02;

    private Dictionary<ProcessIdentity, Used> _used = [];

    /// <summary>What one group uses.</summary>
    internal readonly record struct Usage(double? Cores, double? Imbalance, int BusyCores, long? ParentBytes, double? ParentGrowth);

    /// <summary>Reads every process; the findings by group.</summary>
    public Dictionary<string, Usage> Scan(IReadOnlyList<GroupProcess> all, TimeSpan now)
    {
        var before = _used;
        _used = new Dictionary<ProcessIdentity, Used>(all.Count);
        foreach (var process in all)
        {
            if (processes.TryReadUsage(process.Identity, out var usage))
            {
                var used = before.GetValueOrDefault(process.Identity) ?? new Used();
                used.Update(usage, now);
                _used[process.Identity] = used;
            }
        }

        return all.GroupBy(process => process.Group, StringComparer.Ordinal).ToDictionary(group => group.Key, group => Sum([.. group]), StringComparer.Ordinal);
    }

    private Usage Sum(List<GroupProcess> group)
    {
        var parents = group.Select(process => process.ParentPid).ToHashSet();
        var leaves = group.Where(process => !parents.Contains(process.Identity.Pid)).Select(process => _used.GetValueOrDefault(process.Identity)).OfType<Used>().ToList();
        var parent = group.Where(process => parents.Contains(process.Identity.Pid)).Select(process => _used.GetValueOrDefault(process.Identity)).OfType<Used>().MaxBy(used => used.Resident);
        var known = group.Select(process => _used.GetValueOrDefault(process.Identity)?.Cores).OfType<double>().ToList();
        return new Usage(
            known.Count > 0 ? known.Sum() : null,
            Imbalance([.. leaves.Select(used => used.Cores).OfType<double>()]),
            leaves.Where(used => used.Cores > Computed && used.LastCpu >= 0).Select(used => used.LastCpu).Distinct().Count(),
            parent?.Resident,
            parent?.Memory.PerSecond());
    }

    /// <summary>
    /// The share of the one that computes most, from what it would be if all did the same (0) to all of it (1); null where
    /// there are fewer than two or nothing to share.
    /// </summary>
    internal static double? Imbalance(IReadOnlyList<double> cores)
    {
        var sum = cores.Sum();
        if (cores.Count < 2 || sum < WorthSharing)
        {
            return null;
        }

        var even = 1.0 / cores.Count;
        return Math.Clamp(((cores.Max() / sum) - even) / (1 - even), 0, 1);
    }

    /// <summary>One process over time.</summary>
    private sealed class Used
    {
        private (TimeSpan At, TimeSpan Cpu)? _last;

        public double? Cores { get; private set; }

        public long Resident { get; private set; }

        public int LastCpu { get; private set; }

        public Slope Memory { get; } = new();

        public void Update(in ProcessUsage usage, TimeSpan now)
        {
            if (_last is { } last && now > last.At)
            {
                Cores = Math.Max(0, (usage.Cpu - last.Cpu) / (now - last.At));
            }

            _last = (now, usage.Cpu);
            Resident = usage.ResidentBytes;
            LastCpu = usage.LastCpu;
            Memory.Add(now, usage.ResidentBytes);
        }
    }
}
