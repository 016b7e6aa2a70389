using System.Globalization;
using System.Text.Json;
using Sidecar.Agent.Endpoints;
using Sidecar.Probes.Values;
using Spectre.Console;

namespace Sidecar.Agent.Commands;

/// <summary><c>status</c>: what the running agent sees, or one scan of its own.</summary>
internal static class StatusCommand
{
    /// <summary>Verdicts by urgency, with the colour they are shown in.</summary>
    private static readonly (string Verdict, Color Color)[] Verdicts =
    [
        ("stuck", Color.Red),
        ("outage", Color.Red),
        ("suspect", Color.Yellow),
        ("expired", Color.Yellow),
        ("partly", Color.Yellow),
        ("black-hole", Color.Yellow),
        ("blocked-by-peer", Color.Yellow),
        ("aging", Color.Aqua),
        ("waiting", Color.Default),
        ("healthy", Color.Green),
    ];

    public static int Execute(CommandEnvironment environment, string? configurationPath, bool json)
    {
        var loaded = ConfigurationSource.TryLoad(environment, configurationPath, out var configuration);
        if (!loaded && configurationPath is not null)
        {
            return ExitCodes.BadConfiguration;
        }

        StatusDocument status;
        try
        {
            // A running agent keeps its old configuration when a new one has errors, and can still be asked then.
            status = new ControlClient(configuration?.Agent.RuntimeDirectory ?? environment.DefaultRuntimeDirectory).Status();
        }
        catch (ControlException e) when (e.Failure == ControlFailure.NotRunning)
        {
            if (configuration is null)
            {
                return ExitCodes.BadConfiguration;
            }

            environment.Error.WriteLine(Printable.Escape($"{e.Message}; this is one scan of the command's own"));
            status = StatusDocument.From(environment.Scan(configuration), running: false);
        }
        catch (ControlException e)
        {
            environment.Error.WriteLine(Printable.Escape(e.Message));
            return ExitCodes.Unreachable;
        }

        if (json)
        {
            environment.Out.WriteLine(JsonSerializer.Serialize(status, ControlJson.Indented.StatusDocument));
        }
        else
        {
            Show(environment, status);
        }

        return ExitCodes.Ok;
    }

    internal static void Show(CommandEnvironment environment, StatusDocument status)
    {
        var console = environment.CreateConsole();
        var connections = status.Connections.ToLookup(c => c.Upstream, StringComparer.Ordinal);
        console.WriteIndented(0, string.Create(CultureInfo.InvariantCulture,
            $"conn-sidecar {status.Version}, mode {status.Mode}, {(status.Running ? "running" : "not running")}; seen {Moment.ForPeople(status.Time)} in {People(status.ScanDurationSeconds)}"), Style.Plain);
        foreach (var limitation in status.Limitations)
        {
            console.WriteIndented(0, $"! {limitation}", new Style(Color.Yellow));
        }

        // Upstreams that nothing connects to are one line together.
        var idle = new List<string>();
        foreach (var upstream in status.Upstreams)
        {
            if (!connections.Contains(upstream.Name) && upstream.PathUp is null && upstream.Advice.Count == 0)
            {
                idle.Add(upstream.Name);
                continue;
            }

            ShowUpstream(console, environment.Width, upstream, [.. connections[upstream.Name]]);
        }

        // A reload may have removed an upstream between two scans; its connections are not hidden.
        foreach (var orphans in connections.Where(g => !status.Upstreams.Any(u => string.Equals(u.Name, g.Key, StringComparison.Ordinal))))
        {
            console.WriteLine();
            console.WriteIndented(0, orphans.Key, new Style(decoration: Decoration.Bold));
            ShowConnections(console, environment.Width, [.. orphans]);
        }

        ShowStack(console, status);
        ShowBalancers(console, status);
        if (idle.Count > 0)
        {
            console.WriteLine();
            console.WriteIndented(0, $"no connections: {string.Join(", ", idle)}", Style.Plain);
        }

        if (status.Upstreams.Count == 0)
        {
            console.WriteLine();
            console.WriteIndented(0, "no connections to the well-known ports so far", Style.Plain);
        }
    }

    /// <summary>The worker groups that have processes, each with its accept queues.</summary>
    private static void ShowStack(IAnsiConsole console, StatusDocument status)
    {
        foreach (var group in status.Groups.Where(g => g.Processes > 0))
        {
            console.WriteLine();
            console.WriteIndented(0, $"workers {group.Workers}", new Style(decoration: Decoration.Bold));
            console.WriteIndented(2, StackText.Describe(group), group.Zombies > 0 || group.GonePeersServed > 0 ? new Style(Color.Yellow) : Style.Plain);
            foreach (var listener in status.Listeners.Where(l => string.Equals(l.Workers, group.Workers, StringComparison.Ordinal)))
            {
                console.WriteIndented(2, StackText.Describe(listener), listener.Peak > 0.7 * listener.Limit ? new Style(Color.Yellow) : Style.Plain);
            }
        }
    }

    /// <summary>The balancers with their backends, and the checks.</summary>
    private static void ShowBalancers(IAnsiConsole console, StatusDocument status)
    {
        foreach (var haproxy in status.Haproxies.Where(h => h.Version is not null))
        {
            console.WriteLine();
            console.WriteIndented(0, string.Create(CultureInfo.InvariantCulture, $"haproxy {haproxy.Name}  {haproxy.Version}, {haproxy.Sessions} of {Quantity.Of(haproxy.SessionsLimit, "connection")}"), new Style(decoration: Decoration.Bold));
            foreach (var backend in haproxy.Backends)
            {
                console.WriteIndented(2, StackText.Describe(backend), backend.ServersDown > 0 ? new Style(backend.ServersUp == 0 ? Color.Red : Color.Yellow) : Style.Plain);
            }
        }

        foreach (var check in status.Checks)
        {
            console.WriteLine();
            console.WriteIndented(0, $"check {check.Name}", new Style(decoration: Decoration.Bold));
            console.WriteIndented(2, StackText.Describe(check), check.Ok == true ? Style.Plain : new Style(check.Ok == false ? Color.Red : Color.Yellow));
        }
    }

    private static void ShowUpstream(IAnsiConsole console, int width, UpstreamView upstream, List<ConnectionView> connections)
    {
        console.WriteLine();
        console.WriteIndented(0, $"{upstream.Name}  {upstream.Endpoint}", new Style(decoration: Decoration.Bold));
        var path = upstream.PathUp switch
        {
            true when upstream.PathRoundTripSeconds is { } trip => $"path up ({Duration.ForPeople(TimeSpan.FromSeconds(trip))})",
            true => "path up",
            false => "path DOWN",
            null => "path not tried",
        };
        // A device on the way may complete the handshake for a server that is gone.
        var proves = upstream is { PathUp: true, PathServerAnswered: false } ? " by a handshake, which proves no server" : "";
        var counts = connections.Count == 0
            ? "no connections"
            : string.Join(", ", connections.GroupBy(c => c.Verdict, StringComparer.Ordinal).OrderBy(g => Urgency(g.Key)).Select(g => $"{g.Count()} {g.Key}"));
        console.WriteIndented(2, $"{counts}; {path}{proves}; {IdleTimeout(upstream)}{(upstream.NotMeasured is { } why ? $", not measured: {why}" : "")}", upstream.PathUp == false ? new Style(Color.Red) : Style.Plain);
        if (upstream.Server is { } server)
        {
            console.WriteIndented(2, StackText.Describe(server), server.RoleAsDeclared == false ? new Style(Color.Red) : Style.Plain);
        }

        foreach (var advice in upstream.Advice)
        {
            console.WriteIndented(2, $"! {advice}", new Style(Color.Yellow));
        }

        ShowConnections(console, width, connections);
    }

    private static string IdleTimeout(UpstreamView upstream) => (upstream.IdleTimeoutLowerSeconds, upstream.IdleTimeoutUpperSeconds) switch
    {
        (null, null) => "idle timeout unknown",
        ({ } lower, null) => $"idle timeout over {People(lower)}",
        (null, { } upper) => $"idle timeout under {People(upper)}",
        ({ } lower, { } upper) when People(lower) is var low && People(upper) is var high => low == high ? $"idle timeout {low}" : $"idle timeout {low} to {high}",
        _ => "",
    };

    private static string People(double seconds) => Duration.ForPeople(TimeSpan.FromSeconds(seconds));

    private static void ShowConnections(IAnsiConsole console, int width, List<ConnectionView> connections)
    {
        var rows = connections
            .OrderBy(c => Urgency(c.Verdict)).ThenByDescending(c => c.StuckSeconds ?? 0).ThenByDescending(c => c.IdleSeconds)
            .Select(c => (Connection: c,
                Pid: c.Pid?.ToString(CultureInfo.InvariantCulture) ?? "?",
                Process: Shorten(Printable.Escape(ProcessName(c)), 15),
                Ends: $"{Printable.Escape(c.Local)} -> {Printable.Escape(c.Peer)}",
                Idle: People(c.IdleSeconds)))
            .ToList();
        if (rows.Count == 0)
        {
            return;
        }

        var pidWidth = rows.Max(r => r.Pid.Length);
        var processWidth = rows.Max(r => r.Process.Length);
        var idleWidth = rows.Max(r => r.Idle.Length);
        var verdictWidth = rows.Max(r => r.Connection.Verdict.Length);

        // What is left for the two ends; where they do not fit (IPv6), idle time and verdict go to the next line.
        var fixedWidth = 2 + pidWidth + 1 + processWidth + 2 + 2 + 5 + idleWidth + 2 + verdictWidth;
        var endsWidth = Math.Min(rows.Max(r => r.Ends.Length), Math.Max(20, width - fixedWidth));
        var indent = 2 + pidWidth + 1;
        foreach (var (connection, pid, process, ends, idle) in rows)
        {
            var color = Array.Find(Verdicts, v => string.Equals(v.Verdict, connection.Verdict, StringComparison.Ordinal)).Color;
            var tail = $"idle {idle.PadLeft(idleWidth)}  ";
            var verdict = Printable.Escape(connection.Verdict);
            var head = $"  {pid.PadLeft(pidWidth)} {process.PadRight(processWidth)}  ";
            var line = new Paragraph();
            if (ends.Length <= endsWidth)
            {
                line.Append($"{head}{ends.PadRight(endsWidth)}  {tail}");
            }
            else if (head.Length + ends.Length <= width)
            {
                line.Append($"{head}{ends}\n{new string(' ', head.Length)}{tail}");
            }
            else
            {
                line.Append($"{head}{Printable.Escape(connection.Local)}\n{new string(' ', head.Length)}-> {Printable.Escape(connection.Peer)}\n{new string(' ', head.Length)}{tail}");
            }

            line.Append(verdict, new Style(color, decoration: Decoration.Bold)).Append("\n");
            console.Write(line);
            console.WriteIndented(indent, Why(connection), Style.Plain);
        }
    }

    private static string Why(ConnectionView connection)
    {
        var notes = new List<string> { connection.Why };
        if (connection.StuckSeconds is { } stuck)
        {
            notes.Add($"unanswered for {People(stuck)}");
        }

        if (connection.Keepalive == true)
        {
            notes.Add("keepalive on");
        }

        if (connection.Session is { } session)
        {
            notes.Add($"on the server [{session.BackendPid}] {session.State}"
                + (session.QuerySeconds is { } query ? $", query {People(query)}" : "")
                + (session.TransactionSeconds is { } transaction ? $", transaction {People(transaction)}" : ""));
        }

        if (connection.Unit is { } unit)
        {
            notes.Add(unit);
        }

        if (!string.Equals(connection.Namespace, "own", StringComparison.Ordinal))
        {
            notes.Add(connection.Namespace);
        }

        return string.Join("; ", notes.Where(n => n.Length > 0));
    }

    private static string ProcessName(ConnectionView connection)
    {
        var path = connection.Executable ?? "?";
        var name = path[(path.LastIndexOf('/') + 1)..];
        return name.Length == 0 ? path : name;
    }

    private static string Shorten(string text, int width) => text.Length <= width ? text : text[..(width - 1)] + "…";

    private static int Urgency(string verdict)
    {
        var index = Array.FindIndex(Verdicts, v => string.Equals(v.Verdict, verdict, StringComparison.Ordinal));
        return index < 0 ? Verdicts.Length : index;
    }
}
