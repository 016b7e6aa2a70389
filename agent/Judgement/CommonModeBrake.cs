namespace Sidecar.Agent.Judgement;

/// <summary>
/// When most connections of an upstream go silent together, something common to them is at work (a failover, a restarted
/// router): recycling goes on, at a bounded rate, so that the agent is no stampede; nobody is terminated.
/// </summary>
public sealed class CommonModeBrake
{
    /// <summary>Fewer silent connections than this are no crowd.</summary>
    public const int Crowd = 3;

    /// <summary>Recycles allowed per second while the brake is on.</summary>
    public const int RecyclesPerSecond = 2;

    private readonly SlidingBudget _rate = new(RecyclesPerSecond, TimeSpan.FromSeconds(1));

    /// <summary>Whether the brake is on.</summary>
    public bool IsOn { get; private set; }

    /// <summary>Counts at one look: silent are suspect, stuck and outage; total are all of the upstream.</summary>
    public void Update(int silent, int total) => IsOn = silent >= Crowd && silent * 2 > total;

    public bool IsRateLeftAt(TimeSpan now) => _rate.IsLeftAt(now);

    public void Recycled(TimeSpan at) => _rate.Spend(at);
}
