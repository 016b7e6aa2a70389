using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text.RegularExpressions;
using Sidecar.Lab;

namespace Sidecar.Benchmarks;

/// <summary>out/conn-sidecar, run in the worker's namespace of a field as the service manager would.</summary>
internal sealed partial class PublishedAgent : IDisposable
{
    private readonly Field _field;
    private readonly ChildProcess _process;

    private PublishedAgent(Field field, ChildProcess process)
    {
        _field = field;
        _process = process;
    }

    /// <summary>Starts it; it has taken no scan yet.</summary>
    public static PublishedAgent Start(Field field, string idleTimeout = "350s", bool keepalive = true)
    {
        var directory = Directory.CreateTempSubdirectory("agent-").FullName;
        field.KeepUntilDisposed(directory);
        var path = Path.Combine(directory, "conn-sidecar.conf");
        File.WriteAllText(path, ScanChild.Text(field.ServerNetwork, Field.WatchedPort, directory, idleTimeout) + (keepalive ? "" : "keepalive = off\n"));
        return new PublishedAgent(
            field,
            ChildProcess.Start(new ChildOptions
            {
                Name = "conn-sidecar",
                CommandLine = [AgentProcess.Binary, "run", "--config", path],
                Namespace = field.Worker.Name,
                Directory = directory,
            }));
    }

    /// <summary>
    /// User and system time so far, to the nanosecond: by the process's CPU clock (clock_getcpuclockid(3)). The times in /proc are
    /// sampled by the kernel's tick, which a process that wakes on the tick meets too often.
    /// </summary>
    public TimeSpan Cpu
    {
        get
        {
            const int scheduler = 2;
            var time = new long[2];
            return clock_gettime((~_process.Pid << 3) | scheduler, time) == 0
                ? TimeSpan.FromSeconds(time[0]) + TimeSpan.FromMicroseconds(time[1] / 1000.0)
                : throw new InvalidOperationException($"the CPU clock of process {_process.Pid} cannot be read");
        }
    }

    /// <summary>Resident memory, MB.</summary>
    public double Resident => Status("VmRSS");

    /// <summary>Largest resident memory so far, MB.</summary>
    public double Peak => Status("VmHWM");

    /// <summary>A value of the metrics page without labels, or its sum over all label values.</summary>
    public async Task<double> MetricAsync(string name)
    {
        using var client = _field.Worker.HttpClient();
        var page = await client.GetStringAsync(new Uri("http://127.0.0.1:10042/metrics"));
        return Line().Matches(page).Where(match => string.Equals(match.Groups["name"].Value, name, StringComparison.Ordinal))
            .Sum(match => double.Parse(match.Groups["value"].ValueSpan, CultureInfo.InvariantCulture));
    }

    /// <summary>Waits until a metric has reached a value; returns how long that took.</summary>
    public async Task<TimeSpan> WaitForAsync(string metric, double value, TimeSpan timeout)
    {
        var waited = Stopwatch.StartNew();
        while (true)
        {
            try
            {
                if (await MetricAsync(metric) >= value)
                {
                    return waited.Elapsed;
                }
            }
            catch (HttpRequestException)
            {
                // not up yet
            }

            if (_process.HasExited || waited.Elapsed > timeout)
            {
                throw new TimeoutException($"{metric} did not reach {value}: {_process.Output}");
            }

            await Task.Delay(50);
        }
    }

    public void Dispose()
    {
        _process.Stop(Signal.Terminate);
        _process.Dispose();
    }

    private double Status(string key) => long.Parse(
        File.ReadLines(string.Create(CultureInfo.InvariantCulture, $"/proc/{_process.Pid}/status")).First(line => line.StartsWith(key, StringComparison.Ordinal)).Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries)[1],
        CultureInfo.InvariantCulture) / 1024.0;

    [GeneratedRegex(@"^(?<name>[a-z_]+)(?:\{[^}]*\})? (?<value>\S+)", RegexOptions.Multiline | RegexOptions.CultureInvariant, 1000)]
    private static partial Regex Line();

    [LibraryImport("libc")]
    private static partial int clock_gettime(int clock, [Out] long[] secondsAndNanoseconds);
}
