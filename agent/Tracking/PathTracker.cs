using Sidecar.Agent.Configuration;
using Sidecar.Agent.Judgement;
using Sidecar.Agent.Judgement.IdleTimeout;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.Paths;
using Sidecar.Probes.SockDiag;

namespace Sidecar.Agent.Tracking;

/// <summary>Identity of a path: from which namespace and address, to which endpoint.</summary>
public readonly record struct PathKey(ulong NamespaceInode, UInt128 Source, TcpEndPoint Destination);

/// <summary>
/// One path and its fresh connections. A probe runs in the background and is collected by the loop; at most one is out at
/// a time, so a hundred suspects of one endpoint cost one connection.
/// </summary>
public sealed class PathTracker
{
    /// <summary>SYNs go out at 0, 1 and 3 s: three chances, then the path counts as down.</summary>
    internal static readonly TimeSpan ConnectTimeout = TimeSpan.FromSeconds(3.6);

    /// <summary>A fresh connection that began within this time of a stall's beginning tells how the path was then.</summary>
    private static readonly TimeSpan YoungStall = TimeSpan.FromSeconds(2);

    /// <summary>Least time between two probes of a path that is up.</summary>
    private static readonly TimeSpan Spacing = TimeSpan.FromMilliseconds(100);

    /// <summary>And of one that is down.</summary>
    private static readonly TimeSpan SpacingWhenDown = TimeSpan.FromSeconds(1);

    /// <summary>How much later than the last one an answer may come before it is missed.</summary>
    private static readonly TimeSpan Overdue = TimeSpan.FromMilliseconds(250);

    /// <summary>Age of a fresh connection on which an action may rest.</summary>
    private static readonly TimeSpan JustNow = TimeSpan.FromSeconds(1);

    private PathEstimator _estimator = new();
    private bool _hasNews;
    private (TimeSpan Gap, DateTimeOffset At, TimeSpan Since)? _reset;
    private Task<FreshConnectResult>? _running;
    private PathProbe? _lastUneven;
    private TimeSpan _runningSince;
    private TimeSpan _lastEnded = TimeSpan.MinValue;

    public PathTracker(PathKey key, Upstream upstream)
    {
        Key = key;
        Upstream = upstream;
        if (upstream.Section.IdleTimeout is { Source: IdleTimeoutSource.Declared, Value: var declared })
        {
            IdleTimeout = (declared, declared);
        }

        CountsDataOnly = upstream.Section.RefreshedBy == IdleClock.Data;
        Unprovable = upstream.Section.Direction == UpstreamDirection.Inbound;
    }

    public PathKey Key { get; }

    public Upstream Upstream { get; }

    /// <summary>How often transmissions fail on this path.</summary>
    public LossEstimate Loss { get; } = new();

    /// <summary>
    /// Bounds of the path's idle timeout as judgement and remedies use them: as declared, the upper one above every gap that
    /// was seen survived, or as estimated once a loss is known and nothing contradicts it. Both null where unknown; survived
    /// gaps alone say nothing about where it ends.
    /// </summary>
    public (TimeSpan? Lower, TimeSpan? Upper) IdleTimeout { get; private set; }

    /// <summary>Only data restarts the path's idle clock, as declared or as measured: keepalives protect nothing on it.</summary>
    public bool CountsDataOnly { get; private set; }

    /// <summary>What is known by observation, or null before the first.</summary>
    internal IdleTimeoutEstimate? Estimate { get; private set; }

    /// <summary>True for inbound upstreams: nobody can connect to a client.</summary>
    public bool Unprovable { get; }

    /// <summary>The last probe that said something about the path, or null.</summary>
    public PathProbe? Last { get; private set; }

    /// <summary>When the path was last seen down, monotonic.</summary>
    public TimeSpan? LastDown { get; private set; }

    /// <summary>Last time any connection used the path, to drop paths nobody uses.</summary>
    public TimeSpan LastUsed { get; set; }

    public bool IsRunning => _running is not null;

    /// <summary>Starts a fresh connection unless one is out or the last one has just ended; <paramref name="ended"/> is set at its end.</summary>
    public void Request(NetworkNamespace network, TimeSpan now, AutoResetEvent ended, CancellationToken cancellation)
    {
        if (!IsDue(now))
        {
            return;
        }

        var source = new TcpEndPoint(Key.Source, 0).ToIPAddress();
        var destination = Key.Destination.ToEndPoint();
        var running = Task.Run(() => FreshConnect.TryAsync(network, source, destination, ConnectTimeout, cancellation), cancellation);
        Begin(running, now);
        _ = running.ContinueWith(static (_, wake) => Wake((AutoResetEvent)wake!), ended, CancellationToken.None, TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default);
    }

    /// <summary>Whether a fresh connection may be started: none is out, and the last one did not end just now.</summary>
    internal bool IsDue(TimeSpan now)
    {
        if (Unprovable || _running is not null)
        {
            return false;
        }

        var spacing = Last?.Up == false ? SpacingWhenDown : Spacing;
        return _lastEnded == TimeSpan.MinValue || now - _lastEnded >= spacing;
    }

    /// <summary>Takes a fresh connection that has just been started, by whatever means.</summary>
    internal void Begin(Task<FreshConnectResult> running, TimeSpan now)
    {
        _runningSince = now;
        _running = running;
    }

    /// <summary>Collects a probe that has ended; null while none has.</summary>
    public PathProbe? Collect(TimeSpan now)
    {
        if (_running is not { IsCompleted: true } ended)
        {
            return null;
        }

        _running = null;
        _lastEnded = now;
        if (!ended.IsCompletedSuccessfully)
        {
            return null;
        }

        var result = ended.Result;
        if (result.Outcome == FreshConnectOutcome.NotTried)
        {
            Last = new PathProbe(null, _runningSince, now, result);
            return null;
        }

        var up = result.Outcome == FreshConnectOutcome.Connected;
        if (up)
        {
            Loss.Add(1 + result.SynRetransmissions, result.SynRetransmissions, now);
        }
        else
        {
            LastDown = now;
        }

        Last = new PathProbe(up, _runningSince, now, result);
        if (up && !Last.IsCleanSuccess)
        {
            _lastUneven = Last;
        }

        if (_reset is { } reset && _runningSince >= reset.Since)
        {
            _reset = null;
            if (up)
            {
                Note(new Observation(reset.Gap, GapOutcome.Lost, reset.At, EvidenceSource.Passive));
            }
        }

        return Last;
    }

    /// <summary>What the path says about a stall that began at <paramref name="stallStart"/>.</summary>
    public PathEvidence Evidence(TimeSpan? stallStart, TimeSpan now)
    {
        var (lower, upper) = IdleTimeout;
        return new PathEvidence
        {
            State = State(stallStart, now),
            WasDownDuringStall = stallStart is { } start && LastDown >= start,
            SynRetransmissions = _lastUneven is { } uneven && uneven.Ended >= stallStart && uneven.Started <= stallStart + YoungStall ? uneven.Result.SynRetransmissions : 0,
            TransmissionFailureRate = Loss.RateAt(now),
            BlipRate = Loss.BlipRateAt(now),
            CountsDataOnly = CountsDataOnly,
            IdleTimeoutLower = lower,
            IdleTimeoutUpper = upper,
        };
    }

    /// <summary>
    /// Takes a gap that a connection survived or was lost after. Gaps shorter than any middlebox's timeout say nothing.
    /// </summary>
    internal void Note(in Observation observation)
    {
        if (observation.Gap < ForgottenOdds.ShortestGap)
        {
            return;
        }

        if (CountsDataOnly && observation.Source == EvidenceSource.Passive)
        {
            return; // it tells how long no segment moved, which is not what this path counts
        }

        if (Upstream.Section.IdleTimeout is { Source: IdleTimeoutSource.Declared, Value: var declared })
        {
            // A gap above it that was survived shows that the declared value condemns nobody.
            var upper = IdleTimeout.Upper;
            if (observation.Outcome == GapOutcome.Survived ? observation.Gap > upper : observation.Gap < upper)
            {
                IdleTimeout = (declared, observation.Gap > declared ? observation.Gap : declared);
            }

            return;
        }

        if (Upstream.Section.IdleTimeout.Source != IdleTimeoutSource.Measure)
        {
            return;
        }

        _estimator.Add(observation);
        _hasNews = true;
        Conclude(observation.At);
    }

    /// <summary>
    /// Takes a gap after which a connection was answered with RST; it counts once a fresh connection that begins from now on
    /// succeeds, as a server that is down answers so too.
    /// </summary>
    internal void NoteReset(TimeSpan gap, DateTimeOffset utcNow, TimeSpan now) => _reset = (gap, utcNow, now);

    /// <summary>Its name in the file of evidence; made once.</summary>
    internal KeptPathKey? LearningKey { get; set; }

    /// <summary>Takes what a measurement found out about the path's idle clock; a declared one stands.</summary>
    internal void NoteClock(IdleClock clock)
    {
        CountsDataOnly = clock == IdleClock.Data || Upstream.Section.RefreshedBy == IdleClock.Data;
        _hasNews = true;
    }

    /// <summary>Takes up what an earlier run has learnt.</summary>
    internal void Resume(KeptEvidence kept, DateTimeOffset utcNow)
    {
        _estimator = new PathEstimator(kept);
        CountsDataOnly |= kept.CountsDataOnly;
        Conclude(utcNow);
    }

    /// <summary>The evidence to be kept, where there is more than at the last time; else null.</summary>
    internal KeptEvidence? TakeEvidence()
    {
        if (!_hasNews)
        {
            return null;
        }

        _hasNews = false;
        return _estimator.Keep() with { CountsDataOnly = CountsDataOnly };
    }

    private void Conclude(DateTimeOffset utcNow)
    {
        Estimate = _estimator.Estimate(utcNow);
        IdleTimeout = Estimate is { Upper: { } upper, Contradicted: false, Lower: var lower }
            ? (lower > ForgottenOdds.ShortestGap ? lower : ForgottenOdds.ShortestGap, upper)
            : (null, null);
    }

    /// <summary>Throws away what is known, because the agent was not awake to keep it true.</summary>
    public void Distrust() => Last = null;

    private static void Wake(AutoResetEvent ended)
    {
        try
        {
            ended.Set();
        }
        catch (ObjectDisposedException)
        {
            // the loop has ended meanwhile
        }
    }

    /// <summary>True when the latest fresh connection began since then and succeeded, and no later one is overdue.</summary>
    internal bool IsUpSince(TimeSpan since, TimeSpan now) => Last is { Up: true } last && last.Started >= since && !IsOverdue(now);

    /// <summary>
    /// True when a fresh connection has succeeded just now, after the latest retransmission: what an action needs, since
    /// between retransmissions, and more so between keepalive probes, the path has time to go.
    /// </summary>
    internal bool IsUpNow(TimeSpan? lastRetransmission, TimeSpan now) =>
        Last is { Up: true } last && !(last.Started < lastRetransmission) && now - last.Ended <= JustNow && !IsOverdue(now);

    /// <summary>
    /// A fresh connection is out that should have been answered: the path may have gone just now, and what an earlier one
    /// said holds no longer.
    /// </summary>
    private bool IsOverdue(TimeSpan now) =>
        _running is { IsCompleted: false } && now - _runningSince > Overdue + (Last is { Up: true } last ? last.Result.Elapsed : TimeSpan.Zero);

    private PathState State(TimeSpan? stallStart, TimeSpan now)
    {
        if (Unprovable)
        {
            return PathState.Unprovable;
        }

        if (Last is not { } last || stallStart is null || last.Started < stallStart || (last.Up == true && IsOverdue(now)))
        {
            return PathState.Unknown;
        }

        return last.Up switch
        {
            true => PathState.Up,
            false => PathState.Down,
            null => PathState.Unprovable,
        };
    }
}

/// <summary>One fresh connection as the loop saw it, in the loop's monotonic time.</summary>
/// <param name="Up">Succeeded; null where it could not be tried.</param>
/// <param name="Started">When it was started (not after the SYN).</param>
/// <param name="Ended">When the loop learnt of its end (not before the answer).</param>
/// <param name="Result">Outcome, round trip and error.</param>
public sealed record PathProbe(bool? Up, TimeSpan Started, TimeSpan Ended, FreshConnectResult Result)
{
    /// <summary>Succeeded at the first SYN.</summary>
    public bool IsCleanSuccess => Up == true && Result.SynRetransmissions == 0;
}
