using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Tracking;

/// <summary>
/// Who holds which watched socket, as far as it has been found. Handed what the search found; searches nothing itself.
/// </summary>
public sealed class OwnerTable
{
    private readonly Dictionary<uint, Entry> _owners = [];
    private readonly Dictionary<ProcessIdentity, OwnerInfo> _processes = [];

    /// <summary>Grows whenever sockets that are still there may have other owners than were known; never 0.</summary>
    public int Version { get; private set; } = 1;

    /// <summary>Processes that hold, or have held, a watched socket.</summary>
    public IReadOnlyCollection<OwnerInfo> Processes => _processes.Values;

    /// <summary>Processes of [workers:…] groups, each from its first watched connection on.</summary>
    public IEnumerable<OwnerInfo> Workers => _processes.Values.Where(process => process.Workers is not null);

    /// <summary>The owners as last found.</summary>
    public Ownership Find(uint inode) =>
        _owners.TryGetValue(inode, out var entry) ? new Ownership(entry.First, entry.Descriptor, entry.Count) : default;

    /// <summary>Whether an owner of the socket is known.</summary>
    public bool IsKnown(uint inode) => _owners.ContainsKey(inode);

    /// <summary>What is known of a process, or null.</summary>
    public OwnerInfo? Process(ProcessIdentity identity) => _processes.GetValueOrDefault(identity);

    /// <summary>A process was found to hold watched sockets.</summary>
    public void Add(OwnerInfo process) => _processes[process.Identity] = process;

    /// <summary>A search has found the owners of a socket; their processes were added before.</summary>
    /// <param name="inode">The socket.</param>
    /// <param name="first">The owner that is shown.</param>
    /// <param name="descriptor">Its descriptor number.</param>
    /// <param name="count">How many processes hold the socket.</param>
    public void Found(uint inode, ProcessIdentity first, int descriptor, int count)
    {
        if (_processes.TryGetValue(first, out var process))
        {
            _owners[inode] = new Entry(process, descriptor, count);
        }
    }

    /// <summary>Forgets the owner of one socket; those of all others stand.</summary>
    public void Forget(uint inode) => _owners.Remove(inode);

    /// <summary>
    /// Processes have ended. Sockets of theirs that are still there have been inherited by another process, which is to be found.
    /// </summary>
    public void Ended(IReadOnlySet<ProcessIdentity> processes)
    {
        foreach (var process in processes)
        {
            _processes.Remove(process);
        }

        var inodes = _owners.Where(pair => processes.Contains(pair.Value.First.Identity)).Select(pair => pair.Key).ToList();
        foreach (var inode in inodes)
        {
            _owners.Remove(inode);
        }

        Version += inodes.Count > 0 ? 1 : 0;
    }

    /// <summary>Gives back what growing has left over.</summary>
    public void TrimExcess() => _owners.TrimExcess(_owners.Count + (_owners.Count / 16));

    private readonly record struct Entry(OwnerInfo First, int Descriptor, int Count);
}
