using Sidecar.Agent.Tracking;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.Paths;
using Sidecar.Probes.Processes;

namespace Sidecar.Simulator;

/// <summary>A worker process: threads that send requests.</summary>
internal sealed class SimulatedProcess(World world, OwnerInfo owner) : Actor
{
    internal const int Exits = 1;

    internal ProcessIdentity Identity => Owner.Identity;

    internal OwnerInfo Owner { get; } = owner;

    internal List<SimulatedThread> Threads { get; } = [];

    internal bool Alive { get; private set; } = true;

    /// <summary>Context switches.</summary>
    internal long Switches { get; private set; }

    /// <summary>When any of its threads last got an answer.</summary>
    internal TimeSpan LastProgress { get; private set; } = TimeSpan.MinValue;

    internal bool IgnoresTermination { get; set; }

    internal void Ran() => Switches++;

    internal void Progressed(TimeSpan now)
    {
        Switches++;
        LastProgress = now;
    }

    internal void Terminate(TimeSpan now)
    {
        if (!IgnoresTermination)
        {
            world.Queue.Add(now + world.Dice.Seconds(0, 2), this, Exits);
        }
    }

    internal override void Happen(int what, int version, TimeSpan now) => Exit(now);

    internal void Exit(TimeSpan now)
    {
        if (!Alive)
        {
            return;
        }

        Alive = false;
        foreach (var thread in Threads)
        {
            thread.ProcessExits(now);
        }

        world.Respawn(this, now);
    }
}

/// <summary>A thread of a worker, with its connections: thinks, takes the lock where there is one, asks, waits.</summary>
/// <param name="world">Where it lives.</param>
/// <param name="process">Whose thread it is.</param>
/// <param name="path">The way to its server.</param>
/// <param name="thinkSeconds">Mean time between an answer and the next request.</param>
/// <param name="connections">Size of its pool.</param>
/// <param name="depth">Probability that a request takes the next connection of the pool instead of this one.</param>
internal sealed class SimulatedThread(World world, SimulatedProcess process, SimulatedPath path, double thinkSeconds, int connections, double depth = 0.2) : Actor
{
    private const int Asks = 1;
    private const int Reconnects = 2;

    private readonly SimulatedConnection?[] _connections = new SimulatedConnection?[connections];
    private SimulatedConnection? _asking;
    private int _slot;
    private bool _wedged;
    private int _handshakes;

    internal SimulatedProcess Process { get; } = process;

    internal SimulatedPath Path { get; } = path;

    internal SharedLock? Lock { get; set; }

    /// <summary>Its pool; null where there is none at present.</summary>
    internal ReadOnlySpan<SimulatedConnection?> Connections => _connections;

    internal void Start(TimeSpan now) => Think(now);

    /// <summary>The same thread in a new process.</summary>
    internal SimulatedThread Again(SimulatedProcess other) => new(world, other, Path, thinkSeconds, connections, depth) { Lock = Lock };

    internal override void Happen(int what, int version, TimeSpan now)
    {
        if (!Process.Alive || _wedged)
        {
            return;
        }

        switch (what)
        {
            case Asks:
                Process.Ran();
                _slot = 0;
                while (_slot < _connections.Length - 1 && world.Dice.Chance(depth))
                {
                    _slot++; // last in, first out: the last ones are rarely used
                }

                if (Lock is null || Lock.Take(this))
                {
                    Ask(now);
                }

                break;
            case Reconnects:
                Process.Ran();
                Ask(now);
                break;
        }
    }

    /// <summary>It has the lock now.</summary>
    internal void Granted(TimeSpan now)
    {
        Process.Ran();
        Ask(now);
    }

    internal void Answered(SimulatedConnection connection, TimeSpan now)
    {
        Process.Progressed(now);
        if (connection != _asking)
        {
            return;
        }

        _asking = null;
        Lock?.Release(this, now);
        Think(now);
    }

    internal void ConnectionLost(SimulatedConnection connection, TimeSpan now)
    {
        var slot = Array.IndexOf(_connections, connection);
        if (slot >= 0)
        {
            _connections[slot] = null;
        }

        if (!Process.Alive)
        {
            return;
        }

        if (connection != _asking)
        {
            return; // nobody waits for it; the pool notices later
        }

        _asking = null;
        if (world.Dice.Chance(world.Wedges))
        {
            _wedged = true; // the client library sleeps on, and keeps the lock
            world.Trace(now, $"{Process.Identity.Pid} does not notice");
            return;
        }

        Process.Ran();
        Lock?.Release(this, now);
        Think(now);
    }

    internal void ProcessExits(TimeSpan now)
    {
        foreach (var connection in _connections)
        {
            connection?.End(now, "its process ended");
        }

        Lock?.Abandon(this, now);
    }

    private void Ask(TimeSpan now)
    {
        if (_connections[_slot] is { } connection)
        {
            _asking = connection;
            connection.Request(now);
            return;
        }

        if (Path.Handshake(now) == FreshConnectOutcome.Connected)
        {
            _handshakes = 0;
            _connections[_slot] = world.Connect(this, now);
            world.Queue.Add(now + Path.RoundTrip, this, Reconnects);
            return;
        }

        // The request fails after a while, or the connection comes at a later SYN.
        if (++_handshakes > 3)
        {
            _handshakes = 0;
            Lock?.Release(this, now);
            Think(now);
            return;
        }

        world.Count(_handshakes == 1 ? new TcpCounters(1, 0, 0) : new TcpCounters(0, 0, 1), now);
        world.Queue.Add(now + TimeSpan.FromSeconds(_handshakes), this, Reconnects);
    }

    private void Think(TimeSpan now)
    {
        if (world.Scenario is null)
        {
            world.Queue.Add(now + world.Dice.Exponential(thinkSeconds), this, Asks);
        }
        else if (world.Scenario.NextRequest() is { } at)
        {
            world.Queue.Add(at > now ? at : now, this, Asks);
        }
    }
}

/// <summary>One lock around the client library, shared by all workers.</summary>
internal sealed class SharedLock
{
    private readonly LinkedList<SimulatedThread> _waiting = new();
    private SimulatedThread? _holder;

    internal bool Take(SimulatedThread thread)
    {
        if (_holder is null)
        {
            _holder = thread;
            return true;
        }

        _waiting.AddLast(thread);
        return false;
    }

    internal void Release(SimulatedThread thread, TimeSpan now)
    {
        if (_holder != thread)
        {
            return;
        }

        _holder = null;
        if (_waiting.First is { } next)
        {
            _waiting.RemoveFirst();
            _holder = next.Value;
            next.Value.Granted(now);
        }
    }

    /// <summary>Its process ended; a robust lock passes on.</summary>
    internal void Abandon(SimulatedThread thread, TimeSpan now)
    {
        _waiting.Remove(thread);
        Release(thread, now);
    }
}
