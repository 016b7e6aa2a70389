using System.Diagnostics;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Telemetry.Systemd;

/// <summary>
/// Tells systemd how the service is (sd_notify(3)). Without NOTIFY_SOCKET, or on a host without libsystemd, each call
/// does nothing. Never throws.
/// </summary>
internal sealed class SystemdNotifier
{
    private readonly bool _present = LibSystemd.Present;
    private long _lastAlive;

    public SystemdNotifier()
    {
        if (_present && LibSystemd.sd_watchdog_enabled(0, out var microseconds) > 0 && microseconds > 0)
        {
            WatchdogInterval = TimeSpan.FromMicroseconds(microseconds);
        }
    }

    /// <summary>systemd ends the service after this long without <see cref="Alive"/>; null where it does not watch.</summary>
    public TimeSpan? WatchdogInterval { get; }

    /// <summary>The first scan is done: the unit becomes active.</summary>
    public void Ready(string status) => Send($"READY=1\nSTATUS={OneLine(status)}");

    /// <summary>The line that <c>systemctl status</c> shows.</summary>
    public void Status(string status) => Send($"STATUS={OneLine(status)}");

    /// <summary>A reload begins; <see cref="Ready"/> ends it, whether or not the new configuration was taken.</summary>
    public void Reloading() =>
        // systemd compares with CLOCK_MONOTONIC, which is what Stopwatch reads on Linux.
        Send($"RELOADING=1\nMONOTONIC_USEC={(long)(Stopwatch.GetTimestamp() * (1_000_000.0 / Stopwatch.Frequency))}");

    /// <summary>The service is about to end.</summary>
    public void Stopping(string status) => Send($"STOPPING=1\nSTATUS={OneLine(status)}");

    /// <summary>
    /// Feeds the watchdog. To be called by the loop itself, once per turn, so that a loop that hangs is noticed; it
    /// sends no more often than four times per watchdog interval.
    /// </summary>
    public void Alive()
    {
        if (WatchdogInterval is not { } interval || (_lastAlive != 0 && Stopwatch.GetElapsedTime(_lastAlive) < interval / 4))
        {
            return;
        }

        _lastAlive = Stopwatch.GetTimestamp();
        Send("WATCHDOG=1");
    }

    private static string OneLine(string text) => Printable.Escape(text);

    private void Send(string state)
    {
        // A failure (socket gone, datagram too long) leaves systemd with what it knew; there is nothing else to do.
        if (_present)
        {
            _ = LibSystemd.sd_notify(0, state);
        }
    }
}
