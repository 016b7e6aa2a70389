using System.Collections.Concurrent;
using System.Diagnostics;
using System.Runtime.InteropServices;

namespace Sidecar.Lab;

/// <summary>The signals that the lab sends.</summary>
public enum Signal
{
    Hangup = 1,
    Interrupt = 2,
    Quit = 3,
    Kill = 9,
    User1 = 10,
    Terminate = 15,
    Continue = 18,
    Stop = 19,
}

/// <summary>How a long-running child is started.</summary>
public sealed record ChildOptions
{
    /// <summary>Name in messages.</summary>
    public required string Name { get; init; }

    /// <summary>Program and arguments.</summary>
    public required IReadOnlyList<string> CommandLine { get; init; }

    /// <summary>Network namespace to run in; null: the lab's own.</summary>
    public string? Namespace { get; init; }

    /// <summary>User to run as; null: root.</summary>
    public string? User { get; init; }

    /// <summary>Whether its System V shared memory is its own and goes with it.</summary>
    public bool PrivateIpc { get; init; }

    /// <summary>Capabilities taken away for good, by name without <c>cap_</c>.</summary>
    public IReadOnlyList<string> WithoutCapabilities { get; init; } = [];

    /// <summary>Working directory.</summary>
    public required string Directory { get; init; }
}

/// <summary>
/// A long-running child (PostgreSQL, uWSGI, the agent) that dies with the lab's process whatever ends that: it is
/// started with PR_SET_PDEATHSIG. Its output is kept line by line.
/// </summary>
public sealed partial class ChildProcess : IDisposable
{
    private readonly Process _process;
    private readonly Lock _gate = new();
    private readonly List<string> _lines = [];
    private TaskCompletionSource _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private bool _isDisposed;

    private ChildProcess(string name, Process process)
    {
        Name = name;
        _process = process;
    }

    public string Name { get; }

    /// <summary>Process id of the program itself: nsenter and setpriv replace themselves by it.</summary>
    public int Pid => _process.Id;

    public bool HasExited => _process.HasExited;

    /// <summary>Exit code, or null while it runs.</summary>
    public int? ExitCode => _process.HasExited ? _process.ExitCode : null;

    /// <summary>All lines of both outputs so far.</summary>
    public IReadOnlyList<string> Lines
    {
        get
        {
            lock (_gate)
            {
                return [.. _lines];
            }
        }
    }

    /// <summary>All output so far.</summary>
    public string Output => string.Join('\n', Lines);

    /// <summary>Starts a child.</summary>
    public static ChildProcess Start(ChildOptions options)
    {
        var commandLine = new List<string>();
        if (options.Namespace is not null)
        {
            commandLine.AddRange(["nsenter", $"--net={NetworkNamespace.PathOf(options.Namespace)}", "--"]);
        }

        if (options.PrivateIpc)
        {
            commandLine.AddRange(["unshare", "--ipc", "--"]);
        }

        commandLine.AddRange(["setpriv", "--pdeathsig", "KILL"]);
        if (options.User is not null)
        {
            // The user is changed here and not by the program, because a change of user forgets the death signal.
            commandLine.AddRange(["--reuid", options.User, "--regid", options.User, "--init-groups"]);
        }

        if (options.WithoutCapabilities.Count > 0)
        {
            commandLine.AddRange(["--inh-caps", "-all", "--bounding-set", string.Join(',', options.WithoutCapabilities.Select(c => $"-{c}"))]);
        }

        // Who starts the tests in the background may ignore SIGINT, and its children would too.
        commandLine.AddRange(["--", "env", "--default-signal=INT,QUIT"]);
        commandLine.AddRange(options.CommandLine);
        var start = new ProcessStartInfo(commandLine[0], commandLine.Skip(1))
        {
            UseShellExecute = false,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            WorkingDirectory = options.Directory,
        };
        // Nothing of the caller's settings shall reach the servers.
        foreach (var name in start.Environment.Keys.Where(k => k is not ("PATH" or "HOME" or "DOTNET_ROOT")).ToList())
        {
            start.Environment.Remove(name);
        }

        var started = Spawner.Run(() => Process.Start(start)) ?? throw new CommandFailedException($"{options.Name} did not start");
        var child = new ChildProcess(options.Name, started);
        started.OutputDataReceived += (_, e) => child.Add(e.Data);
        started.ErrorDataReceived += (_, e) => child.Add(e.Data);
        started.BeginOutputReadLine();
        started.BeginErrorReadLine();
        started.StandardInput.Close();
        return child;
    }

    /// <summary>Waits for a line of output, also one that came before.</summary>
    /// <exception cref="TimeoutException">No such line came; the message carries the output.</exception>
    public async Task<string> WaitForLineAsync(Func<string, bool> wanted, TimeSpan timeout)
    {
        var deadline = Stopwatch.StartNew();
        while (true)
        {
            Task next;
            lock (_gate)
            {
                if (_lines.Find(line => wanted(line)) is { } found)
                {
                    return found;
                }

                next = _changed.Task;
            }

            var left = Patience.For(timeout) - deadline.Elapsed;
            if (left <= TimeSpan.Zero || (_process.HasExited && deadline.Elapsed > TimeSpan.FromSeconds(1)))
            {
                throw new TimeoutException($"{Name} did not say what was waited for; it said:\n{Output}");
            }

            await Task.WhenAny(next, Task.Delay(left < TimeSpan.FromSeconds(1) ? left : TimeSpan.FromSeconds(1)));
        }
    }

    /// <summary>Waits for the end and returns the exit code (128 + signal where a signal ended it).</summary>
    /// <exception cref="TimeoutException">It still runs.</exception>
    public async Task<int> WaitForExitAsync(TimeSpan timeout)
    {
        using var cancellation = new CancellationTokenSource(Patience.For(timeout));
        try
        {
            await _process.WaitForExitAsync(cancellation.Token);
        }
        catch (OperationCanceledException e)
        {
            throw new TimeoutException($"{Name} (pid {Pid}) still runs after {timeout.TotalSeconds} s; it said:\n{Output}", e);
        }

        return _process.ExitCode;
    }

    /// <summary>Sends a signal to this child, if it still runs.</summary>
    public void Send(Signal signal)
    {
        if (!_process.HasExited)
        {
            SendTo(Pid, signal);
        }
    }

    /// <summary>Sends a signal to a process; one that is gone is no error.</summary>
    public static void SendTo(int pid, Signal signal)
    {
        const int noSuchProcess = 3;
        if (Kill(pid, (int)signal) != 0 && Marshal.GetLastPInvokeError() is var error && error != noSuchProcess)
        {
            throw new CommandFailedException($"kill({pid}, {signal}) failed with errno {error}");
        }
    }

    /// <summary>Ends the child: the signal first, KILL if it does not go within two seconds.</summary>
    public void Stop(Signal first)
    {
        Send(first);
        if (!_process.WaitForExit(TimeSpan.FromSeconds(2)))
        {
            Send(Signal.Kill);
            _process.WaitForExit(TimeSpan.FromSeconds(5));
        }
    }

    /// <summary>Ends the child. A second call does nothing.</summary>
    public void Dispose()
    {
        if (!Interlocked.Exchange(ref _isDisposed, true))
        {
            Stop(Signal.Kill);
            _process.Dispose();
        }
    }

    [LibraryImport("libc", EntryPoint = "kill", SetLastError = true)]
    private static partial int Kill(int pid, int signal);

    private void Add(string? line)
    {
        if (line is null)
        {
            return;
        }

        lock (_gate)
        {
            _lines.Add(line);
            _changed.TrySetResult();
            _changed = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        }
    }

    /// <summary>
    /// One thread that lives as long as the process and starts all children: the death signal fires when the thread
    /// that started a child ends, and the threads of the pool end whenever they like.
    /// </summary>
    private static class Spawner
    {
        private static readonly BlockingCollection<Action> Work = [];

        static Spawner() => new Thread(Loop) { IsBackground = true, Name = "spawner" }.Start();

        public static T Run<T>(Func<T> start)
        {
            var result = new TaskCompletionSource<T>();
            Work.Add(() =>
            {
                try
                {
                    result.SetResult(start());
                }
                catch (Exception e)
                {
                    result.SetException(e);
                }
            });
            return result.Task.GetAwaiter().GetResult();
        }

        private static void Loop()
        {
            foreach (var action in Work.GetConsumingEnumerable())
            {
                action();
            }
        }
    }
}
