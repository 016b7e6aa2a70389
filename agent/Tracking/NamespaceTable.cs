using Sidecar.Probes;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.Processes;

namespace Sidecar.Agent.Tracking;

/// <summary>
/// The network namespaces in which processes live, each with its sock_diag client. Holding a namespace open keeps it
/// alive, so it is let go as soon as no process is found in it.
/// </summary>
public sealed class NamespaceTable : IDisposable
{
    private readonly ProcessReader _processes;
    private readonly Dictionary<ulong, NetworkNamespace> _open = [];
    private readonly HashSet<ulong> _refused = [];

    // Every process and the namespace it was last seen in. Processes rarely move, so all of them are looked at only now and then.
    private Dictionary<int, ulong> _processesSeen = [];
    private int _refreshes;
    private const int AllEvery = 6;

    /// <summary>Opens the agent's own namespace.</summary>
    /// <exception cref="KernelException">sock_diag cannot be had: the agent cannot work.</exception>
    public NamespaceTable(ProcessReader processes)
    {
        _processes = processes;
        var inode = processes.ReadNetworkNamespace(Environment.ProcessId);
        Own = NetworkNamespace.OpenOwn(inode);
        _open[inode] = Own;
    }

    public NetworkNamespace Own { get; }

    public IReadOnlyCollection<NetworkNamespace> Open => _open.Values;

    /// <summary>Namespaces that hold processes and could not be entered.</summary>
    public int Refused => _refused.Count;

    /// <summary>The last refusal in words, or null.</summary>
    public string? RefusedBecause { get; private set; }

    public NetworkNamespace? Find(ulong inode) => _open.GetValueOrDefault(inode);

    /// <summary>Looks at every process's namespace; opens the new ones, lets go of the empty ones.</summary>
    public void Refresh()
    {
        var seen = new Dictionary<ulong, int>();
        var before = _refreshes++ % AllEvery == 0 ? [] : _processesSeen;
        var pids = _processes.ReadPids();
        _processesSeen = new Dictionary<int, ulong>(pids.Count);
        foreach (var pid in pids)
        {
            // 0 is looked at again: it could not be read, or the process was about to end.
            var inode = before.TryGetValue(pid, out var known) && known != 0 ? known : _processes.ReadNetworkNamespace(pid);
            _processesSeen[pid] = inode;
            if (inode != 0)
            {
                seen.TryAdd(inode, pid);
            }
        }

        foreach (var (inode, pid) in seen)
        {
            if (_open.ContainsKey(inode) || _processes.ReadNetworkNamespace(pid) != inode)
            {
                continue; // open already, or the process is not there any more; another may be, at the next refresh
            }

            try
            {
                _open[inode] = NetworkNamespace.Open(inode, _processes.NetworkNamespacePath(pid));
                _refused.Remove(inode);
            }
            catch (KernelException e)
            {
                // Gone meanwhile, or not permitted; the next refresh tries again.
                if (e.IsNotPermitted)
                {
                    _refused.Add(inode);
                    RefusedBecause = e.Message;
                }
            }
        }

        _refused.RemoveWhere(inode => !seen.ContainsKey(inode));
        foreach (var inode in _open.Keys.Where(inode => !seen.ContainsKey(inode) && inode != Own.Inode).ToList())
        {
            _open.Remove(inode, out var empty);
            empty!.Dispose();
        }
    }

    public void Dispose()
    {
        foreach (var network in _open.Values)
        {
            network.Dispose();
        }
    }
}
