using System.Globalization;

namespace Sidecar.LabTests.Telemetry;

/// <summary>Reads values out of a page of metrics.</summary>
internal static class Scrape
{
    /// <summary>All series of a metric, by what stands between the braces.</summary>
    public static Dictionary<string, double> Samples(string scrape, string name) => scrape.Split('\n')
        .Where(l => l.StartsWith(name + "{", StringComparison.Ordinal))
        .ToDictionary(l => l[(name.Length + 1)..l.IndexOf('}')], l => Number(l[(l.IndexOf('}') + 2)..]), StringComparer.Ordinal);

    /// <summary>One series; -1 where it is not there.</summary>
    public static double Value(string scrape, string series) =>
        scrape.Split('\n').FirstOrDefault(l => l.StartsWith(series + " ", StringComparison.Ordinal)) is { } line ? Number(line[(series.Length + 1)..]) : -1;

    private static double Number(string text) => double.Parse(text, CultureInfo.InvariantCulture);
}
