using System.Text.RegularExpressions;

namespace Sidecar.UnitTests.Telemetry;

/// <summary>The metrics of the golden file, which alert rules, dashboard and documentation are checked against.</summary>
internal static partial class GoldenMetrics
{
    private static readonly string[] Lines =
        File.ReadAllLines(TestTools.RepositoryFile("tests", "unit", "Telemetry", "Golden", "metrics.prometheus.txt"));

    /// <summary>Names as in the metadata: counters with <c>_total</c>, histograms without a suffix.</summary>
    public static IReadOnlyList<string> Families { get; } = [.. Lines.Where(l => l.StartsWith("# TYPE ", StringComparison.Ordinal)).Select(l => l.Split(' ')[2])];

    /// <summary>Names as they stand in samples, and in queries.</summary>
    public static IReadOnlySet<string> Samples { get; } = Lines.Where(l => !l.StartsWith('#')).Select(l => l.Split('{', ' ')[0]).ToHashSet(StringComparer.Ordinal);

    public static string TypeOf(string family) => Lines.First(l => l.StartsWith($"# TYPE {family} ", StringComparison.Ordinal)).Split(' ')[3];

    /// <summary>Label names of a sample.</summary>
    public static IReadOnlySet<string> LabelsOf(string sample) =>
        LabelName().Matches(Lines.First(l => l.StartsWith(sample + "{", StringComparison.Ordinal) || l.StartsWith(sample + " ", StringComparison.Ordinal)))
            .Select(m => m.Groups[1].Value).ToHashSet(StringComparer.Ordinal);

    /// <summary>What a query asks the agent for; names of recording rules, which have colons, are not among them.</summary>
    public static IEnumerable<string> In(string query) => MetricName().Matches(query).Select(m => m.Value).Distinct(StringComparer.Ordinal);

    [GeneratedRegex("(?<![A-Za-z0-9_:])(?:conn_sidecar|process)_[a-z0-9_]+(?![A-Za-z0-9_:])")]
    private static partial Regex MetricName();

    [GeneratedRegex("([a-z]+)=\"")]
    private static partial Regex LabelName();
}
