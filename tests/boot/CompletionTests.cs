namespace Sidecar.BootTests;

/// <summary>Completion of the shells that are tried on this host; bash is tried on a booted machine, by <see cref="ServiceTests"/>.</summary>
public sealed class CompletionTests
{
    private static readonly string Completions = Path.Combine(Repository.Root, "packaging", "deb", "completions");

    [Fact]
    public Task Zsh_knows_every_command_and_every_option() => KnowsAllAsync(ZshAsync);

    [Fact]
    public Task Fish_knows_every_command_and_every_option() => KnowsAllAsync(FishAsync);

    private static async Task KnowsAllAsync(Func<string, Task<IReadOnlyList<string>>> complete)
    {
        var commands = await PackageTests.CommandsAsync("--help");
        (await complete("conn-sidecar ")).Where(w => !w.StartsWith('-')).ShouldBe(commands, ignoreOrder: true);
        (await complete("conn-sidecar st")).ShouldBe(["status"]);
        (await complete("conn-sidecar --")).ShouldBe(["--help", "--version"], ignoreOrder: true);
        (await complete("conn-sidecar measure --protocol ")).ShouldBe(["tcp", "postgresql"], ignoreOrder: true);
        foreach (var command in commands)
        {
            (await complete($"conn-sidecar {command} --")).ShouldBe(await PackageTests.OptionsAsync(command), ignoreOrder: true, customMessage: command);
        }
    }

    private static async Task<IReadOnlyList<string>> ZshAsync(string line) =>
        Lines(await Command.RunAsync("zsh", ["-f", Path.Combine(AppContext.BaseDirectory, "completion.zsh"), Completions, line]));

    private static async Task<IReadOnlyList<string>> FishAsync(string line) =>
        [.. Lines(await Command.RunAsync("fish", ["--no-config", "-c", $"source {Path.Combine(Completions, "conn-sidecar.fish")}; complete -C '{line}'"])).Select(l => l.Split('\t')[0])];

    private static string[] Lines(string output) => output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
}
