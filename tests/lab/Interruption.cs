namespace Sidecar.Lab;

/// <summary>Interference with single system calls of a program; the rules are those of <c>faults/interrupt.c</c>.</summary>
public static class Interruption
{
    private static readonly Lazy<Task<string>> Program = new(() => CompileAsync("interrupt"));
    private static readonly Lazy<Task<string>> Taker = new(() => CompileAsync("takepid"));

    /// <summary>What a program's command line has to begin with.</summary>
    /// <param name="whileExists">The rules hold only while this file exists; null: always.</param>
    /// <param name="rules">Which calls, and what becomes of them.</param>
    public static async Task<IReadOnlyList<string>> StarterAsync(string? whileExists, params IEnumerable<string> rules) =>
        [await Program.Value, .. whileExists is null ? [] : new[] { "-w", whileExists }, .. rules, "--"];

    /// <summary>Waits until the process id is free, and lets another process have it, which does nothing for an hour.</summary>
    public static async Task<ChildProcess> TakePidAsync(int pid)
    {
        var other = ChildProcess.Start(new ChildOptions { Name = $"taker of {pid}", Directory = Path.GetTempPath(), CommandLine = [await Taker.Value, $"{pid}", "sleep", "3600"] });
        await other.WaitForLineAsync(line => line == "taken", TimeSpan.FromSeconds(15));
        return other;
    }

    private static async Task<string> CompileAsync(string name)
    {
        var program = Path.Combine(AppContext.BaseDirectory, "faults", name);
        var temporary = $"{program}.{Environment.ProcessId}";
        await Command.RunAsync("gcc", ["-O2", "-Wall", "-Wextra", "-Werror", "-o", temporary, program + ".c"]);
        File.Move(temporary, program, overwrite: true);
        return program;
    }
}
