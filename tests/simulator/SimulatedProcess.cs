using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;

namespace Sidecar.Simulator;

/// <summary>A worker process: threads that send requests.</summary>
internal sealed class SimulatedProcess(World world, OwnerInfo owner) : Actor
{
    private const int Exits = 1;
    private const int Stops = 2;
    private const int Continues = 3;

    private TimeSpan _stoppedUntil;

    internal ProcessIdentity Identity => Owner.Identity;

    internal OwnerInfo Owner { get; } = owner;

    internal List<SimulatedThread> Threads { get; } = [];

    internal bool Alive { get; private set; } = true;

    /// <summary>Context switches.</summary>
    internal long Switches { get; private set; }

    /// <summary>When any of its threads last got an answer.</summary>
    internal TimeSpan LastProgress { get; private set; } = TimeSpan.MinValue;

    internal bool IgnoresTermination { get; set; }

    /// <summary>It forked after connecting, or has passed its sockets on, and waits: it holds its children's sockets, or is taken to.</summary>
    internal SimulatedProcess? Parent { get; init; }

    /// <summary>Who is found to hold its sockets, and how many do.</summary>
    internal Ownership Shown => Parent is { } parent ? new Ownership(parent.Owner, 3, IsBroker ? 1 : 2) : new Ownership(Owner, 3, world.IsInheritedSocket(this) ? 2 : 1);

    /// <summary>Half of the parents have passed the sockets on and closed their own copies; the search had found them before.</summary>
    private bool IsBroker => Identity.Pid % 2 == 0;

    /// <summary>By SIGSTOP, or in a frozen cgroup: its kernel answers for it, and it does not run.</summary>
    internal bool IsStopped(TimeSpan now) => now < _stoppedUntil;

    /// <summary>When it runs again, or now.</summary>
    internal TimeSpan RunsAt(TimeSpan now) => IsStopped(now) ? _stoppedUntil : now;

    internal void Start()
    {
        if (world.HoursBetweenStops > 0)
        {
            world.Queue.Add(world.Dice.Exponential(world.HoursBetweenStops * 3600), this, Stops);
        }
    }

    internal void Ran() => Switches++;

    internal void Progressed(TimeSpan now)
    {
        Switches++;
        LastProgress = now;
    }

    /// <summary>
    /// What a search over all processes finds, and a scan into the one that holds the socket. After the child's connection was closed it is
    /// the parent's copy alone that is left.
    /// </summary>
    internal WorkerInspection Inspect(SimulatedConnection connection, TimeSpan stall, TimeSpan now)
    {
        if (!Alive)
        {
            return new WorkerInspection(default, BlockedOn.Unknown, "gone", null);
        }

        if (Parent is { } parent && (!IsBroker || connection.Ended is not null))
        {
            return new WorkerInspection(new Ownership(parent.Owner, 3, connection.Ended is null ? 2 : 1), BlockedOn.Other, "waits for its child", false);
        }

        var moved = false;
        foreach (var thread in Threads)
        {
            foreach (var other in thread.Connections)
            {
                if (other is not null && other != connection)
                {
                    // As the kernel shows it: what a process last wrote, or read, on another of its sockets.
                    var info = other.Socket.Observe(now).Info;
                    var age = info.DataSegmentsIn > 0 ? info.LastDataReceivedMilliseconds : uint.MaxValue;
                    age = info is { DataSegmentsOut: > 0, Retransmits: 0 } ? Math.Min(age, info.LastDataSentMilliseconds) : age;
                    moved |= age < (stall - TimeSpan.FromMilliseconds(250)).TotalMilliseconds;
                }
            }
        }

        var isBlocked = !IsStopped(now) && connection.Thread.IsBlockedOn(connection);
        return new WorkerInspection(new Ownership(Owner, 3, world.IsInheritedSocket(this) ? 2 : 1), isBlocked ? BlockedOn.Socket : BlockedOn.Other, "as simulated", moved);
    }

    /// <summary>Checked once more, as by the agent's hands, and SIGTERM sent.</summary>
    internal SignalOutcome Terminate(Terminate terminate, SimulatedConnection connection, TimeSpan now)
    {
        world.Referee.TerminationAsked(this, connection, now);
        if (!Alive || connection.Thread.Process != this || IsStopped(now) || !connection.Thread.IsBlockedOn(connection)
            || (!terminate.IsRecycled && (connection.Ended is not null || !Recycle.IsAsJudged(terminate.Connection.Last, connection.Socket.Observe(now)))))
        {
            return SignalOutcome.Gone;
        }

        world.Referee.Terminated(terminate, this, connection, now);
        if (!IgnoresTermination)
        {
            world.Queue.Add(now + world.Dice.Seconds(0, 2), this, Exits);
        }

        return SignalOutcome.Sent;
    }

    internal override void Happen(int what, int version, TimeSpan now)
    {
        switch (what)
        {
            case Exits:
                Exit(now);
                break;
            case Stops when Alive:
                _stoppedUntil = now + world.Dice.MagnitudeSeconds(3, 600);
                world.Trace(now, $"{Identity.Pid} is stopped until {World.Text(_stoppedUntil)}");
                world.Queue.Add(_stoppedUntil, this, Continues);
                break;
            case Continues when Alive:
                world.Queue.Add(now + world.Dice.Exponential(world.HoursBetweenStops * 3600), this, Stops);
                break;
        }
    }

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
    private const int Reads = 3;
    private const int Notices = 4;
    private const int Takes = 5;

    private readonly SimulatedConnection?[] _connections = new SimulatedConnection?[connections];
    private SimulatedConnection? _asking;
    private SimulatedConnection? _wedgedOn;
    private int _slot;
    private bool _wedged;
    private int _handshakes;

    internal SimulatedProcess Process { get; } = process;

    internal SimulatedPath Path { get; } = path;

    internal SharedLock? Lock { get; set; }

    /// <summary>Its pool; null where there is none at present.</summary>
    internal ReadOnlySpan<SimulatedConnection?> Connections => _connections;

    internal void Start(TimeSpan now) => Think(now);

    /// <summary>It waits in a call on that very connection, or on what is left of it.</summary>
    internal bool IsBlockedOn(SimulatedConnection connection) => _asking == connection || _wedgedOn == connection;

    /// <summary>The same thread in a new process.</summary>
    internal SimulatedThread Again(SimulatedProcess other) => new(world, other, Path, thinkSeconds, connections, depth) { Lock = Lock };

    internal override void Happen(int what, int version, TimeSpan now)
    {
        if (!Process.Alive || _wedged)
        {
            return;
        }

        if (Process.IsStopped(now))
        {
            world.Queue.Add(Process.RunsAt(now), this, what);
            return;
        }

        switch (what)
        {
            case Reads:
                Read(now);
                break;
            case Notices:
                Notice(now);
                break;
            case Takes:
                Granted(now);
                break;
            case Asks when IsPublishing():
                Process.Ran();
                Publish(now);
                break;
            case Asks:
                Process.Ran();
                _slot = world.Publishing > 0 && _connections.Length > 1 ? 1 : 0;
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
        if (Process.IsStopped(now))
        {
            world.Queue.Add(Process.RunsAt(now), this, Takes);
            return;
        }

        Process.Ran();
        Ask(now);
    }

    internal void Answered(SimulatedConnection connection, TimeSpan now)
    {
        if (Process.IsStopped(now))
        {
            if (connection == _asking)
            {
                world.Queue.Add(Process.RunsAt(now), this, Reads);
            }

            return;
        }

        Process.Progressed(now);
        if (connection == _asking)
        {
            Finish(now);
        }
    }

    private void Read(TimeSpan now)
    {
        Process.Progressed(now);
        if (_asking is not null)
        {
            Finish(now);
        }
    }

    private void Finish(TimeSpan now)
    {
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

        if (Process.IsStopped(now))
        {
            world.Queue.Add(Process.RunsAt(now), this, Notices);
            return;
        }

        _asking = null;
        if (world.Dice.Chance(world.Wedges))
        {
            _wedgedOn = connection;
            _wedged = true; // the client library sleeps on, and keeps the lock
            world.Trace(now, $"{Process.Identity.Pid} does not notice");
            return;
        }

        Process.Ran();
        Lock?.Release(this, now);
        Think(now);
    }

    /// <summary>Its call returns with an error, once it runs again.</summary>
    private void Notice(TimeSpan now)
    {
        Process.Ran();
        if (_asking is not null)
        {
            Finish(now);
        }
    }

    /// <summary>What is sent without waiting for an answer goes over the first connection of the pool, which nothing else uses.</summary>
    private bool IsPublishing() => world.Publishing > 0 && _connections.Length > 1 && world.Dice.Chance(world.Publishing);

    private void Publish(TimeSpan now)
    {
        if (_connections[0] is { IsUnanswered: false } connection)
        {
            connection.Publish(now);
        }
        else if (_connections[0] is null && Path.Handshake(now) == ConnectProbeOutcome.Connected)
        {
            _connections[0] = world.Connect(this, now);
        }

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

        if (Path.Handshake(now) == ConnectProbeOutcome.Connected)
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
