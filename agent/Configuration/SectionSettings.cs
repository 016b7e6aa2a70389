using System.Net;
using System.Text.RegularExpressions;
using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Files;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Configuration;

/// <summary>What each kind of section says: its keys made values, with an error for each that is none.</summary>
internal static partial class SectionSettings
{
    // sockaddr_un.sun_path has 108 bytes with its terminating NUL; "/control.sock" and the ".new" of its making go there too.
    private const int MaxRuntimeDirectory = 90;
    private const int MaxPath = 1024;

    public static AgentSection ReadAgent(SectionReader reader, List<ConfigurationError> warnings)
    {
        var defaults = new AgentSection();
        var listen = defaults.Listen;
        var remote = reader.Switch("listen-remote", false, "yes", "no");
        var entry = reader.Find("listen");
        if (entry is not null)
        {
            if (string.Equals(entry.Value, "none", StringComparison.OrdinalIgnoreCase))
            {
                listen = null;
            }
            else if (!EndpointSyntax.TryParseEndPoint(entry.Value, out listen))
            {
                reader.Reject(entry, "none or ADDRESS:PORT such as 127.0.0.1:10042 or [::1]:10042");
            }
            else if (!remote && !IPAddress.IsLoopback(listen!.Address))
            {
                // What is shown there (process names, addresses, incidents) is nobody's business by default.
                reader.Reject(entry, "a loopback address, or a further line \"listen-remote = yes\" to serve other hosts");
            }
        }

        if (remote && (listen is null || IPAddress.IsLoopback(listen.Address)) && reader.Find("listen-remote") is { } unused)
        {
            warnings.Add(new ConfigurationError(unused.File, unused.Line, reader.SectionName, unused.Key, "has no effect: listen names no address that other hosts reach"));
        }

        return new AgentSection
        {
            Mode = reader.Choice("mode", defaults.Mode, ("observe", AgentMode.Observe), ("protect", AgentMode.Protect)),
            Listen = listen,
            HostNames = ReadHostNames(reader),
            StateDirectory = reader.AbsolutePath("state-directory", defaults.StateDirectory, MaxPath)!,
            RuntimeDirectory = reader.AbsolutePath("runtime-directory", defaults.RuntimeDirectory, MaxRuntimeDirectory)!,
            ScanInterval = reader.Time("scan-interval", defaults.ScanInterval, ConfigurationKeys.ScanInterval),
            AllNetworkNamespaces = reader.Choice("network-namespaces", defaults.AllNetworkNamespaces, ("all", true), ("own", false)),
            OtlpEndpoint = ReadOtlpEndpoint(reader),
        };
    }

    private static string[] ReadHostNames(SectionReader reader)
    {
        if (reader.Find("host-names") is not { } entry || string.Equals(entry.Value, "none", StringComparison.OrdinalIgnoreCase))
        {
            return [];
        }

        var names = entry.Value.Split(',', StringSplitOptions.TrimEntries);
        foreach (var name in names.Where(name => !EndpointSyntax.IsHostName(name)))
        {
            reader.Reject(entry with { Value = name }, "none or host names without a port, separated by commas, such as app1.example.org");
        }

        return names;
    }

    private static Uri? ReadOtlpEndpoint(SectionReader reader)
    {
        if (reader.Find("otlp-endpoint") is not { } entry || string.Equals(entry.Value, "none", StringComparison.OrdinalIgnoreCase))
        {
            return null;
        }

        if (!Uri.TryCreate(entry.Value, UriKind.Absolute, out var uri) || uri.Scheme is not ("http" or "https")
            || uri.Host.Length == 0 || uri.UserInfo.Length > 0 || uri.Query.Length > 0 || uri.Fragment.Length > 0)
        {
            reader.Reject(entry, "none or a URL such as http://127.0.0.1:4318");
            return null;
        }

        // A collector's address alone means its usual path, as in the OTEL_EXPORTER_OTLP_ENDPOINT of other programs.
        return uri.AbsolutePath == "/" ? new Uri(uri, "v1/metrics") : uri;
    }

    public static UpstreamSection ReadUpstream(SectionReader reader, string name, List<ConfigurationError> warnings)
    {
        var upstream = new UpstreamSection { Name = name, Endpoints = ReadEndpoints(reader) };
        upstream = upstream with
        {
            Direction = reader.Choice("direction", upstream.Direction, ("outbound", UpstreamDirection.Outbound), ("inbound", UpstreamDirection.Inbound)),
            Protocol = reader.Choice(
                "protocol", upstream.Protocol, ("tcp", UpstreamProtocol.Tcp), ("postgresql", UpstreamProtocol.PostgreSql), ("mysql", UpstreamProtocol.MySql),
                ("redis", UpstreamProtocol.Redis), ("http", UpstreamProtocol.Http), ("tls", UpstreamProtocol.Tls)),
            IdleTimeout = ReadIdleTimeout(reader, upstream.IdleTimeout),
            RefreshedBy = reader.Choice("refreshed-by", upstream.RefreshedBy, ("segments", IdleClock.Segments), ("data", IdleClock.Data)),
            Keepalive = reader.Switch("keepalive", upstream.Keepalive),
            Recycle = reader.Switch("recycle", upstream.Recycle),
            DeadAfter = ReadDeadAfter(reader),
            DsnFile = reader.AbsolutePath("dsn-file", null, MaxPath),
            ServerRole = reader.Choice<string?>("server-role", null, ("any", null), ("primary", "primary"), ("standby", "standby")),
        };

        if (upstream.DsnFile is { } dsn && reader.Find("dsn-file") is { } entry)
        {
            if (upstream.Protocol != UpstreamProtocol.PostgreSql)
            {
                reader.Reject(entry, "\"protocol = postgresql\" beside a dsn-file (no other protocol has sessions to look at)");
            }
            else if (DsnFileProblem(dsn) is { } problem)
            {
                warnings.Add(new ConfigurationError(entry.File, entry.Line, reader.SectionName, entry.Key, problem));
            }
        }

        if (upstream.ServerRole is not null && upstream.DsnFile is null && reader.Find("server-role") is { } role)
        {
            reader.Reject(role, "a dsn-file beside server-role: without it nobody can ask the server");
        }

        return upstream;
    }

    /// <summary>The file is read when it is needed, so its absence does not keep the agent from starting; it is told, though.</summary>
    private static string? DsnFileProblem(string path) =>
        SecretFile.Problem(path) is { } problem ? $"{problem}; PostgreSQL sessions will not be looked at" : null;

    private static List<EndpointPattern> ReadEndpoints(SectionReader reader)
    {
        var endpoints = new List<EndpointPattern>();
        if (reader.Find("endpoint") is not { } entry)
        {
            reader.RejectSection("endpoint", $"expected a line \"endpoint = …\" with {EndpointSyntax.Expected}");
            return endpoints;
        }

        foreach (var item in entry.Value.Split(',', StringSplitOptions.TrimEntries))
        {
            if (EndpointSyntax.TryParse(item, out var pattern, out var problem))
            {
                endpoints.Add(pattern!);
            }
            else
            {
                reader.Reject(entry with { Value = item }, problem);
            }
        }

        return endpoints;
    }

    private static TimeSpan? ReadDeadAfter(SectionReader reader)
    {
        if (reader.Find("dead-after") is not { } entry || string.Equals(entry.Value, "kernel", StringComparison.OrdinalIgnoreCase))
        {
            return null;
        }

        if (Duration.TryParse(entry.Value, out var value) && ConfigurationKeys.DeadAfter.Contains(value))
        {
            return value;
        }

        reader.Reject(entry, $"kernel or a duration of {ConfigurationKeys.DeadAfter}");
        return null;
    }

    private static IdleTimeoutSetting ReadIdleTimeout(SectionReader reader, IdleTimeoutSetting fallback)
    {
        if (reader.Find("idle-timeout") is not { } entry)
        {
            return fallback;
        }

        if (string.Equals(entry.Value, "measure", StringComparison.OrdinalIgnoreCase))
        {
            return new IdleTimeoutSetting(IdleTimeoutSource.Measure, TimeSpan.Zero);
        }

        if (string.Equals(entry.Value, "none", StringComparison.OrdinalIgnoreCase))
        {
            return new IdleTimeoutSetting(IdleTimeoutSource.None, TimeSpan.Zero);
        }

        if (Duration.TryParse(entry.Value, out var value) && ConfigurationKeys.IdleTimeout.Contains(value))
        {
            return new IdleTimeoutSetting(IdleTimeoutSource.Declared, value);
        }

        reader.Reject(entry, $"measure, none or a duration of {ConfigurationKeys.IdleTimeout}");
        return fallback;
    }

    public static WorkersSection ReadWorkers(SectionReader reader, string name)
    {
        var defaults = new WorkersSection { Name = name };
        var workers = new WorkersSection
        {
            Name = name,
            Unit = reader.Text("unit", "the name of a unit that ends in .service or .scope, such as uwsgi.service", UnitPattern().IsMatch),
            User = reader.Text("user", "a user name or numeric user id", UserPattern().IsMatch),
            Executable = reader.Text("executable", "an absolute path or a file name without slashes", IsExecutable),
            Terminate = reader.Switch("terminate", defaults.Terminate),
            Grace = reader.Time("grace", defaults.Grace, ConfigurationKeys.Grace),
            Budget = reader.Budget("budget", defaults.Budget),
        };

        // Criteria that are given must all hold, so without any the group would be every process of the host.
        if (reader.Find("unit") is null && reader.Find("user") is null && reader.Find("executable") is null)
        {
            reader.RejectSection(null, "expected at least one of unit, user or executable"
                + (workers.Terminate ? " beside \"terminate = on\"" : "") + ", got none: every process of the host would be meant");
        }
        else if (workers.Terminate && reader.Find("unit") is null && reader.Find("user") is null)
        {
            // Any user may run the same program, or a copy of it under the same name.
            reader.RejectSection(null, "expected unit or user beside \"terminate = on\", got executable alone: anybody may run a program of that name; add \"user = …\" or \"unit = …\"");
        }

        return workers;
    }

    public static HaproxySection ReadHaproxy(SectionReader reader, string name)
    {
        // sockaddr_un.sun_path has 108 bytes with its terminating NUL.
        var socket = reader.AbsolutePath("socket", null, 107);
        if (reader.Find("socket") is null)
        {
            reader.RejectSection("socket", "expected a line \"socket = …\" with the path of HAProxy's stats socket");
        }

        return new HaproxySection(name, socket ?? "");
    }

    public static CheckSection ReadCheck(SectionReader reader, string name)
    {
        var check = new CheckSection { Name = name, Expected = ReadSide(reader, "expected"), Actual = ReadSide(reader, "actual") };
        check = check with
        {
            Upstream = reader.Text("upstream", "the name of an upstream", ConfigurationLoader.SectionNamePattern().IsMatch),
            User = reader.Text("user", "a user name or numeric user id", UserPattern().IsMatch),
            Interval = reader.Time("interval", check.Interval, ConfigurationKeys.CheckInterval),
            Timeout = reader.Time("timeout", check.Timeout, ConfigurationKeys.CheckTimeout),
        };
        var asks = check.Expected.Query is not null || check.Actual.Query is not null;
        if (asks && reader.Find("upstream") is null)
        {
            reader.RejectSection("upstream", "expected a line \"upstream = NAME\" beside a query: whose dsn-file is to be used?");
        }

        return check;
    }

    /// <summary>One of the two is needed, and not both.</summary>
    private static CheckSide ReadSide(SectionReader reader, string side)
    {
        var command = reader.Find(side + "-command");
        var query = reader.Find(side + "-query");
        if ((command is null) == (query is null))
        {
            reader.RejectSection(side + "-command", $"expected either {side}-command or {side}-query, got {(command is null ? "neither" : "both")}");
        }

        IReadOnlyList<string>? words = null;
        if (command is not null && !CommandLine.TrySplit(command.Value, out words))
        {
            reader.Reject(command, "the absolute path of a program and its arguments, such as /usr/bin/dpkg-query -W \"my package\"; no shell reads it");
        }

        if (query is { Value.Length: 0 })
        {
            reader.Reject(query, "an SQL query whose first column is a text");
        }

        return new CheckSide(words, query?.Value);
    }

    private static bool IsExecutable(string value) => value.Length is > 0 and <= MaxPath
        && (value[0] == '/' ? value[^1] != '/' : !value.Contains('/', StringComparison.Ordinal));

    // \z, not $: $ also matches before a final newline.
    [GeneratedRegex(@"^[A-Za-z0-9:_.\\@-]{1,240}\.(service|scope)\z", RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 1000)]
    private static partial Regex UnitPattern();

    [GeneratedRegex(@"^([A-Za-z_][A-Za-z0-9_.-]{0,31}\$?|[0-9]{1,10})\z", RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 1000)]
    private static partial Regex UserPattern();
}
