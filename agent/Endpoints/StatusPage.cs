using System.Globalization;
using System.Text;
using System.Text.Encodings.Web;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Endpoints;

/// <summary>The page at <c>/</c>: plain HTML without scripts, bounded however many connections there are.</summary>
internal static class StatusPage
{
    private const int MostRows = 100;

    /// <summary>The page.</summary>
    /// <param name="snapshot">The last scan.</param>
    /// <param name="health">Whether the loop runs.</param>
    /// <param name="incidents">The newest; null for a reader who is shown neither incidents nor connections.</param>
    /// <param name="version">The agent's.</param>
    public static string Render(AgentSnapshot? snapshot, LoopHealth health, IReadOnlyList<Incident>? incidents, string version)
    {
        var html = new StringBuilder(8 * 1024);
        html.Append("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">")
            .Append("<title>conn-sidecar</title><style>body{font:15px/1.5 sans-serif;margin:2em;max-width:80em}")
            .Append("table{border-collapse:collapse;margin:.5em 0 1.5em}th,td{text-align:left;padding:.2em 1em .2em 0;border-bottom:1px solid #ccc;vertical-align:top}")
            .Append("td.n{text-align:right}.bad{color:#a00;font-weight:bold}</style></head><body>\n<h1>conn-sidecar ");
        Text(html, version);
        html.Append("</h1>\n");
        if (snapshot is null)
        {
            html.Append("<p>The first scan is not done yet.</p></body></html>\n");
            return html.ToString();
        }

        html.Append("<p>Mode <b>");
        Text(html, snapshot.Mode);
        html.Append("</b>, scan ").Append(snapshot.Scan.ToString(CultureInfo.InvariantCulture)).Append(" at ")
            .Append(Moment.ForPeople(snapshot.Time)).Append(", took ")
            .Append(snapshot.Duration.TotalMilliseconds.ToString("F1", CultureInfo.InvariantCulture)).Append(" ms. ");
        if (!health.IsTicking)
        {
            html.Append("<span class=\"bad\">The loop stands still.</span>");
        }

        html.Append("</p>\n");
        foreach (var limitation in snapshot.Limitations)
        {
            html.Append("<p class=\"bad\">");
            Text(html, limitation);
            html.Append("</p>\n");
        }

        Upstreams(html, snapshot);
        Stack(html, snapshot);
        if (incidents is not null)
        {
            Connections(html, snapshot);
            Incidents(html, incidents);
        }

        html.Append("<p><a href=\"/metrics\">metrics</a> <a href=\"/api/v1/connections\">connections</a> <a href=\"/api/v1/paths\">paths</a> ")
            .Append("<a href=\"/api/v1/incidents\">incidents</a> <a href=\"/healthz\">health</a> <a href=\"/readyz\">readiness</a></p>\n</body></html>\n");
        return html.ToString();
    }

    private static void Upstreams(StringBuilder html, AgentSnapshot snapshot)
    {
        if (snapshot.Upstreams.Count == 0)
        {
            html.Append("<h2>Upstreams</h2>\n<p>No connections to the well-known ports so far.</p>\n");
            return;
        }

        html.Append("<h2>Upstreams</h2>\n<table><tr><th>name</th><th>endpoint</th><th>path</th><th>idle timeout</th>");
        foreach (var verdict in VerdictNames.All)
        {
            html.Append("<th>").Append(verdict.ToName()).Append("</th>");
        }

        html.Append("</tr>\n");
        foreach (var upstream in snapshot.Upstreams)
        {
            var counts = new int[VerdictNames.All.Count];
            foreach (var connection in snapshot.Connections)
            {
                if (string.Equals(connection.Upstream, upstream.Name, StringComparison.Ordinal))
                {
                    counts[(int)connection.Verdict]++;
                }
            }

            html.Append("<tr><td>");
            Text(html, upstream.Name);
            html.Append("</td><td>");
            Text(html, upstream.Endpoint);
            html.Append("</td><td>").Append(upstream.PathUp switch { true => "up", false => "<span class=\"bad\">down</span>", null => "not tried" });
            html.Append("</td><td>").Append(Bounds(upstream));
            if (upstream.NotMeasured is { } why)
            {
                Text(html, $", not measured: {why}");
            }

            html.Append("</td>");
            foreach (var count in counts)
            {
                html.Append("<td class=\"n\">").Append(count.ToString(CultureInfo.InvariantCulture)).Append("</td>");
            }

            html.Append("</tr>\n");
        }

        html.Append("</table>\n");
    }

    private static void Stack(StringBuilder html, AgentSnapshot snapshot)
    {
        if (snapshot.Groups.Count == 0)
        {
            return;
        }

        html.Append("<h2>Worker groups</h2>\n<table><tr><th>name</th><th>processes</th><th>accept queues</th></tr>\n");
        foreach (var group in snapshot.Groups)
        {
            html.Append("<tr><td>");
            Text(html, group.Workers);
            html.Append("</td><td>");
            Text(html, StackText.Describe(GroupView.From(group)));
            html.Append("</td><td>");
            foreach (var listener in snapshot.Listeners.Where(l => string.Equals(l.Workers, group.Workers, StringComparison.Ordinal)).Take(MostRows))
            {
                Text(html, StackText.Describe(ListenerView.From(listener)));
                html.Append("<br>");
            }

            html.Append("</td></tr>\n");
        }

        html.Append("</table>\n");
    }

    private static void Connections(StringBuilder html, AgentSnapshot snapshot)
    {
        var noteworthy = snapshot.Connections.Where(c => c.Verdict is not (Verdict.Healthy or Verdict.Waiting)).Take(MostRows + 1).ToList();
        if (noteworthy.Count == 0)
        {
            return;
        }

        html.Append("<h2>Connections that are neither healthy nor waiting</h2>\n<table><tr><th>upstream</th><th>local</th><th>peer</th><th>owner</th><th>idle</th><th>verdict</th><th>why</th></tr>\n");
        foreach (var connection in noteworthy.Take(MostRows))
        {
            html.Append("<tr><td>");
            Text(html, connection.Upstream);
            html.Append("</td><td>").Append(connection.Local).Append("</td><td>").Append(connection.Peer).Append("</td><td>");
            Text(html, string.Create(CultureInfo.InvariantCulture, $"{connection.Executable ?? "?"} [{connection.Pid?.ToString(CultureInfo.InvariantCulture) ?? "?"}]"));
            html.Append("</td><td class=\"n\">").Append(connection.Idle.TotalSeconds.ToString("F0", CultureInfo.InvariantCulture)).Append(" s</td><td>")
                .Append(connection.Verdict.ToName()).Append("</td><td>");
            Text(html, connection.Why);
            html.Append("</td></tr>\n");
        }

        html.Append("</table>\n");
        if (noteworthy.Count > MostRows)
        {
            html.Append("<p>… and more.</p>\n");
        }
    }

    private static void Incidents(StringBuilder html, IReadOnlyList<Incident> incidents)
    {
        html.Append("<h2>Last incidents</h2>\n");
        if (incidents.Count == 0)
        {
            html.Append("<p>None.</p>\n");
            return;
        }

        html.Append("<table><tr><th>time</th><th>upstream</th><th>cause</th><th>remedy</th><th>outcome</th><th>why</th></tr>\n");
        foreach (var incident in incidents.Reverse())
        {
            html.Append("<tr><td>").Append(Moment.ForPeople(incident.Time));
            foreach (var text in new[] { incident.Upstream, incident.Cause, incident.Remedy, incident.WithheldBy is null ? incident.Outcome : $"withheld by {incident.WithheldBy}", incident.Why })
            {
                html.Append("</td><td>");
                Text(html, text);
            }

            html.Append("</td></tr>\n");
        }

        html.Append("</table>\n");
    }

    private static string Bounds(UpstreamStatus upstream) => (upstream.IdleTimeoutLower, upstream.IdleTimeoutUpper) switch
    {
        (null, null) => "not known",
        ({ } lower, null) => string.Create(CultureInfo.InvariantCulture, $"over {lower.TotalSeconds:F0} s"),
        (null, { } upper) => string.Create(CultureInfo.InvariantCulture, $"under {upper.TotalSeconds:F0} s"),
        ({ } lower, { } upper) => string.Create(CultureInfo.InvariantCulture, $"{lower.TotalSeconds:F0} to {upper.TotalSeconds:F0} s"),
    };

    private static void Text(StringBuilder html, string text) => html.Append(HtmlEncoder.Default.Encode(text));
}
