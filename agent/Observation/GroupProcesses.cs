using System.Numerics;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Processes;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Observation;

/// <summary>A live process of a [workers:…] group.</summary>
/// <param name="Identity">Pid and start time.</param>
/// <param name="Group">Name of the section.</param>
/// <param name="ParentPid">Its parent.</param>
internal sealed record GroupProcess(ProcessIdentity Identity, string Group, int ParentPid);

/// <summary>
/// All processes of the [workers:…] groups, whether they hold a watched connection or not, and how many children each
/// group has. One walk over /proc reads one small file per process; what a process is, is read when it is first seen, when its
/// name has changed (exec), and now and then: a script that waits for the database before it starts the workers is another
/// program later, and a master that drops its privileges another user's.
/// </summary>
internal sealed class GroupProcesses(ProcessReader processes, IReadOnlyList<WorkersSection> sections)
{
    /// <summary>In walks: what a process is, is read at least this often.</summary>
    private const int ReadAgainEvery = 64;

    private readonly WorkerMatcher _matcher = new(sections);
    private Dictionary<ProcessIdentity, (string? Group, string Comm, int Walks)> _known = [];

    /// <summary>The live processes at the last walk.</summary>
    public IReadOnlyList<GroupProcess> All { get; private set; } = [];

    /// <summary>Live children and zombies at the last walk, by group; a group without any is not there.</summary>
    public IReadOnlyDictionary<string, (int Live, int Zombies)> Children { get; private set; } = new Dictionary<string, (int, int)>(StringComparer.Ordinal);

    public void Refresh()
    {
        var before = _known;
        var stats = new List<ProcessStat>(before.Count);
        _known = new Dictionary<ProcessIdentity, (string?, string, int)>(before.Count);
        var all = new List<GroupProcess>();
        foreach (var pid in processes.ReadPids())
        {
            if (!processes.TryReadStat(pid, out var stat) || stat.IsKernelThread)
            {
                continue;
            }

            stats.Add(stat);
            if (stat.State is 'Z' or 'X')
            {
                continue;
            }

            var walks = before.TryGetValue(stat.Identity, out var earlier) ? earlier.Walks + 1 : 0;
            var group = IsDue(walks, stat.Identity.Pid) || stat.Comm != earlier.Comm ? Find(stat) : earlier.Group;
            _known[stat.Identity] = (group, stat.Comm, walks);
            if (group is not null)
            {
                all.Add(new GroupProcess(stat.Identity, group, stat.ParentPid));
            }
        }

        var groups = all.ToDictionary(process => process.Identity.Pid, process => process.Group);
        var children = new Dictionary<string, (int Live, int Zombies)>(StringComparer.Ordinal);
        foreach (var stat in stats)
        {
            if (groups.TryGetValue(stat.ParentPid, out var group))
            {
                var (live, zombies) = children.GetValueOrDefault(group);
                children[group] = stat.State is 'Z' ? (live, zombies + 1) : (live + 1, zombies);
            }
        }

        All = all;
        Children = children;
    }

    /// <summary>Most often while it is young; the old ones not all in the same walk.</summary>
    private static bool IsDue(int walks, int pid) => walks == 0 || BitOperations.IsPow2(walks) || (walks + pid) % ReadAgainEvery == 0;

    private string? Find(in ProcessStat stat)
    {
        var pid = stat.Identity.Pid;
        return _matcher.Find(new OwnerInfo(stat.Identity, stat.Comm, processes.ReadExecutable(pid), processes.ReadUnit(pid), processes.ReadUid(pid), false, null))?.Name;
    }
}
