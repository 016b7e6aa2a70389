namespace Sidecar.Agent.Core.Judgement;

/// <summary>
/// Whether a scan may act. A scan that came late saw ages that grew while nobody watched, and a process that did not run
/// may be the agent itself; it gathers evidence and leaves acting to the next scan that comes in time.
/// </summary>
public static class StarvationGate
{
    /// <summary>Lateness that a busy host explains without anything being amiss.</summary>
    public static readonly TimeSpan Tolerance = TimeSpan.FromMilliseconds(500);

    /// <summary>True when the scan began late or took long.</summary>
    /// <param name="planned">When the scan was due, monotonic.</param>
    /// <param name="started">When it began.</param>
    /// <param name="finished">When its observations were complete.</param>
    public static bool IsLate(TimeSpan planned, TimeSpan started, TimeSpan finished) =>
        started - planned > Tolerance || finished - started > Tolerance * 4;
}
