using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using System.Text;

namespace Sidecar.Probes.Processes;

/// <summary>What came of a command.</summary>
/// <param name="Output">The first line of its standard output; null where there is a problem.</param>
/// <param name="Problem">Why there is none; null where there is.</param>
public readonly record struct CommandAnswer(string? Output, string? Problem);

/// <summary>
/// A short command for one line of text: no shell, no input, an environment of its own, no capabilities, no more rights by
/// set-uid files, bounded in time and output.
/// </summary>
public static class BoundedCommand
{
    /// <summary>More output than this is a mistake.</summary>
    private const int MostOutput = 4096;

    private const string SetPriv = "/usr/bin/setpriv";

    /// <summary>Runs it to its end.</summary>
    /// <param name="commandLine">Absolute path of the program and its arguments.</param>
    /// <param name="user">User to run as; only root can change to another.</param>
    /// <param name="timeout">It is killed after this time.</param>
    /// <param name="cancellation">Kills it too.</param>
    public static async Task<CommandAnswer> RunAsync(IReadOnlyList<string> commandLine, string? user, TimeSpan timeout, CancellationToken cancellation)
    {
        var start = new ProcessStartInfo(SetPriv)
        {
            UseShellExecute = false,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            WorkingDirectory = "/",
        };
        foreach (var argument in (string[])["--no-new-privs", "--ambient-caps", "-all"])
        {
            start.ArgumentList.Add(argument);
        }

        if (user is not null)
        {
            if (LocalUser.Find(user) is not { } known)
            {
                return new CommandAnswer(null, $"there is no user {user}");
            }

            foreach (var argument in (string[])["--reuid", known.Name, "--regid", known.Gid.ToString(CultureInfo.InvariantCulture), "--init-groups"])
            {
                start.ArgumentList.Add(argument);
            }
        }

        start.ArgumentList.Add("--");
        foreach (var argument in commandLine)
        {
            start.ArgumentList.Add(argument);
        }

        start.Environment.Clear();
        start.Environment["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        start.Environment["LC_ALL"] = "C.UTF-8";
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        limit.CancelAfter(timeout);
        try
        {
            using var process = Process.Start(start)!;
            try
            {
                process.StandardInput.Close();
                var output = ReadAsync(process.StandardOutput.BaseStream, limit.Token);
                var error = ReadAsync(process.StandardError.BaseStream, limit.Token);
                await foreach (var read in Task.WhenEach(output, error).ConfigureAwait(false))
                {
                    // Too much of the one ends the command, whatever the other still waits for.
                    await read.ConfigureAwait(false);
                }

                await process.WaitForExitAsync(limit.Token).ConfigureAwait(false);
                return Answer(process.ExitCode, await output.ConfigureAwait(false), await error.ConfigureAwait(false));
            }
            finally
            {
                // What it has started may still hold the pipes.
                process.Kill(entireProcessTree: true);
            }
        }
        catch (OperationCanceledException)
        {
            return new CommandAnswer(null, cancellation.IsCancellationRequested ? "stopped" : $"{commandLine[0]} does not end within {timeout.TotalSeconds} s");
        }
        catch (Exception e) when (e is Win32Exception or IOException or InvalidOperationException or InvalidDataException)
        {
            return new CommandAnswer(null, $"{commandLine[0]}: {e.Message}");
        }
    }

    private static CommandAnswer Answer(int exitCode, string output, string error)
    {
        var line = FirstLine(output);
        return (exitCode, line.Length) switch
        {
            (0, > 0) => new CommandAnswer(line, null),
            (0, _) => new CommandAnswer(null, "it printed nothing"),
            _ => new CommandAnswer(null, $"exit status {exitCode}{(FirstLine(error) is { Length: > 0 } why ? $": {why}" : "")}"),
        };
    }

    private static string FirstLine(string text) => text.AsSpan().Trim() is var trimmed && trimmed.IndexOf('\n') is >= 0 and var end ? trimmed[..end].Trim().ToString() : trimmed.ToString();

    private static async Task<string> ReadAsync(Stream stream, CancellationToken cancellation)
    {
        var buffer = new byte[MostOutput + 1];
        var length = await stream.ReadAtLeastAsync(buffer, buffer.Length, throwOnEndOfStream: false, cancellation).ConfigureAwait(false);
        return length > MostOutput ? throw new InvalidDataException($"it printed more than {MostOutput} bytes") : Encoding.UTF8.GetString(buffer, 0, length);
    }
}
