using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Processes;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Telemetry;

/// <summary>Gathers the facts for <see cref="TimeoutAdvice"/>: the host's sysctls, the server's settings, the path's timeout.</summary>
internal static class Advisor
{
    /// <summary>Advice for one upstream.</summary>
    /// <param name="upstream">Its section.</param>
    /// <param name="limit">Idle time that its path is known to survive, and not much longer ones; null where no limit is known.</param>
    /// <param name="countsDataOnly">Only data restarts the path's idle clock.</param>
    /// <param name="settings">The server's settings; null where there are none to be had.</param>
    public static IReadOnlyList<string> For(UpstreamSection upstream, TimeSpan? limit, bool countsDataOnly, ServerSettings? settings) =>
        TimeoutAdvice.For(new TimeoutFacts
        {
            IdleTimeout = limit,
            DeadAfter = upstream.DeadAfter ?? TimeoutAdvice.UsualOutage,
            HostKeepaliveTime = HostFacts.Sysctl("net.ipv4.tcp_keepalive_time") is { } time ? TimeSpan.FromSeconds(time) : null,
            HostRetries = (int?)HostFacts.Sysctl("net.ipv4.tcp_retries2"),
            CountsDataOnly = countsDataOnly,
            SeesSessions = upstream.DsnFile is not null,
            Server = settings is null
                ? null
                : new ServerTimeouts
                {
                    KeepalivesIdle = settings.KeepalivesIdle,
                    KeepalivesInterval = settings.KeepalivesInterval,
                    KeepalivesCount = settings.KeepalivesCount,
                    UserTimeout = settings.UserTimeout,
                    ConnectionCheckInterval = settings.ConnectionCheckInterval,
                    IdleInTransactionTimeout = settings.IdleInTransactionTimeout,
                },
        });
}
