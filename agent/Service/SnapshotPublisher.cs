using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Telemetry;

namespace Sidecar.Agent.Service;

/// <summary>
/// Publishes snapshots: gauges at every scan, words where there are few connections or somebody asks. Readers get the last one by a
/// reference; one who wants it fresh awaits the loop's next tick and blocks no thread meanwhile.
/// </summary>
internal sealed class SnapshotPublisher(AgentRooms rooms, SnapshotBuilder builder, SidecarMetrics metrics, Timeline timeline, IncidentReporter? reporter)
{
    private const int AlwaysDescribed = 500;

    /// <summary>Whoever asks waits no longer than this.</summary>
    private static readonly TimeSpan DescribeWithin = TimeSpan.FromSeconds(2);

    /// <summary>A description that nobody has asked for since takes up room for this long.</summary>
    private static readonly TimeSpan KeepDescription = TimeSpan.FromSeconds(30);

    private static readonly TimeSpan WhileStuck = TimeSpan.FromMilliseconds(500);

    private volatile AgentSnapshot? _snapshot;
    private volatile bool _isAsked;
    private volatile TaskCompletionSource _next = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private long _scannedAt;
    private long _scans;
    private TimeSpan _describedAt;
    private TimeSpan _toldAt;

    /// <summary>Whether somebody waits for a fresh description.</summary>
    public bool IsAsked => _isAsked;

    /// <summary>The last description; null before the first, and on a large host where nobody has asked lately.</summary>
    public AgentSnapshot? Last => _snapshot;

    /// <summary>Completes when <see cref="Last"/> is as fresh as it should be, or after two seconds.</summary>
    public async Task RefreshAsync(CancellationToken cancellation)
    {
        var next = _next.Task;
        var scans = Volatile.Read(ref _scans);
        if (scans > 0 && (_snapshot?.Scan != scans || rooms.Eyes.Now.Ticks - Volatile.Read(ref _scannedAt) > rooms.Core.World.Configuration.Agent.ScanInterval.Ticks * 5 / 4))
        {
            _isAsked = true;
            rooms.Inbox.Wake();
            await Task.WhenAny(next, Task.Delay(DescribeWithin, cancellation)).ConfigureAwait(false);
        }
    }

    /// <summary>A tick is done.</summary>
    /// <param name="now">Monotonic time.</param>
    public void Publish(TimeSpan now)
    {
        var world = rooms.Core.World;
        var took = rooms.Core.Took;
        if (world.IsFull)
        {
            metrics.Scanned(took, rooms.Eyes.LastScanSockets, world.UtcNow);
        }

        var asked = _isAsked;
        if (!world.IsFull && !asked && (now - _toldAt < WhileStuck || !world.Upstreams.Any(upstream => upstream.Tally.Of(Verdict.Stuck) + upstream.Tally.Of(Verdict.Outage) > 0)))
        {
            return;
        }

        _toldAt = now;
        var inWords = asked || world.Connections.All.Count <= AlwaysDescribed;
        var snapshot = rooms.Complete(builder.Describe(now, took, inWords), now);
        metrics.Publish(snapshot, world.Upstreams);
        timeline.Note(snapshot);
        reporter?.FollowChains(cookie => world.Silent.Any(connection => connection.Cookie == cookie));
        reporter?.EndTick(snapshot.Time);
        if (inWords)
        {
            _isAsked = false;
            _describedAt = now;
            _snapshot = snapshot;
            Interlocked.Exchange(ref _next, new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously)).SetResult();
        }
        else if (now - _describedAt > KeepDescription)
        {
            _snapshot = null;
        }

        if (world.IsFull)
        {
            Volatile.Write(ref _scannedAt, rooms.Core.Began.Ticks);
            Volatile.Write(ref _scans, world.Connections.Scans);
        }
    }
}
