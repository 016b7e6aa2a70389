using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Telemetry;
using Sidecar.Probes;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.Processes;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Observation;

/// <summary>What the last scan of the stack around the workers saw. Immutable.</summary>
internal sealed record StackView
{
    public static readonly StackView Empty = new();

    public IReadOnlyList<ListenerStatus> Listeners { get; init; } = [];

    public IReadOnlyList<GroupStatus> Groups { get; init; } = [];

    /// <summary>Times that a connection found a full accept queue, in all namespaces of the groups, since the agent's start.</summary>
    public long Overflows { get; init; }

    /// <summary>The groups, each with why it has no process, where it has none.</summary>
    public IReadOnlyList<SourceStatus> Sources { get; init; } = [];

    /// <summary>What cannot be seen and why, one line each.</summary>
    public IReadOnlyList<string> Problems { get; init; } = [];
}

/// <summary>
/// Scans of the accept queues and the processes of the [workers:…] groups, on a thread of its own: the loop reads the last
/// view and never waits. Queues are looked at every second, processes and connections every five; where that would cost more
/// than a hundredth of a core, up to five times as rarely.
/// </summary>
internal sealed class StackWatch : IDisposable
{
    private static readonly TimeSpan QueuesEvery = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan RestEvery = TimeSpan.FromSeconds(5);

    /// <summary>How many times as rare.</summary>
    private const int AtMost = 5;

    /// <summary>The pause after a scan, in CPU times of that scan.</summary>
    private const int PausePerScan = 100;

    private readonly IReadOnlyList<WorkersSection> _sections;
    private readonly bool _allNamespaces;
    private readonly ProcessReader _processes = new();
    private readonly Clock _clock;
    private readonly GroupProcesses _members;
    private readonly GroupMonitor _monitor;
    private readonly Dictionary<ulong, ListenerWatch> _namespaces = [];
    private readonly HashSet<ulong> _refused = [];
    private readonly Dictionary<string, long> _drops = new(StringComparer.Ordinal);
    private readonly Dictionary<ulong, long> _firstOverflows = [];
    private readonly Dictionary<(string Workers, string Address, string Namespace), int> _numbers = [];
    private readonly ManualResetEventSlim _stopping = new();
    private readonly Thread _thread;
    private readonly ulong _ownNamespace;
    private Dictionary<string, GroupMonitor.Usage> _usage = new(StringComparer.Ordinal);
    private Dictionary<ulong, Dictionary<int, GroupProcess>> _homes = [];
    private HashSet<ProcessIdentity> _seen = [];
    private Dictionary<string, string> _absent = [];
    private long _overflowsOfGone;
    private TimeSpan _nextRest;
    private volatile StackView _view = StackView.Empty;

    public StackWatch(SidecarConfiguration configuration, Clock clock)
    {
        _sections = configuration.Workers;
        _allNamespaces = configuration.Agent.AllNetworkNamespaces;
        _clock = clock;
        _ownNamespace = _processes.ReadNetworkNamespace(Environment.ProcessId);
        _members = new GroupProcesses(_processes, _sections);
        _monitor = new GroupMonitor(_processes);
        _nextRest = clock.Now;
        _thread = new Thread(Run) { IsBackground = true, Name = "stack" };
    }

    /// <summary>The last scan; empty before the first, and for good where no group is declared.</summary>
    public StackView View => _view;

    /// <summary>Without a [workers:…] section there is nothing to look at.</summary>
    public bool IsNeeded => _sections.Count > 0;

    /// <summary>Starts scanning, where there is something to look at.</summary>
    public void Start()
    {
        if (IsNeeded)
        {
            _thread.Start();
        }
    }

    /// <summary>Scans once, on the calling thread.</summary>
    public StackView Scan()
    {
        var problems = new List<string>();
        var now = _clock.Now;
        var rest = now >= _nextRest;
        var isNew = false;
        if (rest)
        {
            var used = ThreadTime.Used;
            _members.Refresh();
            _absent = _sections.Where(section => !_members.All.Any(member => member.Group == section.Name))
                .ToDictionary(section => section.Name, section => GroupAbsence.Explain(section), StringComparer.Ordinal);
            _usage = _monitor.Scan(_members.All, now);
            isNew = FindHomes();
            OpenNamespaces(problems);
            ScanListeners(isNew, rest, now, problems);
            _nextRest = now + Pause(RestEvery, ThreadTime.Used - used);
        }
        else
        {
            ScanListeners(isNew, rest, now, problems);
        }

        return _view = Tell(problems);
    }

    public void Dispose()
    {
        _stopping.Set();
        if (_thread.IsAlive)
        {
            _thread.Join();
        }

        foreach (var watch in _namespaces.Values)
        {
            watch.Dispose();
        }

        _stopping.Dispose();
    }

    /// <summary>By CPU time and not by the clock: on a host that is short of it, scans are wanted all the more.</summary>
    private static TimeSpan Pause(TimeSpan least, TimeSpan used) => TimeSpan.FromTicks(Math.Clamp(used.Ticks * PausePerScan, least.Ticks, least.Ticks * AtMost));

    private void Run()
    {
        var pause = TimeSpan.Zero;
        while (!_stopping.Wait(pause))
        {
            var used = ThreadTime.Used;
            var due = _clock.Now;
            try
            {
                Scan();
            }
            catch (Exception e)
            {
                // Nothing that happens here ends the scans: it is told, and the next one begins anew.
                _view = _view with { Problems = [$"a scan at the accept queues failed: {e.Message}"] };
            }

            pause = Pause(QueuesEvery, ThreadTime.Used - used) - (_clock.Now - due);
            pause = pause > TimeSpan.Zero ? pause : TimeSpan.Zero;
        }
    }

    /// <summary>Which process lives in which network namespace; true where there are processes that were not there before.</summary>
    private bool FindHomes()
    {
        _homes = [];
        var seen = new HashSet<ProcessIdentity>(_members.All.Count);
        foreach (var member in _members.All)
        {
            seen.Add(member.Identity);
            var home = _processes.ReadNetworkNamespace(member.Identity.Pid);
            if (home != 0 && (_allNamespaces || home == _ownNamespace))
            {
                if (!_homes.TryGetValue(home, out var inhabitants))
                {
                    _homes[home] = inhabitants = [];
                }

                inhabitants[member.Identity.Pid] = member;
            }
        }

        var isNew = !seen.IsSubsetOf(_seen);
        _seen = seen;
        return isNew;
    }

    private void OpenNamespaces(List<string> problems)
    {
        _refused.IntersectWith(_homes.Keys);
        foreach (var (inode, inhabitants) in _homes)
        {
            if (_namespaces.ContainsKey(inode))
            {
                continue;
            }

            try
            {
                var network = inode == _ownNamespace
                    ? NetworkNamespace.OpenOwn(inode)
                    : NetworkNamespace.Open(inode, _processes.NetworkNamespacePath(inhabitants.First().Key));
                _namespaces[inode] = new ListenerWatch(network, _processes);
                _refused.Remove(inode);
            }
            catch (KernelException e)
            {
                _refused.Add(inode);
                problems.Add($"the accept queues in net:[{inode}] are not seen: {e.Message}");
            }
        }

        foreach (var inode in _namespaces.Keys.Where(inode => !_homes.ContainsKey(inode)).ToList())
        {
            _namespaces.Remove(inode, out var empty);
            if (empty!.Counters is { } last && _firstOverflows.Remove(inode, out var first))
            {
                _overflowsOfGone += last.Overflows - first;
            }

            empty.Dispose();
        }
    }

    private void ScanListeners(bool isNew, bool connections, TimeSpan now, List<string> problems)
    {
        foreach (var (inode, watch) in _namespaces)
        {
            try
            {
                watch.ScanQueues(_homes[inode], isNew, now);
                if (connections)
                {
                    watch.ScanConnections(now);
                }
            }
            catch (KernelException e)
            {
                problems.Add($"the accept queues are not seen: {e.Message}");
                continue;
            }

            foreach (var (group, more) in watch.NewDrops)
            {
                _drops[group] = _drops.GetValueOrDefault(group) + more;
            }

            if (watch.Counters is { } counters)
            {
                _firstOverflows.TryAdd(inode, counters.Overflows);
            }
        }
    }

    private StackView Tell(List<string> problems)
    {
        // In the order of the addresses, so that the same stack has the same numbers after a restart.
        var listeners = _namespaces.Values.SelectMany(watch => watch.Listeners)
            .OrderBy(listener => listener.Workers, StringComparer.Ordinal).ThenBy(listener => listener.Address, StringComparer.Ordinal).ThenBy(listener => listener.Namespace, StringComparer.Ordinal)
            .Select(listener => listener with { Index = Number(listener) })
            .ToList();
        return new StackView
        {
            Listeners = listeners,
            Groups = [.. _sections.Select(section => Tell(section.Name))],
            Overflows = _overflowsOfGone + _namespaces.Sum(pair => pair.Value.Counters is { } now && _firstOverflows.TryGetValue(pair.Key, out var first) ? now.Overflows - first : 0),
            Sources = [.. _sections.Select(section => new SourceStatus(
                SourceStatus.Workers, section.Name, _absent.TryGetValue(section.Name, out var why) ? $"workers {section.Name} match no process: {why}" : null))],
            Problems = problems,
        };
    }

    private int Number(ListenerStatus listener)
    {
        var key = (listener.Workers, listener.Address, listener.Namespace);
        if (_numbers.TryGetValue(key, out var number))
        {
            return number;
        }

        number = Free();
        if (number >= KnownLabels.ListenerNumbers.Count)
        {
            // An application that listens on ever new addresses does not use the numbers up.
            var present = _namespaces.Values.SelectMany(watch => watch.Listeners).Select(known => (known.Workers, known.Address, known.Namespace)).ToHashSet();
            foreach (var absent in _numbers.Keys.Where(known => !present.Contains(known)).ToList())
            {
                _numbers.Remove(absent);
            }

            number = Free();
        }

        return _numbers[key] = number;

        int Free()
        {
            var taken = _numbers.Where(known => known.Key.Workers == listener.Workers).Select(known => known.Value).ToHashSet();
            return Enumerable.Range(0, taken.Count + 1).First(free => !taken.Contains(free));
        }
    }

    private GroupStatus Tell(string group)
    {
        var usage = _usage.GetValueOrDefault(group);
        var children = _members.Children.GetValueOrDefault(group);
        var gone = _namespaces.Values.Select(watch => watch.Gone.GetValueOrDefault(group)).ToList();
        return new GroupStatus
        {
            Workers = group,
            Processes = _members.All.Count(member => member.Group == group),
            Children = children.Live,
            Zombies = children.Zombies,
            CpuCores = usage.Cores,
            CpuImbalance = usage.Imbalance,
            BusyCores = usage.BusyCores,
            ParentResidentBytes = usage.ParentBytes,
            ParentResidentGrowth = usage.ParentGrowth,
            GonePeersWaiting = gone.Sum(counted => counted.Waiting),
            GonePeersServed = gone.Sum(counted => counted.Served),
            GonePeerMax = gone.Count == 0 ? TimeSpan.Zero : gone.Max(counted => counted.Longest),
            Drops = _drops.GetValueOrDefault(group),
        };
    }
}
