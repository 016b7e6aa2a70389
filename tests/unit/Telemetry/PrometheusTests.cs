using System.Globalization;
using Shouldly;
using Xunit;

namespace Sidecar.UnitTests.Telemetry;

/// <summary>The shipped rules and every panel of the dashboard, asked of a real Prometheus that scrapes often and of one that scrapes rarely.</summary>
public sealed class PrometheusTests(PrometheusServer server) : IClassFixture<PrometheusServer>
{
    private static readonly TimeSpan HalfAnHour = TimeSpan.FromMinutes(30);

    /// <summary>Grafana takes the scrape interval from the data source's settings: 15 s, where nobody has told it.</summary>
    [Theory]
    [InlineData(15, 15)]
    [InlineData(60, 60)]
    [InlineData(60, 15)]
    public async Task Every_panel_shows_something_at_every_point(int interval, int believed)
    {
        await server.ReadyAsync();
        var empty = new List<string>();
        foreach (var (panel, query) in DashboardTests.PanelQueries())
        {
            var isInstant = query.TryGetProperty("instant", out var instant) && instant.GetBoolean();
            var step = panel.TryGetProperty("interval", out var least) ? int.Parse(least.GetString()!.TrimEnd('m'), CultureInfo.InvariantCulture) * 60 : believed;
            var text = query.GetProperty("expr").GetString()!
                .Replace("$__rate_interval", $"{Math.Max(step + believed, 4 * believed)}s").Replace("$__range", "1h")
                .Replace("$job", $"every-{interval}").Replace("$instance", ".*").Replace("$upstream", ".*").Replace("$workers", ".*");
            text.ShouldNotContain("$");
            var range = isInstant ? TimeSpan.Zero : HalfAnHour;
            var series = await server.RangeAsync(text, range, step);
            if (!series.Any(one => one.Points >= (int)(range.TotalSeconds / step) + 1))
            {
                empty.Add($"{panel.GetProperty("title").GetString()}: {text} has {series.Select(one => one.Points).DefaultIfEmpty().Max()} points");
            }
        }

        empty.ShouldBeEmpty();
    }

    [Theory]
    [InlineData(15)]
    [InlineData(60)]
    public async Task Every_recording_rule_has_a_value_at_every_point(int interval)
    {
        await server.ReadyAsync();
        var rules = await server.RulesAsync();
        rules.ShouldAllBe(rule => rule.Health == "ok");
        foreach (var rule in rules.Where(rule => rule.Type == "recording"))
        {
            (await server.RangeAsync(rule.Query, HalfAnHour, 15)).ShouldContain(series => series.Labels["job"] == $"every-{interval}" && series.Points == 121, rule.Name);
        }
    }

    [Theory]
    [InlineData(15)]
    [InlineData(60)]
    public async Task Every_alert_sees_its_trouble_without_a_gap_and_none_sees_any_on_a_host_that_is_well(int interval)
    {
        await server.ReadyAsync();
        var rules = await server.RulesAsync();
        rules.Count(rule => rule.Type == "alerting").ShouldBeGreaterThan(30);
        foreach (var rule in rules.Where(rule => rule.Type == "alerting"))
        {
            var query = rules.Where(other => other.Type == "recording").Aggregate(rule.Query, (text, other) => text.Replace(other.Name, $"({other.Query})", StringComparison.Ordinal));
            var series = (await server.RangeAsync(query, HalfAnHour, 15)).Where(one => one.Labels["job"] == $"every-{interval}").ToList();
            series.ShouldNotContain(one => one.Labels["instance"] == PrometheusServer.Well, rule.Name);
            series.ShouldContain(one => one.Points == 121, rule.Name);
        }
    }
}
