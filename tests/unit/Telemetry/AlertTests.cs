using System.Text.RegularExpressions;
using Shouldly;
using Xunit;

namespace Sidecar.UnitTests.Telemetry;

/// <summary>The shipped rules, by promtool, and that each alert leads to a page that says what to do.</summary>
public sealed partial class AlertTests
{
    private static readonly string Rules = TestTools.RepositoryFile("packaging", "deb", "alerts", "conn-sidecar.rules.yml");
    private static readonly string RuleTests = TestTools.RepositoryFile("tests", "unit", "Telemetry", "Alerts", "conn-sidecar.rules.test.yml");
    private static readonly string Runbook = TestTools.RepositoryFile("docs", "runbook");

    public static TheoryData<string> Alerts => [.. AlertNames()];

    [Fact]
    public void Promtool_accepts_the_rules()
    {
        var (exitCode, output) = TestTools.Run("promtool", "", "check", "rules", "--lint=all", "--lint-fatal", Rules);
        exitCode.ShouldBe(0, output);
    }

    [Fact]
    public void Every_rule_fires_and_resolves_as_its_test_says()
    {
        var (exitCode, output) = TestTools.Run("promtool", "", "test", "rules", RuleTests);
        exitCode.ShouldBe(0, output);
    }

    [Theory]
    [MemberData(nameof(Alerts))]
    public void An_alert_has_a_test_that_sees_it_fire_and_one_that_sees_it_silent(string alert)
    {
        var cases = File.ReadAllText(RuleTests).Split("- eval_time:").Where(c => c.Contains($"alertname: {alert}\n", StringComparison.Ordinal)).ToList();
        cases.ShouldContain(c => c.Contains("exp_labels:", StringComparison.Ordinal));
        cases.ShouldContain(c => c.Contains("exp_alerts: []", StringComparison.Ordinal));
    }

    [Theory]
    [MemberData(nameof(Alerts))]
    public void An_alert_has_a_page_that_says_what_to_check_and_what_to_do(string alert)
    {
        var page = File.ReadAllText(Path.Combine(Runbook, alert + ".md"));
        page.ShouldStartWith($"# {alert}\n\n");
        page.ShouldContain("\n## Check\n");
        page.ShouldContain("\n## Do\n");
        // Debian compresses documentation of 4 KiB and more, and then the address in the alert leads nowhere.
        page.Length.ShouldBeLessThan(4096);
        File.ReadAllText(Rules).ShouldMatch($@"\n          runbook_url: 'http://.*\{{\{{ \$labels\.instance \}}\}}.*/runbook\?alert={alert}'\n");
        Sidecar.Agent.Endpoints.Runbook.Page(alert).ShouldBe(page);
        PageReference().Matches(page).Select(m => m.Value).ShouldBeSubsetOf(AlertNames());
    }

    [Fact]
    public void Every_page_belongs_to_an_alert() =>
        Directory.GetFiles(Runbook).Select(Path.GetFileNameWithoutExtension).ShouldBe(AlertNames(), ignoreOrder: true);

    [Fact]
    public void No_rule_asks_for_a_job_by_its_name() => File.ReadAllText(Rules).ShouldNotMatch("job=~?\"");

    [Fact]
    public void Rules_ask_for_metrics_and_labels_that_exist()
    {
        var rules = File.ReadAllText(Rules);
        GoldenMetrics.In(rules).ShouldBeSubsetOf(GoldenMetrics.Samples);
        foreach (Match selector in Selector().Matches(rules))
        {
            LabelInSelector().Matches(selector.Groups[2].Value).Select(m => m.Groups[1].Value).ShouldBeSubsetOf(GoldenMetrics.LabelsOf(selector.Groups[1].Value));
        }

        RecordedName().Count(rules).ShouldBeGreaterThan(0);
        Recorded().Matches(rules).Select(m => m.Value).ShouldBeSubsetOf(RecordedName().Matches(rules).Select(m => m.Groups[1].Value));
    }

    private static IReadOnlyList<string> AlertNames() => [.. AlertName().Matches(File.ReadAllText(Rules)).Select(m => m.Groups[1].Value)];

    [GeneratedRegex("- alert: (\\w+)")]
    private static partial Regex AlertName();

    [GeneratedRegex("ConnSidecar[A-Za-z]+")]
    private static partial Regex PageReference();

    [GeneratedRegex("(conn_sidecar_[a-z_]+){([^}]*)}")]
    private static partial Regex Selector();

    [GeneratedRegex("([a-z]+)=")]
    private static partial Regex LabelInSelector();

    [GeneratedRegex("- record: (\\S+)")]
    private static partial Regex RecordedName();

    [GeneratedRegex("[a-z]+:conn_sidecar_[a-z0-9_]+:[a-z0-9_]+")]
    private static partial Regex Recorded();
}
