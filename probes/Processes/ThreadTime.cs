using Sidecar.Probes.Interop;

namespace Sidecar.Probes.Processes;

/// <summary>CPU time of the calling thread (clock_gettime(2), CLOCK_THREAD_CPUTIME_ID).</summary>
public static class ThreadTime
{
    /// <summary>Since the thread began; on a busy host less than the time that passed.</summary>
    public static unsafe TimeSpan Used
    {
        get
        {
            Libc.TimeSpec time;
            return Libc.ClockGetTime(Libc.CLOCK_THREAD_CPUTIME_ID, &time) == 0
                ? TimeSpan.FromSeconds(time.Seconds) + TimeSpan.FromMicroseconds(time.Nanoseconds / 1000.0)
                : TimeSpan.Zero;
        }
    }
}
