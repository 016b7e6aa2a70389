using System.Net;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Probes;
using Sidecar.Probes.Listeners;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.Processes;
using Sidecar.Probes.SockDiag;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Observation;

/// <summary>
/// The accept queues of the groups in one network namespace: who listens, how many wait, how many are served, and whose
/// client has gone meanwhile.
/// </summary>
internal sealed class ListenerWatch : IDisposable
{
    /// <summary>How long the fullest moment of a queue is told of.</summary>
    private static readonly TimeSpan PeakOver = TimeSpan.FromSeconds(60);

    /// <summary>A socket that no process of a group holds is looked for again after this long: it may have been handed over.</summary>
    private static readonly TimeSpan StrangersAgain = TimeSpan.FromSeconds(30);

    private static readonly TimeSpan LongestSearch = TimeSpan.FromMilliseconds(500);

    private static readonly TimeSpan SomaxconnAgain = TimeSpan.FromSeconds(60);

    /// <summary>More ports than this are no ports of an application; their connections are not counted.</summary>
    private const int MostPorts = 1024;

    private readonly NetworkNamespace _network;
    private readonly SocketOwners _owners;
    private readonly Dictionary<uint, TimeSpan> _strangers = [];
    private readonly Dictionary<string, Queue<(TimeSpan At, long Waiting)>> _peaks = new(StringComparer.Ordinal);
    private readonly Dictionary<SocketCookie, TimeSpan> _gone = [];
    private Dictionary<uint, uint> _drops = [];
    private IReadOnlyList<ListeningSocket> _sockets = [];
    private long _somaxconn;
    private TimeSpan _nextSomaxconn = TimeSpan.MinValue;

    public ListenerWatch(NetworkNamespace network, ProcessReader processes)
    {
        _network = network;
        _owners = new SocketOwners(processes);
    }

    public ulong Inode => _network.Inode;

    /// <summary>The listening addresses of the groups at the last scan, without numbers.</summary>
    public IReadOnlyList<ListenerStatus> Listeners { get; private set; } = [];

    /// <summary>Connections by listening address at the last scan of them.</summary>
    private Dictionary<string, int> _connections = new(StringComparer.Ordinal);

    /// <summary>Of each group the connections whose client has gone: those that wait, those that are served, and for how long.</summary>
    public IReadOnlyDictionary<string, (int Waiting, int Served, TimeSpan Longest)> Gone { get; private set; } = new Dictionary<string, (int, int, TimeSpan)>(StringComparer.Ordinal);

    /// <summary>Connections that were dropped at full queues between the last two scans, by group.</summary>
    public IReadOnlyDictionary<string, long> NewDrops { get; private set; } = new Dictionary<string, long>(StringComparer.Ordinal);

    /// <summary>What the namespace as a whole counts; null while unknown.</summary>
    public ListenCounters? Counters { get; private set; }

    /// <summary>Scans the queues.</summary>
    /// <param name="members">Processes of the groups in this namespace, by pid.</param>
    /// <param name="isNew">Whether there are processes among them that the last scan did not know.</param>
    /// <param name="now">Monotonic time.</param>
    /// <exception cref="KernelException">The kernel did not answer.</exception>
    public void ScanQueues(IReadOnlyDictionary<int, GroupProcess> members, bool isNew, TimeSpan now)
    {
        if (now >= _nextSomaxconn)
        {
            _nextSomaxconn = now + SomaxconnAgain;
            _somaxconn = _network.Run(() => HostFacts.Sysctl("net.core.somaxconn")) ?? 0;
        }

        _sockets = _network.Diagnostics.ReadListeners();
        FindOwners(members, isNew, now);
        var ours = new List<(ListeningSocket Socket, GroupProcess Owner)>();
        foreach (var socket in _sockets)
        {
            foreach (var owner in _owners.Find(socket.Inode))
            {
                if (members.TryGetValue(owner.Process.Pid, out var member) && member.Identity == owner.Process)
                {
                    ours.Add((socket, member));
                    break;
                }
            }
        }

        CountDrops(ours);
        Listeners = [.. ours.GroupBy(pair => (pair.Owner.Group, pair.Socket.Name)).Select(same => Describe([.. same], now))];
        foreach (var name in _peaks.Keys.Except(Listeners.Select(listener => listener.Address), StringComparer.Ordinal).ToList())
        {
            _peaks.Remove(name);
        }

        Counters = members.Count > 0 ? ListenCounters.Read(members.First().Key) ?? Counters : Counters;
    }

    /// <summary>Scans the connections that came through the queues; dearer, so rarer.</summary>
    /// <exception cref="KernelException">The kernel did not answer.</exception>
    public void ScanConnections(TimeSpan now)
    {
        var connections = new Dictionary<string, int>(StringComparer.Ordinal);
        var gone = new Dictionary<string, (int Waiting, int Served, TimeSpan Longest)>(StringComparer.Ordinal);
        var seen = new HashSet<SocketCookie>();
        var groups = Listeners.ToDictionary(listener => listener.Address, listener => listener.Workers, StringComparer.Ordinal);
        var byPort = new Dictionary<TcpEndPoint, string>();
        foreach (var socket in _sockets)
        {
            if (socket.Local is { } local && groups.ContainsKey(socket.Name))
            {
                byPort.TryAdd(local, socket.Name);
            }
        }

        var ports = byPort.Keys.Select(local => local.Port).Distinct().Take(MostPorts + 1).ToList();
        if (ports.Count is > 0 and <= MostPorts)
        {
            _network.Diagnostics.VisitServed(SocketFilter.Compile([.. ports.Select(port => new FilterCondition(FilterEnd.Local, 0, 0, port))]), connection =>
            {
                // Bound to one address, or to all of them: of IPv4 alone, or of both families.
                var local = connection.Local!.Value;
                if (byPort.TryGetValue(local, out var name)
                    || (local.IsIPv4 && byPort.TryGetValue(TcpEndPoint.From(IPAddress.Any, local.Port), out name))
                    || byPort.TryGetValue(TcpEndPoint.From(IPAddress.IPv6Any, local.Port), out name))
                {
                    Count(name, connection);
                }
            });
        }

        if (_sockets.Any(socket => socket.Local is null && groups.ContainsKey(socket.Name)))
        {
            _network.Diagnostics.VisitServedUnix(connection =>
            {
                if (groups.ContainsKey(connection.Name!))
                {
                    Count(connection.Name!, connection);
                }
            });
        }

        foreach (var cookie in _gone.Keys.Where(cookie => !seen.Contains(cookie)).ToList())
        {
            _gone.Remove(cookie);
        }

        _connections = connections;
        Gone = gone;

        void Count(string name, in ServedConnection connection)
        {
            connections[name] = connections.GetValueOrDefault(name) + 1;
            if (!connection.PeerIsGone)
            {
                return;
            }

            seen.Add(connection.Cookie);
            _gone.TryAdd(connection.Cookie, now);
            var since = now - _gone[connection.Cookie];
            var (waiting, served, longest) = gone.GetValueOrDefault(groups[name]);
            gone[groups[name]] = connection.IsAccepted
                ? (waiting, served + 1, since > longest ? since : longest)
                : (waiting + 1, served, longest);
        }
    }

    public void Dispose() => _network.Dispose();

    private void FindOwners(IReadOnlyDictionary<int, GroupProcess> members, bool isNew, TimeSpan now)
    {
        var alive = _sockets.Select(socket => socket.Inode).ToHashSet();
        foreach (var inode in _strangers.Keys.Where(inode => isNew || !alive.Contains(inode) || now >= _strangers[inode]).ToList())
        {
            _strangers.Remove(inode);
        }

        // An owner that has ended may have left the socket to a child.
        var wanted = _sockets.Where(socket => !_strangers.ContainsKey(socket.Inode)
            && !_owners.Find(socket.Inode).Any(owner => members.TryGetValue(owner.Process.Pid, out var member) && member.Identity == owner.Process)).Select(socket => socket.Inode).ToList();
        if (wanted.Count == 0)
        {
            return;
        }

        _owners.Continue(_owners.Begin(wanted, members.Keys), LongestSearch);
        foreach (var inode in wanted.Where(inode => !_owners.IsKnown(inode)))
        {
            _strangers[inode] = now + StrangersAgain;
        }
    }

    private void CountDrops(List<(ListeningSocket Socket, GroupProcess Owner)> ours)
    {
        var drops = new Dictionary<uint, uint>(ours.Count);
        var more = new Dictionary<string, long>(StringComparer.Ordinal);
        foreach (var (socket, owner) in ours)
        {
            drops[socket.Inode] = socket.Drops;
            if (_drops.TryGetValue(socket.Inode, out var earlier) && socket.Drops > earlier)
            {
                more[owner.Group] = more.GetValueOrDefault(owner.Group) + (socket.Drops - earlier);
            }
        }

        _drops = drops;
        NewDrops = more;
    }

    private ListenerStatus Describe(List<(ListeningSocket Socket, GroupProcess Owner)> same, TimeSpan now)
    {
        var (socket, owner) = same.MaxBy(pair => pair.Socket.Waiting / (pair.Socket.Limit + 1.0));
        if (!_peaks.TryGetValue(socket.Name, out var peaks))
        {
            _peaks[socket.Name] = peaks = new Queue<(TimeSpan, long)>();
        }

        peaks.Enqueue((now, socket.Waiting));
        while (now - peaks.Peek().At > PeakOver)
        {
            peaks.Dequeue();
        }

        return new ListenerStatus
        {
            Workers = owner.Group,
            Index = 0,
            Address = socket.Name,
            Namespace = _network.Name,
            Pid = owner.Identity.Pid,
            Waiting = socket.Waiting,
            Peak = peaks.Max(peak => peak.Waiting),
            Limit = socket.Limit,
            IsCut = _somaxconn > 0 && socket.Limit >= _somaxconn,
            Drops = same.Sum(pair => (long)pair.Socket.Drops),
            Connections = _connections.GetValueOrDefault(socket.Name),
        };
    }
}
