using System.Globalization;
using System.Net;
using System.Text.Json;

namespace Sidecar.LabTests.Evidence;

/// <summary>What the tests of evidence have in common.</summary>
internal static class BystanderSteps
{
    /// <summary>A router that forgets only when it is told to.</summary>
    internal static LabOptions PatientRouter { get; } = new() { IdleTimeout = Wait.Seconds(600) };

    /// <summary>The same, with the database alone: the test brings its own workers.</summary>
    internal static LabOptions NoWorkers { get; } = PatientRouter with { Workers = 0 };

    /// <summary>Longer than what counts as being in use.</summary>
    internal static TimeSpan Rest { get; } = Wait.Seconds(7);

    internal static AgentOptions Terminating(bool recycle, string executable) => new()
    {
        Keepalive = false, Recycle = recycle, Terminate = true, WorkersExecutable = executable, IdleTimeout = "measure", NetworkNamespaces = "own",
    };

    internal static string Python => File.ResolveLinkTarget("/usr/bin/python3", returnFinalTarget: true)!.FullName;

    /// <summary>Starts <c>bystander.py</c>, and waits until the agent has seen its connections.</summary>
    /// <returns>The process, and its connection A.</returns>
    internal static async Task<(ChildProcess Process, IPEndPoint A)> StartBystanderAsync(this TestLab lab, AgentProcess agent, string kind)
    {
        var process = lab.StartScript("bystander.py", kind, lab.Database.Dsn("postgres"));
        var ready = (await process.WaitForLineAsync(l => l.StartsWith("ready ", StringComparison.Ordinal), Wait.Seconds(20))).Split(' ');
        await agent.SeesAsync(process.Pid);
        var port = int.Parse(ready[2], CultureInfo.InvariantCulture);
        return (process, (await lab.DatabaseSocketsAsync()).Single(s => s.Local.Port == port).Local);
    }

    /// <summary>No process has got a signal of the agent: all live, none has one pending, and no termination is recorded as done.</summary>
    internal static async Task NobodySignalledAsync(this AgentProcess agent, params IReadOnlyList<int> pids)
    {
        foreach (var pid in pids)
        {
            WorkerProcess.TryFind(pid).ShouldNotBeNull($"{pid} is gone; the agent's log:\n{agent.Process.Output}");
            var pending = File.ReadLines($"/proc/{pid}/status").Single(l => l.StartsWith("ShdPnd:", StringComparison.Ordinal)).Split('\t')[1];
            (ulong.Parse(pending, NumberStyles.HexNumber, CultureInfo.InvariantCulture) & (1UL << ((int)Signal.Terminate - 1)))
                .ShouldBe(0UL, $"SIGTERM waits for {pid}; the agent's log:\n{agent.Process.Output}");
        }

        (await agent.IncidentsAsync()).Where(i => i is { Remedy: "terminate", WithheldBy: null }).Select(i => i.Raw).ShouldBeEmpty();
    }

    /// <summary>The connection of a worker.</summary>
    internal static async Task<SocketState> SocketOfAsync(this TestLab lab, int pid) => (await lab.DatabaseSocketsAsync()).Single(s => s.Pid == pid);

    /// <summary>What the agent says about its only path.</summary>
    internal static async Task<(double? Upper, string Text)> PathAsync(this AgentProcess agent)
    {
        var text = await agent.GetAsync("/api/v1/paths");
        using var json = JsonDocument.Parse(text);
        var path = json.RootElement.GetProperty("paths")[0];
        return (path.GetProperty("idle_timeout_upper_seconds") is { ValueKind: JsonValueKind.Number } upper ? upper.GetDouble() : null, text);
    }

    /// <summary>Whether a request has ended, well or badly, within the time, which is taken as it is.</summary>
    internal static async Task<bool> EndsInAsync(this Task request, TimeSpan time) => await Task.WhenAny(request, Task.Delay(time)) == request;
}

/// <summary>Workers that are asked twice a second, without the lock that they share.</summary>
internal sealed class Neighbours : IAsyncDisposable
{
    private readonly CancellationTokenSource _stopping = new();
    private readonly List<Task> _askers;
    private int _served;

    internal Neighbours(TestLab lab, params IReadOnlyList<int> workers) =>
        _askers = [.. workers.Select(w => Task.Run(() => AskAsync(lab, w)))];

    /// <summary>Requests answered well so far.</summary>
    internal int Served => Volatile.Read(ref _served);

    public async ValueTask DisposeAsync()
    {
        await _stopping.CancelAsync();
        await Task.WhenAll(_askers);
        _stopping.Dispose();
    }

    private async Task AskAsync(TestLab lab, int worker)
    {
        while (!_stopping.IsCancellationRequested)
        {
            try
            {
                if ((await lab.Web.GetAsync(worker, "/sleep?s=0", _stopping.Token)).Error is null)
                {
                    Interlocked.Increment(ref _served);
                }

                await Task.Delay(Wait.Seconds(0.5), _stopping.Token);
            }
            catch (OperationCanceledException)
            {
                return;
            }
            catch (Exception e) when (e is IOException or System.Net.Sockets.SocketException)
            {
                // The worker was ended; the next one takes its place.
                await Task.Delay(Wait.Seconds(0.5));
            }
        }
    }
}
