using System.Net;
using System.Text.RegularExpressions;

namespace Sidecar.Agent.Configuration;

/// <summary>Reads the configuration: all of it or nothing, with every error that there is.</summary>
internal static partial class ConfigurationLoader
{
    /// <summary>Read where no path is given.</summary>
    public const string DefaultPath = "/etc/conn-sidecar/conn-sidecar.conf";

    // sockaddr_un.sun_path has 108 bytes with its terminating NUL; "/control.sock" and the ".new" of its making go there too.
    private const int MaxRuntimeDirectory = 90;
    private const int MaxPath = 1024;

    /// <summary>
    /// Well-known back-end ports, one upstream each, so that metrics and status tell them apart.
    /// </summary>
    private static readonly (string Name, int Port, UpstreamProtocol Protocol)[] WellKnown =
    [
        ("postgresql", 5432, UpstreamProtocol.PostgreSql),
        ("pgbouncer", 6432, UpstreamProtocol.PostgreSql),
        ("mysql", 3306, UpstreamProtocol.Tcp),
        ("sqlserver", 1433, UpstreamProtocol.Tcp),
        ("oracle", 1521, UpstreamProtocol.Tcp),
        ("redis", 6379, UpstreamProtocol.Tcp),
        ("mongodb", 27017, UpstreamProtocol.Tcp),
        ("amqp", 5672, UpstreamProtocol.Tcp),
        ("cassandra", 9042, UpstreamProtocol.Tcp),
        ("memcached", 11211, UpstreamProtocol.Tcp),
    ];

    /// <summary>
    /// What is in force without any file: outbound connections to well-known back-end ports are kept alive and
    /// recycled; nothing is ever terminated.
    /// </summary>
    public static SidecarConfiguration BuiltIn() => new()
    {
        Agent = new AgentSection(),
        Upstreams = BuiltInUpstreams(),
        Workers = [],
        Files = [],
    };

    /// <summary>The file at <see cref="DefaultPath"/> with its <c>conf.d</c>; without that file the built-in configuration.</summary>
    /// <exception cref="ConfigurationException">The file is there and cannot be used.</exception>
    public static SidecarConfiguration LoadDefault() => LoadOrBuiltIn(DefaultPath);

    /// <summary>Like <see cref="LoadDefault"/> for a default path of the caller's.</summary>
    public static SidecarConfiguration LoadOrBuiltIn(string path)
    {
        // File.Exists says no to what it may not see, which must not read as "there is none": ask for the attributes.
        try
        {
            _ = File.GetAttributes(path);
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            return BuiltIn();
        }
        catch (Exception e) when (e is UnauthorizedAccessException or IOException)
        {
            throw new ConfigurationException([Unreadable(path, e)]);
        }

        return Load(path);
    }

    /// <summary>
    /// Reads the file and, in ordinal order of their names, the files <c>conf.d/*.conf</c> beside it.
    /// A file without any <c>[upstream:…]</c> section keeps the built-in upstreams.
    /// </summary>
    /// <exception cref="ConfigurationException">Carries all errors of all files.</exception>
    public static SidecarConfiguration Load(string path)
    {
        var errors = new List<ConfigurationError>();
        var files = new List<(string File, byte[] Content)>();
        ReadInto(files, errors, path);
        foreach (var more in FilesBeside(path, errors))
        {
            ReadInto(files, errors, more);
        }

        return Build(files, errors);
    }

    /// <summary>Reads one text as if it were a file alone.</summary>
    /// <exception cref="ConfigurationException">Carries all errors, each with its line.</exception>
    public static SidecarConfiguration Parse(string file, byte[] content) => Build([(file, content)], []);

    private static IReadOnlyList<UpstreamSection> BuiltInUpstreams() =>
    [
        .. WellKnown.Select(w => new UpstreamSection
        {
            Name = w.Name,
            Endpoints =
            [
                new EndpointPattern($"0.0.0.0/0:{w.Port}", null, new IPNetwork(IPAddress.Any, 0), w.Port),
                new EndpointPattern($"[::/0]:{w.Port}", null, new IPNetwork(IPAddress.IPv6Any, 0), w.Port),
            ],
            Protocol = w.Protocol,
            IsBuiltIn = true,
        }),
    ];

    private static ConfigurationError Unreadable(string path, Exception e) => new(path, 0, null, null, e switch
    {
        UnauthorizedAccessException when Directory.Exists(path) => "expected a file, got a directory",
        FileNotFoundException or DirectoryNotFoundException => "expected a configuration file, found nothing there",
        UnauthorizedAccessException => "expected a readable file, got: permission denied",
        _ => $"expected a readable file, got: {e.Message}",
    });

    private static List<string> FilesBeside(string path, List<ConfigurationError> errors)
    {
        var directory = Path.Combine(Path.GetDirectoryName(Path.GetFullPath(path)) ?? "/", "conf.d");
        try
        {
            var found = Directory.GetFiles(directory, "*.conf").ToList();
            found.Sort(StringComparer.Ordinal);
            return found;
        }
        catch (DirectoryNotFoundException)
        {
            return [];
        }
        catch (Exception e) when (e is UnauthorizedAccessException or IOException)
        {
            // A file (not a directory) of that name, or one that may not be listed: sections could be missing unnoticed.
            errors.Add(new ConfigurationError(directory, 0, null, null, $"expected a readable directory, got: {e.Message}"));
            return [];
        }
    }

    private static void ReadInto(List<(string File, byte[] Content)> files, List<ConfigurationError> errors, string path)
    {
        try
        {
            using var stream = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete, bufferSize: 0);
            var buffer = new byte[IniDocument.MaxFileBytes + 1];
            var length = stream.ReadAtLeast(buffer, buffer.Length, throwOnEndOfStream: false);
            if (length > IniDocument.MaxFileBytes)
            {
                errors.Add(new ConfigurationError(path, 0, null, null, "expected a file of at most 1 MB, got a larger one"));
                return;
            }

            files.Add((path, buffer[..length]));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
        {
            errors.Add(Unreadable(path, e));
        }
    }

    private static SidecarConfiguration Build(List<(string File, byte[] Content)> files, List<ConfigurationError> errors)
    {
        var warnings = new List<ConfigurationError>();
        var seen = new Dictionary<string, IniSection>(StringComparer.Ordinal);
        var agent = new AgentSection();
        var upstreams = new List<UpstreamSection>();
        var workers = new List<WorkersSection>();
        var haproxies = new List<HaproxySection>();
        var checks = new List<CheckSection>();
        foreach (var (file, content) in files)
        {
            var document = IniDocument.Parse(file, content);
            var fileErrors = new List<ConfigurationError>(document.Errors);
            foreach (var section in document.Sections)
            {
                if (!seen.TryAdd(section.Name, section))
                {
                    var first = seen[section.Name];
                    fileErrors.Add(new ConfigurationError(section.File, section.Line, section.Name, null,
                        $"expected each section once, got it again (first at {first.File}:{first.Line})"));
                }

                if (string.Equals(section.Name, ConfigurationKeys.AgentSection, StringComparison.Ordinal))
                {
                    agent = ReadAgent(Reader(section, ConfigurationKeys.Agent, fileErrors), warnings);
                }
                else if (HasPrefix(section, ConfigurationKeys.UpstreamPrefix, fileErrors, out var name))
                {
                    upstreams.Add(ReadUpstream(Reader(section, ConfigurationKeys.Upstream, fileErrors), name, warnings));
                }
                else if (HasPrefix(section, ConfigurationKeys.WorkersPrefix, fileErrors, out name))
                {
                    workers.Add(ReadWorkers(Reader(section, ConfigurationKeys.Workers, fileErrors), name));
                }
                else if (HasPrefix(section, ConfigurationKeys.HaproxyPrefix, fileErrors, out name))
                {
                    haproxies.Add(ReadHaproxy(Reader(section, ConfigurationKeys.Haproxy, fileErrors), name));
                }
                else if (HasPrefix(section, ConfigurationKeys.CheckPrefix, fileErrors, out name))
                {
                    checks.Add(ReadCheck(Reader(section, ConfigurationKeys.Check, fileErrors), name));
                }
                else
                {
                    fileErrors.Add(UnknownSection(section));
                }
            }

            errors.AddRange(fileErrors.OrderBy(e => e.Line));
        }

        foreach (var check in checks.Where(check => check.Upstream is not null && !upstreams.Exists(upstream => upstream.Name == check.Upstream && upstream.DsnFile is not null)))
        {
            var place = seen[ConfigurationKeys.CheckPrefix + check.Name];
            errors.Add(new ConfigurationError(place.File, place.Line, place.Name, "upstream", $"expected the name of an upstream that has a dsn-file, got {Printable.Quote(check.Upstream!)}"));
        }

        if (errors.Count > 0)
        {
            throw new ConfigurationException(errors);
        }

        WarnOfOverlaps(upstreams, seen, warnings);
        return new SidecarConfiguration
        {
            Agent = agent,
            Upstreams = upstreams.Count > 0 ? upstreams : BuiltInUpstreams(),
            Workers = workers,
            Haproxies = haproxies,
            Checks = checks,
            Files = [.. files.Select(f => f.File)],
            Warnings = [.. warnings.Select(w => w.ToString())],
        };
    }

    private static SectionReader Reader(IniSection section, IReadOnlyList<string> keys, List<ConfigurationError> errors)
    {
        var reader = new SectionReader(section, keys, errors);
        reader.ReportUnknownKeys();
        return reader;
    }

    private static bool HasPrefix(IniSection section, string prefix, List<ConfigurationError> errors, out string name)
    {
        name = "";
        if (!section.Name.StartsWith(prefix, StringComparison.Ordinal))
        {
            return false;
        }

        name = section.Name[prefix.Length..];
        if (!SectionNamePattern().IsMatch(name))
        {
            errors.Add(new ConfigurationError(section.File, section.Line, section.Name, null,
                $"expected a name of 1 to 64 characters of A-Z a-z 0-9 . _ - after \"{prefix}\", got {Printable.Quote(name)}"));
        }

        return true;
    }

    private static ConfigurationError UnknownSection(IniSection section)
    {
        const string expected = "expected [agent], [upstream:NAME], [workers:NAME], [haproxy:NAME] or [check:NAME]";
        var colon = section.Name.IndexOf(':', StringComparison.Ordinal);
        var kind = colon < 0 ? section.Name : section.Name[..colon].TrimEnd();
        var hint = ConfigurationKeys.Nearest(kind, ["agent", "upstream", "workers", "haproxy", "check"]) switch
        {
            "agent" => "; did you mean [agent]?",
            { } near => $"; did you mean [{near}:{(colon >= 0 && colon + 1 < section.Name.Length ? section.Name[(colon + 1)..].Trim() : "NAME")}]?",
            null => "",
        };
        return new ConfigurationError(section.File, section.Line, null, null, $"{expected}, got {Printable.Quote($"[{section.Name}]")}{hint}");
    }

    private static AgentSection ReadAgent(SectionReader reader, List<ConfigurationError> warnings)
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
            StateDirectory = reader.AbsolutePath("state-directory", defaults.StateDirectory, MaxPath)!,
            RuntimeDirectory = reader.AbsolutePath("runtime-directory", defaults.RuntimeDirectory, MaxRuntimeDirectory)!,
            ScanInterval = reader.Time("scan-interval", defaults.ScanInterval, ConfigurationKeys.ScanInterval),
            AllNetworkNamespaces = reader.Choice("network-namespaces", defaults.AllNetworkNamespaces, ("all", true), ("own", false)),
            OtlpEndpoint = ReadOtlpEndpoint(reader),
        };
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

    private static UpstreamSection ReadUpstream(SectionReader reader, string name, List<ConfigurationError> warnings)
    {
        var upstream = new UpstreamSection { Name = name, Endpoints = ReadEndpoints(reader) };
        upstream = upstream with
        {
            Direction = reader.Choice("direction", upstream.Direction, ("outbound", UpstreamDirection.Outbound), ("inbound", UpstreamDirection.Inbound)),
            Protocol = reader.Choice("protocol", upstream.Protocol, ("tcp", UpstreamProtocol.Tcp), ("postgresql", UpstreamProtocol.PostgreSql)),
            IdleTimeout = ReadIdleTimeout(reader, upstream.IdleTimeout),
            RefreshedBy = reader.Choice("refreshed-by", upstream.RefreshedBy, ("segments", IdleClock.Segments), ("data", IdleClock.Data)),
            Keepalive = reader.Switch("keepalive", upstream.Keepalive),
            Recycle = reader.Switch("recycle", upstream.Recycle),
            DeadAfter = reader.Time("dead-after", upstream.DeadAfter, ConfigurationKeys.DeadAfter),
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
    private static string? DsnFileProblem(string path)
    {
        try
        {
            const UnixFileMode others = UnixFileMode.OtherRead | UnixFileMode.OtherWrite | UnixFileMode.GroupWrite;
            return (File.GetUnixFileMode(path) & others) != UnixFileMode.None
                ? $"{path} holds a password and can be read or written by others; use mode 0600 or 0640"
                : null;
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            return $"{path} does not exist; PostgreSQL sessions will not be looked at";
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Somebody without privileges checks the configuration: whether the agent may read it is not to be seen from here.
            return null;
        }
    }

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

    private static WorkersSection ReadWorkers(SectionReader reader, string name)
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

        return workers;
    }

    private static HaproxySection ReadHaproxy(SectionReader reader, string name)
    {
        // sockaddr_un.sun_path has 108 bytes with its terminating NUL.
        var socket = reader.AbsolutePath("socket", null, 107);
        if (reader.Find("socket") is null)
        {
            reader.RejectSection("socket", "expected a line \"socket = …\" with the path of HAProxy's stats socket");
        }

        return new HaproxySection(name, socket ?? "");
    }

    private static CheckSection ReadCheck(SectionReader reader, string name)
    {
        var check = new CheckSection { Name = name, Expected = ReadSide(reader, "expected"), Actual = ReadSide(reader, "actual") };
        check = check with
        {
            Upstream = reader.Text("upstream", "the name of an upstream", SectionNamePattern().IsMatch),
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

    private static void WarnOfOverlaps(List<UpstreamSection> upstreams, Dictionary<string, IniSection> sections, List<ConfigurationError> warnings)
    {
        var taken = new Dictionary<(string Target, int Port, UpstreamDirection Direction), string>();
        foreach (var upstream in upstreams)
        {
            var place = sections[ConfigurationKeys.UpstreamPrefix + upstream.Name];
            foreach (var endpoint in upstream.Endpoints)
            {
                var target = endpoint.Network?.ToString() ?? endpoint.Host!.ToLowerInvariant();
                if (!taken.TryAdd((target, endpoint.Port, upstream.Direction), upstream.Name))
                {
                    warnings.Add(new ConfigurationError(place.File, place.Line, place.Name, "endpoint",
                        $"{endpoint.Text} is already named by [upstream:{taken[(target, endpoint.Port, upstream.Direction)]}], which comes first"));
                }
            }
        }
    }

    // \z, not $: $ also matches before a final newline.
    [GeneratedRegex(@"^[A-Za-z0-9._-]{1,64}\z", RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 1000)]
    private static partial Regex SectionNamePattern();

    [GeneratedRegex(@"^[A-Za-z0-9:_.\\@-]{1,240}\.(service|scope)\z", RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 1000)]
    private static partial Regex UnitPattern();

    [GeneratedRegex(@"^([A-Za-z_][A-Za-z0-9_.-]{0,31}\$?|[0-9]{1,10})\z", RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 1000)]
    private static partial Regex UserPattern();
}
