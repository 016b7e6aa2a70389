using System.Globalization;
using System.Text;
using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Configuration;

/// <summary>
/// A configuration written out in full, defaults included, in the syntax of its files: what is read back from it is
/// the same configuration.
/// </summary>
internal static class ConfigurationText
{
    public static string Write(SidecarConfiguration configuration)
    {
        var text = new StringBuilder();
        text.AppendLine(configuration.Files.Count == 0
            ? "# no configuration file: the built-in configuration"
            : $"# from {Printable.Escape(string.Join(", ", configuration.Files))}");
        var agent = configuration.Agent;
        text.AppendLine().AppendLine("[agent]");
        Line(text, "mode", Name(agent.Mode));
        Line(text, "listen", agent.Listen is null ? "none" : agent.Listen.ToString());
        if (agent.Listen is { } listen && !System.Net.IPAddress.IsLoopback(listen.Address))
        {
            Line(text, "listen-remote", "yes");
        }

        Line(text, "host-names", agent.HostNames.Count == 0 ? "none" : string.Join(", ", agent.HostNames));
        Line(text, "state-directory", agent.StateDirectory);
        Line(text, "runtime-directory", agent.RuntimeDirectory);
        Line(text, "scan-interval", Duration.Format(agent.ScanInterval));
        Line(text, "network-namespaces", agent.AllNetworkNamespaces ? "all" : "own");
        Line(text, "otlp-endpoint", agent.OtlpEndpoint?.AbsoluteUri ?? "none");

        foreach (var upstream in configuration.Upstreams)
        {
            text.AppendLine();
            if (upstream.IsBuiltIn)
            {
                text.AppendLine("# built in: every address but loopback");
            }

            text.AppendLine(CultureInfo.InvariantCulture, $"[{ConfigurationKeys.UpstreamPrefix}{upstream.Name}]");
            Line(text, "endpoint", string.Join(", ", upstream.Endpoints.Select(e => e.Text)));
            Line(text, "direction", Name(upstream.Direction));
            Line(text, "protocol", Name(upstream.Protocol));
            Line(text, "idle-timeout", Name(upstream.IdleTimeout));
            Line(text, "refreshed-by", Name(upstream.RefreshedBy));
            Line(text, "keepalive", Switch(upstream.Keepalive));
            Line(text, "recycle", Switch(upstream.Recycle));
            Line(text, "dead-after", upstream.DeadAfter is { } deadAfter ? Duration.Format(deadAfter) : "kernel");
            Line(text, "dsn-file", upstream.DsnFile);
            Line(text, "server-role", upstream.ServerRole ?? "any");
        }

        foreach (var workers in configuration.Workers)
        {
            text.AppendLine().AppendLine(CultureInfo.InvariantCulture, $"[{ConfigurationKeys.WorkersPrefix}{workers.Name}]");
            Line(text, "unit", workers.Unit);
            Line(text, "user", workers.User);
            Line(text, "executable", workers.Executable);
            Line(text, "terminate", Switch(workers.Terminate));
            Line(text, "grace", Duration.Format(workers.Grace));
            Line(text, "budget", Name(workers.Budget));
        }

        foreach (var haproxy in configuration.Haproxies)
        {
            text.AppendLine().AppendLine(CultureInfo.InvariantCulture, $"[{ConfigurationKeys.HaproxyPrefix}{haproxy.Name}]");
            Line(text, "socket", haproxy.Socket);
        }

        foreach (var check in configuration.Checks)
        {
            text.AppendLine().AppendLine(CultureInfo.InvariantCulture, $"[{ConfigurationKeys.CheckPrefix}{check.Name}]");
            Line(text, "expected-command", Name(check.Expected));
            Line(text, "expected-query", check.Expected.Query);
            Line(text, "actual-command", Name(check.Actual));
            Line(text, "actual-query", check.Actual.Query);
            Line(text, "upstream", check.Upstream);
            Line(text, "user", check.User);
            Line(text, "interval", Duration.Format(check.Interval));
            Line(text, "timeout", Duration.Format(check.Timeout));
        }

        return text.ToString();
    }

    private static string? Name(CheckSide side) => side.Command is { } words ? CommandLine.Join(words) : null;

    public static string Name(AgentMode mode) => mode == AgentMode.Protect ? "protect" : "observe";

    public static string Name(UpstreamDirection direction) => direction == UpstreamDirection.Outbound ? "outbound" : "inbound";

    public static string Name(IdleClock clock) => clock == IdleClock.Data ? "data" : "segments";

    public static string Name(UpstreamProtocol protocol) => protocol switch
    {
        UpstreamProtocol.PostgreSql => "postgresql",
        UpstreamProtocol.MySql => "mysql",
        UpstreamProtocol.Redis => "redis",
        UpstreamProtocol.Http => "http",
        UpstreamProtocol.Tls => "tls",
        _ => "tcp",
    };

    public static string Name(IdleTimeoutSetting setting) => setting.Source switch
    {
        IdleTimeoutSource.Measure => "measure",
        IdleTimeoutSource.None => "none",
        _ => Duration.Format(setting.Value),
    };

    public static string Name(TerminationBudget budget) => string.Create(CultureInfo.InvariantCulture, $"{budget.Count}/{Duration.Format(budget.Period)}");

    private static string Switch(bool on) => on ? "on" : "off";

    private static void Line(StringBuilder text, string key, string? value)
    {
        if (value is not null)
        {
            text.Append(key).Append(" = ").AppendLine(Printable.Escape(value));
        }
    }
}
