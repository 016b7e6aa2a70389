namespace Sidecar.Probes.Processes;

/// <summary>A walk over the descriptors of processes that can be left and gone on with; made by <see cref="SocketOwners.Begin"/>.</summary>
public sealed class OwnerWalk
{
    /// <summary>Descriptors of one process that are read at a time; some 6 µs each.</summary>
    internal const int Slice = 1024;

    private readonly Queue<(int Pid, long Cursor)> _left;
    private readonly Dictionary<int, int> _cut = [];

    internal OwnerWalk(HashSet<uint> wanted, IEnumerable<int> among)
    {
        Wanted = wanted;
        _left = new Queue<(int, long)>(among.Select(pid => (pid, 0L)));
    }

    /// <summary>Whether there is nothing left to read.</summary>
    public bool IsDone => _left.Count == 0;

    /// <summary>The process with the most descriptors among those that could not be read at once, and how many have been read; 0 where there is none.</summary>
    public (int Pid, int Descriptors) Largest { get; private set; }

    /// <summary>Descriptors that have been read so far.</summary>
    public long Descriptors { get; private set; }

    internal HashSet<uint> Wanted { get; }

    internal (int Pid, long Cursor)? Next() => _left.TryDequeue(out var next) ? next : null;

    /// <summary>Descriptors of a process have been read: it comes again after all others where there may be more.</summary>
    internal void Read(int pid, int descriptors, long cursor)
    {
        Descriptors += Math.Max(0, descriptors);
        if (descriptors < Slice)
        {
            return;
        }

        _left.Enqueue((pid, cursor));
        var sum = _cut[pid] = _cut.GetValueOrDefault(pid) + descriptors;
        Largest = sum > Largest.Descriptors ? (pid, sum) : Largest;
    }

    internal void End() => _left.Clear();
}
