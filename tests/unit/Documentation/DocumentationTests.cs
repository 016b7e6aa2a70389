using System.Diagnostics.Metrics;
using System.Text.RegularExpressions;
using Shouldly;
using Sidecar.Agent.Commands;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Telemetry;
using Xunit;

namespace Sidecar.UnitTests.Documentation;

/// <summary>Keeps the documentation true where a machine can tell.</summary>
public sealed partial class DocumentationTests
{
    internal static readonly string Root = FindRoot();

    /// <summary>As which connect probes fail to log in (ServerFarewell): a user, and no metric.</summary>
    private const string MySqlUser = "conn_sidecar_probe";

    private static readonly string[] CodeFolders = ["agent", "probes", "tests", "packaging", "scripts"];

    private static readonly string Pages = string.Join('\n', MarkdownFiles().Select(File.ReadAllText));

    [Fact]
    public void Every_configuration_key_is_documented()
    {
        var places = Read("README.md") + Read("packaging/deb/conn-sidecar.conf");
        foreach (var key in ConfigurationKeys.All)
        {
            Regex.IsMatch(places, $"^#?{Regex.Escape(key)} =", RegexOptions.Multiline | RegexOptions.CultureInvariant, TimeSpan.FromSeconds(1))
                .ShouldBeTrue($"README or the sample file shows no line \"{key} = …\"");
        }
    }

    [Fact]
    public void What_a_mutant_takes_out_stands_in_the_source_exactly_once()
    {
        var file = "";
        var (taken, ofWhatActs) = (0, 0);
        foreach (var line in Read("tests/mutants.txt").Split('\n'))
        {
            file = line.StartsWith("file: ", StringComparison.Ordinal) ? line["file: ".Length..] : file;
            if (line.StartsWith("take: ", StringComparison.Ordinal))
            {
                taken++;
                ofWhatActs += file.StartsWith("agent/Core/Remedies/", StringComparison.Ordinal) || file.StartsWith("agent/Action/", StringComparison.Ordinal) ? 1 : 0;
                Read(file).Split(line["take: ".Length..]).Length.ShouldBe(2, $"{file}: {line}");
            }
        }

        taken.ShouldBeGreaterThanOrEqualTo(120);
        ofWhatActs.ShouldBeGreaterThanOrEqualTo(40);
    }

    [Fact]
    public void The_configuration_in_the_README_loads_without_a_warning()
    {
        var block = ConfigurationBlock().Match(Read("README.md"));
        block.Success.ShouldBeTrue("the README shows a configuration");
        var configuration = ConfigurationLoader.Parse("README.md", System.Text.Encoding.UTF8.GetBytes(block.Groups["text"].Value));
        configuration.Warnings.ShouldBeEmpty();
        configuration.Upstreams.ShouldNotBeEmpty();
        configuration.Workers.ShouldNotBeEmpty();
    }

    [Fact]
    public void Every_verdict_is_explained_in_the_README_and_in_how_it_decides()
    {
        foreach (var verdict in VerdictNames.All)
        {
            Read("README.md").ShouldContain($"| `{verdict.ToName()}` |", Case.Sensitive);
            Read("docs/how-it-decides.md").ShouldContain($"| `{verdict.ToName()}` |", Case.Sensitive);
        }
    }

    [Fact]
    public void Every_guardrail_is_explained_with_the_safety_and_listed_with_the_metrics()
    {
        foreach (var guardrail in Enum.GetValues<Guardrail>())
        {
            Read("docs/safety.md").ShouldContain($"(`{guardrail.ToName()}`)", Case.Sensitive);
            Read("docs/metrics.md").ShouldContain($"`{guardrail.ToName()}`", Case.Sensitive);
        }
    }

    [Theory]
    [InlineData("README.md", 180)]
    [InlineData("ARCHITECTURE.md", 80)]
    public void A_page_is_short_enough_to_be_read_to_its_end(string page, int most) => File.ReadAllLines(Path.Combine(Root, page)).Length.ShouldBeLessThanOrEqualTo(most);

    [Fact]
    public void A_decision_is_one_page()
    {
        foreach (var page in Directory.GetFiles(Path.Combine(Root, "docs/decisions"), "*.md"))
        {
            File.ReadAllLines(page).Length.ShouldBeLessThanOrEqualTo(60, Path.GetFileName(page));
        }
    }

    [Fact]
    public void Pages_use_the_terms_of_the_field()
    {
        // A verb is no term: "look at the log" may stand in a page for people.
        foreach (var page in MarkdownFiles().Where(page => !page.EndsWith("benchmarks.md", StringComparison.Ordinal)))
        {
            InventedWord().Matches(File.ReadAllText(page)).Select(match => match.Value).ShouldBeEmpty(Path.GetRelativePath(Root, page));
        }
    }

    [Fact]
    public void Every_remedy_is_listed_with_the_metrics()
    {
        foreach (var remedy in Enum.GetValues<Remedy>().Where(remedy => remedy != Remedy.None))
        {
            Read("docs/metrics.md").ShouldContain($"`{remedy.ToName()}`", Case.Sensitive);
        }
    }

    [Fact]
    public void No_page_names_a_metric_that_is_not_there()
    {
        string[] suffixes = ["", "_bucket", "_sum", "_count"];
        var known = Metrics().SelectMany(metric => suffixes.Select(suffix => metric + suffix)).ToHashSet(StringComparer.Ordinal);
        var named = MetricName().Matches(Pages).Select(match => match.Value).Distinct(StringComparer.Ordinal);
        named.Where(name => !known.Contains(name) && name != MySqlUser).ShouldBeEmpty();
    }

    [Fact]
    public void Every_make_target_that_a_page_names_is_in_the_Makefile()
    {
        var targets = MakefileTarget().Matches(Read("Makefile")).Select(match => match.Groups["target"].Value).ToHashSet(StringComparer.Ordinal);
        var named = MakeCommand().Matches(Pages).Select(match => match.Groups["target"].Value).Distinct(StringComparer.Ordinal).ToList();
        named.ShouldContain("demo");
        named.ShouldContain("test");
        named.Where(target => !targets.Contains(target)).ShouldBeEmpty();
    }

    [Fact]
    public void Every_command_that_a_page_names_is_there()
    {
        var commands = CommandTree.Build(CommandEnvironment.OfProcess()).Subcommands.Where(command => !command.Hidden).Select(command => command.Name).ToHashSet(StringComparer.Ordinal);
        var named = CommandName().Matches(Pages).Select(match => match.Groups["command"].Value).Distinct(StringComparer.Ordinal).ToList();
        named.ShouldContain("status");
        named.Where(command => !commands.Contains(command)).ShouldBeEmpty();
        foreach (var command in commands)
        {
            Pages.ShouldContain($"`{command}`", Case.Sensitive, $"no page names the command {command}");
        }
    }

    [Fact]
    public void Every_relative_link_leads_to_a_file_and_a_heading()
    {
        var broken = new List<string>();
        foreach (var page in MarkdownFiles())
        {
            foreach (Match link in Link().Matches(File.ReadAllText(page)))
            {
                var target = link.Groups["target"].Value;
                if (target.Contains("://", StringComparison.Ordinal))
                {
                    continue;
                }

                var parts = target.Split('#', 2);
                var file = parts[0].Length == 0 ? page : Path.GetFullPath(Path.Combine(Path.GetDirectoryName(page)!, parts[0]));
                if (!File.Exists(file) && !Directory.Exists(file))
                {
                    broken.Add($"{Path.GetRelativePath(Root, page)}: {target}");
                }
                else if (parts.Length == 2 && !Headings(file).Contains(parts[1]))
                {
                    broken.Add($"{Path.GetRelativePath(Root, page)}: {target} (no such heading)");
                }
            }
        }

        broken.ShouldBeEmpty();
    }

    [Fact]
    public void Every_source_file_that_a_page_names_is_there()
    {
        // In full ("agent/Service/AgentLoop.cs") or by its name alone ("Judge.cs").
        var files = SourceFiles().Select(file => "/" + Path.GetRelativePath(Root, file)).ToList();
        var named = CodeFile().Matches(Pages).Select(match => match.Groups["file"].Value).Distinct(StringComparer.Ordinal).ToList();
        named.ShouldNotBeEmpty();
        named.Where(name => !files.Any(file => file.EndsWith("/" + name, StringComparison.Ordinal))).ShouldBeEmpty();
    }

    [Fact]
    public void The_core_asks_no_clock_and_touches_nothing()
    {
        string[] forbidden =
        [
            "using Sidecar.Probes;", "using Sidecar.Probes.Sock", "using Sidecar.Probes.Processes", "using Sidecar.Probes.Paths", "using System.IO", "using System.Threading", "new Socket(", "Dns.", "HttpClient", "ProcessStartInfo",
            "DateTime.UtcNow", "DateTimeOffset.UtcNow", "DateTime.Now", "DateTimeOffset.Now", "Stopwatch", "TimeProvider", "TickCount", "LibraryImport", "DllImport",
            "File.", "Directory.", "Console.", "Environment.", "Process.", "Task.", "Thread.", "Random.",
        ];
        var sources = Directory.GetFiles(Path.Combine(Root, "agent/Core"), "*.cs", SearchOption.AllDirectories)
            .Where(file => !file.Contains("/bin/", StringComparison.Ordinal) && !file.Contains("/obj/", StringComparison.Ordinal)).ToList();
        sources.Count.ShouldBeGreaterThan(40);
        foreach (var source in sources)
        {
            var text = Comment().Replace(File.ReadAllText(source), "");
            forbidden.Where(word => text.Contains(word, StringComparison.Ordinal)).ShouldBeEmpty(Path.GetRelativePath(Root, source));
        }
    }

    private static List<string> Metrics()
    {
        using var metrics = new SidecarMetrics("0", []);
        var found = new List<string>();
        using var listener = new MeterListener();
        listener.InstrumentPublished = (instrument, _) =>
        {
            if (ReferenceEquals(instrument.Meter, metrics.Meter))
            {
                found.Add(instrument is Counter<long> or Counter<double> or ObservableCounter<long> or ObservableCounter<double> ? instrument.Name + "_total" : instrument.Name);
            }
        };
        listener.Start();
        found.ShouldNotBeEmpty();
        return found;
    }

    /// <summary>Anchors of a page's headings, as GitHub and GitLab make them.</summary>
    private static HashSet<string> Headings(string page) =>
        Heading().Matches(File.ReadAllText(page))
            .Select(match => NotInAnchors().Replace(match.Groups["text"].Value.Trim().ToLowerInvariant(), "").Replace(' ', '-'))
            .ToHashSet(StringComparer.Ordinal);

    private static List<string> MarkdownFiles() =>
    [
        .. Directory.GetFiles(Root, "*.md"),
        .. Directory.GetFiles(Path.Combine(Root, "docs"), "*.md", SearchOption.AllDirectories),
    ];

    private static IEnumerable<string> SourceFiles() =>
        CodeFolders
            .SelectMany(folder => Directory.EnumerateFiles(Path.Combine(Root, folder), "*", SearchOption.AllDirectories))
            .Where(file => !file.Contains("/bin/", StringComparison.Ordinal) && !file.Contains("/obj/", StringComparison.Ordinal));

    private static string Read(string path) => File.ReadAllText(Path.Combine(Root, path));

    private static string FindRoot()
    {
        var directory = new DirectoryInfo(AppContext.BaseDirectory);
        while (directory is not null && !File.Exists(Path.Combine(directory.FullName, "Sidecar.sln")))
        {
            directory = directory.Parent;
        }

        return directory.ShouldNotBeNull("the tests run from a build inside the repository").FullName;
    }

    [GeneratedRegex(@"^```ini\n(?<text>.*?)^```", RegexOptions.Singleline | RegexOptions.Multiline | RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 1000)]
    private static partial Regex ConfigurationBlock();

    [GeneratedRegex(@"(?<![:\w])conn_sidecar_[a-z_]+\b(?!:)", RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 1000)]
    private static partial Regex MetricName();

    [GeneratedRegex(@"^(?<target>[a-z][a-z-]*):", RegexOptions.Multiline | RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 1000)]
    private static partial Regex MakefileTarget();

    [GeneratedRegex(@"(^ {4}|`)make (?<target>[a-z][a-z-]*)", RegexOptions.Multiline | RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 1000)]
    private static partial Regex MakeCommand();

    [GeneratedRegex(@"(^ {4}|`)conn-sidecar (?<command>[a-z][a-z-]*)", RegexOptions.Multiline | RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 1000)]
    private static partial Regex CommandName();

    [GeneratedRegex(@"\]\((?<target>[^)\s]+)\)", RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 1000)]
    private static partial Regex Link();

    [GeneratedRegex(@"^#+ (?<text>.+)$", RegexOptions.Multiline | RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 1000)]
    private static partial Regex Heading();

    [GeneratedRegex(@"[^\w\- ]", RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 1000)]
    private static partial Regex NotInAnchors();

    [GeneratedRegex(@"`(?<file>[A-Za-z0-9_./-]+\.(cs|sh)|(packaging|tests|scripts|agent|probes)/[A-Za-z0-9_./-]+\.[a-z0-9]+)`", RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 1000)]
    private static partial Regex CodeFile();

    [GeneratedRegex(@"\b([Aa] look|[Tt]he (first|last|next) look|looks at|glances?|tellers?|deeds?|mend(s|ed|ing)?|dearest|the begin)\b", RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 1000)]
    private static partial Regex InventedWord();

    [GeneratedRegex(@"//.*$", RegexOptions.Multiline | RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 1000)]
    private static partial Regex Comment();
}
