using System.Text.Json;
using System.Text.RegularExpressions;
using Shouldly;
using Xunit;

namespace Sidecar.UnitTests.Telemetry;

/// <summary>The Grafana dashboard: that it is whole, and that it asks for nothing that is not there.</summary>
public sealed partial class DashboardTests
{
    private static readonly JsonElement Dashboard = JsonDocument.Parse(File.ReadAllText(TestTools.RepositoryFile("packaging", "deb", "dashboard", "conn-sidecar.json"))).RootElement;

    [Fact]
    public void Every_query_asks_for_metrics_that_exist()
    {
        var queries = Queries().ToList();
        queries.Count.ShouldBeGreaterThan(20);
        foreach (var query in queries)
        {
            GoldenMetrics.In(query).ShouldNotBeEmpty(query);
            GoldenMetrics.In(query).ShouldBeSubsetOf(GoldenMetrics.Samples, query);
        }
    }

    [Fact]
    public void Every_query_selects_and_sums_by_labels_that_exist()
    {
        foreach (var query in Queries())
        {
            // What the scraper adds.
            string[] always = ["job", "instance"];
            foreach (Match selector in Selector().Matches(query))
            {
                Label().Matches(selector.Groups[2].Value).Select(m => m.Groups[1].Value)
                    .ShouldBeSubsetOf(GoldenMetrics.LabelsOf(selector.Groups[1].Value).Concat(always), query);
            }

            var known = GoldenMetrics.In(query).SelectMany(GoldenMetrics.LabelsOf).Concat(always).ToHashSet();
            By().Matches(query).SelectMany(m => m.Groups[1].Value.Split(", ")).ShouldBeSubsetOf(known, query);
        }
    }

    [Fact]
    public void Every_metric_of_the_agent_is_shown()
    {
        var shown = Queries().SelectMany(GoldenMetrics.In).ToHashSet();
        GoldenMetrics.Families.Where(f => !shown.Contains(f) && !shown.Contains(f + "_bucket")).ShouldBeEmpty();
    }

    [Fact]
    public void Promtool_can_parse_every_query()
    {
        var rules = string.Concat(Queries().Select((query, i) =>
            $"      - record: dashboard:query:{i}\n        expr: {JsonSerializer.Serialize(query.Replace("$__range", "1h").Replace("$__rate_interval", "1m"))}\n"));
        using var directory = new TemporaryDirectory();
        var file = directory["queries.yml"];
        File.WriteAllText(file, "groups:\n  - name: dashboard\n    rules:\n" + rules);
        var (exitCode, output) = TestTools.Run("promtool", "", "check", "rules", "--lint=none", file);
        exitCode.ShouldBe(0, output);
    }

    /// <summary>An interval that is shorter than two scrapes shows nothing, and a job may be called anything.</summary>
    [Fact]
    public void No_query_has_a_short_interval_or_the_name_of_a_job_of_its_own()
    {
        foreach (var query in Queries())
        {
            query.ShouldNotMatch(@"\[\d+[sm]\]");
            query.ShouldNotContain("job=\"");
            query.ShouldContain("job=~\"$job\"");
        }

        Panels().Where(panel => panel.GetRawText().Contains("$__rate_interval", StringComparison.Ordinal))
            .ShouldAllBe(panel => panel.GetProperty("interval").GetString() == "2m", "Grafana holds the scrape interval to be 15 s where nobody tells it");
    }

    [Fact]
    public void Panels_have_numbers_of_their_own_and_do_not_overlap()
    {
        var panels = Panels().ToList();
        panels.Select(p => p.GetProperty("id").GetInt32()).ShouldBeUnique();
        var taken = new HashSet<(int, int)>();
        foreach (var panel in panels)
        {
            var place = panel.GetProperty("gridPos");
            int x = place.GetProperty("x").GetInt32(), y = place.GetProperty("y").GetInt32();
            for (var i = 0; i < place.GetProperty("w").GetInt32(); i++)
            {
                for (var j = 0; j < place.GetProperty("h").GetInt32(); j++)
                {
                    (x + i).ShouldBeLessThan(24);
                    taken.Add((x + i, y + j)).ShouldBeTrue(panel.GetProperty("title").GetString());
                }
            }
        }
    }

    [Theory]
    [InlineData("Verdicts over time")]
    [InlineData("Blackout seconds suffered")]
    [InlineData("Blackout seconds prevented")]
    [InlineData("Measured idle timeout per path")]
    [InlineData("Remedies carried out")]
    [InlineData("Withheld by guardrails")]
    public void What_operators_ask_for_first_has_a_panel(string title) => Panels().Select(p => p.GetProperty("title").GetString()).ShouldContain(title);

    private static JsonElement.ArrayEnumerator Panels() => Dashboard.GetProperty("panels").EnumerateArray();

    /// <summary>Each query with its panel.</summary>
    internal static IEnumerable<(JsonElement Panel, JsonElement Query)> PanelQueries() => Panels().Where(p => p.TryGetProperty("targets", out _))
        .SelectMany(p => p.GetProperty("targets").EnumerateArray().Select(query => (p, query)));

    private static IEnumerable<string> Queries() => PanelQueries().Select(pair => pair.Query.GetProperty("expr").GetString()!);

    [GeneratedRegex("(conn_sidecar_[a-z_]+){([^}]*)}")]
    private static partial Regex Selector();

    [GeneratedRegex("([a-z]+)=")]
    private static partial Regex Label();

    [GeneratedRegex("by \\(([^)]*)\\)")]
    private static partial Regex By();
}
