using System.Diagnostics;
using Sidecar.Lab;

namespace Sidecar.Benchmarks;

/// <summary>A child that answers one line with one line. It ends with its standard input, and so with this process.</summary>
internal sealed class Dialogue : IDisposable
{
    private readonly Process _process;
    private readonly Task<string> _error;

    private Dialogue(Process process)
    {
        _process = process;
        _error = process.StandardError.ReadToEndAsync();
    }

    public int Pid => _process.Id;

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
    public async Task<long[]> AskAsync(string line = "scan")
    {
        await _process.StandardInput.WriteLineAsync(line);
        await _process.StandardInput.FlushAsync();
        var answer = await _process.StandardOutput.ReadLineAsync() ?? throw new CommandFailedException($"{_process.StartInfo.ArgumentList[2]} ended: {await _error}");
        return [.. answer.Split(' ').Select(long.Parse)];
    }

    public void Dispose()
    {
        _process.StandardInput.Close();
        if (!_process.WaitForExit(TimeSpan.FromSeconds(5)))
        {
            _process.Kill();
        }

        _process.Dispose();
    }
}
