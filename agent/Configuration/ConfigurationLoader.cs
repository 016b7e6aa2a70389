using System.Net;
using System.Text.RegularExpressions;
using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Configuration;

/// <summary>Reads the configuration: all of it or nothing, with every error that there is.</summary>
internal static partial class ConfigurationLoader
{
    /// <summary>Read where no path is given.</summary>
    public const string DefaultPath = "/etc/conn-sidecar/conn-sidecar.conf";

    /// <summary>
    /// Well-known back-end ports, one upstream each, so that metrics and status tell them apart.
    /// </summary>
    private static readonly (string Name, int Port, UpstreamProtocol Protocol)[] WellKnown =
    [
        ("postgresql", 5432, UpstreamProtocol.PostgreSql),
        ("pgbouncer", 6432, UpstreamProtocol.PostgreSql),
        ("mysql", 3306, UpstreamProtocol.MySql),
        ("sqlserver", 1433, UpstreamProtocol.Tcp),
        ("oracle", 1521, UpstreamProtocol.Tcp),
        ("redis", 6379, UpstreamProtocol.Redis),
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
                    agent = SectionSettings.ReadAgent(Reader(section, ConfigurationKeys.Agent, fileErrors), warnings);
                }
                else if (HasPrefix(section, ConfigurationKeys.UpstreamPrefix, fileErrors, out var name))
                {
                    upstreams.Add(SectionSettings.ReadUpstream(Reader(section, ConfigurationKeys.Upstream, fileErrors), name, warnings));
                }
                else if (HasPrefix(section, ConfigurationKeys.WorkersPrefix, fileErrors, out name))
                {
                    workers.Add(SectionSettings.ReadWorkers(Reader(section, ConfigurationKeys.Workers, fileErrors), name));
                }
                else if (HasPrefix(section, ConfigurationKeys.HaproxyPrefix, fileErrors, out name))
                {
                    haproxies.Add(SectionSettings.ReadHaproxy(Reader(section, ConfigurationKeys.Haproxy, fileErrors), name));
                }
                else if (HasPrefix(section, ConfigurationKeys.CheckPrefix, fileErrors, out name))
                {
                    checks.Add(SectionSettings.ReadCheck(Reader(section, ConfigurationKeys.Check, fileErrors), name));
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
    internal static partial Regex SectionNamePattern();
}
