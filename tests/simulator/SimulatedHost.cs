namespace Sidecar.Simulator;

/// <summary>What happens to the workers' host and to the agent's own process on it.</summary>
internal sealed class SimulatedHost(World world) : Actor
{
    private const int Pauses = 1;
    private const int Suspends = 2;
    private const int Restarts = 3;
    private const int Starts = 4;

    /// <summary>Mean hours between pauses of the agent (starved, stopped and continued); 0 for none.</summary>
    internal double HoursBetweenPauses { get; set; }

    internal double HoursBetweenSuspensions { get; set; }

    internal double HoursBetweenAgentRestarts { get; set; }

    /// <summary>For how long nobody is there when the agent restarts, at most.</summary>
    internal double LongestAbsence { get; set; }

    /// <summary>Until when the agent does not run.</summary>
    internal TimeSpan PausedUntil { get; private set; }

    /// <summary>Until when the agent itself was in no state to help.</summary>
    internal TimeSpan ExcusedUntil { get; private set; }

    internal void Start()
    {
        Next(Pauses, HoursBetweenPauses, TimeSpan.Zero);
        Next(Suspends, HoursBetweenSuspensions, TimeSpan.Zero);
        Next(Restarts, HoursBetweenAgentRestarts, TimeSpan.Zero);
    }

    internal override void Happen(int what, int version, TimeSpan now)
    {
        switch (what)
        {
            case Pauses:
                PausedUntil = now + world.Dice.MagnitudeSeconds(0.1, 120);
                world.Trace(now, $"the agent is paused until {World.Text(PausedUntil)}");
                Excuse(PausedUntil + world.Configuration.Agent.ScanInterval);
                Next(Pauses, HoursBetweenPauses, now);
                break;
            case Suspends:
                world.Suspend(world.Dice.MagnitudeSeconds(1, 7200), now);
                Next(Suspends, HoursBetweenSuspensions, now);
                break;
            case Restarts when LongestAbsence > 0:
                PausedUntil = now + world.Dice.MagnitudeSeconds(1, LongestAbsence);
                world.Trace(now, $"the agent ends, the next one starts at {World.Text(PausedUntil)}");
                Excuse(PausedUntil + TimeSpan.FromSeconds(2));
                world.Queue.Add(PausedUntil - TimeSpan.FromMilliseconds(1), this, Starts);
                break;
            case Restarts or Starts:
                world.Trace(now, "the agent starts anew");
                world.Agent.Restart(now);
                Excuse(now + TimeSpan.FromSeconds(2));
                Next(Restarts, HoursBetweenAgentRestarts, now);
                break;
        }
    }

    /// <summary>What starts anew while it is paused is paused all the same: an excuse ends none that lasts longer.</summary>
    private void Excuse(TimeSpan until) => ExcusedUntil = until > ExcusedUntil ? until : ExcusedUntil;

    /// <summary>For how long the agent is preempted between a decision and its act; mostly not at all.</summary>
    internal TimeSpan Preemption() => HoursBetweenPauses > 0 && world.Dice.Chance(0.05) ? world.Dice.MagnitudeSeconds(0.001, 3) : TimeSpan.Zero;

    private void Next(int what, double hours, TimeSpan now)
    {
        if (hours > 0)
        {
            world.Queue.Add(now + world.Dice.Exponential(hours * 3600), this, what);
        }
    }
}
