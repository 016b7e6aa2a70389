using System.Text;
using System.Text.RegularExpressions;
using Shouldly;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Core.Settings;
using Xunit;

namespace Sidecar.UnitTests.Configuration;

public sealed partial class SampleConfigurationTests
{
    private static readonly string Sample = File.ReadAllText(RepositoryFile("packaging/deb/conn-sidecar.conf"));

    [Fact]
    public void The_sample_names_exactly_the_keys_that_the_loader_knows()
    {
        var document = IniDocument.Parse("sample", Encoding.UTF8.GetBytes(Uncommented()));
        document.Errors.ShouldBeEmpty();
        document.Sections.Select(s => s.Name.Split(':')[0]).ShouldBe(["agent", "upstream", "workers", "haproxy", "check", "check"]);
        KeysOf(document.Sections[0]).ShouldBe(ConfigurationKeys.Agent, ignoreOrder: true);
        KeysOf(document.Sections[1]).ShouldBe(ConfigurationKeys.Upstream, ignoreOrder: true);
        KeysOf(document.Sections[2]).ShouldBe(ConfigurationKeys.Workers, ignoreOrder: true);
        KeysOf(document.Sections[3]).ShouldBe(ConfigurationKeys.Haproxy, ignoreOrder: true);
        KeysOf(document.Sections[4]).Union(KeysOf(document.Sections[5])).ShouldBe(ConfigurationKeys.Check, ignoreOrder: true);
    }

    [Fact]
    public void The_sample_as_it_is_delivered_changes_nothing()
    {
        var configuration = ConfigurationLoader.Parse("sample", Encoding.UTF8.GetBytes(Sample));
        ConfigurationText.Write(configuration with { Files = [] }).ShouldBe(ConfigurationText.Write(ConfigurationLoader.BuiltIn()));
    }

    [Fact]
    public void What_the_sample_shows_as_default_is_the_default()
    {
        var shown = IniDocument.Parse("sample", Encoding.UTF8.GetBytes(Uncommented()));
        var defaults = IniDocument.Parse("defaults", Encoding.UTF8.GetBytes(ConfigurationText.Write(ConfigurationLoader.Parse("minimal", """
            [upstream:orders-db]
            endpoint = 10.0.2.2:5432
            [workers:web]
            unit = uwsgi.service
            [haproxy:edge]
            socket = /run/haproxy/conn-sidecar.sock
            """u8.ToArray()))));
        foreach (var (sample, real) in shown.Sections.Zip(defaults.Sections))
        {
            foreach (var entry in real.Entries.Where(e => e.Key != "budget"))
            {
                sample.Entries.Single(e => e.Key == entry.Key).Value.ShouldBe(entry.Value, entry.Key);
            }
        }

        shown.Sections[2].Entries.Single(e => e.Key == "budget").Value.ShouldBe("3/h");
        new WorkersSection { Name = "x" }.Budget.ShouldBe(new TerminationBudget(3, TimeSpan.FromHours(1)));
    }

    [Fact]
    public void The_sample_with_everything_switched_on_loads() =>
        ConfigurationLoader.Parse("sample", Encoding.UTF8.GetBytes(Uncommented().Replace("protocol = tcp", "protocol = postgresql", StringComparison.Ordinal)))
            .ShouldSatisfyAllConditions(
                c => c.Workers.ShouldHaveSingleItem().Unit.ShouldBe("uwsgi.service"),
                c => c.Haproxies.ShouldHaveSingleItem().Socket.ShouldBe("/run/haproxy/conn-sidecar.sock"),
                c => c.Checks[0].ShouldSatisfyAllConditions(check => check.Interval.ShouldBe(new CheckSection { Name = "", Expected = new(null, null), Actual = new(null, null) }.Interval), check => check.Timeout.ShouldBe(TimeSpan.FromSeconds(5))),
                c => c.Checks.Count.ShouldBe(2));

    /// <summary>Settings are commented out without a blank behind the #, prose with one.</summary>
    private static string Uncommented() => SettingPattern().Replace(Sample, "");

    private static IEnumerable<string> KeysOf(IniSection section) => section.Entries.Select(e => e.Key);

    private static string RepositoryFile(string path)
    {
        var directory = new DirectoryInfo(AppContext.BaseDirectory);
        while (directory is not null && !File.Exists(Path.Combine(directory.FullName, "Sidecar.sln")))
        {
            directory = directory.Parent;
        }

        return Path.Combine(directory.ShouldNotBeNull("the tests run from a build inside the repository").FullName, path);
    }

    [GeneratedRegex(@"^#(?=\S)", RegexOptions.Multiline | RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1000)]
    private static partial Regex SettingPattern();
}
