using System.Diagnostics;
using System.Text;
using FsCheck;
using FsCheck.Fluent;
using Shouldly;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Observation;
using Sidecar.Probes.Processes;
using Xunit;

namespace Sidecar.UnitTests.Stack;

/// <summary>Checks of one text against another, with real commands.</summary>
public sealed class CheckTests
{
    private static readonly TimeSpan Enough = TimeSpan.FromSeconds(30);

    [Theory]
    [InlineData("3.2.1", "3.2.1", true)]
    [InlineData("3.2.1", "3.3.0", false)]
    public async Task Two_commands_say_the_same_or_not(string expected, string actual, bool same)
    {
        var status = await Scan($"expected-command = /bin/echo {expected}\nactual-command = /bin/echo \"{actual}\"");
        status.ShouldBe(new CheckStatus { Name = "app", Expected = expected, Actual = actual, Problem = null });
        status.IsMatch.ShouldBe(same);
    }

    [Fact]
    public async Task The_command_runs_without_a_shell_and_only_its_first_line_counts()
    {
        (await Run("/bin/echo", "$HOME", "; id")).Output.ShouldBe("$HOME ; id");
        (await Run("/usr/bin/printf", " 1.2 \\n3.4\\n")).Output.ShouldBe("1.2");
    }

    [Fact]
    public async Task It_has_no_capabilities_no_further_rights_and_an_environment_of_its_own()
    {
        var user = Environment.IsPrivilegedProcess ? "nobody" : null;
        var status = (await BoundedCommand.RunAsync(["/bin/sh", "-c", "tr '\\n' ' ' < /proc/self/status"], user, Enough, default)).Output.ShouldNotBeNull();
        status.ShouldMatch(@"CapPrm:\s0000000000000000 ");
        status.ShouldMatch(@"CapEff:\s0000000000000000 ");
        status.ShouldMatch(@"NoNewPrivs:\s1 ");
        if (user is not null)
        {
            status.ShouldNotMatch(@"Uid:\s0");
        }

        (await Run("/usr/bin/env")).Output.ShouldBe("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    }

    [Fact]
    public async Task A_command_that_does_not_end_is_killed_with_what_it_has_started()
    {
        using var directory = new TemporaryDirectory();
        var sleep = directory.Program("sleeper", "/bin/sleep");
        var waited = Stopwatch.StartNew();
        (await BoundedCommand.RunAsync(["/bin/sh", "-c", $"{sleep} 300 & wait"], null, TimeSpan.FromSeconds(1), default)).Problem.ShouldBe("/bin/sh does not end within 1 s");
        waited.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(60));
        SpinWait.SpinUntil(() => !Directory.GetDirectories("/proc").Any(p => File.Exists(p + "/exe") && new FileInfo(p + "/exe").LinkTarget == sleep), Enough).ShouldBeTrue();
    }

    [Theory]
    [InlineData("/bin/sh|-c|exit 3", "exit status 3")]
    [InlineData("/bin/sh|-c|echo no such package >&2; exit 1", "exit status 1: no such package")]
    [InlineData("/bin/true", "it printed nothing")]
    [InlineData("/nonexistent", "exit status 127: setpriv: failed to execute /nonexistent: No such file or directory")]
    [InlineData("/bin/sh|-c|yes", "/bin/sh: it printed more than 4096 bytes")]
    public async Task What_goes_wrong_is_said(string command, string problem) => (await Run(command.Split('|'))).ShouldBe(new CommandAnswer(null, problem));

    [Fact]
    public async Task A_side_that_is_not_known_makes_no_result()
    {
        var status = await Scan("expected-command = /bin/echo 1\nactual-command = /bin/false");
        status.IsMatch.ShouldBeNull();
        status.Problem.ShouldBe("actual: exit status 1");
    }

    [Fact]
    public async Task A_query_without_its_file_is_a_problem_and_no_result()
    {
        var status = await Scan("expected-query = SELECT 1\nactual-command = /bin/echo 1\nupstream = db");
        status.IsMatch.ShouldBeNull();
        status.Problem.ShouldNotBeNull().ShouldStartWith("expected: ");
    }

    [Theory]
    [InlineData("", "expected either expected-command or expected-query, got neither")]
    [InlineData("expected-command = /bin/a\nexpected-query = SELECT 1\nactual-command = /bin/b\nupstream = db", "expected either expected-command or expected-query, got both")]
    [InlineData("expected-command = a\nactual-command = /bin/b", "the absolute path of a program")]
    [InlineData("expected-command = /bin/a \"b\nactual-command = /bin/b", "the absolute path of a program")]
    [InlineData("expected-query = SELECT 1\nactual-command = /bin/b", "whose dsn-file is to be used?")]
    [InlineData("expected-query = SELECT 1\nactual-command = /bin/b\nupstream = other", "an upstream that has a dsn-file, got \"other\"")]
    [InlineData("expected-query = SELECT 1\nactual-command = /bin/b\nupstream = plain", "an upstream that has a dsn-file, got \"plain\"")]
    [InlineData("expected-command = /bin/a\nactual-command = /bin/b\ninterval = 1ms", "a duration of 1s to 1d")]
    public void A_section_that_makes_no_sense_is_refused(string section, string message) =>
        Should.Throw<ConfigurationException>(() => Parse(section)).Errors.Select(e => e.ToString()).ShouldContain(e => e.Contains(message));

    [Fact]
    public void An_HAProxy_section_needs_a_socket()
    {
        Should.Throw<ConfigurationException>(() => ConfigurationLoader.Parse("x", "[haproxy:edge]\n"u8.ToArray())).Errors.ShouldHaveSingleItem().ToString().ShouldContain("socket = …");
        Should.Throw<ConfigurationException>(() => ConfigurationLoader.Parse("x", "[haproxy:edge]\nsocket = relative\n"u8.ToArray())).Errors.ShouldHaveSingleItem().ToString().ShouldContain("an absolute path");
    }

    [Fact]
    public void What_is_written_out_reads_back_as_the_same()
    {
        var read = Parse("expected-query = SELECT 'a b'\nactual-command = /bin/a \"b c\" d'e\"f'\nupstream = db\nuser = nobody\ninterval = 2m");
        read.Checks.Single().Actual.Command.ShouldBe(["/bin/a", "b c", "de\"f"]);
        var text = ConfigurationText.Write(read);
        ConfigurationText.Write(ConfigurationLoader.Parse("x", Encoding.UTF8.GetBytes(text)) with { Files = read.Files }).ShouldBe(text);
    }

    [Fact]
    public void Any_words_are_split_again_as_they_were() =>
        Prop.ForAll<NonNull<string>[]>(words =>
        {
            IReadOnlyList<string> line = ["/bin/program", .. words.Select(word => word.Get)];
            CommandLine.TrySplit(CommandLine.Join(line), out var read).ShouldBeTrue();
            return read.SequenceEqual(line);
        }).QuickCheckThrowOnFailure();

    private static SidecarConfiguration Parse(string section) => ConfigurationLoader.Parse("x", Encoding.UTF8.GetBytes(
        $"[upstream:db]\nendpoint = 10.0.2.2:5432\nprotocol = postgresql\ndsn-file = /nonexistent/db.dsn\n[upstream:plain]\nendpoint = 10.0.2.3:1\n[check:app]\n{section}\n"));

    private static Task<CheckStatus> Scan(string section)
    {
        var configuration = Parse(section);
        return new CheckScan(configuration.Checks.Single(), configuration.Upstreams[0].DsnFile).ScanAsync(null, default);
    }

    private static Task<CommandAnswer> Run(params string[] command) => BoundedCommand.RunAsync(command, null, Enough, default);
}
