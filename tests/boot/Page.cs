using System.Text.RegularExpressions;

namespace Sidecar.BootTests;

/// <summary>Pages for operators. Tests take commands and files out of them instead of copies, so that a page cannot go stale.</summary>
internal static partial class Page
{
    /// <summary>The code blocks below a heading of a page, in their order.</summary>
    public static IReadOnlyList<string> Blocks(string page, string heading)
    {
        var text = File.ReadAllText(Path.Combine(Repository.Root, page));
        var start = text.IndexOf($"\n{heading}\n", StringComparison.Ordinal);
        start.ShouldBeGreaterThan(0, $"{page}: {heading}");
        var end = text.IndexOf("\n## ", start + 1, StringComparison.Ordinal);
        return [.. Code().Matches(text[start..(end < 0 ? text.Length : end)]).Select(code => code.Groups["fenced"].Success ? code.Groups["fenced"].Value : Indentation().Replace(code.Value, ""))];
    }

    /// <summary>The commands of one of these blocks, without their comments.</summary>
    public static IReadOnlyList<string> Commands(string page, string heading, int block = 0) =>
        [.. Blocks(page, heading)[block].Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(line => line.Split(" # ")[0].Trim())];

    [GeneratedRegex(@"^```\w*\n(?<fenced>.*?)^```$|(?:^ {4}[^\n]+\n)+", RegexOptions.Multiline | RegexOptions.Singleline | RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1000)]
    private static partial Regex Code();

    [GeneratedRegex("^ {4}", RegexOptions.Multiline | RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1000)]
    private static partial Regex Indentation();
}
