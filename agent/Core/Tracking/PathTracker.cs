using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Judgement.IdleTimeout;
using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Tracking;

/// <summary>Identity of a path: from which namespace and address, to which endpoint.</summary>
public readonly record struct PathKey(ulong NamespaceInode, UInt128 Source, TcpEndPoint Destination);

/// <summary>
/// What is known of one path: its connect probes, its loss, its idle timeout. Connect probes run elsewhere; it is told when one
/// begins and how it ended.
/// </summary>
// Over 400 lines: because connect probes and idle timeout share private state that nobody else may write; one file each.
public sealed partial class PathTracker
{
    private readonly Dictionary<uint, PathUser> _users = [];
    private PathEstimator _estimator = new();
    private bool _hasNews;
    private (TimeSpan Gap, DateTimeOffset At, TimeSpan Since)? _reset;
    private bool _answersProbes;

    public PathTracker(PathKey key, Upstream upstream)
    {
        Key = key;
        Upstream = upstream;
        Serve(upstream);
    }

    public PathKey Key { get; }

    public Upstream Upstream { get; private set; }

    /// <summary>
    /// Bounds of the path's idle timeout as judgement and remedies use them: as declared, the upper one above every gap that
    /// was seen survived, or as estimated once a loss is known and nothing contradicts it. Both null where unknown; survived
    /// gaps alone say nothing about where it ends.
    /// </summary>
    public (TimeSpan? Lower, TimeSpan? Upper) IdleTimeout { get; private set; }

    /// <summary>
    /// The idle time that keepalives go by: the lower bound of the timeout, or, while no loss is known, what connections of the
    /// agent's own have survived; null where that is too little. What an application's connection survived says less: its
    /// keepalives may not be seen from here. In powers of two, so that sockets are not set anew with every gap of a ladder.
    /// </summary>
    public TimeSpan? KeepaliveBound { get; private set; }

    /// <summary>Only data restarts the path's idle clock, as declared or as measured: keepalives protect nothing on it.</summary>
    public bool CountsDataOnly { get; private set; }

    /// <summary>What is known by observation, or null before the first.</summary>
    public IdleTimeoutEstimate? Estimate { get; private set; }

    /// <summary>True for inbound upstreams: nobody can connect to a client.</summary>
    public bool Unprovable { get; private set; }

    /// <summary>Last time any connection used the path, to drop paths nobody uses.</summary>
    public TimeSpan LastUsed { get; internal set; }

    /// <summary>
    /// A changed configuration is in force: what was seen stays, what was declared is as it says now. A connect probe that was out is
    /// given up.
    /// </summary>
    internal void Rebind(Upstream upstream)
    {
        var wasMeasured = CountsDataOnly && Upstream.Section.RefreshedBy != IdleClock.Data;
        Upstream = upstream;
        (IdleTimeout, KeepaliveBound) = ((null, null), null);
        Serve(upstream);
        CountsDataOnly |= wasMeasured;
        _runningSince = null;
        if (upstream.Section.IdleTimeout.Source == IdleTimeoutSource.Measure && Estimate is { } estimate)
        {
            Conclude(estimate);
        }
    }

    /// <summary>Whether a connect probe is to find out if the other end answers window probes: some user's connections have had no answer yet.</summary>
    public bool IsAnswerToProbesWanted => !_answersProbes && !_users.Values.All(user => user.AnswersProbes);

    /// <summary>What the connections of a user have shown of it.</summary>
    /// <param name="uid">Who owns them.</param>
    public PathUser User(uint uid)
    {
        if (!_users.TryGetValue(uid, out var user))
        {
            _users[uid] = user = new PathUser(this, uid, _answersProbes);
        }

        return user;
    }

    /// <summary>Drops users of which no connection has been seen since then.</summary>
    internal void Prune(TimeSpan before)
    {
        foreach (var user in _users.Values.Where(user => user.LastUsed < before).ToList())
        {
            _users.Remove(user.Uid);
        }
    }

    /// <summary>One of its connections was seen.</summary>
    internal void Take(in PathLesson lesson, TimeSpan now, DateTimeOffset utcNow)
    {
        LastUsed = now;
        if (lesson.Survived >= ForgottenOdds.ShortestGap)
        {
            Note(new GapObservation(lesson.Survived, GapOutcome.Survived, utcNow, EvidenceSource.Passive));
        }
    }

    /// <summary>
    /// Takes a gap that a connection survived or was lost after. Gaps shorter than any middlebox's timeout say nothing.
    /// </summary>
    public void Note(in GapObservation observation)
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
    public KeptPathKey? LearningKey { get; set; }

    /// <summary>Why the last measurement has no result; null where it has one, or there was none.</summary>
    public string? NotMeasured { get; set; }

    /// <summary>Takes what a measurement found out about the path's idle clock; a declared one stands.</summary>
    public void NoteClock(IdleClock clock)
    {
        CountsDataOnly = clock == IdleClock.Data || Upstream.Section.RefreshedBy == IdleClock.Data;
        _hasNews = true;
    }

    /// <summary>Takes up what an earlier run has learnt.</summary>
    public void Resume(KeptEvidence kept, DateTimeOffset utcNow)
    {
        _estimator = new PathEstimator(kept);
        CountsDataOnly |= kept.CountsDataOnly;
        Conclude(utcNow);
    }

    /// <summary>The evidence to be kept, where there is more than at the last time; else null.</summary>
    public KeptEvidence? TakeEvidence()
    {
        if (!_hasNews)
        {
            return null;
        }

        _hasNews = false;
        return _estimator.Keep() with { CountsDataOnly = CountsDataOnly };
    }

    private void Serve(Upstream upstream)
    {
        if (upstream.Section.IdleTimeout is { Source: IdleTimeoutSource.Declared, Value: var declared })
        {
            IdleTimeout = (declared, declared);
            KeepaliveBound = declared;
        }

        CountsDataOnly = upstream.Section.RefreshedBy == IdleClock.Data;
        Unprovable = upstream.Section.Direction == UpstreamDirection.Inbound;
        Budget = upstream.Section.Protocol == UpstreamProtocol.MySql || Key.Destination.Port == MySqlPort ? Budget ?? new SlidingBudget(MostMySqlProbes, MySqlPeriod) : null;
    }

    private void Conclude(DateTimeOffset utcNow) => Conclude(Estimate = _estimator.Estimate(utcNow));

    private void Conclude(IdleTimeoutEstimate estimate)
    {
        KeepaliveBound = null;
        var least = KeepalivePlan.IdleWhenUnknown * 2;
        if (estimate is { Upper: null, Contradicted: false } && _estimator.Survived(EvidenceSource.Ladder) is var own && own >= least)
        {
            KeepaliveBound = least * Math.Pow(2, Math.Floor(Math.Log2(own / least)));
        }

        IdleTimeout = estimate is { Upper: { } upper, Contradicted: false, Lower: var lower }
            ? (lower > ForgottenOdds.ShortestGap ? lower : ForgottenOdds.ShortestGap, upper)
            : (null, null);
        KeepaliveBound ??= IdleTimeout.Lower;
    }
}
