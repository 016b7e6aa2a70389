using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Judgement;

/// <summary>
/// Which keepalive options a socket should have. Never loosens what the application set: a probe never comes later, and
/// where the application switched keepalive on itself, when to give up stays its own decision.
/// </summary>
public static class KeepalivePlan
{
    /// <summary>
    /// Idle time before the first probe where nothing is known of the path: shorter than any timeout that balancers in use have
    /// been seen with. It grows as the agent's own connections are seen to survive more.
    /// </summary>
    public static readonly TimeSpan IdleWhenUnknown = TimeSpan.FromSeconds(10);

    /// <summary>
    /// The kernel sends data again for this long before it gives a connection up (tcp_retries2 = 15, the default; TCP_RTO_MIN 0.2 s
    /// doubled up to TCP_RTO_MAX 120 s). Keepalive probes that the agent brought about last no less.
    /// </summary>
    public static readonly TimeSpan KernelGivesUp = TimeSpan.FromSeconds(924.6);

    /// <summary>Probes are apart by at most this share of what the path survives: timers run late.</summary>
    private const double MostOfBound = 0.85;

    /// <summary>Largest value of TCP_KEEPIDLE and TCP_KEEPINTVL (MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL).</summary>
    private const int LongestSeconds = 32767;

    /// <summary>Largest value of TCP_KEEPCNT (MAX_TCP_KEEPCNT).</summary>
    private const int MostProbes = 127;

    /// <summary>
    /// Nudges are probes too and use up the count; so many more are allowed that they never end a connection early.
    /// </summary>
    public const int CountForNudges = 5;

    /// <summary>
    /// The idle time at which the first probe should go out: half of what the path is known to survive. Keepalive timers
    /// run up to an eighth late at long periods and a probe may be lost, hence half and not just below.
    /// </summary>
    /// <param name="lower">Idle time the path survives; null where unknown.</param>
    public static TimeSpan TargetIdle(TimeSpan? lower)
    {
        var seconds = lower is { } bound ? Math.Floor(bound.TotalSeconds / 2) : IdleWhenUnknown.TotalSeconds;
        return TimeSpan.FromSeconds(Math.Clamp(seconds, 1, LongestSeconds));
    }

    /// <summary>
    /// What to set on a socket that the agent has not touched yet.
    /// </summary>
    /// <param name="present">Its options, as the application left them.</param>
    /// <param name="lower">Idle time the path survives; null where unknown.</param>
    /// <param name="configured">The path may be away for this long without the connection being given up; null: for as long as the kernel goes on sending.</param>
    /// <returns>The options to set, or null: it is protected, or cannot be protected without harm.</returns>
    public static KeepaliveOptions? For(in KeepaliveOptions present, TimeSpan? lower, TimeSpan? configured)
    {
        var deadAfter = configured ?? KernelGivesUp;
        var idle = TargetIdle(lower);
        if (present.Enabled)
        {
            return ForEnabled(present, idle, deadAfter);
        }

        // With TCP_USER_TIMEOUT set, the first unanswered probe after that time ends the connection, whatever the count
        // says. An application that set it without keepalive did not ask for that.
        if (present.UserTimeout > TimeSpan.Zero && present.UserTimeout < deadAfter)
        {
            return null;
        }

        var wantedInterval = Math.Max(1, Math.Floor(idle.TotalSeconds / 5));
        wantedInterval = Math.Min(wantedInterval, present.Interval.TotalSeconds);
        var interval = Math.Clamp(Math.Ceiling(Math.Max(wantedInterval, deadAfter.TotalSeconds / (MostProbes - CountForNudges))), 1, LongestSeconds);
        if (lower is { } bound && interval > (configured is null ? bound.TotalSeconds * MostOfBound : idle.TotalSeconds))
        {
            if (configured is not null)
            {
                return null; // KEEPCNT ends at 127: what lasts for dead-after would ask too seldom for this path
            }

            // A path that forgets within seconds: being forgotten is the worse of the two.
            interval = Math.Max(1, Math.Floor(bound.TotalSeconds * MostOfBound));
        }

        var count = (int)Math.Clamp(Math.Ceiling(deadAfter.TotalSeconds / interval) + CountForNudges, 3, MostProbes);
        return new KeepaliveOptions(
            true, present.Idle < idle ? present.Idle : idle, TimeSpan.FromSeconds(interval), count, present.UserTimeout);
    }

    /// <summary>
    /// The application switched it on itself: asked sooner and more often, and given up no sooner than it wanted or than
    /// dead-after, whichever is less.
    /// </summary>
    /// <remarks>
    /// Only the first probe comes after TCP_KEEPIDLE. The timer is then set to TCP_KEEPINTVL, also where the probe is
    /// answered, and the idle time is compared again only when it fires (tcp_keepalive_timer, net/ipv4/tcp_timer.c). So with
    /// the system's 75 s a path that forgets within a minute is refreshed once and then forgets.
    /// </remarks>
    private static KeepaliveOptions? ForEnabled(in KeepaliveOptions present, TimeSpan idle, TimeSpan deadAfter)
    {
        var wanted = present with { Idle = present.Idle < idle ? present.Idle : idle };
        if (present.Interval > idle)
        {
            var givesUp = present.Interval * present.Count;
            var count = (int)Math.Min(Math.Ceiling(givesUp / idle), MostProbes - CountForNudges);
            if (idle * count >= (givesUp < deadAfter ? givesUp : deadAfter))
            {
                wanted = wanted with { Interval = idle, Count = Math.Max(count, present.Count) };
            }
        }

        return wanted == present ? null : wanted;
    }

    /// <summary>
    /// What to set on a socket that the agent has armed before, when the path's bound has moved. Null: nothing to change,
    /// or the application has changed the options since, and then they are its own.
    /// </summary>
    /// <param name="present">Its options now.</param>
    /// <param name="original">As the application left them before the agent came.</param>
    /// <param name="armed">As the agent set them.</param>
    /// <param name="lower">Idle time the path survives, as known now.</param>
    /// <param name="deadAfter">As for <see cref="For"/>.</param>
    public static KeepaliveOptions? Follow(
        in KeepaliveOptions present, in KeepaliveOptions original, in KeepaliveOptions armed, TimeSpan? lower, TimeSpan? deadAfter)
    {
        if (present != armed || For(original, lower, deadAfter) is not { } wanted || wanted == present)
        {
            return null;
        }

        return wanted;
    }
}
