using System.Diagnostics;
using System.Globalization;

namespace Sidecar.Lab;

/// <summary>
/// Everything at once for a long time: a lab under load, one fault after another, and the agent, which may close what the
/// router has forgotten and nothing else. At the end a report of what was done, what was wrong, and what has grown.
/// </summary>
public sealed class Soak
{
    private static readonly TimeSpan SampleEvery = TimeSpan.FromSeconds(5);

    /// <summary>
    /// Whoever hangs is freed within this time after the last fault. What was forgotten in an outage is condemned by
    /// retransmissions after it, and they come when the kernel's back-off has it, two minutes apart at the end.
    /// </summary>
    private static readonly TimeSpan LongestHang = TimeSpan.FromMinutes(10);

    private const long MostGrownKilobytes = 12 * 1024;
    private const int MostGrownDescriptors = 8;

    private readonly TestLab _lab;
    private readonly AgentProcess _agent;
    private readonly SteadyClient _client;
    private readonly Random _random;
    private readonly Stopwatch _clock = Stopwatch.StartNew();
    private readonly SortedDictionary<string, int> _faults = new(StringComparer.Ordinal);
    private readonly HashSet<string> _dead = new(StringComparer.Ordinal);
    private readonly List<(DateTimeOffset From, DateTimeOffset To)> _outages = [];
    private readonly List<(TimeSpan At, long Kilobytes, int Descriptors)> _samples = [];
    private readonly List<string> _wrong = [];

    private Soak(TestLab lab, AgentProcess agent, SteadyClient client, int seed)
    {
        (_lab, _agent, _client, _random) = (lab, agent, client, new Random(seed));
    }

    /// <summary>Runs for a time and writes the report; true when nothing was wrong.</summary>
    public static async Task<bool> RunAsync(TimeSpan length, int seed, TextWriter report)
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { IdleTimeout = TimeSpan.FromHours(2), ApplicationRole = "web" });

        // A lost answer ends when keepalives go unanswered, and nobody shall wait two minutes for that here.
        var agent = await lab.StartAgentAsync(new AgentOptions { Terminate = true, Keepalive = true, IdleTimeout = "350s", DeadAfter = "30s", Sessions = true });
        await using var client = await SteadyClient.StartAsync(lab);
        var soak = new Soak(lab, agent, client, seed);
        using var over = new CancellationTokenSource();
        var background = new[] { soak.SampleAsync(over.Token), soak.LoadAsync(over.Token), soak.ScrapeAsync(over.Token) };
        while (soak._clock.Elapsed < length && !agent.Process.HasExited)
        {
            await soak.FaultAsync();
            await Task.Delay(TimeSpan.FromSeconds(3 + soak._random.Next(10)));
        }

        await soak.SettleAsync();
        await over.CancelAsync();
        await Task.WhenAll(background);
        await soak.ReportAsync(report);
        return soak._wrong.Count == 0;
    }

    private async Task FaultAsync()
    {
        string[] kinds = ["forget", "forget", "forget", "outage", "outage of a moment", "loss", "slow query", "worker stopped", "agent stopped", "agent reloaded", "control socket flooded", "silence"];
        var kind = kinds[_random.Next(kinds.Length)];
        _faults[kind] = _faults.GetValueOrDefault(kind) + 1;
        switch (kind)
        {
            case "forget":
                await ForgetAsync();
                break;
            case "outage":
                await OutageAsync(TimeSpan.FromSeconds(4 + _random.Next(20)));
                break;
            case "outage of a moment":
                await OutageAsync(TimeSpan.FromMilliseconds(200 + _random.Next(1500)));
                break;
            case "loss":
                await _lab.Router.SetLossAsync(1 + _random.Next(10));
                await Task.Delay(TimeSpan.FromSeconds(15));
                await _lab.Router.SetLossAsync(0);
                break;
            case "slow query":
                _client.Ask(1 + _random.Next(_lab.Web.WorkerCount), $"/sleep?s={5 + _random.Next(20)}");
                break;
            case "worker stopped":
                if (_lab.Web.Workers() is { Count: > 0 } workers)
                {
                    var worker = workers[_random.Next(workers.Count)].Pid;
                    ChildProcess.SendTo(worker, Signal.Stop);
                    await Task.Delay(TimeSpan.FromSeconds(5));
                    ChildProcess.SendTo(worker, Signal.Continue);
                }

                break;
            case "agent stopped":
                ChildProcess.SendTo(_agent.Pid, Signal.Stop);
                if (_random.Next(2) == 0)
                {
                    await OutageAsync(TimeSpan.FromSeconds(5));
                }
                else
                {
                    await ForgetAsync();
                    await Task.Delay(TimeSpan.FromSeconds(5));
                }

                ChildProcess.SendTo(_agent.Pid, Signal.Continue);
                break;
            case "agent reloaded":
                ChildProcess.SendTo(_agent.Pid, Signal.Hangup);
                break;
            case "control socket flooded":
                var script = Path.Combine(AppContext.BaseDirectory, "app", "hostile.py");
                var socket = Path.Combine(Path.GetDirectoryName(_agent.StateDirectory)!, "run", "control.sock");
                await _lab.Network.Worker.TryRunAsync(["/usr/bin/python3", script, socket, "5"]);
                break;
        }
    }

    /// <summary>From now on the connections that are there are dead, and those that come are alive.</summary>
    private async Task ForgetAsync()
    {
        await _lab.Router.ForgetAsync();
        foreach (var socket in await _lab.DatabaseSocketsAsync())
        {
            // One that was made in between lives; it is no harm that it counts as dead until it is closed.
            _dead.Add($"{socket.Local}");
        }
    }

    private async Task OutageAsync(TimeSpan length)
    {
        var link = _random.Next(2) == 0 ? LabLink.Worker : LabLink.Database;
        var from = DateTimeOffset.UtcNow;
        await _lab.Network.SetLinkAsync(link, up: false);
        await Task.Delay(length);
        _outages.Add((from, DateTimeOffset.UtcNow));
        await _lab.Network.SetLinkAsync(link, up: true);
    }

    /// <summary>No more faults: whoever hangs now is freed, or nobody frees him.</summary>
    private async Task SettleAsync()
    {
        var until = _client.Now;
        for (var waited = Stopwatch.StartNew(); waited.Elapsed < LongestHang; await Task.Delay(1000))
        {
            if (_client.Requests.Where(request => request.Sent < until).All(request => request.Ended is not null))
            {
                return;
            }
        }

        _wrong.Add($"{_client.Requests.Count(request => request.Sent < until && request.Ended is null)} requests hang {LongestHang.TotalSeconds} s after the last fault\n{(await _agent.RunAsync("status")).Output}");
    }

    private async Task LoadAsync(CancellationToken over)
    {
        while (!over.IsCancellationRequested)
        {
            await PauseAsync(TimeSpan.FromSeconds(_random.Next(20)), over);
            _client.WakeSleeper();
        }
    }

    private async Task ScrapeAsync(CancellationToken over)
    {
        while (!over.IsCancellationRequested)
        {
            try
            {
                await _agent.MetricsAsync().WaitAsync(TimeSpan.FromSeconds(30), over);
            }
            catch (Exception e) when (e is HttpRequestException or TimeoutException or TaskCanceledException or OperationCanceledException)
            {
                // Between two configurations, or stopped.
            }

            await PauseAsync(TimeSpan.FromSeconds(5), over);
        }
    }

    private async Task SampleAsync(CancellationToken over)
    {
        while (!over.IsCancellationRequested && !_agent.Process.HasExited)
        {
            try
            {
                var resident = File.ReadLines($"/proc/{_agent.Pid}/status").First(line => line.StartsWith("VmRSS:", StringComparison.Ordinal));
                _samples.Add((_clock.Elapsed, long.Parse(resident.Split(' ', StringSplitOptions.RemoveEmptyEntries)[^2], CultureInfo.InvariantCulture), Directory.GetFileSystemEntries($"/proc/{_agent.Pid}/fd").Length));
            }
            catch (IOException)
            {
                // It has ended, which is told below.
            }

            await PauseAsync(SampleEvery, over);
        }
    }

    private static Task PauseAsync(TimeSpan time, CancellationToken over) => Task.Delay(time, over).ContinueWith(_ => { }, TaskScheduler.Default);

    private async Task ReportAsync(TextWriter report)
    {
        if (_agent.Process.HasExited)
        {
            _wrong.Add($"the agent ended with {_agent.Process.ExitCode}: {_agent.Process.Output}");
        }

        var incidents = await _agent.IncidentsAsync();
        foreach (var incident in incidents.Where(incident => incident is { Remedy: "recycle" or "terminate", WithheldBy: null, Outcome: "released" or "exited" or "killed" or "pending" }))
        {
            var local = LocalOf(incident.Raw);
            if (!_dead.Contains(local))
            {
                _wrong.Add($"alive: {incident.Raw}");
            }

            // A fresh connection that succeeded just before the link went away is as good as one now.
            if (_outages.Exists(outage => incident.Time > outage.From.AddSeconds(5) && incident.Time < outage.To))
            {
                _wrong.Add($"in an outage: {incident.Raw}");
            }
        }

        var requests = _client.Requests;
        report.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{_clock.Elapsed.TotalMinutes:0.0} minutes, {_faults.Values.Sum()} faults: {string.Join(", ", _faults.Select(fault => $"{fault.Key} {fault.Value}"))}"));
        report.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{requests.Count:N0} requests: {string.Join(", ", requests.GroupBy(request => request.Outcome).OrderBy(group => group.Key).Select(group => $"{group.Count():N0} {group.Key.ToString().ToLowerInvariant()}"))}; the longest took {requests.Max(request => (request.Latency ?? TimeSpan.Zero).TotalSeconds):0.0} s"));
        report.WriteLine($"{incidents.Count:N0} incidents: {string.Join(", ", incidents.GroupBy(incident => incident.WithheldBy is null ? $"{incident.Remedy} {incident.Outcome}" : $"{incident.Remedy} withheld ({incident.WithheldBy})").OrderBy(group => group.Key, StringComparer.Ordinal).Select(group => $"{group.Key} {group.Count()}"))}");

        // The first quarter warms up: code is compiled, pools are filled.
        var (second, last) = (Quarter(1), Quarter(3));
        report.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"memory of the agent: {second.Kilobytes / 1024.0:0.0} MB in the second quarter, {last.Kilobytes / 1024.0:0.0} MB in the last (medians), {_samples.Max(sample => sample.Kilobytes) / 1024.0:0.0} MB at most; descriptors: {second.Descriptors}, {last.Descriptors}, {_samples.Max(sample => sample.Descriptors)} at most"));
        if (last.Kilobytes - second.Kilobytes > MostGrownKilobytes)
        {
            _wrong.Add("memory grows");
        }

        if (last.Descriptors - second.Descriptors > MostGrownDescriptors)
        {
            _wrong.Add("descriptors grow");
        }

        report.WriteLine($"wrong: {_wrong.Count}");
        _wrong.ForEach(report.WriteLine);
    }

    private (long Kilobytes, int Descriptors) Quarter(int number)
    {
        var part = _samples.Skip(_samples.Count * number / 4).Take(Math.Max(1, _samples.Count / 4)).ToList();
        return (part.Select(sample => sample.Kilobytes).Order().ElementAt(part.Count / 2), part.Select(sample => sample.Descriptors).Order().ElementAt(part.Count / 2));
    }

    private static string LocalOf(string raw)
    {
        using var json = System.Text.Json.JsonDocument.Parse(raw);
        return json.RootElement.GetProperty("local").GetString() ?? "";
    }
}
