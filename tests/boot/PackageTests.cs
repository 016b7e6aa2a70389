using System.Security.Cryptography;
using System.Text.RegularExpressions;

namespace Sidecar.BootTests;

/// <summary>The file itself, before anybody installs it.</summary>
public sealed partial class PackageTests
{
    private const long Megabyte = 1_000_000;

    [Fact]
    public async Task It_is_no_larger_than_15_megabytes_and_compressed_as_Debian_12_reads_it()
    {
        var package = await DebianPackage.GetAsync();
        new FileInfo(package).Length.ShouldBeLessThanOrEqualTo(15 * Megabyte);
        var members = (await Command.RunAsync("ar", ["t", package])).Split('\n', StringSplitOptions.RemoveEmptyEntries);
        members.ShouldBe(["debian-binary", "control.tar.xz", "data.tar.xz"]);
    }

    [Fact]
    public async Task Lintian_has_no_errors_and_no_warnings_and_each_override_has_its_reason()
    {
        var lintian = await Command.TryRunAsync("lintian", ["--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0", await DebianPackage.GetAsync()]);
        (lintian.Output + lintian.Error).ShouldBe("");
        lintian.ExitCode.ShouldBe(0);

        var overrides = await File.ReadAllLinesAsync(Path.Combine(Repository.Root, "packaging", "deb", "debian", "conn-sidecar.lintian-overrides"));
        overrides.Count(l => !l.StartsWith('#')).ShouldBe(1);
        for (var line = 0; line < overrides.Length; line++)
        {
            (overrides[line].StartsWith('#') || overrides[Math.Max(0, line - 1)].StartsWith('#')).ShouldBeTrue(overrides[line]);
        }
    }

    [Fact]
    public async Task It_brings_what_an_operator_looks_for_and_nothing_writable_by_others()
    {
        var listing = (await Command.RunAsync("dpkg-deb", ["--contents", await DebianPackage.GetAsync()])).Split('\n', StringSplitOptions.RemoveEmptyEntries);
        var files = listing.Select(l => l.Split(' ', 6, StringSplitOptions.RemoveEmptyEntries)).Select(f => (Mode: f[0], Owner: f[1], Path: f[5].TrimStart('.'))).ToList();
        foreach (var wanted in new[]
        {
            "/usr/bin/conn-sidecar", "/lib/systemd/system/conn-sidecar.service", "/lib/systemd/system/conn-sidecar-check.socket", "/lib/systemd/system/conn-sidecar-check@.service",
            "/usr/lib/sysusers.d/conn-sidecar.conf", "/etc/apparmor.d/conn-sidecar",
            "/usr/lib/tmpfiles.d/conn-sidecar.conf", "/etc/conn-sidecar/conn-sidecar.conf", "/etc/conn-sidecar/conf.d/",
            "/usr/share/man/man8/conn-sidecar.8.gz", "/usr/share/man/man5/conn-sidecar.conf.5.gz",
            "/usr/share/bash-completion/completions/conn-sidecar", "/usr/share/zsh/vendor-completions/_conn-sidecar",
            "/usr/share/fish/vendor_completions.d/conn-sidecar.fish", "/usr/share/doc/conn-sidecar/README.Debian",
            "/usr/share/doc/conn-sidecar/changelog.gz", "/usr/share/doc/conn-sidecar/copyright",
            "/usr/share/doc/conn-sidecar/examples/observe-only.conf", "/usr/share/doc/conn-sidecar/examples/containers.conf",
        })
        {
            files.Select(f => f.Path).ShouldContain(wanted);
        }

        foreach (var directory in new[] { "alerts", "dashboard", "schemas" })
        {
            var sources = new DirectoryInfo(Path.Combine(Repository.Root, "packaging", "deb", directory));
            foreach (var source in sources.Exists ? sources.GetFiles() : [])
            {
                files.Select(f => f.Path).ShouldContain($"/usr/share/conn-sidecar/{directory}/{source.Name}");
            }
        }

        files.ShouldAllBe(f => f.Owner == "root/root" && f.Mode[5] == '-' && f.Mode[8] == '-' && !f.Mode.Contains('s'));
        (await Command.RunAsync("dpkg-deb", ["--info", await DebianPackage.GetAsync(), "conffiles"])).Split('\n', StringSplitOptions.RemoveEmptyEntries).ShouldBe(["/etc/apparmor.d/conn-sidecar", "/etc/conn-sidecar/conn-sidecar.conf"], ignoreOrder: true);
    }

    [Fact]
    public async Task The_AppArmor_profile_is_one_that_the_parser_takes_and_the_one_that_the_unit_names()
    {
        var packaging = Path.Combine(Repository.Root, "packaging", "deb");
        var parsed = await Command.TryRunAsync("apparmor_parser", ["--skip-kernel-load", "--skip-cache", "--skip-read-cache", "--names", Path.Combine(packaging, "apparmor", "conn-sidecar")]);
        parsed.ExitCode.ShouldBe(0, parsed.Error);
        var whole = await Command.TryRunAsync("apparmor_parser", ["--skip-kernel-load", "--skip-cache", "--skip-read-cache", Path.Combine(packaging, "apparmor", "conn-sidecar")]);
        whole.ExitCode.ShouldBe(0, whole.Error);
        (await File.ReadAllLinesAsync(Path.Combine(packaging, "debian", "conn-sidecar.service"))).ShouldContain($"AppArmorProfile=-{parsed.Output.Trim()}");
    }

    [Fact]
    public async Task A_clone_elsewhere_built_by_somebody_else_has_the_same_bytes_and_stays_clean()
    {
        var directory = Directory.CreateTempSubdirectory("sidecar-reproducible-").FullName;
        try
        {
            File.SetUnixFileMode(directory, (UnixFileMode)0x1ED /* 0755 */);
            // A clone is of a commit: this tree can stand for one only without changes.
            var changed = (await Command.RunAsync("git", ["-C", Repository.Root, "status", "--porcelain"])).Length > 0;
            var here = changed ? await BuildCloneAsync(Path.Combine(directory, "here"), null) : await HashAsync(await DebianPackage.GetAsync());

            var elsewhere = await BuildCloneAsync(Path.Combine(directory, "another-place", "clone"), "nobody");

            elsewhere.ShouldBe(here);
        }
        finally
        {
            Directory.Delete(directory, recursive: true);
        }
    }

    [Theory]
    [InlineData("conn-sidecar.8")]
    [InlineData("conn-sidecar.conf.5")]
    public async Task Manual_pages_render_without_warnings(string page)
    {
        var path = Path.Combine(Repository.Root, "packaging", "deb", "man", page);
        // -wall, since man's own --warnings leaves some out; MAN_KEEP_STDERR, since it hides the rest without a terminal.
        var result = await Command.TryRunAsync("env", ["MAN_KEEP_STDERR=1", "MANWIDTH=80", "man", "--warnings=all", "--encoding=UTF-8", "--local-file", path]);
        result.Error.ShouldBe("");
        result.ExitCode.ShouldBe(0);
        result.Output.ShouldContain("SEE ALSO");
    }

    [Fact]
    public async Task The_manual_has_every_command_and_every_option_and_no_other()
    {
        var manual = await RenderAsync("conn-sidecar.8");
        var commands = await CommandsAsync("--help");
        commands.ShouldContain("run");
        foreach (var command in commands)
        {
            manual.ShouldContain($"\n       {command}", customMessage: command);
            foreach (var option in await OptionsAsync(command))
            {
                manual.ShouldContain(option, customMessage: $"{command} {option}");
            }
        }

        var known = (await Task.WhenAll(commands.Select(OptionsAsync))).SelectMany(o => o).Append("--version").ToHashSet(StringComparer.Ordinal);
        // The examples show options of other programs.
        var own = manual[..manual.IndexOf("\nEXAMPLES", StringComparison.Ordinal)];
        LongOption().Matches(own).Select(m => m.Value).Distinct().ShouldBeSubsetOf(known);
    }

    [Fact]
    public async Task The_manual_has_every_key_of_the_sample_configuration_and_no_other()
    {
        var manual = await RenderAsync("conn-sidecar.conf.5");
        var sample = await File.ReadAllTextAsync(Path.Combine(Repository.Root, "packaging", "deb", "conn-sidecar.conf"));
        var keys = SampleKey().Matches(sample).Select(m => m.Groups["key"].Value).Distinct().ToList();
        keys.Count.ShouldBeGreaterThan(15);
        var described = ManualKey().Matches(manual[manual.IndexOf("\n[agent]", StringComparison.Ordinal)..])
            .SelectMany(m => m.Groups["key"].Value.Split(", ")).Distinct();
        described.ShouldBe(keys, ignoreOrder: true);
    }

    internal static async Task<IReadOnlyList<string>> CommandsAsync(params IReadOnlyList<string> arguments)
    {
        var help = await HelpAsync(arguments);
        var start = help.IndexOf("\nCommands:\n", StringComparison.Ordinal);
        return start < 0 ? [] : [.. HelpCommand().Matches(help[start..]).Select(m => m.Groups["name"].Value)];
    }

    internal static async Task<IReadOnlyList<string>> OptionsAsync(string command)
    {
        var help = await HelpAsync(command, "--help");
        return [.. LongOption().Matches(help[help.IndexOf("\nOptions:\n", StringComparison.Ordinal)..]
            .Split('\n').Where(l => l.StartsWith("  -", StringComparison.Ordinal)).Aggregate("", (a, l) => a + l.Split("  ", StringSplitOptions.RemoveEmptyEntries)[0] + "\n"))
            .Select(m => m.Value).Distinct()];
    }

    private static async Task<string> HelpAsync(params IReadOnlyList<string> arguments)
    {
        await DebianPackage.GetAsync();
        return await Command.RunAsync(Path.Combine(Repository.Root, "out", "conn-sidecar"), arguments);
    }

    private static async Task<string> RenderAsync(string page)
    {
        var text = await Command.RunAsync("env",
            ["MANWIDTH=80", "MANROFFOPT=-c", "man", "--encoding=ascii", "--no-hyphenation", "--local-file", Path.Combine(Repository.Root, "packaging", "deb", "man", page)]);
        return Overstrike().Replace(text, "");
    }

    private static async Task<string> BuildCloneAsync(string place, string? user)
    {
        await Command.RunAsync("git", ["clone", "--quiet", "--no-local", Repository.Root, place]);
        IReadOnlyList<string> build = ["env", "-C", place, "sh", "scripts/deb.sh"];
        if (user is not null)
        {
            // Packages that are here need not be fetched again; the user gets copies, since it could not run the tools among them.
            var packages = (await Command.RunAsync("dotnet", ["nuget", "locals", "global-packages", "--list"])).Split(':', 2)[1].Trim();
            var home = Path.GetDirectoryName(place)!;
            await Command.RunAsync("mkdir", ["-p", $"{home}/.nuget"]);
            await Command.RunAsync("cp", ["-a", "--reflink=auto", packages.TrimEnd('/'), $"{home}/.nuget/packages"]);
            await Command.RunAsync("chown", ["-R", $"{user}:", home]);
            build =
            [
                "setpriv", "--reuid", user, "--regid", "nogroup", "--clear-groups", "--",
                "env", "-C", place, $"HOME={home}", "sh", "scripts/deb.sh",
            ];
        }

        var output = await Command.RunAsync(build[0], build.Skip(1));
        var status = await Command.RunAsync("git", ["-C", place, "-c", $"safe.directory={place}", "status", "--porcelain"]);
        status.ShouldBe("");
        return await HashAsync(Path.Combine(place, output.Split('\n', StringSplitOptions.RemoveEmptyEntries)[^1]));
    }

    private static async Task<string> HashAsync(string package)
    {
        await using var content = File.OpenRead(package);
        return $"{Path.GetFileName(package)} {Convert.ToHexStringLower(await SHA256.HashDataAsync(content))}";
    }

    [GeneratedRegex(@"--[a-z][a-z-]+", RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex LongOption();

    [GeneratedRegex(@"^  (?<name>[a-z][a-z-]*) ", RegexOptions.Multiline | RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex HelpCommand();

    [GeneratedRegex(@"^#(?<key>[a-z][a-z-]*) = ", RegexOptions.Multiline | RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex SampleKey();

    [GeneratedRegex(@"^       (?<key>[a-z][a-z-]*(, [a-z][a-z-]*)*)(\n|  +| +[A-Z])", RegexOptions.Multiline | RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex ManualKey();

    [GeneratedRegex(".\b", RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex Overstrike();
}
