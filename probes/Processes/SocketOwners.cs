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
    private readonly Dictionary<uint, List<SocketOwner>> _owners = [];
    private readonly HashSet<uint> _wanted = [];

    /// <summary>Processes whose descriptors could not be listed in the last walk.</summary>
    public int Unreadable { get; private set; }

    /// <summary>Owners as last found; empty where none are known.</summary>
    public IReadOnlyList<SocketOwner> Find(uint inode) => _owners.TryGetValue(inode, out var list) ? list : [];

    public void Forget(uint inode) => _owners.Remove(inode);

    /// <summary>
    /// Walks all processes once and notes who holds each of <paramref name="inodes"/>. A socket inherited over fork has
    /// several owners; all are noted.
    /// </summary>
    /// <param name="inodes">Sockets to find the owners of.</param>
    /// <param name="among">Processes to look at; null for all there are.</param>
    public void Resolve(IEnumerable<uint> inodes, IEnumerable<int>? among = null)
    {
        _wanted.Clear();
        foreach (var inode in inodes)
        {
            if (inode != 0)
            {
                _wanted.Add(inode);
                _owners.Remove(inode);
            }
        }

        if (_wanted.Count == 0)
        {
            return;
        }

        Unreadable = 0;
        foreach (var pid in among ?? processes.ReadPids())
        {
            List<(int Fd, uint Inode)>? held = null;
            if (!processes.TryVisitSockets(pid, (fd, inode) =>
            {
                if (_wanted.Contains(inode))
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
                if (!_owners.TryGetValue(inode, out var list))
                {
                    _owners[inode] = list = new List<SocketOwner>(1);
                }

                if (list.Count == 0 || list[^1].Process.Pid != pid)
                {
                    list.Add(new SocketOwner(stat.Identity, fd));
                }
            }
        }
    }
}
