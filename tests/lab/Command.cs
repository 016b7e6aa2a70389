using System.Diagnostics;

namespace Sidecar.Lab;

/// <summary>A command of the system that ended with another exit code than 0.</summary>
public sealed class CommandFailedException(string message) : Exception(message);

/// <summary>What a finished command printed and how it ended.</summary>
/// <param name="ExitCode">Exit code; 128 + signal where a signal ended it.</param>
/// <param name="Output">Standard output.</param>
/// <param name="Error">Standard error.</param>
public sealed record CommandResult(int ExitCode, string Output, string Error);

/// <summary>Short-lived commands of the system (ip, nft, ss …), run to their end.</summary>
public static class Command
{
    /// <summary>Runs a command and returns how it ended, whatever the exit code.</summary>
    public static async Task<CommandResult> TryRunAsync(
        string file, IEnumerable<string> arguments, string? input = null, string? workingDirectory = null, IReadOnlyDictionary<string, string>? environment = null)
    {
        var start = new ProcessStartInfo(file, arguments)
        {
            UseShellExecute = false,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            WorkingDirectory = workingDirectory ?? string.Empty,
        };
        foreach (var (name, value) in environment ?? new Dictionary<string, string>(StringComparer.Ordinal))
        {
            start.Environment[name] = value;
        }

        using var process = Process.Start(start) ?? throw new CommandFailedException($"{file} did not start");
        var output = process.StandardOutput.ReadToEndAsync();
        var error = process.StandardError.ReadToEndAsync();
        try
        {
            await process.StandardInput.WriteAsync(input);
            process.StandardInput.Close();
        }
        catch (IOException)
        {
            // The command ended without reading its input; its exit code tells.
        }

        await process.WaitForExitAsync();
        return new CommandResult(process.ExitCode, await output, await error);
    }

    /// <summary>Runs a command that must succeed and returns its standard output.</summary>
    /// <exception cref="CommandFailedException">The exit code was not 0; the message has the command and its standard error.</exception>
    public static async Task<string> RunAsync(string file, IEnumerable<string> arguments, string? input = null)
    {
        var list = arguments.ToList();
        var result = await TryRunAsync(file, list, input);
        return result.ExitCode == 0
            ? result.Output
            : throw new CommandFailedException(
                $"{file} {string.Join(' ', list)} ended with {result.ExitCode}: {result.Error.Trim()}{(input is null ? "" : $"\ninput:\n{input}")}");
    }
}
