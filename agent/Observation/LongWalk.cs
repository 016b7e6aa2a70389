using System.Collections.Concurrent;
using Sidecar.Probes.Processes;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Observation;

/// <summary>
/// A walk over all processes that takes longer than the loop may: on a thread of its own, which rests as long as it works. It ends,
/// however much is left, after <see cref="MostDescriptors"/>.
/// </summary>
internal sealed class LongWalk : IDisposable
{
    /// <summary>Some fifty seconds of work.</summary>
    private const long MostDescriptors = 8_000_000;

    private static readonly TimeSpan Step = TimeSpan.FromMilliseconds(20);

    private readonly ConcurrentQueue<(uint Inode, SocketOwner Owner, int Count)> _found = new();
    private readonly SocketOwners _search;
    private readonly OwnerWalk _walk;
    private readonly ManualResetEventSlim _stop = new();
    private readonly Thread _thread;
    private volatile bool _isDone;
    private volatile string? _problem;

    /// <summary>Begins it.</summary>
    /// <param name="processes">Reads /proc.</param>
    /// <param name="wanted">Sockets to find the owners of.</param>
    /// <param name="pids">Processes, in the order in which they are read.</param>
    public LongWalk(ProcessReader processes, IReadOnlyList<uint> wanted, IReadOnlyList<int> pids)
    {
        Wanted = wanted;
        _search = new SocketOwners(processes);
        _walk = _search.Begin(wanted, pids);
        _thread = new Thread(Run) { IsBackground = true, Name = "owners" };
        _thread.Start();
    }

    public IReadOnlyList<uint> Wanted { get; }

    /// <summary>Whether nothing more will be found.</summary>
    public bool IsDone => _isDone;

    /// <summary>Why it takes so long, or null.</summary>
    public string? Problem => _problem;

    /// <summary>What was found since the last call; a socket that several processes hold may come again.</summary>
    public IEnumerable<(uint Inode, SocketOwner Owner, int Count)> TakeFound()
    {
        while (_found.TryDequeue(out var found))
        {
            yield return found;
        }
    }

    public void Dispose()
    {
        _stop.Set();
        _thread.Join();
        _stop.Dispose();
    }

    private void Run()
    {
        var told = new Dictionary<uint, int>();
        bool isDone;
        do
        {
            isDone = _search.Continue(_walk, Step) || _walk.Descriptors > MostDescriptors;
            foreach (var inode in Wanted)
            {
                if (_search.TryFind(inode, out var first, out var count) && told.GetValueOrDefault(inode) != count)
                {
                    told[inode] = count;
                    _found.Enqueue((inode, first, count));
                }
            }

            var (pid, descriptors) = _walk.Largest;
            _problem = pid == 0 ? null : $"the owners of {Quantity.Of(Wanted.Count - told.Count, "connection is", "connections are")} still searched for: process {pid} holds more than {descriptors} descriptors";
        }
        while (!isDone && !_stop.Wait(Step));
        _isDone = true;
    }
}
