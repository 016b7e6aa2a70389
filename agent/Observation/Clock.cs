namespace Sidecar.Agent.Observation;

/// <summary>The agent's clock: one for all instances of a process, so that what one of them knows can be taken over by the next.</summary>
/// <param name="time">What time it is; the probes alone, which time the kernel itself, have a stopwatch of their own.</param>
internal sealed class Clock(TimeProvider time)
{
    private readonly long _origin = time.GetTimestamp();

    /// <summary>For what waits by itself.</summary>
    public TimeProvider Time => time;

    /// <summary>Time since this clock was made, monotonic.</summary>
    public TimeSpan Now => time.GetElapsedTime(_origin);

    /// <summary>Wall clock; may jump.</summary>
    public DateTimeOffset UtcNow => time.GetUtcNow();
}
