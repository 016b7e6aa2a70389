using System.Diagnostics;
using System.Net;

namespace Sidecar.Lab;

/// <summary>How a request ended.</summary>
public enum RequestOutcome
{
    /// <summary>No answer yet.</summary>
    Pending,

    /// <summary>Answered with 200.</summary>
    Served,

    /// <summary>Answered with an error: the worker lives and its database call failed.</summary>
    Refused,

    /// <summary>The connection to the worker broke without an answer: the worker is gone.</summary>
    Broken,
}

/// <summary>One request of the client.</summary>
public sealed class RequestRecord
{
    internal RequestRecord(int worker, TimeSpan sent)
    {
        Worker = worker;
        Sent = sent;
    }

    /// <summary>The worker that was asked, from 1.</summary>
    public int Worker { get; }

    /// <summary>When it was sent, on the client's clock.</summary>
    public TimeSpan Sent { get; }

    /// <summary>When it ended, on the client's clock; null while it is pending.</summary>
    public TimeSpan? Ended { get; private set; }

    public RequestOutcome Outcome { get; private set; }

    /// <summary>Answered by this process; null without an answer.</summary>
    public int? Pid { get; private set; }

    /// <summary>Class and text of the exception in the worker, or of the broken connection.</summary>
    public string? Error { get; private set; }

    /// <summary>From sending to the end; null while it is pending.</summary>
    public TimeSpan? Latency => Ended - Sent;

    internal void End(TimeSpan now, RequestOutcome outcome, int? pid, string? error)
    {
        Pid = pid;
        Error = error;
        Outcome = outcome;
        Ended = now;
    }
}

/// <summary>
/// Asks the workers but the last one in turn, twice a second, each request on its own and without waiting for earlier
/// ones, and records how long each took. The last worker is asked only on <see cref="WakeSleeper"/>.
/// </summary>
public sealed class SteadyClient : IAsyncDisposable
{
    /// <summary>Time between two requests.</summary>
    public static readonly TimeSpan Interval = TimeSpan.FromMilliseconds(500);

    private readonly WebApplication _web;
    private readonly Stopwatch _clock = Stopwatch.StartNew();
    private readonly CancellationTokenSource _stopping = new();
    private readonly Lock _gate = new();
    private readonly List<RequestRecord> _requests = [];
    private readonly Task _loop;

    private SteadyClient(WebApplication web, int sleeperPid)
    {
        _web = web;
        SleeperPid = sleeperPid;
        _loop = RunAsync();
    }

    /// <summary>Process id of the last worker at the start.</summary>
    public int SleeperPid { get; }

    /// <summary>Time since the client's start.</summary>
    public TimeSpan Now => _clock.Elapsed;

    /// <summary>The requests so far, in the order in which they were sent.</summary>
    public IReadOnlyList<RequestRecord> Requests
    {
        get
        {
            lock (_gate)
            {
                return [.. _requests];
            }
        }
    }

    /// <summary>Makes all workers connect and begins to ask.</summary>
    public static async Task<SteadyClient> StartAsync(TestLab lab)
    {
        var pids = await lab.Web.WarmUpAsync();
        return new SteadyClient(lab.Web, pids[^1]);
    }

    /// <summary>Asks the worker that has slept since the warm-up. Its request is the record that is returned.</summary>
    public RequestRecord WakeSleeper() => Ask(_web.WorkerCount);

    /// <summary>Asks one worker, in the background.</summary>
    public RequestRecord Ask(int worker, string pathAndQuery = "/query")
    {
        var request = new RequestRecord(worker, _clock.Elapsed);
        lock (_gate)
        {
            _requests.Add(request);
        }

        _ = CompleteAsync(request, pathAndQuery);
        return request;
    }

    /// <summary>Waits for the end of a request.</summary>
    /// <returns>Whether it ended in time.</returns>
    public static async Task<bool> EndsWithinAsync(RequestRecord request, TimeSpan time)
    {
        var waited = Stopwatch.StartNew();
        while (request.Ended is null && waited.Elapsed < Patience.For(time))
        {
            await Task.Delay(10);
        }

        return request.Ended is not null;
    }

    /// <summary>How many workers had a request unanswered for longer than this at some time since then.</summary>
    public int HungWorkersSince(TimeSpan since, TimeSpan longerThan) =>
        Requests.Where(r => (r.Ended ?? Now) > since && (r.Ended ?? Now) - r.Sent > longerThan).Select(r => r.Worker).Distinct().Count();

    /// <summary>How many workers have had a request for longer than this without answering.</summary>
    public int HungWorkers(TimeSpan longerThan) =>
        Requests.Where(r => r.Ended is null && Now - r.Sent > longerThan).Select(r => r.Worker).Distinct().Count();

    public async ValueTask DisposeAsync()
    {
        await _stopping.CancelAsync();
        await _loop;
        _stopping.Dispose();
    }

    private async Task RunAsync()
    {
        using var timer = new PeriodicTimer(Interval);
        var turn = 0;
        try
        {
            while (await timer.WaitForNextTickAsync(_stopping.Token))
            {
                Ask((turn++ % Math.Max(1, _web.WorkerCount - 1)) + 1);
            }
        }
        catch (OperationCanceledException)
        {
            // Stopped.
        }
    }

    private async Task CompleteAsync(RequestRecord request, string pathAndQuery)
    {
        try
        {
            var answer = await _web.GetAsync(request.Worker, pathAndQuery, _stopping.Token);
            request.End(_clock.Elapsed, answer.Status == HttpStatusCode.OK ? RequestOutcome.Served : RequestOutcome.Refused, answer.Pid, answer.Error);
        }
        catch (OperationCanceledException)
        {
            // Nobody waits any more; it stays pending.
        }
        catch (Exception e)
        {
            request.End(_clock.Elapsed, RequestOutcome.Broken, null, e.Message);
        }
    }
}
