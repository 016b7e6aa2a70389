namespace Sidecar.Agent.Judgement;

/// <summary>
/// Whether a look may act. A look that came late saw ages that grew while nobody watched, and a process that did not run
/// may be the agent itself; it gathers evidence and leaves acting to the next look that comes in time.
/// </summary>
public static class StarvationGate
{
    /// <summary>Lateness that a busy host explains without anything being amiss.</summary>
    public static readonly TimeSpan Tolerance = TimeSpan.FromMilliseconds(500);

    /// <summary>True when the look began late or took long.</summary>
    /// <param name="planned">When the look was due, monotonic.</param>
    /// <param name="started">When it began.</param>
    /// <param name="finished">When its observations were complete.</param>
    public static bool IsLate(TimeSpan planned, TimeSpan started, TimeSpan finished) =>
        started - planned > Tolerance || finished - started > Tolerance * 4;
}
