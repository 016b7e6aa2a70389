using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Processes;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Observation;

/// <summary>
/// What each worker of the [workers:…] groups does: its connections, its share of the traffic, its memory and CPU. One
/// file of /proc is read per worker every five seconds; workers are known from the sockets they hold, so /proc is never
/// walked for this. Runs on the loop's thread.
/// </summary>
/// <param name="processes">Reads /proc.</param>
/// <param name="owners">Knows the workers.</param>
internal sealed class WorkerMonitor(ProcessReader processes, OwnerTable owners)
{
    /// <summary>Time between two scans.</summary>
    public static readonly TimeSpan Interval = TimeSpan.FromSeconds(5);

    /// <summary>Scans that the share of traffic is taken over: a minute.</summary>
    private const int ScansOfTraffic = 12;

    private readonly Dictionary<ProcessIdentity, Worker> _workers = [];
    private readonly Dictionary<string, List<Worker?>> _numbers = new(StringComparer.Ordinal);
    private Dictionary<TrackedConnection, ulong> _bytes = [];
    private IReadOnlyList<WorkerStatus> _last = [];
    private TimeSpan? _lastScan;

    /// <summary>The workers as they are; the last answer again where it is younger than <see cref="Interval"/>.</summary>
    /// <param name="connections">All watched connections, judged.</param>
    /// <param name="now">Monotonic time.</param>
    public IReadOnlyList<WorkerStatus> Measure(IReadOnlyCollection<TrackedConnection> connections, TimeSpan now)
    {
        // A little less, so that scans that come just before their time do not halve the rate.
        if (_lastScan is { } last && now - last < Interval - TimeSpan.FromMilliseconds(100))
        {
            return _last;
        }

        Meet(now);
        Count(connections);
        _lastScan = now;
        return _last = Tell();
    }

    /// <summary>Reads every worker; those that have ended give up their numbers before new ones take theirs.</summary>
    private void Meet(TimeSpan now)
    {
        var infos = owners.Workers.OrderBy(info => info.Identity.StartTicks).ThenBy(info => info.Identity.Pid).ToList();
        var seen = new List<(OwnerInfo Info, ProcessUsage Usage)>(infos.Count);
        foreach (var info in infos)
        {
            if (processes.TryReadUsage(info.Identity, out var usage))
            {
                seen.Add((info, usage));
            }
        }

        var alive = seen.Select(pair => pair.Info.Identity).ToHashSet();
        foreach (var (identity, worker) in _workers.Where(pair => !alive.Contains(pair.Key)).ToList())
        {
            _workers.Remove(identity);
            _numbers[worker.Group][worker.Index] = null;
        }

        foreach (var (info, usage) in seen)
        {
            if (!_workers.TryGetValue(info.Identity, out var worker))
            {
                worker = new Worker(info.Workers!.Name, info.Identity.Pid);
                worker.Index = Number(worker);
                _workers.Add(info.Identity, worker);
            }

            worker.Used(usage, now);
        }
    }

    private int Number(Worker worker)
    {
        if (!_numbers.TryGetValue(worker.Group, out var taken))
        {
            _numbers[worker.Group] = taken = [];
        }

        var free = taken.IndexOf(null);
        if (free < 0)
        {
            taken.Add(worker);
            return taken.Count - 1;
        }

        taken[free] = worker;
        return free;
    }

    private void Count(IReadOnlyCollection<TrackedConnection> connections)
    {
        var before = _bytes;
        if (_workers.Count == 0)
        {
            return; // nobody to count for: no pass over all connections
        }

        _bytes = new Dictionary<TrackedConnection, ulong>(before.Count);
        foreach (var worker in _workers.Values)
        {
            worker.BeginCount();
        }

        foreach (var connection in connections)
        {
            if (owners.Find(connection.Last.Inode).First is not { } owner || !_workers.TryGetValue(owner.Identity, out var worker))
            {
                continue;
            }

            var info = connection.Last.Info;
            var bytes = info.BytesAcked + info.BytesReceived;
            _bytes[connection] = bytes;

            // At the first scan all connections are new, and what they carried before is not of the last seconds.
            var moved = before.TryGetValue(connection, out var earlier) ? bytes - earlier : _lastScan is null ? 0 : bytes;
            worker.Count(moved, IsInFlight(connection.Judged));
        }

        foreach (var worker in _workers.Values)
        {
            worker.EndCount();
        }
    }

    private static bool IsInFlight(in Judged judged) => judged.Reason == Reason.InFlight
        || judged.Verdict is Verdict.Waiting or Verdict.Suspect or Verdict.Stuck or Verdict.Outage or Verdict.BlockedByPeer;

    private List<WorkerStatus> Tell()
    {
        var traffic = _workers.Values.GroupBy(worker => worker.Group, StringComparer.Ordinal)
            .ToDictionary(group => group.Key, group => group.Sum(worker => (double)worker.Traffic), StringComparer.Ordinal);
        return [.. _workers.Values.OrderBy(worker => worker.Group, StringComparer.Ordinal).ThenBy(worker => worker.Index).Select(worker => new WorkerStatus
        {
            Workers = worker.Group,
            Index = worker.Index,
            Pid = worker.Pid,
            Connections = worker.Connections,
            RequestsInFlight = worker.InFlight,
            TrafficShare = traffic[worker.Group] is var all and > 0 ? worker.Traffic / all : null,
            CpuShare = worker.CpuShare,
            ResidentBytes = worker.Resident,
            ResidentGrowth = worker.Growth(),
        })];
    }

    /// <summary>One process over time.</summary>
    private sealed class Worker(string group, int pid)
    {
        private readonly Queue<ulong> _traffic = new(ScansOfTraffic + 1);
        private readonly Slope _memory = new();
        private (TimeSpan At, TimeSpan Cpu)? _used;
        private ulong _moved;

        public string Group { get; } = group;

        public int Pid { get; } = pid;

        public int Index { get; set; }

        public int Connections { get; private set; }

        public int InFlight { get; private set; }

        /// <summary>Bytes over the last scans.</summary>
        public ulong Traffic { get; private set; }

        public double? CpuShare { get; private set; }

        public long Resident { get; private set; }

        public void Used(in ProcessUsage usage, TimeSpan now)
        {
            if (_used is { } before && now > before.At)
            {
                CpuShare = Math.Max(0, (usage.Cpu - before.Cpu) / (now - before.At));
            }

            _used = (now, usage.Cpu);
            Resident = usage.ResidentBytes;
            _memory.Add(now, usage.ResidentBytes);
        }

        public void BeginCount()
        {
            Connections = 0;
            InFlight = 0;
            _moved = 0;
        }

        public void Count(ulong moved, bool inFlight)
        {
            Connections++;
            InFlight += inFlight ? 1 : 0;
            _moved += moved;
        }

        public void EndCount()
        {
            _traffic.Enqueue(_moved);
            Traffic += _moved;
            if (_traffic.Count > ScansOfTraffic)
            {
                Traffic -= _traffic.Dequeue();
            }
        }

        public double? Growth() => _memory.PerSecond();
    }
}
