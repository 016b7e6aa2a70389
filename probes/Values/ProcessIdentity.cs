namespace Sidecar.Probes.Values;

/// <summary>
/// A process for good: a pid alone is reused, a pid with its start time is not (start time counts clock ticks since boot,
/// field 22 of /proc/PID/stat).
/// </summary>
/// <param name="Pid">Process id in the reader's pid namespace.</param>
/// <param name="StartTicks">Start time, clock ticks since boot.</param>
public readonly record struct ProcessIdentity(int Pid, ulong StartTicks);
