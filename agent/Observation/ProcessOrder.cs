using System.Diagnostics;
using Sidecar.Probes.Processes;

namespace Sidecar.Agent.Observation;

/// <summary>
/// The order in which processes are searched: in turn by uid, so that no user makes another's wait, and in each uid those that hold
/// watched sockets, then those that a [workers:…] section names, then the others. What it rests on may be old: an order does not
/// have to be right.
/// </summary>
/// <param name="processes">Reads /proc.</param>
/// <param name="workers">Which processes a section names; null: none.</param>
/// <param name="reading">How long reading about new processes may take; null: <see cref="LongestReading"/>.</param>
internal sealed class ProcessOrder(ProcessReader processes, WorkerMatcher? workers, TimeSpan? reading = null)
{
    /// <summary>Reading about processes that are new takes no longer; those beyond come last.</summary>
    private static readonly TimeSpan LongestReading = TimeSpan.FromMilliseconds(50);

    private Dictionary<int, (uint Uid, bool IsWorker)> _known = [];

    /// <summary>All processes there are, in order.</summary>
    /// <param name="holders">Those that hold watched sockets.</param>
    public List<int> All(IEnumerable<int> holders) => Of(processes.ReadPids(), holders.ToHashSet());

    /// <summary>These processes, in order.</summary>
    internal List<int> Of(IReadOnlyCollection<int> pids, IReadOnlySet<int> holders)
    {
        var started = Stopwatch.GetTimestamp();
        var next = new Dictionary<int, (uint Uid, bool IsWorker)>(pids.Count);
        foreach (var pid in pids)
        {
            if (_known.TryGetValue(pid, out var known))
            {
                next[pid] = known;
            }
            else if (Stopwatch.GetElapsedTime(started) < (reading ?? LongestReading) && Read(pid) is { } read)
            {
                next[pid] = read;
            }
        }

        _known = next;
        var places = new Dictionary<uint, int>();
        return [.. pids
            .Select(pid => (Pid: pid, Rank: Rank(pid, holders)))
            .OrderBy(process => process.Rank)
            .Select(process => (process.Pid, process.Rank, Place: Place(process.Pid)))
            .OrderBy(process => process.Place).ThenBy(process => process.Rank)
            .Select(process => process.Pid)];

        int Place(int pid)
        {
            var uid = next.TryGetValue(pid, out var known) ? known.Uid : uint.MaxValue;
            return places[uid] = places.GetValueOrDefault(uid) + 1;
        }
    }

    private int Rank(int pid, IReadOnlySet<int> holders) =>
        holders.Contains(pid) ? 0 : !_known.TryGetValue(pid, out var known) ? 3 : known.IsWorker ? 1 : 2;

    private (uint Uid, bool IsWorker)? Read(int pid) => workers is null
        ? processes.ReadUid(pid) is { } uid ? (uid, false) : null
        : processes.TryReadStat(pid, out var stat) && OwnerReader.Read(processes, stat.Identity) is { Uid: { } user } process
            ? (user, workers.Find(process) is not null)
            : null;
}
