using System.Net;
using Sidecar.Agent.Audit.Model;
using Sidecar.Probes;
using Sidecar.Probes.Listeners;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.Processes;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Audit.Host;

/// <summary>
/// Listening sockets of servers, with their owners, and parents that do not reap. A server is a known program, one of
/// the agent's workers, or one that listens and has children: it may fork for each connection.
/// </summary>
internal sealed class ListenerScan(ProcessReader reader, Func<ProcessReader, ProcessStat, bool> isWorker, IReadOnlySet<int> known)
{
    /// <summary>Children that end are reaped within this, where the parent does it at all.</summary>
    private static readonly TimeSpan ReapedWithin = TimeSpan.FromSeconds(1);

    private readonly Dictionary<int, ProcessStat> _processes = [];
    private readonly Dictionary<uint, int> _owners = [];
    private readonly HashSet<int> _parents = [];
    private readonly HashSet<int> _listening = [];

    /// <summary>Servers' listening sockets in these namespaces.</summary>
    /// <exception cref="KernelException">The kernel's socket table cannot be read.</exception>
    public IReadOnlyList<LiveListener> Listeners(IEnumerable<NetworkNamespace> networks)
    {
        Walk();
        var found = new List<(LiveListener Listener, int Pid)>();
        foreach (var network in networks)
        {
            foreach (var socket in network.Diagnostics.ReadListeners())
            {
                if (_owners.TryGetValue(socket.Inode, out var pid) && AddressOf(socket) is { } address)
                {
                    _listening.Add(pid);
                    found.Add((new LiveListener(network.Inode, address, socket.Limit, socket.Waiting, Name(pid), _parents.Contains(pid)), pid));
                }
            }
        }

        return [.. found.Where(one => IsServer(one.Pid)).Select(one => one.Listener)];
    }

    /// <summary>Servers with children that had ended at the first scan and were still there a second later.</summary>
    public IReadOnlyList<UnreapedChildren> Unreaped(Func<int, bool> isWanted)
    {
        var zombies = _processes.Values.Where(process => process.State == 'Z' && IsServer(process.ParentPid) && isWanted(process.ParentPid)).ToList();
        if (zombies.Count == 0)
        {
            return [];
        }

        Thread.Sleep(ReapedWithin);
        return
        [
            .. zombies.Where(zombie => reader.TryReadStat(zombie.Identity.Pid, out var now) && now.Identity == zombie.Identity && now.State == 'Z')
                .GroupBy(zombie => zombie.ParentPid).Select(group => new UnreapedChildren(Name(group.Key), group.Count())),
        ];
    }

    private static Address? AddressOf(ListeningSocket socket)
    {
        if (socket.Local is not { } local)
        {
            return socket.Name.Length == 0 ? null : Address.Unix(socket.Name);
        }

        var address = local.ToIPAddress();
        return new Address(address.Equals(IPAddress.Any) || address.Equals(IPAddress.IPv6Any) ? "" : address.ToString(), local.Port, null);
    }

    private void Walk()
    {
        foreach (var pid in reader.ReadPids())
        {
            if (!reader.TryReadStat(pid, out var stat) || stat.IsKernelThread)
            {
                continue;
            }

            _processes[pid] = stat;
            _parents.Add(stat.ParentPid);
            reader.TryVisitSockets(pid, (_, inode) =>
            {
                // The one that listened first: its children inherit the socket and come later.
                if (!_owners.TryGetValue(inode, out var before) || !_processes.TryGetValue(before, out var other) || stat.Identity.StartTicks < other.Identity.StartTicks)
                {
                    _owners[inode] = pid;
                }
            });
        }
    }

    private bool IsServer(int pid)
    {
        if (pid <= 1 || !_processes.TryGetValue(pid, out var stat))
        {
            return false;
        }

        return known.Contains(pid) || (_parents.Contains(pid) && _listening.Contains(pid)) || isWorker(reader, stat);
    }

    private string Name(int pid) => $"pid {pid} ({(_processes.TryGetValue(pid, out var stat) ? Printable.Escape(stat.Comm) : "?")})";
}
