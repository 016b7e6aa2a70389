using System.Net;
using System.Text.Json;
using System.Text.RegularExpressions;
using Microsoft.Extensions.Logging.Abstractions;
using Shouldly;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Endpoints;
using Sidecar.Agent.Telemetry;
using Xunit;

namespace Sidecar.UnitTests.Telemetry;

/// <summary>docs/metrics.md and docs/http.md say what is so: neither less nor more.</summary>
public sealed partial class DocumentationTests
{
    private static readonly string MetricsPage = File.ReadAllText(TestTools.RepositoryFile("docs", "metrics.md"));
    private static readonly string HttpPage = File.ReadAllText(TestTools.RepositoryFile("docs", "http.md"));

    [Fact]
    public void Every_metric_stands_in_a_table_with_its_type_and_labels_and_no_other_does()
    {
        var rows = MetricRow().Matches(MetricsPage).ToDictionary(m => m.Groups[1].Value, m => (Type: m.Groups[2].Value, Labels: m.Groups[3].Value), StringComparer.Ordinal);
        rows.Keys.ShouldBe(GoldenMetrics.Families, ignoreOrder: true);
        foreach (var (family, row) in rows)
        {
            row.Type.ShouldBe(GoldenMetrics.TypeOf(family), family);
            var sample = row.Type == "histogram" ? family + "_count" : family;
            Quoted().Matches(row.Labels).Select(m => m.Groups[1].Value).ShouldBe(GoldenMetrics.LabelsOf(sample), ignoreOrder: true, family);
        }
    }

    [Fact]
    public void Every_fixed_label_value_is_named()
    {
        var named = Quoted().Matches(MetricsPage).Select(m => m.Groups[1].Value).ToHashSet();
        Samples.Guardrails.Concat(KnownLabels.Remedies).Concat(KnownLabels.Causes).Concat(KnownLabels.NudgeOutcomes).Concat(KnownLabels.RecycleReasons)
            .Concat(KnownLabels.Signals).Concat(VerdictNames.All.Select(VerdictNames.ToName)).ShouldBeSubsetOf(named);
    }

    [Fact]
    public async Task Every_path_that_is_answered_stands_in_the_table_and_no_other_does()
    {
        await using var endpoint = await StartAsync();
        PathRow().Matches(HttpPage).Select(m => m.Groups[1].Value).ShouldBe(endpoint.Paths, ignoreOrder: true);
    }

    [Theory]
    [InlineData("/api/v1/connections", "Connections", "connections")]
    [InlineData("/api/v1/paths", "Paths", "paths")]
    [InlineData("/api/v1/incidents", "Incidents", "incidents")]
    public async Task Every_field_of_an_answer_stands_in_its_section(string path, string section, string list)
    {
        await using var endpoint = await StartAsync();
        using var client = new HttpClient { BaseAddress = new Uri($"http://{endpoint.Bound}") };
        using var json = JsonDocument.Parse(await client.GetStringAsync(path));
        var outer = json.RootElement.EnumerateObject().Select(p => p.Name);
        var inner = json.RootElement.GetProperty(list)[0].EnumerateObject().Select(p => p.Name);
        var text = HttpPage.Split($"\n## {section}\n")[1].Split("\n## ")[0];
        outer.Concat(inner).ShouldBeSubsetOf(Quoted().Matches(text).Select(m => m.Groups[1].Value));
        FieldRow().Matches(text).SelectMany(m => Quoted().Matches(m.Groups[1].Value)).Select(m => m.Groups[1].Value).ShouldBeSubsetOf(outer.Concat(inner));
    }

    [Theory]
    [InlineData("/healthz", false, 200)]
    [InlineData("/healthz", true, 503)]
    [InlineData("/readyz", true, 503)]
    [InlineData("/api/v1/connections", false, 200)]
    [InlineData("/api/v1/connections", true, 503)]
    [InlineData("/api/v1/paths", true, 503)]
    [InlineData("/api/v1/incidents?last=0", false, 400)]
    [InlineData("/check/db", true, 503)]
    [InlineData("/check/db?upstream=none", false, 404)]
    [InlineData("/check/pool", true, 503)]
    [InlineData("/check/pool?upstream=none", false, 404)]
    [InlineData("/check/version", true, 503)]
    [InlineData("/check/version", false, 200)]
    [InlineData("/check/version?check=none", false, 404)]
    [InlineData("/check/workers", true, 503)]
    [InlineData("/check/workers", false, 200)]
    [InlineData("/check/workers?workers=none", false, 404)]
    [InlineData("/api/v1/stack", false, 200)]
    [InlineData("/api/v1/stack", true, 503)]
    [InlineData("/check/host", true, 200)]
    public async Task A_status_that_is_given_stands_beside_its_path(string request, bool before, int status)
    {
        await using var endpoint = await StartAsync(before);
        using var client = new HttpClient { BaseAddress = new Uri($"http://{endpoint.Bound}") };
        ((int)(await client.GetAsync(request)).StatusCode).ShouldBe(status);
        var path = request.Split('?')[0];
        PathRow().Matches(HttpPage).Single(m => m.Groups[1].Value == path).Groups[2].Value.Split(", ").ShouldContain($"{status}");
    }

    private static async Task<HttpEndpoint> StartAsync(bool before = false)
    {
        var endpoint = new HttpEndpoint(
            new IPEndPoint(IPAddress.Loopback, 0),
            new HttpSources
            {
                Snapshot = () => before ? null : Samples.Snapshot(),
                Health = () => Samples.Health(silence: before ? 60 : 0.5, firstScan: !before),
                Incidents = _ => [Samples.Incident("a", "released")],
                Metrics = _ => [],
                Version = "0.1.0",
            },
            NullLoggerFactory.Instance);
        await endpoint.StartAsync();
        return endpoint;
    }

    [GeneratedRegex(@"(?m)^\| `((?:conn_sidecar|process)_\w+)` \| (\w+) \| ([^|]*)\|")]
    private static partial Regex MetricRow();

    [GeneratedRegex(@"(?m)^\| `(/[^`]*)` \| .* \| ([0-9, ]+) \|$")]
    private static partial Regex PathRow();

    [GeneratedRegex(@"(?m)^\| (`.*?) \|")]
    private static partial Regex FieldRow();

    [GeneratedRegex("`([^`]+)`")]
    private static partial Regex Quoted();
}
