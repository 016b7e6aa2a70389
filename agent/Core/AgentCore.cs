using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core;

/// <summary>What brings observations in: the kernel's in the product, a model's in the simulator.</summary>
public interface IEyes
{
    /// <summary>Monotonic time.</summary>
    TimeSpan Now { get; }

    /// <summary>Wall clock, for what is kept and told.</summary>
    DateTimeOffset UtcNow { get; }

    /// <summary>What the kernel has counted of TCP so far; null where it cannot be read.</summary>
    TcpCounters? ReadCounters();

    /// <summary>Shows the world all sockets, and looks for the owners of those that are new.</summary>
    void Scan(World world);

    /// <summary>Shows the world a few connections anew.</summary>
    void Recheck(World world, IReadOnlyList<TrackedConnection> connections);

    /// <summary>Hands over what has ended in the background: connect probes, releases.</summary>
    void Collect(World world, RemedyEngine engine);
}

/// <summary>What carries commands out.</summary>
public interface IHands
{
    /// <summary>Carries one command out and notes its outcome in it. Never throws for anything that a kernel or a process does.</summary>
    void Carry(Command command);
}

/// <summary>
/// observe, judge, decide, act: one tick after another. Product and simulator drive this same class; it has no clock, no thread
/// and no I/O of its own.
/// </summary>
public sealed class AgentCore
{
    /// <summary>Ticks between two scans, while something is unanswered or an action is followed.</summary>
    private static readonly TimeSpan ShortTick = TimeSpan.FromMilliseconds(100);

    /// <summary>No tick follows another sooner.</summary>
    private static readonly TimeSpan LeastTick = TimeSpan.FromMilliseconds(10);

    /// <summary>A recheck costs 5 µs a connection; the others wait for the scan.</summary>
    private const int MostRechecks = 4096;

    private readonly List<TrackedConnection> _interests = [];

    /// <summary>A core over a world.</summary>
    /// <param name="world">What is known.</param>
    /// <param name="now">Monotonic time: the first scan is due.</param>
    public AgentCore(World world, TimeSpan now)
    {
        World = world;
        Engine = new RemedyEngine(world);
        Pacing = new ScanPacing(world.Configuration.Agent.ScanInterval, now);
        NextTick = now;
    }

    public World World { get; }

    public RemedyEngine Engine { get; }

    public ScanPacing Pacing { get; }

    /// <summary>When the next tick is due, monotonic; a counter check or a command's end may bring it forward.</summary>
    public TimeSpan NextTick { get; private set; }

    /// <summary>When the last tick began, monotonic.</summary>
    public TimeSpan Began { get; private set; }

    /// <summary>How long its observing took.</summary>
    public TimeSpan Took { get; private set; }

    /// <summary>Whether the last tick came late and took no action.</summary>
    public bool WasLate { get; private set; }

    /// <summary>One tick.</summary>
    /// <param name="planned">When it was due, monotonic.</param>
    /// <param name="eyes">Brings observations.</param>
    /// <param name="hands">Carries out commands; null: observations and verdicts alone.</param>
    /// <param name="isWanted">Somebody waits for a scan.</param>
    public void Tick(TimeSpan planned, IEyes eyes, IHands? hands, bool isWanted = false)
    {
        var started = eyes.Now;
        var full = started >= Pacing.Next || (isWanted && started - Pacing.Began >= World.Configuration.Agent.ScanInterval);
        World.BeginTick(full, eyes.UtcNow);
        if (full)
        {
            Pacing.Begin(started, eyes.ReadCounters());
            eyes.Scan(World);
        }
        else
        {
            eyes.Recheck(World, _interests);
        }

        var observed = eyes.Now;
        (Began, Took) = (started, observed - started);
        World.Recorder.Ticked(planned, started, observed);
        WasLate = Judgement.StarvationGate.IsLate(planned, started, observed);
        if (WasLate)
        {
            World.Distrust();
        }

        eyes.Collect(World, Engine);
        World.Judge();
        if (hands is not null)
        {
            foreach (var command in Engine.Tick(WasLate, observed))
            {
                hands.Carry(command);
            }
        }

        Pace(full, observed - started, hands is null ? World.Seen : World.PerhapsOfInterest, eyes.Now);
    }

    private void Pace(bool full, TimeSpan took, IReadOnlyList<TrackedConnection> candidates, TimeSpan now)
    {
        _interests.Clear();
        var next = now + ShortTick;
        foreach (var connection in candidates)
        {
            if ((connection.IsOfInterest || connection.Case?.ProbeWantedAt >= Began) && !connection.IsGone && _interests.Count < MostRechecks)
            {
                _interests.Add(connection);
                next = connection.NextEvent is var due && due < next ? due : next;
            }
        }

        // A path is back: whoever waited for it is looked up at once.
        if (World.Returned.Count > 0)
        {
            foreach (var connection in World.Silent)
            {
                if (World.Returned.Contains(connection.Path) && connection.LastSeen < Began && _interests.Count < MostRechecks)
                {
                    _interests.Add(connection);
                }
            }

            next = now;
        }

        var isBusy = Engine.IsFollowing || Engine.IsAsking || _interests.Count > 0;
        if (full)
        {
            Pacing.Saw(World.LatestData);
            Pacing.End(took, isBusy || Engine.IsArming || World.Upstreams.Any(upstream => upstream.Tally.Silent > 0), World.Paths.ShortestIdleTimeout);
        }

        if (Engine.IsArming)
        {
            Pacing.Bring(now + ShortTick, now);
        }

        next = next < now + LeastTick ? now + LeastTick : next;
        NextTick = isBusy && next < Pacing.Next ? next : Pacing.Next;
    }
}
