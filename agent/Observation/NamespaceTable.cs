using System.Diagnostics;
using Sidecar.Probes;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.Processes;

namespace Sidecar.Agent.Observation;

/// <summary>
/// The network namespaces in which processes with TCP sockets live, each with its sock_diag client. Holding a namespace open keeps
/// it alive, so it is let go as soon as no process is found in it. Anybody may make namespaces by the thousand: those without
/// sockets are not entered, each refusal is tried again more rarely, and neither their number nor the time spent on them grows
/// beyond a bound.
/// </summary>
public sealed class NamespaceTable : IDisposable
{
    /// <summary>Namespaces that are watched beside the agent's own. Each costs a pass over the kernel's socket table in every scan.</summary>
    internal const int MostOpen = 512;

    /// <summary>Of these, how many of one user other than root.</summary>
    internal const int MostOfOneUser = 32;

    /// <summary>Namespaces that one refresh tries to enter: each costs a thread.</summary>
    private const int MostTries = 64;

    private const int AllEvery = 6;

    /// <summary>Looking into namespaces takes no longer in one refresh; the next one goes on.</summary>
    private static readonly TimeSpan LongestRefresh = TimeSpan.FromMilliseconds(50);

    /// <summary>After the first refusal; twice as long after each further one.</summary>
    private static readonly TimeSpan FirstRetry = TimeSpan.FromSeconds(10);

    private static readonly TimeSpan LastRetry = TimeSpan.FromMinutes(30);

    private readonly ProcessReader _processes;
    private readonly TimeProvider _time;
    private readonly bool _mayEnter;
    private readonly Dictionary<ulong, NetworkNamespace> _open = [];
    private readonly Dictionary<ulong, uint> _users = [];
    private readonly Dictionary<ulong, Closed> _closed = [];

    // Every process and the namespace it was last seen in. Processes rarely move but in their first moments, so what was found
    // twice alike is looked at again only now and then.
    private Dictionary<int, (ulong Inode, bool Twice)> _processesSeen = [];
    private int _refreshes;

    /// <summary>Opens the agent's own namespace.</summary>
    /// <param name="processes">Reads /proc.</param>
    /// <param name="capabilities">What the agent may do; null: as the kernel says.</param>
    /// <param name="time">Clock for trying again; null: the system's.</param>
    /// <exception cref="KernelException">sock_diag cannot be had: the agent cannot work.</exception>
    public NamespaceTable(ProcessReader processes, CapabilitySet? capabilities = null, TimeProvider? time = null)
    {
        _processes = processes;
        _time = time ?? TimeProvider.System;
        _mayEnter = (capabilities ?? CapabilitySet.ReadOwn()).Has(Capability.SysAdmin);
        var inode = processes.ReadNetworkNamespace(Environment.ProcessId);
        Own = NetworkNamespace.OpenOwn(inode);
        _open[inode] = Own;
    }

    public NetworkNamespace Own { get; }

    public IReadOnlyCollection<NetworkNamespace> Open => _open.Values;

    /// <summary>Namespaces that hold processes with TCP sockets and could not be entered.</summary>
    public int Refused { get; private set; }

    /// <summary>The last refusal in words, or null.</summary>
    public string? RefusedBecause { get; private set; }

    /// <summary>What is not seen because of that, and how it is; null where nothing is refused.</summary>
    public string? Problem => Refused == 0
        ? null
        : $"{Refused} other network {(Refused == 1 ? "namespace" : "namespaces")} with TCP sockets cannot be entered ({RefusedBecause}): connections there are not seen; "
            + "allow it with the drop-in /usr/share/doc/conn-sidecar/examples/containers.conf, or leave them out with network-namespaces = own";

    /// <summary>Namespaces with TCP sockets that are left out because there are too many, in all or of one user.</summary>
    public int LeftOut { get; private set; }

    /// <summary>How often entering a namespace was tried.</summary>
    internal int Tries { get; private set; }

    public NetworkNamespace? Find(ulong inode) => _open.GetValueOrDefault(inode);

    /// <summary>Looks at every process's namespace; opens the new ones, lets go of the empty ones.</summary>
    public void Refresh()
    {
        var seen = new Dictionary<ulong, int>();
        var before = _processesSeen;
        var all = _refreshes++ % AllEvery == 0;
        var pids = _processes.ReadPids();
        _processesSeen = new Dictionary<int, (ulong, bool)>(pids.Count);
        foreach (var pid in pids)
        {
            // 0 is looked at again: it could not be read, or the process was about to end.
            var known = before.GetValueOrDefault(pid);
            var inode = known.Twice && !all ? known.Inode : _processes.ReadNetworkNamespace(pid);
            _processesSeen[pid] = (inode, inode != 0 && inode == known.Inode);
            if (inode != 0)
            {
                seen.TryAdd(inode, pid);
            }
        }

        foreach (var inode in _open.Keys.Where(inode => !seen.ContainsKey(inode) && inode != Own.Inode).ToList())
        {
            _open.Remove(inode, out var empty);
            _users.Remove(inode);
            empty!.Dispose();
        }

        foreach (var inode in _closed.Keys.Where(inode => !seen.ContainsKey(inode)).ToList())
        {
            _closed.Remove(inode);
        }

        OpenNew(seen);
        Refused = _closed.Values.Count(closed => closed.State == Closing.Refused);
        LeftOut = _closed.Values.Count(closed => closed.State == Closing.LeftOut);
    }

    public void Dispose()
    {
        foreach (var network in _open.Values)
        {
            network.Dispose();
        }
    }

    private void OpenNew(Dictionary<ulong, int> seen)
    {
        var started = Stopwatch.GetTimestamp();
        var now = _time.GetTimestamp();
        var tries = 0;

        // The longest not looked at first, and those that were never before all.
        foreach (var (inode, pid) in seen.Where(pair => !_open.ContainsKey(pair.Key)).OrderBy(pair => _closed.TryGetValue(pair.Key, out var closed) ? closed.Since : long.MinValue))
        {
            if (tries == MostTries || Stopwatch.GetElapsedTime(started) > LongestRefresh)
            {
                break;
            }

            var closed = _closed.GetValueOrDefault(inode);
            if (closed.State == Closing.Refused && _time.GetElapsedTime(closed.Since, now) < closed.Wait)
            {
                continue;
            }

            if (_processes.ReadNetworkNamespace(pid) != inode)
            {
                continue; // the process is not there any more; another may be, at the next refresh
            }

            if (!_processes.HasTcpSockets(pid))
            {
                _closed[inode] = new Closed(Closing.Empty, now, TimeSpan.Zero);
                continue;
            }

            var user = _processes.ReadUid(pid) ?? uint.MaxValue;
            if (!_mayEnter)
            {
                _closed[inode] = new Closed(Closing.Refused, now, LastRetry);
                RefusedBecause = "setns: CAP_SYS_ADMIN is missing";
            }
            else if (_users.Count >= MostOpen || (user != 0 && _users.Values.Count(other => other == user) >= MostOfOneUser))
            {
                _closed[inode] = new Closed(Closing.LeftOut, now, TimeSpan.Zero);
            }
            else
            {
                tries++;
                TryOpen(inode, pid, user, closed, now);
            }
        }
    }

    private void TryOpen(ulong inode, int pid, uint user, Closed closed, long now)
    {
        Tries++;
        try
        {
            _open[inode] = NetworkNamespace.Open(inode, _processes.NetworkNamespacePath(pid));
            _users[inode] = user;
            _closed.Remove(inode);
        }
        catch (KernelException e)
        {
            // Gone meanwhile, or not permitted.
            if (e.IsNotPermitted)
            {
                var wait = closed.State == Closing.Refused && closed.Wait * 2 < LastRetry ? closed.Wait * 2 : closed.State == Closing.Refused ? LastRetry : FirstRetry;
                _closed[inode] = new Closed(Closing.Refused, now, wait);
                RefusedBecause = e.Message;
            }
        }
    }

    private enum Closing
    {
        None,
        Empty,
        Refused,
        LeftOut,
    }

    /// <summary>A namespace that is not open.</summary>
    /// <param name="State">Why.</param>
    /// <param name="Since">When it was last looked at, a timestamp.</param>
    /// <param name="Wait">How long until a refusal is tried again.</param>
    private readonly record struct Closed(Closing State, long Since, TimeSpan Wait);
}
