using System.Reflection;

namespace Sidecar.Agent.Endpoints;

/// <summary>The pages that alerts lead to (docs/runbook), which the program carries.</summary>
internal static class Runbook
{
    private const string Prefix = "runbook/";

    private static readonly Assembly Program = typeof(Runbook).Assembly;

    /// <summary>Names of the alerts that have a page.</summary>
    public static IReadOnlyList<string> Alerts { get; } =
        [.. Program.GetManifestResourceNames().Where(name => name.StartsWith(Prefix, StringComparison.Ordinal)).Select(name => name[Prefix.Length..]).Order(StringComparer.Ordinal)];

    /// <summary>The page of an alert, Markdown; null where there is none of that name.</summary>
    public static string? Page(string alert)
    {
        using var stream = Program.GetManifestResourceStream(Prefix + alert);
        if (stream is null)
        {
            return null;
        }

        using var reader = new StreamReader(stream);
        return reader.ReadToEnd();
    }
}
