using System.Globalization;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Endpoints;

/// <summary>One line of text and an HTTP status for monitoring systems that read nothing else. Pure.</summary>
internal static class Checks
{
    /// <summary>
    /// <c>ServiceOK orders-db 0.8 ms</c>, or <c>ServiceKO</c> with the reason and status 503: a fresh connection failed,
    /// connections hang in an outage, nothing is known yet, or the agent itself stands still.
    /// </summary>
    /// <param name="snapshot">The last scan, or null before the first.</param>
    /// <param name="health">How the loop is.</param>
    /// <param name="only">Name of the upstream asked for, or null for all.</param>
    public static (int Status, string Line) Database(AgentSnapshot? snapshot, LoopHealth health, string? only)
    {
        if (Standstill(snapshot, health) is { } reason)
        {
            return (503, $"ServiceKO {reason}");
        }

        var upstreams = Chosen(snapshot!, only);
        if (upstreams.Count == 0)
        {
            // Without a declared upstream the well-known ports are watched, and nothing has connected to one yet.
            return only is null ? (200, "ServiceOK no upstream is in use") : (404, $"ServiceKO no upstream is named {Plain(only)}");
        }

        var findings = upstreams.ConvertAll(u => Reachability(u, snapshot!));
        var down = findings.Any(f => !f.Up);
        return (down ? 503 : 200, $"{(down ? "ServiceKO" : "ServiceOK")} {string.Join(", ", findings.Select(f => f.Text))}");
    }

    /// <summary>
    /// <c>ServiceOK orders-db 25% (1 of 4 open connections in use)</c>. Where the server is asked (<c>dsn-file</c>), the share is
    /// that of its limit which its connections take up, wherever they come from: <c>ServiceOK orders-db 45% (44 of 97
    /// on the server, 12 from here, 3 in use)</c>. <c>ServiceKO</c> with status 503 where a connection hangs or the limit is
    /// reached to 95 %.
    /// </summary>
    public static (int Status, string Line) Pool(AgentSnapshot? snapshot, LoopHealth health, string? only)
    {
        if (Standstill(snapshot, health) is { } reason)
        {
            return (503, $"ServiceKO {reason}");
        }

        var upstreams = Chosen(snapshot!, only);
        if (upstreams.Count == 0)
        {
            // Without a declared upstream the well-known ports are watched, and nothing has connected to one yet.
            return only is null ? (200, "ServiceOK no upstream is in use") : (404, $"ServiceKO no upstream is named {Plain(only)}");
        }

        var bad = false;
        var parts = new List<string>(upstreams.Count);
        foreach (var upstream in upstreams)
        {
            int open = 0, used = 0, hanging = 0;
            foreach (var connection in Of(snapshot!, upstream))
            {
                open++;
                if (connection.Verdict is Verdict.Waiting or Verdict.Suspect or Verdict.Stuck or Verdict.Outage or Verdict.BlockedByPeer)
                {
                    used++;
                }

                if (connection.Verdict is Verdict.Stuck or Verdict.Outage)
                {
                    hanging++;
                }
            }

            // Against a limit every connection counts, an idle one and another host's too: each holds its place.
            var (share, isFull, detail) = upstream is { ConnectionLimit: { } limit, ServerConnections: { } taken }
                ? (100.0 * taken / limit, taken >= 0.95 * limit, string.Create(CultureInfo.InvariantCulture, $"{taken} of {limit} on the server, {open} from here, {used} in use"))
                : (open == 0 ? 0 : 100.0 * used / open, false, string.Create(CultureInfo.InvariantCulture, $"{used} of {Quantity.Of(open, "open connection")} in use"));
            bad |= hanging > 0 || isFull;
            if (hanging > 0)
            {
                detail += string.Create(CultureInfo.InvariantCulture, $", {hanging} hanging");
            }

            parts.Add(string.Create(CultureInfo.InvariantCulture, $"{upstream.Name} {share:F0}% ({detail})"));
        }

        return (bad ? 503 : 200, $"{(bad ? "ServiceKO" : "ServiceOK")} {string.Join(", ", parts)}");
    }

    /// <summary>
    /// <c>ServiceOK web 5 processes, 0 of 128 wait, imbalance 0.10</c>, or <c>ServiceKO</c> with status 503 where a group has no
    /// process, an accept queue is used to more than 70 %, or one process does nearly all the work.
    /// </summary>
    public static (int Status, string Line) Workers(AgentSnapshot? snapshot, LoopHealth health, string? only)
    {
        if (Standstill(snapshot, health) is { } reason)
        {
            return (503, $"ServiceKO {reason}");
        }

        var groups = snapshot!.Groups.Where(g => only is null || string.Equals(g.Workers, only, StringComparison.Ordinal)).ToList();
        if (groups.Count == 0)
        {
            return only is null ? (200, "ServiceOK no group of workers is declared") : (404, $"ServiceKO no group of workers is named {Plain(only)}");
        }

        var bad = false;
        var parts = new List<string>(groups.Count);
        foreach (var group in groups)
        {
            var fullest = snapshot.Listeners.Where(l => string.Equals(l.Workers, group.Workers, StringComparison.Ordinal)).MaxBy(l => l.Waiting / (l.Limit + 1.0));
            bad |= group.Processes == 0 || fullest?.Waiting > 0.7 * fullest?.Limit || (group.CpuImbalance > 0.7 && group.CpuCores > 0.25);
            parts.Add(string.Create(CultureInfo.InvariantCulture, $"{group.Workers} {Quantity.Of(group.Processes, "process", "processes")}")
                + (fullest is null ? "" : string.Create(CultureInfo.InvariantCulture, $", {fullest.Waiting} of {fullest.Limit} wait"))
                + (group.CpuImbalance is { } imbalance ? string.Create(CultureInfo.InvariantCulture, $", imbalance {imbalance:F2}") : ""));
        }

        return (bad ? 503 : 200, $"{(bad ? "ServiceKO" : "ServiceOK")} {string.Join("; ", parts)}");
    }

    /// <summary>
    /// <c>ServiceOK app 3.2.1</c>, or <c>ServiceKO app 3.2.1, expected 3.3.0</c> with status 503: of each [check:…] section
    /// whether both sides say the same. One that is not known is KO.
    /// </summary>
    public static (int Status, string Line) Version(AgentSnapshot? snapshot, LoopHealth health, string? only)
    {
        if (Standstill(snapshot, health) is { } reason)
        {
            return (503, $"ServiceKO {reason}");
        }

        var checks = snapshot!.Checks.Where(c => only is null || string.Equals(c.Name, only, StringComparison.Ordinal)).ToList();
        if (checks.Count == 0)
        {
            return only is null ? (200, "ServiceOK no check is declared") : (404, $"ServiceKO no check is named {Plain(only)}");
        }

        var bad = checks.Exists(c => c.IsMatch != true);
        var texts = checks.Select(c => $"{c.Name} " + c.IsMatch switch
        {
            true => Plain(c.Actual!),
            false => $"{Plain(c.Actual!)}, expected {Plain(c.Expected!)}",
            null => $"not known: {Printable.Escape(c.Problem ?? "")}",
        });
        return (bad ? 503 : 200, $"{(bad ? "ServiceKO" : "ServiceOK")} {string.Join(", ", texts)}");
    }

    /// <summary>Text of a request, made harmless for a plain answer.</summary>
    private static string Plain(string text) => Printable.Escape(text.Length > 64 ? text[..64] : text);

    private static (bool Up, string Text) Reachability(UpstreamStatus upstream, AgentSnapshot snapshot)
    {
        var outage = Of(snapshot, upstream).Count(c => c.Verdict == Verdict.Outage);
        if (upstream.Server is { IsRoleAsDeclared: false } server)
        {
            return (false, $"{upstream.Name} the server is {(server.Role == "standby" ? "a standby" : server.Role == "primary" ? "the primary" : server.Role)}");
        }

        if (upstream.PathUp == false)
        {
            return (false, $"{upstream.Name} a fresh connection fails");
        }

        if (outage > 0)
        {
            return (false, string.Create(CultureInfo.InvariantCulture, $"{upstream.Name} {Quantity.Of(outage, "connection")} in an outage"));
        }

        if (upstream.PathUp == true)
        {
            return (true, upstream.PathRoundTrip is { } rtt
                ? string.Create(CultureInfo.InvariantCulture, $"{upstream.Name} {rtt.TotalMilliseconds:F1} ms")
                : upstream.Name);
        }

        // No fresh connection was needed so far: connections on which segments move say as much.
        return Of(snapshot, upstream).Any(c => c.Verdict == Verdict.Healthy)
            ? (true, $"{upstream.Name} in use")
            : (false, $"{upstream.Name} not known: no connection shows it");
    }

    private static string? Standstill(AgentSnapshot? snapshot, LoopHealth health) => (snapshot, health.IsTicking) switch
    {
        (null, _) => "the agent has not looked yet",
        (_, false) => "the agent's loop stands still",
        _ => null,
    };

    private static List<UpstreamStatus> Chosen(AgentSnapshot snapshot, string? only) =>
        [.. snapshot.Upstreams.Where(u => only is null || string.Equals(u.Name, only, StringComparison.Ordinal))];

    private static IEnumerable<ConnectionStatus> Of(AgentSnapshot snapshot, UpstreamStatus upstream) =>
        snapshot.Connections.Where(c => string.Equals(c.Upstream, upstream.Name, StringComparison.Ordinal));
}
