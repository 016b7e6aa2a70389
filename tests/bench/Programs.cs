using Sidecar.Lab;

namespace Sidecar.Benchmarks;

/// <summary>The C programs beside the benchmarks, compiled at first use.</summary>
internal static class Programs
{
    private static readonly Lazy<Task<string>> Directory = new(CompileAsync);

    /// <summary>Path of a compiled program.</summary>
    public static async Task<string> PathAsync(string name) => Path.Combine(await Directory.Value, name);

    private static async Task<string> CompileAsync()
    {
        var sources = Path.Combine(AppContext.BaseDirectory, "floor");
        foreach (var name in new[] { "floor", "sockets" })
        {
            var output = Path.Combine(sources, name);
            var source = output + ".c";
            if (!File.Exists(output) || File.GetLastWriteTimeUtc(output) < File.GetLastWriteTimeUtc(source))
            {
                var temporary = $"{output}.{Environment.ProcessId}";
                await Command.RunAsync("gcc", ["-O2", "-Wall", "-Wextra", "-Werror", "-o", temporary, source]);
                File.Move(temporary, output, overwrite: true);
            }
        }

        return sources;
    }
}
