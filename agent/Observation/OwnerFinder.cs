using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Processes;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Observation;

/// <summary>
/// Finds who holds which watched socket. A new socket is looked for among the processes that already hold one (a pool that
/// reconnects), and only then in a walk over all of /proc, which is made rarely. What could not be found is tried again
/// at growing intervals, since without the privilege it will never be found. The loop's thread searches for a fraction of a
/// second; where somebody holds more descriptors than that, a background thread goes on, and hands over what it finds.
/// </summary>
/// <param name="processes">Reads /proc.</param>
/// <param name="owners">Where what is found is kept.</param>
/// <param name="workers">The sections that name workers.</param>
internal sealed class OwnerFinder(ProcessReader processes, OwnerTable owners, IReadOnlyList<WorkersSection> workers) : IDisposable
{
    /// <summary>The loop's thread searches no longer at a time.</summary>
    internal static readonly TimeSpan LongestSearch = TimeSpan.FromMilliseconds(100);

    private static readonly TimeSpan LongestRetry = TimeSpan.FromSeconds(60);

    /// <summary>Least time between two walks over all processes.</summary>
    private static readonly TimeSpan BetweenWalks = TimeSpan.FromSeconds(2);

    private readonly SocketOwners _search = new(processes);
    private readonly Dictionary<uint, (TimeSpan Next, TimeSpan Wait)> _unknown = [];
    private readonly WorkerMatcher _matcher = new(workers);
    private readonly ProcessOrder _order = new(processes, workers.Count > 0 ? new WorkerMatcher(workers) : null);
    private TimeSpan _nextWalk = TimeSpan.MinValue;
    private LongWalk? _long;

    /// <summary>Why some owners are not known yet, or null.</summary>
    public string? Problem => _long?.Problem;

    /// <summary>Walks /proc when one of the inodes is new (or due for another try).</summary>
    public void Find(IEnumerable<uint> inodes, TimeSpan now)
    {
        TakeLong(inodes, now);
        List<uint>? wanted = null;
        foreach (var inode in inodes)
        {
            if (inode != 0 && !owners.IsKnown(inode) && (!_unknown.TryGetValue(inode, out var retry) || now >= retry.Next))
            {
                (wanted ??= []).Add(inode);
            }
        }

        if (wanted is null)
        {
            return;
        }

        var holders = owners.Processes.Select(process => process.Identity.Pid).ToHashSet();
        _search.Continue(_search.Begin(wanted, _order.Of(holders, holders)), LongestSearch);
        Take(_search, wanted);
        var missing = wanted.Where(inode => !owners.IsKnown(inode)).ToList();
        if (missing.Count == 0 || now < _nextWalk)
        {
            return; // those that are missing have not been looked for yet, so they are not unknown either
        }

        _nextWalk = now + BetweenWalks;
        var pids = _order.All(holders);
        var isDone = _search.Continue(_search.Begin(missing, pids), LongestSearch);
        Take(_search, missing);
        missing.RemoveAll(owners.IsKnown);
        if (isDone)
        {
            Missed(missing, now);
        }
        else if (missing.Count > 0 && _long is null)
        {
            _long = new LongWalk(processes, missing, pids);
        }
    }

    /// <summary>A connection has gone: its socket is nobody's.</summary>
    public void Forget(uint inode)
    {
        owners.Forget(inode);
        _unknown.Remove(inode);
    }

    /// <summary>
    /// Drops what is remembered of processes that have ended. Sockets of theirs that are still there have been inherited by
    /// another process, which is looked for.
    /// </summary>
    public void Prune()
    {
        var ended = owners.Processes.Select(process => process.Identity).Where(identity => !processes.IsAlive(identity)).ToHashSet();
        if (ended.Count > 0)
        {
            owners.Ended(ended);
        }
    }

    /// <summary>Gives back what growing has left over.</summary>
    public void TrimExcess()
    {
        owners.TrimExcess();
        _unknown.TrimExcess();
        _search.TrimExcess();
    }

    /// <summary>Ends what goes on in the background.</summary>
    public void Dispose() => _long?.Dispose();

    private void Missed(List<uint> missing, TimeSpan now)
    {
        foreach (var inode in missing)
        {
            var wait = _unknown.TryGetValue(inode, out var retry) ? retry.Wait * 2 : TimeSpan.FromSeconds(1);
            wait = wait > LongestRetry ? LongestRetry : wait;
            _unknown[inode] = (now + wait, wait);
        }
    }

    /// <summary>Hands over what a long walk has found since the last call.</summary>
    private void TakeLong(IEnumerable<uint> inodes, TimeSpan now)
    {
        if (_long is null)
        {
            return;
        }

        var isDone = _long.IsDone; // before what it has found is taken
        var asked = inodes.ToHashSet();
        foreach (var (inode, owner, count) in _long.TakeFound().Where(found => asked.Contains(found.Inode)))
        {
            Describe(owner.Process);
            owners.Found(inode, owner.Process, owner.Descriptor, count);
            _unknown.Remove(inode);
        }

        if (isDone)
        {
            Missed([.. _long.Wanted.Where(inode => asked.Contains(inode) && !owners.IsKnown(inode))], now);
            _long.Dispose();
            _long = null;
        }
    }

    /// <summary>Hands over what the search has found.</summary>
    private void Take(SocketOwners search, List<uint> inodes)
    {
        foreach (var inode in inodes)
        {
            if (search.TryFind(inode, out var first, out var count))
            {
                Describe(first.Process);
                owners.Found(inode, first.Process, first.Descriptor, count);
                _unknown.Remove(inode);
                search.Forget(inode);
            }
        }
    }

    private void Describe(ProcessIdentity identity)
    {
        if (owners.Process(identity) is null && OwnerReader.Read(processes, identity) is { } info)
        {
            owners.Add(info with { Workers = _matcher.Find(info) });
        }
    }
}

/// <summary>What an operator knows a process by.</summary>
internal static class OwnerReader
{
    /// <summary>Reads it; null where the process has gone.</summary>
    public static OwnerInfo? Read(ProcessReader processes, ProcessIdentity identity) =>
        processes.TryReadStat(identity.Pid, out var stat) && stat.Identity == identity
            ? new OwnerInfo(identity, stat.Comm, processes.ReadExecutable(identity.Pid), processes.ReadUnit(identity.Pid), processes.ReadUid(identity.Pid), stat.IsKernelThread, null)
            : null;
}
