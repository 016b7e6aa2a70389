using System.Globalization;
using System.Text.RegularExpressions;

namespace Sidecar.LabTests;

/// <summary>What a stranger does first: clone, <c>make demo</c>.</summary>
// It publishes the agent, which takes all of a small machine: after the others, not beside them.
[Collection("alone")]
public sealed partial class DemoTests
{
    [Fact]
    public async Task The_demonstration_runs_from_a_fresh_clone_and_keeps_its_promises()
    {
        var clone = Directory.CreateTempSubdirectory("sidecar-demo-").FullName;
        try
        {
            // The tree may belong to somebody else than root.
            await Command.RunAsync("git", ["-c", "safe.directory=*", "clone", "--quiet", Repository.Root, clone]);
            var environment = Environment.GetEnvironmentVariables().Keys.Cast<string>()
                .Where(name => name.StartsWith("MSBUILD", StringComparison.OrdinalIgnoreCase) || name.StartsWith("VSTEST", StringComparison.OrdinalIgnoreCase) || name == "SIDECAR_BINARY")
                .SelectMany(name => new[] { "--unset", name });
            var demo = await Command.TryRunAsync("env", [.. environment, "make", "demo"], workingDirectory: clone);

            var output = demo.Output.Split('\n');
            demo.ExitCode.ShouldBe(0, $"{demo.Output}\n{demo.Error}");
            output.Count(l => l.StartsWith("[holds] ")).ShouldBe(3);
            output.ShouldNotContain(l => l.StartsWith("[FAILS]"));

            // Both timelines, side by side, for at least a minute after the first unanswered send. The median of a rescue is below
            // 3 s; a single one may have to await the retransmission at 3.4 s.
            var rows = output.Select(l => Row().Match(l)).Where(m => m.Success).ToList();
            var after = rows.Where(m => Second(m) > 4).ToList();
            after.Max(Second).ShouldBeGreaterThanOrEqualTo(60);
            after.ShouldAllBe(m => m.Groups["without"].Value.Trim() == "4");
            after.ShouldAllBe(m => m.Groups["recycle"].Value.Contains('#') && m.Groups["recycle"].Value.EndsWith('-'));
            after.ShouldAllBe(m => m.Groups["terminate"].Value.Contains('#') && m.Groups["terminate"].Value.EndsWith('-'));

            var releases = output.Select(l => Release().Match(l)).Where(m => m.Success).ToList();
            releases.Count.ShouldBe(2);
            double.Parse(releases[0].Groups["seconds"].ValueSpan, CultureInfo.InvariantCulture).ShouldBeLessThanOrEqualTo(4);
            output.SkipWhile(l => !l.StartsWith("conn-sidecar: ")).ShouldAllBe(l => l.Length <= 80);
        }
        finally
        {
            Directory.Delete(clone, recursive: true);
        }
    }

    private static int Second(Match row) => int.Parse(row.Groups["second"].ValueSpan, CultureInfo.InvariantCulture);

    [GeneratedRegex(@"^ *(?<second>-?\d+) \| (?<without>[^|]*) \| (?<recycle>[^|]*) \| (?<terminate>[^|]*)$", RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1000)]
    private static partial Regex Row();

    [GeneratedRegex(@"worker 4 was released (?<seconds>[\d.]+) s after", RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1000)]
    private static partial Regex Release();
}
