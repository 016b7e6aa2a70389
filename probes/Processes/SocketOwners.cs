using System.Diagnostics;
using Sidecar.Probes.Values;

namespace Sidecar.Probes.Processes;

/// <summary>A process that holds a socket, and through which descriptor.</summary>
/// <param name="Process">Who.</param>
/// <param name="Descriptor">Its descriptor number.</param>
public readonly record struct SocketOwner(ProcessIdentity Process, int Descriptor);

/// <summary>
/// From socket inode to its owners. The walk over /proc/*/fd is the most expensive thing the agent does, so it is made only
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
    /// <param name="among">Processes to walk; null for all there are.</param>
    public void Resolve(IEnumerable<uint> inodes, IEnumerable<int>? among = null) => Continue(Begin(inodes, among ?? processes.ReadPids()), Timeout.InfiniteTimeSpan);

    /// <summary>Begins a walk; what was known of these sockets is forgotten.</summary>
    /// <param name="inodes">Sockets to find the owners of.</param>
    /// <param name="among">Processes to walk, in this order.</param>
    public OwnerWalk Begin(IEnumerable<uint> inodes, IEnumerable<int> among)
    {
        var wanted = new HashSet<uint>();
        foreach (var inode in inodes)
        {
            if (inode != 0 && wanted.Add(inode))
            {
                Forget(inode);
            }
        }

        Unreadable = 0;
        return new OwnerWalk(wanted, wanted.Count == 0 ? [] : among);
    }

    /// <summary>
    /// Goes on with a walk for a while. Every process has a few descriptors read before any has more of them read, so that one
    /// with millions keeps no other waiting; what was cut short is read on only while an owner is still wanted.
    /// </summary>
    /// <param name="walk">Begun by <see cref="Begin"/> of this instance.</param>
    /// <param name="atMost">Time to take, exceeded by one slice at most (some 6 ms); infinite: to the end.</param>
    /// <returns>Whether the walk is done.</returns>
    public bool Continue(OwnerWalk walk, TimeSpan atMost)
    {
        var started = Stopwatch.GetTimestamp();
        while (walk.Next() is { } next)
        {
            var (pid, cursor) = next;
            if (cursor != 0 && walk.Wanted.All(IsKnown))
            {
                walk.End();
                break;
            }

            List<(int Fd, uint Inode)>? held = null;
            var read = processes.VisitSockets(pid, ref cursor, OwnerWalk.Slice, (fd, inode) =>
            {
                if (walk.Wanted.Contains(inode))
                {
                    (held ??= []).Add((fd, inode));
                }
            });
            Unreadable += read < 0 ? 1 : 0;
            walk.Read(pid, read, cursor);

            // The identity is read after the descriptors; had the pid been reused in between, the new process would have
            // to hold the same socket inode, which HoldsSocket re-checks before anything is done.
            if (held is not null && processes.TryReadStat(pid, out var stat))
            {
                held.ForEach(socket => Note(socket.Inode, new SocketOwner(stat.Identity, socket.Fd)));
            }

            if (atMost != Timeout.InfiniteTimeSpan && Stopwatch.GetElapsedTime(started) >= atMost)
            {
                break;
            }
        }

        return walk.IsDone;
    }

    private void Note(uint inode, in SocketOwner owner)
    {
        var pid = owner.Process.Pid;
        if (_first.TryAdd(inode, new Packed(owner)) || _first[inode].Owner.Process.Pid == pid)
        {
            return;
        }

        if (!_further.TryGetValue(inode, out var more))
        {
            _further[inode] = more = new List<SocketOwner>(1);
        }

        if (!more.Exists(known => known.Process.Pid == pid))
        {
            more.Add(owner);
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
