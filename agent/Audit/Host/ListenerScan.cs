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
                    found.Add((new LiveListener(network.Inode, address, socket.Limit, socket.Waiting, Name(pid), IsKnown(pid)), pid));
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
            return socket.Name.Length == 0 ? null : Address.Unix(FinalName(socket.Name));
        }

        var address = local.ToIPAddress();
        return new Address(address.Equals(IPAddress.Any) || address.Equals(IPAddress.IPv6Any) ? "" : address.ToString(), local.Port, null);
    }

    /// <summary>HAProxy binds <c>PATH.PID.tmp</c> and renames it; the kernel keeps the first name.</summary>
    internal static string FinalName(string path)
    {
        const string end = ".tmp";
        var dot = path.Length > end.Length && path.EndsWith(end, StringComparison.Ordinal) ? path.LastIndexOf('.', path.Length - end.Length - 1) : -1;
        var pid = dot > 0 ? path.AsSpan(dot + 1, path.Length - end.Length - dot - 1) : [];
        return !pid.IsEmpty && pid.IndexOfAnyExceptInRange('0', '9') < 0 ? path[..dot] : path;
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

        return IsKnown(pid) || (_parents.Contains(pid) && _listening.Contains(pid)) || isWorker(reader, stat);
    }

    /// <summary>The master of a known program or one of its processes: HAProxy's own sockets are its worker's.</summary>
    private bool IsKnown(int pid) => known.Contains(pid) || (_processes.TryGetValue(pid, out var stat) && known.Contains(stat.ParentPid)
        && _processes.TryGetValue(stat.ParentPid, out var master) && master.Comm == stat.Comm);

    private string Name(int pid) => $"pid {pid} ({(_processes.TryGetValue(pid, out var stat) ? Printable.Escape(stat.Comm) : "?")})";
}
