using Sidecar.Agent.Configuration;
using Sidecar.Probes.Processes;

namespace Sidecar.Agent.Tracking;

/// <summary>A process that holds watched connections, with what an operator knows it by.</summary>
/// <param name="Identity">Pid and start time.</param>
/// <param name="Comm">Command name.</param>
/// <param name="Executable">Path of its executable, or null where not readable.</param>
/// <param name="Unit">systemd unit, or null.</param>
/// <param name="Uid">Real uid, or null.</param>
/// <param name="IsKernelThread">Never to be touched.</param>
/// <param name="Workers">The first [workers:…] section that names it, or null.</param>
public sealed record OwnerInfo(
    ProcessIdentity Identity, string Comm, string? Executable, string? Unit, uint? Uid, bool IsKernelThread, WorkersSection? Workers);

/// <summary>The owners of one socket.</summary>
/// <param name="First">The one that is shown, or null where none is known.</param>
/// <param name="Descriptor">Its descriptor number.</param>
/// <param name="Count">How many processes hold the socket; more than one after a fork.</param>
public readonly record struct Ownership(OwnerInfo? First, int Descriptor, int Count)
{
    /// <summary>True when exactly one process holds it and is known.</summary>
    public bool IsSole => First is not null && Count == 1;
}

/// <summary>
/// Who holds which watched socket. A new socket is looked for among the processes that already hold one (a pool that
/// reconnects), and only then in a walk over all of /proc, which is made rarely. What could not be found is tried again
/// at growing intervals, since without the privilege it will never be found.
/// </summary>
public sealed class OwnerTable(ProcessReader processes, IReadOnlyList<WorkersSection> workers)
{
    private static readonly TimeSpan LongestRetry = TimeSpan.FromSeconds(60);

    /// <summary>Least time between two walks over all processes.</summary>
    private static readonly TimeSpan BetweenWalks = TimeSpan.FromSeconds(2);

    private readonly SocketOwners _owners = new(processes);
    private readonly Dictionary<ProcessIdentity, OwnerInfo> _infos = [];
    private readonly Dictionary<uint, (TimeSpan Next, TimeSpan Wait)> _unknown = [];
    private readonly WorkerMatcher _matcher = new(workers);
    private TimeSpan _nextWalk = TimeSpan.MinValue;

    /// <summary>Grows whenever sockets that are still there may have other owners than were known; never 0.</summary>
    public int Version { get; private set; } = 1;

    /// <summary>Processes whose descriptors could not be listed in the last walk.</summary>
    public int Unreadable => _owners.Unreadable;

    /// <summary>Live processes of [workers:…] groups, each from its first watched connection on.</summary>
    public IEnumerable<OwnerInfo> Workers => _infos.Values.Where(info => info.Workers is not null);

    /// <summary>Walks /proc when one of the inodes is new (or due for another try).</summary>
    public void Resolve(IEnumerable<uint> inodes, TimeSpan now)
    {
        List<uint>? wanted = null;
        foreach (var inode in inodes)
        {
            if (inode != 0 && !_owners.IsKnown(inode) && (!_unknown.TryGetValue(inode, out var retry) || now >= retry.Next))
            {
                (wanted ??= []).Add(inode);
            }
        }

        if (wanted is null)
        {
            return;
        }

        _owners.Resolve(wanted, _infos.Keys.Select(identity => identity.Pid));
        var missing = wanted.Where(inode => !_owners.IsKnown(inode)).ToList();
        if (missing.Count > 0)
        {
            if (now < _nextWalk)
            {
                wanted.RemoveAll(inode => !_owners.IsKnown(inode)); // not looked for yet, so not unknown either
            }
            else
            {
                _nextWalk = now + BetweenWalks;
                _owners.Resolve(missing);
            }
        }

        foreach (var inode in wanted)
        {
            if (!_owners.IsKnown(inode))
            {
                var wait = _unknown.TryGetValue(inode, out var retry) ? retry.Wait * 2 : TimeSpan.FromSeconds(1);
                wait = wait > LongestRetry ? LongestRetry : wait;
                _unknown[inode] = (now + wait, wait);
                continue;
            }

            _unknown.Remove(inode);
            foreach (var owner in _owners.Find(inode))
            {
                Describe(owner.Process);
            }
        }
    }

    /// <summary>The owners as last found.</summary>
    public Ownership Find(uint inode)
    {
        if (!_owners.TryFind(inode, out var first, out var count) || !_infos.TryGetValue(first.Process, out var info))
        {
            return default;
        }

        return new Ownership(info, first.Descriptor, count);
    }

    /// <summary>Looks at one socket's owners anew, so that nothing is done on grounds of an old walk.</summary>
    public Ownership Refresh(uint inode)
    {
        Version++;
        _owners.Resolve([inode]);
        foreach (var owner in _owners.Find(inode))
        {
            Describe(owner.Process);
        }

        return Find(inode);
    }

    /// <summary>Gives back what growing has left over.</summary>
    internal void TrimExcess()
    {
        _owners.TrimExcess();
        _unknown.TrimExcess();
    }

    /// <summary>Whether the owner of a socket is known.</summary>
    internal bool IsKnown(uint inode) => _owners.IsKnown(inode);

    /// <summary>Forgets the owner of one socket; those of all others stand.</summary>
    public void Forget(uint inode)
    {
        _owners.Forget(inode);
        _unknown.Remove(inode);
    }

    /// <summary>
    /// Drops what is remembered of processes that have ended. Sockets of theirs that are still there have been inherited by
    /// another process, which is looked for.
    /// </summary>
    public void Prune()
    {
        var ended = _infos.Keys.Where(identity => !processes.IsAlive(identity)).ToHashSet();
        foreach (var identity in ended)
        {
            _infos.Remove(identity);
        }

        if (ended.Count > 0 && _owners.ForgetAll(ended))
        {
            Version++;
        }
    }

    private void Describe(ProcessIdentity identity)
    {
        if (_infos.ContainsKey(identity) || !processes.TryReadStat(identity.Pid, out var stat) || stat.Identity != identity)
        {
            return;
        }

        var info = new OwnerInfo(
            identity, stat.Comm, processes.ReadExecutable(identity.Pid), processes.ReadUnit(identity.Pid), processes.ReadUid(identity.Pid), stat.IsKernelThread, null);
        _infos[identity] = info with { Workers = _matcher.Find(info) };
    }
}
