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
        foreach (var pid in _processes.ReadPids())
        {
            var inode = _processes.ReadNetworkNamespace(pid);
            if (inode != 0)
            {
                seen.TryAdd(inode, pid);
            }
        }

        foreach (var (inode, pid) in seen)
        {
            if (_open.ContainsKey(inode))
            {
                continue;
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
