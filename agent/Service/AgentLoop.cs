using Microsoft.Extensions.Logging;
using Sidecar.Agent.Telemetry;

namespace Sidecar.Agent.Service;

/// <summary>
/// The loop: wait, tick (observe, judge, decide, act), tell. One thread; nothing else touches the core. It waits for the kernel, for
/// /proc and for the page cache, never for the network, a disk, DNS, the journal or a reader.
/// </summary>
internal sealed class AgentLoop(AgentRooms rooms)
{
    private readonly ILogger _log = rooms.Log.CreateLogger("loop");
    private readonly MemoryTrim _trim = new();
    private long _ticks;

    /// <summary>When the last tick that did not fail ended, monotonic.</summary>
    public TimeSpan LastTick { get; private set; }

    /// <summary>Whether an action is being followed.</summary>
    public bool IsFollowing { get; private set; }

    /// <summary>Connections that are watched.</summary>
    public int Watched { get; private set; }

    /// <summary>Whether the first scan is done.</summary>
    public bool HasScanned => Volatile.Read(ref _ticks) > 0;

    /// <summary>Ticks until told to stop, on the calling thread. What happens in one tick never ends the loop: it is logged with its stack.</summary>
    /// <param name="ticked">Called after every tick that did not fail, and while nothing is due; for the watchdog.</param>
    /// <param name="cancellation">Ends it.</param>
    public void Run(System.Action ticked, CancellationToken cancellation)
    {
        using var registration = cancellation.Register(rooms.Inbox.Wake);
        rooms.BeginActing();
        var planned = rooms.Eyes.Now;
        while (!cancellation.IsCancellationRequested)
        {
            var succeeded = Tick(planned);
            if (succeeded)
            {
                ticked();
            }

            planned = Wait(succeeded ? ticked : null, cancellation);
        }
    }

    /// <summary>One tick, with its telling; false where it failed.</summary>
    internal bool Tick(TimeSpan planned)
    {
        var core = rooms.Core;
        try
        {
            rooms.BeforeTick();
            core.Tick(planned, rooms.Eyes, rooms.Hands, rooms.Publisher.IsAsked);
            rooms.AfterTick();
            LastTick = rooms.Eyes.Now;
            IsFollowing = core.Engine.IsFollowing;
            if (core.World.IsFull)
            {
                Watched = core.World.Connections.All.Count;
                Volatile.Write(ref _ticks, _ticks + 1);
            }

            _trim.Consider(rooms, LastTick);
            return true;
        }
        catch (Exception e)
        {
            _log.TickFailed(e);
            core.Pacing.Bring(rooms.Eyes.Now + core.World.Configuration.Agent.ScanInterval, rooms.Eyes.Now);
            return false;
        }
    }

    /// <summary>Waits until the next tick is due or something comes in, and checks the kernel's counters meanwhile.</summary>
    /// <returns>When the tick was due: before now where the agent itself was held up.</returns>
    private TimeSpan Wait(System.Action? idle, CancellationToken cancellation)
    {
        var pacing = rooms.Core.Pacing;
        while (true)
        {
            var now = rooms.Eyes.Now;
            var due = rooms.Core.NextTick < pacing.Next ? rooms.Core.NextTick : pacing.Next;
            var check = now + pacing.CheckEvery;
            var until = check < due ? check : due;
            var woken = until > now && rooms.Inbox.Wait(until - now);
            var after = rooms.Eyes.Now;

            // Whatever this waited for, it should have gone on at that time: later, it was the agent that did not run.
            if (woken || cancellation.IsCancellationRequested)
            {
                return after < until ? after : until;
            }

            if (after - until > Core.Judgement.StarvationGate.Tolerance || until == due)
            {
                return until;
            }

            var counters = rooms.Eyes.ReadCounters();
            var read = rooms.Eyes.Now;
            pacing.Check(counters, read, read - after);
            idle?.Invoke();
        }
    }
}
