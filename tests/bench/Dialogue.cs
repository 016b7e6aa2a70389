using System.Diagnostics;
using Sidecar.Lab;

namespace Sidecar.Benchmarks;

/// <summary>A child that answers one line with one line. It ends with its standard input, and so with this process.</summary>
internal sealed class Dialogue : IDisposable
{
    private readonly Process process;
    private readonly Task<string> error;

    private Dialogue(Process process)
    {
        this.process = process;
        error = process.StandardError.ReadToEndAsync();
    }

    public int Pid => process.Id;

    /// <summary>Starts a program inside a namespace.</summary>
    public static Dialogue Start(NetworkNamespace inside, params IEnumerable<string> commandLine)
    {
        var start = new ProcessStartInfo("nsenter", [$"--net={inside.Path}", "--", .. commandLine])
        {
            UseShellExecute = false,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        return new Dialogue(Process.Start(start) ?? throw new CommandFailedException("nsenter did not start"));
    }

    /// <summary>Says a line and returns the numbers of the answer.</summary>
    /// <exception cref="CommandFailedException">The child ended; the message has what it said.</exception>
    public async Task<long[]> AskAsync(string line = "look")
    {
        await process.StandardInput.WriteLineAsync(line);
        await process.StandardInput.FlushAsync();
        var answer = await process.StandardOutput.ReadLineAsync() ?? throw new CommandFailedException($"{process.StartInfo.ArgumentList[2]} ended: {await error}");
        return [.. answer.Split(' ').Select(long.Parse)];
    }

    public void Dispose()
    {
        process.StandardInput.Close();
        if (!process.WaitForExit(TimeSpan.FromSeconds(5)))
        {
            process.Kill();
        }

        process.Dispose();
    }
}
