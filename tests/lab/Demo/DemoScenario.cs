using System.Globalization;

namespace Sidecar.Lab.Demo;

/// <summary>One column of the demonstration: a blackout, and what happened in each second around it.</summary>
internal sealed class DemoScenario(string title, AgentOptions? agent) : IAsyncDisposable
{
    /// <summary>A worker that has not answered for this long counts as hung: queries here take milliseconds.</summary>
    public static readonly TimeSpan HungAfter = TimeSpan.FromSeconds(0.5);

    private Blackout? _blackout;
    private RequestRecord? _sleeper;
    private IReadOnlyList<WorkerProcess> _workersAfter = [];
    private IReadOnlyList<RequestRecord> _requests = [];

    public string Title { get; } = title;

    private Blackout Blackout => _blackout ?? throw new InvalidOperationException("not prepared");

    private RequestRecord Sleeper => _sleeper ?? throw new InvalidOperationException("not woken");

    /// <summary>Builds the lab and waits until the router has forgotten the sleeper's connection.</summary>
    public async Task PrepareAsync() => _blackout = await Blackout.PrepareAsync(new LabOptions(), agent);

    /// <summary>The sleeper is asked: its query is the first send that nobody answers.</summary>
    public void WakeSleeper() => _sleeper = Blackout.Client.WakeSleeper();

    /// <summary>What the second that ends now held: an answer as '#', an error as 'x', and the workers that hung in it.</summary>
    public (string Answers, int Hung) LastSecond()
    {
        var client = Blackout.Client;
        var from = client.Now - TimeSpan.FromSeconds(1);
        var answers = client.Requests.Where(r => r.Ended > from).OrderBy(r => r.Ended)
            .Select(r => r.Outcome == RequestOutcome.Served ? '#' : 'x');
        return (string.Concat(answers), client.HungWorkersSince(from, HungAfter));
    }

    /// <summary>Takes down what was seen, for the judgement.</summary>
    public void Finish()
    {
        _requests = Blackout.Client.Requests;
        _workersAfter = Blackout.Lab.Web.Workers();
    }

    /// <summary>Whether no request that was sent since the sleeper woke has been served.</summary>
    public bool HungToTheEnd() =>
        Sleeper.Ended is null && _requests.Where(r => r.Sent >= Sleeper.Sent).All(r => r.Outcome == RequestOutcome.Pending)
        && Blackout.Client.HungWorkers(HungAfter) == Blackout.Lab.Web.WorkerCount;

    /// <summary>From the first unanswered send to the worker's release; null where it was not released or never hung.</summary>
    public TimeSpan? Release() => Sleeper is { Outcome: RequestOutcome.Refused or RequestOutcome.Broken, Latency: { } latency } ? latency : null;

    /// <summary>From the first unanswered send to the first request that was served after the release.</summary>
    public TimeSpan? FlowsAgain() => _requests.Where(r => r.Outcome == RequestOutcome.Served && r.Ended >= Sleeper.Ended).Min(r => r.Ended) - Sleeper.Sent;

    /// <summary>Requests of the other workers that had to wait for the sleeper's release.</summary>
    public int HeldUp() => _requests.Count(r => r.Worker != Sleeper.Worker && r.Sent >= Sleeper.Sent && r.Sent < Sleeper.Ended && r.Ended >= Sleeper.Ended);

    /// <summary>Whether every request sent in the last ten seconds but the very last ones was served.</summary>
    public bool ServesAtTheEnd()
    {
        var now = Blackout.Client.Now;
        var last = _requests.Where(r => r.Sent > now - TimeSpan.FromSeconds(10) && r.Sent < now - TimeSpan.FromSeconds(1)).ToList();
        return last.Count > 0 && last.TrueForAll(r => r.Outcome == RequestOutcome.Served);
    }

    /// <summary>Worker processes that are gone.</summary>
    public IReadOnlyList<int> Gone() => [.. Blackout.WorkersBefore.Except(_workersAfter).Select(w => w.Pid)];

    /// <summary>Worker processes that are new.</summary>
    public IReadOnlyList<int> Respawned() => [.. _workersAfter.Except(Blackout.WorkersBefore).Select(w => w.Pid)];

    public int SleeperPid => Blackout.SleeperPid;

    public int WorkerCount => Blackout.WorkersBefore.Count;

    /// <summary>What the worker's database driver raised.</summary>
    public string? DriverError => Sleeper is { Outcome: RequestOutcome.Refused, Error: { } error }
        ? string.Join(":\n  ", error.Split('\n')[0].Split(": ", 2))
        : null;

    public static string Seconds(TimeSpan? time) => time is { } t ? string.Create(CultureInfo.InvariantCulture, $"{t.TotalSeconds:0.0} s") : "never";

    /// <summary>The agent's log, for when something went wrong.</summary>
    public string AgentLog => _blackout?.Agent?.Process.Output ?? "";

    public async ValueTask DisposeAsync()
    {
        if (_blackout is not null)
        {
            await _blackout.DisposeAsync();
        }
    }
}
