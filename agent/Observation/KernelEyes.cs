using Sidecar.Agent.Core;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.Processes;
using Sidecar.Probes.SockDiag;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Observation;

/// <summary>
/// The eyes: scans of the kernel's socket tables in all network namespaces, owners, host names, and what has ended in the
/// background. Everything arrives in the world as a value.
/// </summary>
internal sealed class KernelEyes : IEyes, IDisposable
{
    private static readonly TimeSpan NamespaceRefresh = TimeSpan.FromSeconds(5);

    private readonly World _world;
    private readonly Clock _clock;
    private readonly bool _allNamespaces;
    private readonly NameResolver _names;
    private readonly ResetWatch? _resets;
    private readonly List<string> _problems = [];
    private readonly CancellationTokenSource _stopping = new();
    private byte[] _filter = [];
    private TimeSpan _nextNamespaces;

    /// <summary>Eyes for a world.</summary>
    /// <param name="world">Where observations go.</param>
    /// <param name="processes">Reads /proc.</param>
    /// <param name="namespaces">The network namespaces.</param>
    /// <param name="inbox">What ends in the background.</param>
    /// <param name="clock">The agent's.</param>
    /// <param name="learnsFromResets">Whether the kernel is to announce the ends of sockets.</param>
    public KernelEyes(World world, ProcessReader processes, NamespaceTable namespaces, Inbox inbox, Clock clock, bool learnsFromResets)
    {
        _world = world;
        _clock = clock;
        _allNamespaces = world.Configuration.Agent.AllNetworkNamespaces;
        Namespaces = namespaces;
        Inbox = inbox;
        Owners = new OwnerFinder(processes, world.Owners, world.Configuration.Workers);
        _names = new NameResolver(world.Upstreams);
        _resets = learnsFromResets ? new ResetWatch(world) : null;
        Compile();
    }

    public TimeSpan Now => _clock.Now;

    public DateTimeOffset UtcNow => _clock.UtcNow;

    public NamespaceTable Namespaces { get; }

    public Inbox Inbox { get; }

    public OwnerFinder Owners { get; }

    /// <summary>Sockets the kernel sent in the last full scan.</summary>
    public int LastScanSockets { get; private set; }

    /// <summary>How long finding owners took in the last full scan.</summary>
    public TimeSpan OwnersTook { get; private set; }

    /// <summary>When the next full scan is wanted for the sake of namespaces that are not open yet: what happens there is not counted.</summary>
    public TimeSpan? NextNamespaces => _allNamespaces ? _nextNamespaces : null;

    /// <summary>The host names of upstreams, as they were resolved last.</summary>
    public IReadOnlyList<SourceStatus> Names => _names.Sources;

    /// <summary>What went wrong since this was last asked, one line each.</summary>
    public IReadOnlyList<string> TakeProblems()
    {
        if (_problems.Count == 0)
        {
            return [];
        }

        string[] problems = [.. _problems];
        _problems.Clear();
        return problems;
    }

    /// <summary>What the kernel has counted of TCP, in all namespaces; null where one of them cannot be read.</summary>
    public TcpCounters? ReadCounters()
    {
        TcpCounters? sum = default(TcpCounters);
        try
        {
            foreach (var network in Namespaces.Open)
            {
                sum += network.Counters;
            }
        }
        catch (KernelException)
        {
            return null;
        }

        return sum;
    }

    public void Scan(World world)
    {
        var now = Now;
        if (_names.Resolve(now, _stopping.Token))
        {
            Compile();
        }

        if (now >= _nextNamespaces)
        {
            _nextNamespaces = now + NamespaceRefresh;
            if (_allNamespaces)
            {
                Namespaces.Refresh();
            }

            world.Paths.Prune(now);
            Owners.Prune();
        }

        _resets?.Drain(Namespaces.Open, now);
        LastScanSockets = 0;
        foreach (var network in _filter.Length == 0 ? [] : Namespaces.Open) // no address is known yet: nothing is watched
        {
            LastScanSockets += Scan(world, network, _filter, Now, out var problem);
            if (problem is not null)
            {
                _problems.Add(problem);
            }
        }

        world.EndScan();

        var found = Now;
        FindOwners(now);
        OwnersTook = Now - found;
    }

    public void Recheck(World world, IReadOnlyList<TrackedConnection> connections)
    {
        foreach (var connection in connections)
        {
            if (connection.IsGone || Namespaces.Find(connection.NamespaceInode) is not { } network)
            {
                continue;
            }

            try
            {
                if (network.Diagnostics.TryGet(connection.Key, out var socket) && socket.State is TcpState.Established or TcpState.CloseWait)
                {
                    world.Saw(connection, socket, Now);
                }
                else
                {
                    world.Left(connection);
                }
            }
            catch (KernelException e)
            {
                _problems.Add(e.Message);
            }
        }
    }

    public void Collect(World world, RemedyEngine engine) => Inbox.Empty(world, engine, Now);

    /// <summary>The tick is done: sockets that have gone are nobody's.</summary>
    public void EndTick()
    {
        foreach (var connection in _world.Gone)
        {
            Owners.Forget(connection.Last.Inode);
        }
    }

    /// <summary>Resolves the host names and waits for them; for a single scan.</summary>
    public void ResolveNames(TimeSpan atMost)
    {
        _names.Resolve(Now, _stopping.Token);
        _names.Wait(atMost);
        _names.Resolve(Now, _stopping.Token);
        Compile();
    }

    public void Dispose()
    {
        _stopping.Cancel();
        _stopping.Dispose();
        Owners.Dispose();
    }

    /// <summary>Shows a world the sockets of one namespace. What was missed is taken for gone by nobody.</summary>
    /// <param name="world">Where they go.</param>
    /// <param name="network">The namespace.</param>
    /// <param name="filter">The kernel's filter.</param>
    /// <param name="asked">Monotonic time.</param>
    /// <param name="problem">Why not all were seen, or null.</param>
    /// <returns>Sockets the kernel sent.</returns>
    internal static int Scan(World world, NetworkNamespace network, byte[] filter, TimeSpan asked, out string? problem)
    {
        problem = null;
        void Visit(in SocketObservation socket) => world.Saw(network.Inode, socket, asked);
        try
        {
            var dump = network.Diagnostics.Dump(SockDiagClient.StatesOfConnections, filter, withInfo: true, Visit);
            if (!dump.IsComplete)
            {
                world.ScanIncomplete(network.Inode);
                problem = dump.Malformed > 0 ? $"{network.Name}: {dump.Malformed} of the kernel's messages cannot be read" : null;
            }

            return dump.Sockets;
        }
        catch (KernelException e)
        {
            // What was seen until then is kept, and the other namespaces are scanned.
            world.ScanIncomplete(network.Inode);
            problem = $"{network.Name}: {e.Message}";
            return 0;
        }
    }

    /// <summary>Scans for the owners of new connections; those that were found once are asked for only when one was lost.</summary>
    private void FindOwners(TimeSpan now)
    {
        if (_world.Ownerless.Count == 0)
        {
            return;
        }

        Owners.Find(_world.Ownerless.Select(connection => connection.Last.Inode), now);
        foreach (var connection in _world.Ownerless)
        {
            _world.OwnerSearched(connection);
            if (_world.Owners.Find(connection.Last.Inode).First is { } owner && IsAgent(owner))
            {
                _world.IsOwn(connection);
            }
        }
    }

    /// <summary>The agent itself (its sessions, its connect probes), or <c>measure</c> run by hand beside it.</summary>
    private static bool IsAgent(OwnerInfo owner) =>
        owner.Identity.Pid == Environment.ProcessId
        || (owner.Executable is { } executable && executable == Environment.ProcessPath && Path.GetFileName(executable) == "conn-sidecar");

    private void Compile() => _filter = _world.Upstreams.SelectMany(upstream => upstream.Conditions).ToList() is { Count: > 0 } conditions
        ? SocketFilter.Compile(conditions)
        : [];
}
