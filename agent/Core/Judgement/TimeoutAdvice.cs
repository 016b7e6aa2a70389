using System.Globalization;

namespace Sidecar.Agent.Core.Judgement;

/// <summary>What a path, a host and a server are set to, as far as it decides how long a dead connection is believed alive.</summary>
public readonly record struct TimeoutFacts
{
    /// <summary>Idle time the path is known to survive, and not much longer ones; null where no limit is known.</summary>
    public required TimeSpan? IdleTimeout { get; init; }

    /// <summary>The upstream's <c>dead-after</c>: an outage of this length is to be survived.</summary>
    public required TimeSpan DeadAfter { get; init; }

    /// <summary>net.ipv4.tcp_keepalive_time of this host; null where it cannot be read.</summary>
    public required TimeSpan? HostKeepaliveTime { get; init; }

    /// <summary>net.ipv4.tcp_retries2 of this host; null where it cannot be read.</summary>
    public required int? HostRetries { get; init; }

    /// <summary>Only data restarts the path's idle clock.</summary>
    public required bool CountsDataOnly { get; init; }

    /// <summary>The upstream has a DSN, so that the agent sees which sessions nobody uses.</summary>
    public required bool SeesSessions { get; init; }

    /// <summary>The server's settings; null where there is no server to ask, or it did not answer.</summary>
    public required ServerTimeouts? Server { get; init; }
}

/// <summary>A PostgreSQL server's settings. Null: it has none such, or did not say. Zero: off.</summary>
public readonly record struct ServerTimeouts
{
    /// <summary>tcp_keepalives_idle.</summary>
    public required TimeSpan? KeepalivesIdle { get; init; }

    /// <summary>tcp_keepalives_interval.</summary>
    public required TimeSpan? KeepalivesInterval { get; init; }

    /// <summary>tcp_keepalives_count.</summary>
    public required int? KeepalivesCount { get; init; }

    /// <summary>tcp_user_timeout.</summary>
    public required TimeSpan? UserTimeout { get; init; }

    /// <summary>client_connection_check_interval.</summary>
    public required TimeSpan? ConnectionCheckInterval { get; init; }

    /// <summary>idle_in_transaction_session_timeout.</summary>
    public required TimeSpan? IdleInTransactionTimeout { get; init; }
}

/// <summary>
/// Compares what is set with what the path asks for: one line for each thing that is not right, with what is set, what
/// follows from it, and what would be right. Pure.
/// </summary>
public static class TimeoutAdvice
{
    /// <summary>Outages that are to be survived where no <c>dead-after</c> says otherwise.</summary>
    public static readonly TimeSpan UsualOutage = TimeSpan.FromMinutes(2);

    /// <summary>RTO_MIN: the first retransmission on a path with a short round trip; each further one waits twice as long.</summary>
    private static readonly TimeSpan FirstTimeout = TimeSpan.FromMilliseconds(200);

    /// <summary>TCP_RTO_MAX.</summary>
    private static readonly TimeSpan LongestTimeout = TimeSpan.FromSeconds(120);

    /// <summary>A dead connection that is believed alive for longer than this holds up people.</summary>
    private static readonly TimeSpan Bearable = TimeSpan.FromMinutes(5);

    private static readonly TimeSpan CheckInterval = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan IdleInTransaction = TimeSpan.FromMinutes(5);

    /// <summary>All that is to be said; empty where everything is right or nothing is known.</summary>
    public static IReadOnlyList<string> For(in TimeoutFacts facts)
    {
        var lines = new List<string>();
        if (facts.IdleTimeout is { } timeout)
        {
            if (facts is { CountsDataOnly: true, SeesSessions: false })
            {
                lines.Add($"this path forgets after {Text(timeout)} without data, and keepalives do not count: idle connections are lost; "
                    + "with protocol = postgresql and a dsn-file they are closed before, or the pool can be told to");
            }

            ForHost(facts, timeout, lines);
        }

        if (facts.Server is { } server)
        {
            ForServer(facts, server, lines);
        }

        return lines;
    }

    /// <summary>
    /// How long unanswered data is retransmitted before the kernel gives up (tcp_retries2, ip-sysctl): the sum of the
    /// timeouts from the first transmission on. 15 gives 924.6 s.
    /// </summary>
    public static TimeSpan GivesUpAfter(int retries)
    {
        var sum = TimeSpan.Zero;
        var timeout = FirstTimeout;
        for (var i = 0; i <= Math.Clamp(retries, 0, 1000); i++)
        {
            sum += timeout;
            timeout = timeout * 2 < LongestTimeout ? timeout * 2 : LongestTimeout;
        }

        return sum;
    }

    private static void ForHost(in TimeoutFacts facts, TimeSpan timeout, List<string> lines)
    {
        var half = KeepalivePlan.TargetIdle(timeout);
        if (facts.HostKeepaliveTime is { } time && time >= timeout)
        {
            lines.Add($"this host: net.ipv4.tcp_keepalive_time = {Seconds(time)}, the path forgets after {Text(timeout)}: "
                + $"programs that switch keepalive on without a time of their own are not protected by it; {Seconds(half)} would be right");
        }

        if (facts.HostRetries is { } retries && GivesUpAfter(retries) > Bearable)
        {
            lines.Add($"this host: net.ipv4.tcp_retries2 = {Number(retries)}: what is sent into a forgotten connection is believed alive for "
                + $"{Text(GivesUpAfter(retries))}; {Number(RetriesFor(facts.DeadAfter))} gives up after {Text(GivesUpAfter(RetriesFor(facts.DeadAfter)))}");
        }
    }

    private static void ForServer(in TimeoutFacts facts, in ServerTimeouts server, List<string> lines)
    {
        // Zero is the kernel's default there, which SHOW resolves over TCP; over a Unix socket it says nothing.
        if (facts.IdleTimeout is { } timeout && server.KeepalivesIdle is { } idle && idle > TimeSpan.Zero && idle >= timeout)
        {
            lines.Add($"server: tcp_keepalives_idle = {Seconds(idle)}, the path forgets after {Text(timeout)}: "
                + $"the server's keepalive comes too late; {Seconds(KeepalivePlan.TargetIdle(timeout))} would be right");
        }

        if (server is { KeepalivesIdle: { } first, KeepalivesInterval: { } interval, KeepalivesCount: { } count } && first > TimeSpan.Zero
            && interval * count is var afterwards && afterwards > Bearable)
        {
            var right = TimeSpan.FromSeconds(Math.Max(1, Math.Ceiling(facts.DeadAfter.TotalSeconds / 8)));
            lines.Add($"server: tcp_keepalives_interval x tcp_keepalives_count = {Seconds(interval)} x {Number(count)}: "
                + $"a dead client keeps its locks for {Text(first + afterwards)}; {Seconds(right)} x 8 would be right");
        }

        // Off, the server's kernel gives up as late as any other: tcp_retries2, whose default is 15.
        if (server.UserTimeout == TimeSpan.Zero && server.KeepalivesIdle != TimeSpan.Zero)
        {
            lines.Add($"server: tcp_user_timeout = 0: an answer that nobody takes holds its back-end, and its locks, for up to {Text(GivesUpAfter(15))}; "
                + $"{Seconds(facts.DeadAfter)} would be right");
        }

        if (server.ConnectionCheckInterval == TimeSpan.Zero)
        {
            lines.Add($"server: client_connection_check_interval = 0: a query whose client has gone runs to its end; {Seconds(CheckInterval)} would be right");
        }

        if (server.IdleInTransactionTimeout == TimeSpan.Zero)
        {
            lines.Add("server: idle_in_transaction_session_timeout = 0: a transaction that was left open keeps its locks for ever; "
                + $"{Text(IdleInTransaction)} would be right, or as long as the longest pause that is meant");
        }
    }

    /// <summary>The fewest retries that survive an outage of this length.</summary>
    private static int RetriesFor(TimeSpan outage)
    {
        // 8 is the least that RFC 1122 allows (100 s).
        var retries = 8;
        while (retries < 15 && GivesUpAfter(retries) < outage)
        {
            retries++;
        }

        return retries;
    }

    private static string Seconds(TimeSpan value) => value.TotalSeconds.ToString("0.###", CultureInfo.InvariantCulture) + " s";

    private static string Number(int value) => value.ToString(CultureInfo.InvariantCulture);

    private static string Text(TimeSpan value) => value.TotalSeconds switch
    {
        < 600 => value.TotalSeconds.ToString("0.#", CultureInfo.InvariantCulture) + " s",
        < 7200 => value.TotalMinutes.ToString("0.#", CultureInfo.InvariantCulture) + " min",
        _ => value.TotalHours.ToString("0.#", CultureInfo.InvariantCulture) + " h",
    };
}
