using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using Sidecar.Lab;

namespace Sidecar.Benchmarks;

/// <summary>
/// docs/benchmarks.md: one section per benchmark, replaced when that benchmark is run again.
/// </summary>
internal static class Report
{
    private static readonly string[] Order = ["Sweep", "Sockets not watched", "Owners", "Steady cost", "Start-up", "Release", "Release of many", "Release after the router was away", "Prevention"];

    private static string File => Path.Combine(Repository.Root, "docs", "benchmarks.md");

    /// <summary>Prints a section and puts it into the file.</summary>
    /// <param name="title">Its heading.</param>
    /// <param name="command">How to run it again.</param>
    /// <param name="lines">Markdown.</param>
    public static void Write(string title, string command, IEnumerable<string> lines)
    {
        var section = new StringBuilder()
            .AppendLine(CultureInfo.InvariantCulture, $"## {title}")
            .AppendLine()
            .AppendLine(CultureInfo.InvariantCulture, $"`{command}`, {DateTime.UtcNow:yyyy-MM-dd}: {Machine()}")
            .AppendLine()
            .AppendJoin('\n', lines)
            .AppendLine()
            .ToString();
        Console.WriteLine(section);
        var sections = Read();
        sections[title] = section;
        var known = Order.Where(sections.ContainsKey).Concat(sections.Keys.Except(Order, StringComparer.Ordinal));
        System.IO.File.WriteAllText(File, Preamble + "\n" + string.Join('\n', known.Select(name => sections[name].TrimEnd() + "\n")));
    }

    private static string Preamble =>
        """
        # Benchmarks

        Written by `make bench` (`make bench TARGET=sweep` for one of them); needs root. What is compared is measured side
        by side in one run, alternately, so that the noise of the machine meets all of them; ratios are those of one round.
        Numbers are medians with the middle half of the runs in brackets. The noise is that of the floor: the middle half
        of its runs, divided by their median.

        """;

    private static Dictionary<string, string> Read()
    {
        var sections = new Dictionary<string, string>(StringComparer.Ordinal);
        if (!System.IO.File.Exists(File))
        {
            return sections;
        }

        foreach (var part in ("\n" + System.IO.File.ReadAllText(File)).Split("\n## ").Skip(1))
        {
            sections[part.Split('\n')[0]] = "## " + part;
        }

        return sections;
    }

    private static string Machine()
    {
        var load = System.IO.File.ReadAllText("/proc/loadavg").Split(' ')[0];
        var model = System.IO.File.ReadLines("/proc/cpuinfo").FirstOrDefault(line => line.StartsWith("model name", StringComparison.Ordinal))?.Split(": ")[^1];
        return $"{Environment.ProcessorCount} processors ({model}), Linux {Environment.OSVersion.Version.ToString(2)}, {RuntimeInformation.FrameworkDescription}, load {load} at the end.";
    }
}
