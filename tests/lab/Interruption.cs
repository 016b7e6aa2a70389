namespace Sidecar.Lab;

/// <summary>Interference with single system calls of a program; the rules are those of <c>faults/interrupt.c</c>.</summary>
public static class Interruption
{
    private static readonly Lazy<Task<string>> Program = new(CompileAsync);

    /// <summary>What a program's command line has to begin with.</summary>
    /// <param name="whileExists">The rules hold only while this file exists; null: always.</param>
    /// <param name="rules">Which calls, and what becomes of them.</param>
    public static async Task<IReadOnlyList<string>> StarterAsync(string? whileExists, params IEnumerable<string> rules) =>
        [await Program.Value, .. whileExists is null ? [] : new[] { "-w", whileExists }, .. rules, "--"];

    private static async Task<string> CompileAsync()
    {
        var program = Path.Combine(AppContext.BaseDirectory, "faults", "interrupt");
        var temporary = $"{program}.{Environment.ProcessId}";
        await Command.RunAsync("gcc", ["-O2", "-Wall", "-Wextra", "-Werror", "-o", temporary, program + ".c"]);
        File.Move(temporary, program, overwrite: true);
        return program;
    }
}
