using System.Text.RegularExpressions;
using Shouldly;
using Xunit;

namespace Sidecar.UnitTests;

/// <summary>A class that no longer fits into a head says why it is so large, or is split.</summary>
public sealed partial class SizeTests
{
    private const int MostLines = 400;
    private static readonly string[] Parts = ["agent", "probes"];
    private const string Reason = "// Over 400 lines: because ";

    [Fact]
    public void No_class_has_more_than_400_lines_without_a_reason_in_its_header()
    {
        var lines = new Dictionary<string, int>(StringComparer.Ordinal);
        var reasons = new HashSet<string>(StringComparer.Ordinal);
        foreach (var file in Parts.SelectMany(part => Directory.EnumerateFiles(Path.Combine(Documentation.DocumentationTests.Root, part), "*.cs", SearchOption.AllDirectories))
            .Where(file => !file.Contains("/obj/", StringComparison.Ordinal) && !file.Contains("/bin/", StringComparison.Ordinal)))
        {
            foreach (var (name, length, reason) in Types(File.ReadAllLines(file)))
            {
                var key = $"{Path.GetRelativePath(Documentation.DocumentationTests.Root, Path.GetDirectoryName(file)!)}: {name}";
                lines[key] = lines.GetValueOrDefault(key) + length;
                if (reason)
                {
                    reasons.Add(key);
                }
            }
        }

        lines.Count.ShouldBeGreaterThan(300);
        lines.Where(type => type.Value > MostLines && !reasons.Contains(type.Key)).Select(type => $"{type.Key}, {type.Value} lines").ShouldBeEmpty();
        reasons.Where(type => lines[type] <= MostLines).ShouldBeEmpty("a reason that is no longer needed");
    }

    [Fact]
    public void Lines_of_a_class_are_counted_from_its_declaration_to_its_end()
    {
        string[] text = ["namespace A;", "", Reason + "it is one", "internal sealed class B", "{", "    private class C", "    {", "    }", "}", "internal record D(int E);", "internal enum F", "{", "}"];
        Types(text).ShouldBe([("B", 6, true), ("D", 1, false), ("F", 3, false)]);
    }

    /// <summary>Types that stand in a namespace, with those inside them; the file is formatted, so a type ends with the next brace at the margin.</summary>
    private static IEnumerable<(string Name, int Lines, bool Reason)> Types(string[] text)
    {
        for (var i = 0; i < text.Length; i++)
        {
            if (Declaration().Match(text[i]) is not { Success: true } match)
            {
                continue;
            }

            var first = i;
            var hasBody = false;
            while (text[i] != "}" && (hasBody || !text[i].EndsWith(';')))
            {
                hasBody |= text[i] == "{";
                i++;
            }

            var header = first;
            while (header > 0 && text[header - 1] is ['/' or '[', ..])
            {
                header--;
            }

            yield return (match.Groups["name"].Value, i - first + 1, text[header..first].Any(line => line.StartsWith(Reason, StringComparison.Ordinal)));
        }
    }

    [GeneratedRegex(@"^([a-z]+ )*(class|struct|interface|enum|record( struct| class)?) (?<name>[A-Z]\w*)", RegexOptions.ExplicitCapture)]
    private static partial Regex Declaration();
}
