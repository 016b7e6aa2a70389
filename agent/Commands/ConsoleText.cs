using Sidecar.Probes.Values;
using Spectre.Console;

namespace Sidecar.Agent.Commands;

/// <summary>Text of foreign origin on a console: escaped, wrapped under an indent, without blanks at the ends of lines.</summary>
internal static class ConsoleText
{
    /// <summary>Writes the text, with escapes for what could move the cursor, in lines that start at the indent.</summary>
    public static void WriteIndented(this IAnsiConsole console, int indent, string text, Style style)
    {
        foreach (var line in Wrap(Printable.Escape(text), Math.Max(20, console.Profile.Width - indent)))
        {
            console.Write(new Text(new string(' ', indent) + line + "\n", style));
        }
    }

    /// <summary>Lines of at most <paramref name="width"/> characters, broken at blanks where there are any.</summary>
    internal static IEnumerable<string> Wrap(string text, int width)
    {
        var rest = text.AsMemory().Trim();
        while (rest.Length > width)
        {
            // A blank right behind the width still ends a full line.
            var blank = rest.Span[..(width + 1)].LastIndexOf(' ');
            var cut = blank > 0 ? blank : width;
            yield return rest[..cut].TrimEnd().ToString();
            rest = rest[cut..].TrimStart();
        }

        yield return rest.ToString();
    }
}
