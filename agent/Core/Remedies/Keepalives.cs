using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Remedies;

/// <summary>
/// Remedy 1: arms the kernel's keepalive timer on connections that have none in time. What it sets stays in the kernel when the
/// agent ends. Where window probes are not permitted the timer also serves to test old connections: a TCP_KEEPIDLE below the
/// elapsed idle time sends a probe at once.
/// </summary>
internal sealed class Keepalives(World world, Probing probing)
{
    /// <summary>How often armed options are compared with what the application may have made of them.</summary>
    private static readonly TimeSpan Review = TimeSpan.FromSeconds(60);

    /// <summary>How soon a connection is tried again that could not be armed.</summary>
    private static readonly TimeSpan Retry = TimeSpan.FromSeconds(15);

    /// <summary>Time between two probes of a test: longer than any round trip worth the name.</summary>
    private static readonly TimeSpan NudgeSpacing = TimeSpan.FromMilliseconds(250);

    /// <summary>
    /// Arming ten thousand connections takes a third of a second; no tick spends more than this on it, so that the next one
    /// comes in time. The others are armed then.
    /// </summary>
    private static readonly TimeSpan MostPerTick = TimeSpan.FromMilliseconds(400);

    private readonly bool _observe = world.Configuration.Agent.Mode == AgentMode.Observe;
    private readonly Dictionary<(ulong Namespace, ulong Cookie), KeepaliveEntry> _recalled = [];
    private bool _refusalTold;
    private TimeSpan _tickEnds;
    private TimeSpan _lastDone;

    /// <summary>Whether the last tick left connections for the next one.</summary>
    internal bool IsUnfinished { get; private set; }

    /// <summary>Whether options were set, or connections have gone on which they were, since this was last asked.</summary>
    internal bool HasChanged { get; private set; }

    /// <summary>Options that an earlier run left, of connections that have not been seen since.</summary>
    internal IReadOnlyCollection<KeepaliveEntry> Recalled => _recalled.Values;

    /// <summary>Takes up what an earlier run has set.</summary>
    internal void Recall(IEnumerable<KeepaliveEntry> entries)
    {
        foreach (var entry in entries)
        {
            if (world.Connections.Find(entry.Namespace, new SocketCookie(entry.Cookie))?.Protection is not null)
            {
                continue; // known already
            }

            _recalled[(entry.Namespace, entry.Cookie)] = entry;
        }
    }

    /// <summary>What is set is written down now; see <see cref="HasChanged"/>.</summary>
    /// <param name="forgetUnseen">Connections of an earlier run that have not been seen by now have closed meanwhile.</param>
    internal void Saved(bool forgetUnseen)
    {
        HasChanged = false;
        if (forgetUnseen)
        {
            _recalled.Clear();
        }
    }

    /// <summary>A tick begins.</summary>
    internal void BeginTick(TimeSpan now)
    {
        _tickEnds = now + MostPerTick;
        _lastDone = now;
        IsUnfinished = false;
    }

    /// <summary>A connection has gone.</summary>
    internal void Forget(TrackedConnection connection) =>
        HasChanged |= _recalled.Remove((connection.NamespaceInode, connection.Cookie.Value)) || connection.Protection is { Armed: not null, IsForTestOnly: false };

    /// <summary>Scans after one connection; cheap when there is nothing to do.</summary>
    internal IEnumerable<Command> Consider(TrackedConnection connection, TimeSpan now)
    {
        var section = connection.Upstream.Section;
        var protection = connection.Protection;
        if (protection?.NudgedSince is not null)
        {
            return FollowTest(connection, protection, now);
        }

        if (section.IdleTimeout.Source == IdleTimeoutSource.None || connection.Last.Inode == 0)
        {
            return [];
        }

        var bound = connection.Path.KeepaliveBound;
        if (section.Keepalive)
        {
            if (protection is not null && now >= protection.NextReview && IsSeenToHold(connection, protection, now))
            {
                protection.ReviewsSaved++;
                protection.NextReview = now + Spread(connection);
                return [];
            }

            return protection is null || now >= protection.NextReview || (protection.Armed is not null && protection.Bound != bound && !protection.IsForTestOnly)
                ? Arm(connection, protection, bound, now)
                : [];
        }

        // keepalive = off forbids leaving options behind, not asking: they are put back once the answer is known.
        return section.Recycle && !probing.IsPermittedAt(now) && connection.Judged is { Verdict: Verdict.Expired, Reason: Reason.PastTheTimeout } && !(now < protection?.NextReview)
            ? BeginTest(connection, protection, now)
            : [];
    }

    /// <summary>Puts back what was set for a test only; the agent ends in good order.</summary>
    internal IEnumerable<Command> PutBack()
    {
        foreach (var connection in world.Connections.All)
        {
            if (connection.Protection is { IsForTestOnly: true, Original: not null } protection && Restore(connection, protection) is { } restore)
            {
                yield return restore;
            }
        }
    }

    private IEnumerable<Command> Arm(TrackedConnection connection, Protection? protection, TimeSpan? bound, TimeSpan now)
    {
        if (_lastDone > _tickEnds)
        {
            IsUnfinished = true;
            yield break;
        }

        var section = connection.Upstream.Section;
        var owner = world.Owners.Find(connection.Last.Inode);
        if (owner.First is null)
        {
            // Not looked for yet, or not found yet: asked for again at the next tick, which costs nothing. A path may
            // forget within seconds.
            yield break;
        }

        if (protection?.IsApplications == true)
        {
            protection.NextReview = now + Retry;
            yield break;
        }

        if (_observe)
        {
            if (protection is null)
            {
                yield return new WithheldReport(section.Name, Remedy.Keepalive, Guardrail.Observe);
            }

            (connection.Protection ??= new Protection()).NextReview = now + Review;
            yield break;
        }

        var known = protection?.Original is not null ? protection : RecallOf(connection);
        var change = new ChangeKeepalive(connection, owner, present => known is { Original: { } original, Armed: { } armed }
            ? KeepalivePlan.Follow(present, original, armed, bound, section.DeadAfter)
            : KeepalivePlan.For(present, bound, section.DeadAfter));
        yield return change;
        _lastDone = change.At;
        var (result, before, after) = change.Outcome;
        if (result != TouchOutcome.Done)
        {
            foreach (var report in Refused(connection, result))
            {
                yield return report;
            }

            if (result != TouchOutcome.Gone)
            {
                (connection.Protection ??= new Protection()).NextReview = now + Retry;
            }

            yield break;
        }

        var next = known ?? new Protection { Original = before };
        next.IsApplications = known?.Armed is { } earlier && before != earlier;
        next.ReviewsSaved = 0;
        next.Bound = bound;
        next.NextReview = now + Spread(connection);
        connection.Protection = next;
        if (after is not { } set)
        {
            yield break;
        }

        next.Armed = set;
        HasChanged = true;

        // With more idle time behind it than the new TCP_KEEPIDLE, the kernel sends a probe at once: a test before use.
        if (now - connection.LastMoved >= set.Idle && connection.Judged.Verdict is Verdict.Aging or Verdict.Expired or Verdict.Healthy)
        {
            StartTest(connection, next, now);
        }
    }

    /// <summary>
    /// A review takes eight system calls. Where the scan shows a keepalive timer that fires in the time that was set, nobody
    /// has loosened anything, and it can wait; for ten minutes at most, since an application may also have tightened it.
    /// </summary>
    private static bool IsSeenToHold(TrackedConnection connection, Protection protection, TimeSpan now) =>
        protection is { Armed: { } armed, IsForTestOnly: false, IsApplications: false, ReviewsSaved: < 10 } && protection.Bound == connection.Path.KeepaliveBound
        && connection.KeepaliveAt(now) is { } at && at <= armed.Idle + (armed.Idle / 8) + TimeSpan.FromSeconds(1);

    /// <summary>Connections that were armed in one tick are not all reviewed in one tick.</summary>
    private static TimeSpan Spread(TrackedConnection connection) => Review * (0.75 + (connection.Cookie.Value % 64 / 128.0));

    /// <summary>Options that an earlier run of the agent left on this socket.</summary>
    private Protection? RecallOf(TrackedConnection connection) => _recalled.Remove((connection.NamespaceInode, connection.Cookie.Value), out var entry)
        ? new Protection { Original = entry.Original, Armed = entry.Armed }
        : null;

    private IEnumerable<Command> BeginTest(TrackedConnection connection, Protection? protection, TimeSpan now)
    {
        var owner = world.Owners.Find(connection.Last.Inode);
        protection ??= new Protection();
        connection.Protection = protection;
        if (owner.First is null)
        {
            protection.NextReview = now + Retry;
            yield break;
        }

        if (_observe)
        {
            protection.NextReview = now + Review;
            yield return new WithheldReport(connection.Upstream.Name, Remedy.Nudge, Guardrail.Observe);
            yield break;
        }

        var change = new ChangeKeepalive(connection, owner, Testing);
        yield return change;
        if (change.Outcome.Result != TouchOutcome.Done)
        {
            protection.NextReview = now + Retry;
            foreach (var report in Refused(connection, change.Outcome.Result))
            {
                yield return report;
            }

            yield break;
        }

        connection.Protection = protection = new Protection { Original = change.Outcome.Before, Armed = change.Outcome.After, IsForTestOnly = true, NextReview = now + Retry };
        StartTest(connection, protection, now);
    }

    /// <summary>A probe now: any TCP_KEEPIDLE below the elapsed idle time fires the timer.</summary>
    private static KeepaliveOptions? Testing(KeepaliveOptions present) => present with
    {
        Enabled = true,
        Idle = TimeSpan.FromSeconds(1),
        Count = Math.Max(present.Count, KeepalivePlan.CountForNudges + 4),
    };

    private void StartTest(TrackedConnection connection, Protection protection, TimeSpan now)
    {
        protection.NudgedSince = now;
        protection.LastNudge = now;

        // Further ones would use up a count that is the application's own, and end the connection sooner than it wanted. Where
        // window probes are permitted they go on.
        protection.NudgesLeft = protection is { Original.Enabled: true, IsForTestOnly: false } || probing.IsPermittedAt(now) ? 0 : KeepalivePlan.CountForNudges - 1;
        protection.AnsweredBefore = now - TimeSpan.FromMilliseconds(connection.Last.Info.LastAckReceivedMilliseconds);
    }

    private IEnumerable<Command> FollowTest(TrackedConnection connection, Protection protection, TimeSpan now)
    {
        var answered = connection.LastSeen - TimeSpan.FromMilliseconds(connection.Last.Info.LastAckReceivedMilliseconds);
        if (answered > protection.AnsweredBefore + TimeSpan.FromMilliseconds(50) || connection.Last.Info.Unacked > 0)
        {
            // Answered, or the worker uses it and its own data will tell.
            return EndTest(connection, protection, connection.Last.Info.Unacked > 0 ? null : "answered", now);
        }

        if (now - protection.LastNudge < NudgeSpacing)
        {
            return [];
        }

        if (protection.NudgesLeft == 0)
        {
            return now - protection.LastNudge > TimeSpan.FromSeconds(2) ? EndTest(connection, protection, "unanswered", now) : [];
        }

        return Nudge(connection, protection, now);
    }

    private IEnumerable<Command> Nudge(TrackedConnection connection, Protection protection, TimeSpan now)
    {
        // Setting TCP_KEEPIDLE again, even to what it is, re-arms the timer from the idle time already elapsed.
        protection.LastNudge = now;
        protection.NudgesLeft--;
        var owner = world.Owners.Find(connection.Last.Inode);
        ChangeKeepalive? again = owner.First is null ? null : new(connection, owner, present => present == protection.Armed ? present : null, force: true);
        if (again is not null)
        {
            yield return again;
        }

        if (again?.Outcome.Result != TouchOutcome.Done)
        {
            foreach (var command in EndTest(connection, protection, "failed", now))
            {
                yield return command;
            }
        }
    }

    private IEnumerable<Command> EndTest(TrackedConnection connection, Protection protection, string? outcome, TimeSpan now)
    {
        if (outcome is not null)
        {
            yield return new NudgedReport(connection.Upstream.Name, outcome);
        }

        protection.NudgedSince = null;
        protection.NudgesLeft = 0;
        if (protection.IsForTestOnly)
        {
            if (Restore(connection, protection) is { } restore)
            {
                yield return restore;
            }

            protection.IsForTestOnly = false;
            protection.Armed = null;
            protection.NextReview = now + Retry;
        }
    }

    private ChangeKeepalive? Restore(TrackedConnection connection, Protection protection)
    {
        var owner = world.Owners.Find(connection.Last.Inode);
        var (armed, original) = (protection.Armed, protection.Original);
        return owner.First is null ? null : new ChangeKeepalive(connection, owner, present => present == armed ? original : null);
    }

    private IEnumerable<Command> Refused(TrackedConnection connection, TouchOutcome result)
    {
        if (result == TouchOutcome.Gone)
        {
            world.OwnerLost(connection); // closed, or passed on: found anew at the next tick
            yield break;
        }

        if (connection.Protection is null)
        {
            yield return new WithheldReport(connection.Upstream.Name, Remedy.Keepalive, result == TouchOutcome.Failed ? Guardrail.Unknown : Guardrail.NotPermitted);
        }

        if (!_refusalTold)
        {
            _refusalTold = true;
            yield return new TouchRefusedReport(result);
        }
    }
}
