namespace Sidecar.Probes.Processes;

/// <summary>A process that holds a socket, and through which descriptor.</summary>
/// <param name="Process">Who.</param>
/// <param name="Descriptor">Its descriptor number.</param>
public readonly record struct SocketOwner(ProcessIdentity Process, int Descriptor);

/// <summary>
/// From socket inode to its owners. The walk over /proc/*/fd is the dearest thing the agent does, so it is made only
/// when a watched socket is new, and its answers are kept until the socket goes.
/// </summary>
public sealed class SocketOwners(ProcessReader processes)
{
    private readonly Dictionary<uint, Packed> _first = [];

    // Sockets that were inherited over fork: their further owners.
    private readonly Dictionary<uint, List<SocketOwner>> _further = [];

    /// <summary>Processes whose descriptors could not be listed in the last walk.</summary>
    public int Unreadable { get; private set; }

    /// <summary>The owner that was found first, and how many there are; false where none is known.</summary>
    public bool TryFind(uint inode, out SocketOwner first, out int count)
    {
        count = 0;
        first = default;
        if (!_first.TryGetValue(inode, out var packed))
        {
            return false;
        }

        first = packed.Owner;

        count = _further.Count > 0 && _further.TryGetValue(inode, out var more) ? 1 + more.Count : 1;
        return true;
    }

    public bool IsKnown(uint inode) => _first.ContainsKey(inode);

    /// <summary>Owners as last found; empty where none are known.</summary>
    public IEnumerable<SocketOwner> Find(uint inode)
    {
        if (!TryFind(inode, out var first, out _))
        {
            return [];
        }

        return _further.TryGetValue(inode, out var more) ? [first, .. more] : [first];
    }

    public void Forget(uint inode)
    {
        _first.Remove(inode);
        _further.Remove(inode);
    }

    /// <summary>Gives back what growing has left over.</summary>
    public void TrimExcess() => _first.TrimExcess(_first.Count + (_first.Count / 16));

    /// <summary>Forgets the sockets of processes that have ended; true where there were any. Another process may hold them still.</summary>
    public bool ForgetAll(IReadOnlySet<ProcessIdentity> ended)
    {
        var inodes = _first.Where(pair => ended.Contains(pair.Value.Owner.Process)).Select(pair => pair.Key)
            .Concat(_further.Where(pair => pair.Value.Exists(owner => ended.Contains(owner.Process))).Select(pair => pair.Key)).ToList();
        inodes.ForEach(Forget);
        return inodes.Count > 0;
    }

    /// <summary>
    /// Walks all processes once and notes who holds each of <paramref name="inodes"/>. A socket inherited over fork has
    /// several owners; all are noted.
    /// </summary>
    /// <param name="inodes">Sockets to find the owners of.</param>
    /// <param name="among">Processes to look at; null for all there are.</param>
    public void Resolve(IEnumerable<uint> inodes, IEnumerable<int>? among = null)
    {
        var wanted = new HashSet<uint>();
        foreach (var inode in inodes)
        {
            if (inode != 0 && wanted.Add(inode))
            {
                Forget(inode);
            }
        }

        if (wanted.Count == 0)
        {
            return;
        }

        Unreadable = 0;
        foreach (var pid in among ?? processes.ReadPids())
        {
            List<(int Fd, uint Inode)>? held = null;
            if (!processes.TryVisitSockets(pid, (fd, inode) =>
            {
                if (wanted.Contains(inode))
                {
                    (held ??= []).Add((fd, inode));
                }
            }))
            {
                Unreadable++;
            }

            // The identity is read after the descriptors; had the pid been reused in between, the new process would have
            // to hold the same socket inode, which HoldsSocket re-checks before anything is done.
            if (held is null || !processes.TryReadStat(pid, out var stat))
            {
                continue;
            }

            foreach (var (fd, inode) in held)
            {
                var owner = new SocketOwner(stat.Identity, fd);
                if (_first.TryAdd(inode, new Packed(owner)) || _first[inode].Owner.Process.Pid == pid)
                {
                    continue;
                }

                if (!_further.TryGetValue(inode, out var more))
                {
                    _further[inode] = more = new List<SocketOwner>(1);
                }

                if (more.Count == 0 || more[^1].Process.Pid != pid)
                {
                    more.Add(owner);
                }
            }
        }
    }

    /// <summary>A <see cref="SocketOwner"/> in 16 bytes instead of 24.</summary>
    private readonly struct Packed(in SocketOwner owner)
    {
        private readonly ulong _start = owner.Process.StartTicks;
        private readonly int _pid = owner.Process.Pid;
        private readonly int _descriptor = owner.Descriptor;

        public SocketOwner Owner => new(new ProcessIdentity(_pid, _start), _descriptor);
    }
}
