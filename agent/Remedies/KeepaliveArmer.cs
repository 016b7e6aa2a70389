using Microsoft.Extensions.Logging;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Judgement;
using Sidecar.Agent.Tracking;
using Sidecar.Probes.Processes;
using Sidecar.Probes.Sockets;

namespace Sidecar.Agent.Remedies;

/// <summary>
/// Remedies 1 and 2: arms the kernel's keepalive timer on connections that have none in time, and tests old connections
/// by probes sent at once. What it sets stays in the kernel when the agent ends.
/// </summary>
internal sealed class KeepaliveArmer(ProcessReader processes, OwnerTable owners, Teller teller, KeepaliveLedger ledger, bool observe)
{
    /// <summary>How often armed options are compared with what the application may have made of them.</summary>
    private static readonly TimeSpan Review = TimeSpan.FromSeconds(60);

    /// <summary>How soon a connection is tried again that could not be armed.</summary>
    private static readonly TimeSpan Retry = TimeSpan.FromSeconds(15);

    /// <summary>Time between two nudges of a test: longer than any round trip worth the name.</summary>
    private static readonly TimeSpan NudgeSpacing = TimeSpan.FromMilliseconds(250);

    /// <summary>
    /// Arming ten thousand connections takes a third of a second; no look spends more than this on it, so that the next one
    /// comes in time. The others are armed then.
    /// </summary>
    private static readonly TimeSpan MostPerPass = TimeSpan.FromMilliseconds(400);

    private bool _refusalTold;
    private TimeSpan _passEnds;

    // The process whose connections are being changed: connections of one process follow one another.
    private ProcessHandle? _process;

    /// <summary>Whether the last pass left connections for the next one.</summary>
    public bool IsUnfinished { get; private set; }

    /// <summary>Begins a pass over the connections of one look.</summary>
    public void BeginPass()
    {
        _passEnds = teller.Now + MostPerPass;
        IsUnfinished = false;
    }

    /// <summary>Ends it: no process is held on to between looks.</summary>
    public void EndPass()
    {
        _process?.Dispose();
        _process = null;
    }

    /// <summary>Looks after one connection; cheap when there is nothing to do.</summary>
    public void Consider(TrackedConnection connection, TimeSpan now)
    {
        var section = connection.Upstream.Section;
        var protection = connection.Protection;
        if (protection?.NudgedSince is not null)
        {
            FollowTest(connection, protection, now);
        }

        if (section.IdleTimeout.Source == IdleTimeoutSource.None || connection.Last.Inode == 0)
        {
            return;
        }

        var bound = connection.Path.IdleTimeout.Lower;
        if (section.Keepalive)
        {
            if (protection is not null && now >= protection.NextLook && IsSeenToHold(connection, protection, now))
            {
                protection.ReviewsSaved++;
                protection.NextLook = now + Spread(connection);
                return;
            }

            if (protection is null || now >= protection.NextLook || (protection.Armed is not null && protection.Bound != bound && !protection.IsForTestOnly))
            {
                Arm(connection, protection, bound, now);
            }
        }
        else if (section.Recycle && protection?.NudgedSince is null && connection.Judged is { Verdict: Verdict.Expired, Reason: Reason.PastTheTimeout }
            && (protection is null || now >= protection.NextLook))
        {
            // keepalive = off forbids leaving options behind, not asking: they are put back once the answer is known.
            BeginTest(connection, protection, forTestOnly: true, now);
        }
    }

    /// <summary>Puts back what was set for a test only; called when the agent ends in good order.</summary>
    public void PutBack(IEnumerable<TrackedConnection> connections)
    {
        foreach (var connection in connections)
        {
            if (connection.Protection is { IsForTestOnly: true, Original: not null } protection)
            {
                Restore(connection, protection);
            }
        }

        EndPass();
    }

    private void Arm(TrackedConnection connection, Protection? protection, TimeSpan? bound, TimeSpan now)
    {
        if (teller.Now > _passEnds)
        {
            IsUnfinished = true;
            return;
        }

        var section = connection.Upstream.Section;
        var owner = owners.Find(connection.Last.Inode);
        if (owner.First is null)
        {
            // Not looked for yet, or not found yet: asked for again at the next look, which costs nothing. A path may
            // forget within seconds.
            return;
        }

        if (protection?.IsApplications == true)
        {
            protection.NextLook = now + Retry;
            return;
        }

        if (observe)
        {
            if (protection is null)
            {
                teller.Withheld(section.Name, Remedy.Keepalive, Guardrail.Observe);
            }

            (connection.Protection ??= new Protection()).NextLook = now + Review;
            return;
        }

        var known = protection?.Original is not null ? protection : Recall(connection);
        var applicationsOwn = false;
        var result = Touch(
            connection,
            owner,
            present =>
            {
                if (known is not { Original: { } original, Armed: { } armed })
                {
                    return KeepalivePlan.For(present, bound, section.DeadAfter);
                }

                applicationsOwn = present != armed;
                return KeepalivePlan.Follow(present, original, armed, bound, section.DeadAfter);
            },
            out var before,
            out var after);
        if (result != TouchResult.Done)
        {
            Refused(connection, result);
            if (result != TouchResult.Gone)
            {
                (connection.Protection ??= new Protection()).NextLook = now + Retry;
            }

            return;
        }

        var next = known ?? new Protection { Original = before };
        next.IsApplications = applicationsOwn;
        next.ReviewsSaved = 0;
        next.Bound = bound;
        next.NextLook = now + Spread(connection);
        connection.Protection = next;
        if (after is not { } set)
        {
            return;
        }

        next.Armed = set;
        ledger.NoteChange();

        // With more idle time behind it than the new TCP_KEEPIDLE, the kernel sends a probe at once: a test before use.
        if (now - connection.LastMoved >= set.Idle && connection.Judged.Verdict is Verdict.Aging or Verdict.Expired or Verdict.Healthy)
        {
            StartTest(connection, next, now);
        }
    }

    /// <summary>
    /// A review takes eight system calls. Where the dump shows a keepalive timer that fires in the time that was set, nobody
    /// has loosened anything, and it can wait; for ten minutes at most, since an application may also have tightened it.
    /// </summary>
    private static bool IsSeenToHold(TrackedConnection connection, Protection protection, TimeSpan now) =>
        protection is { Armed: { } armed, IsForTestOnly: false, IsApplications: false, ReviewsSaved: < 10 } && protection.Bound == connection.Path.IdleTimeout.Lower
        && connection.KeepaliveAt(now) is { } at && at <= armed.Idle + (armed.Idle / 8) + TimeSpan.FromSeconds(1);

    /// <summary>Connections that were armed in one look are not all reviewed in one look.</summary>
    private static TimeSpan Spread(TrackedConnection connection) => Review * (0.75 + (connection.Cookie.Value % 64 / 128.0));

    /// <summary>Options that an earlier run of the agent left on this socket.</summary>
    private Protection? Recall(TrackedConnection connection) => ledger.Find(connection) is { } entry
        ? new Protection { Original = entry.Original, Armed = entry.Armed }
        : null;

    private void BeginTest(TrackedConnection connection, Protection? protection, bool forTestOnly, TimeSpan now)
    {
        var owner = owners.Find(connection.Last.Inode);
        protection ??= new Protection();
        connection.Protection = protection;
        if (owner.First is null)
        {
            protection.NextLook = now + Retry;
            return;
        }

        if (observe)
        {
            protection.NextLook = now + Review;
            teller.Withheld(connection.Upstream.Name, Remedy.Nudge, Guardrail.Observe);
            return;
        }

        var result = Touch(connection, owner, Testing, out var before, out var after);
        if (result != TouchResult.Done)
        {
            Refused(connection, result);
            protection.NextLook = now + Retry;
            return;
        }

        connection.Protection = protection = new Protection { Original = before, Armed = after, IsForTestOnly = forTestOnly, NextLook = now + Retry };
        StartTest(connection, protection, now);
    }

    /// <summary>A probe now: any TCP_KEEPIDLE below the elapsed idle time fires the timer.</summary>
    private static KeepaliveSettings? Testing(KeepaliveSettings present) => present with
    {
        Enabled = true,
        Idle = TimeSpan.FromSeconds(1),
        Count = Math.Max(present.Count, KeepalivePlan.CountForNudges + 4),
    };

    private static void StartTest(TrackedConnection connection, Protection protection, TimeSpan now)
    {
        protection.NudgedSince = now;
        protection.LastNudge = now;

        // Further ones would use up a count that is the application's own, and end the connection sooner than it wanted.
        protection.NudgesLeft = protection is { Original.Enabled: true, IsForTestOnly: false } ? 0 : KeepalivePlan.CountForNudges - 1;
        protection.AnsweredBefore = now - TimeSpan.FromMilliseconds(connection.Last.Info.LastAckReceivedMilliseconds);
    }

    private void FollowTest(TrackedConnection connection, Protection protection, TimeSpan now)
    {
        var answered = connection.LastLook - TimeSpan.FromMilliseconds(connection.Last.Info.LastAckReceivedMilliseconds);
        if (answered > protection.AnsweredBefore + TimeSpan.FromMilliseconds(50) || connection.Last.Info.Unacked > 0)
        {
            // Answered, or the worker uses it and its own data will tell.
            EndTest(connection, protection, connection.Last.Info.Unacked > 0 ? null : "answered", now);
            return;
        }

        if (now - protection.LastNudge < NudgeSpacing)
        {
            return;
        }

        if (protection.NudgesLeft == 0)
        {
            if (now - protection.LastNudge > TimeSpan.FromSeconds(2))
            {
                EndTest(connection, protection, "unanswered", now);
            }

            return;
        }

        // Setting TCP_KEEPIDLE again, even to what it is, re-arms the timer from the idle time already elapsed.
        protection.LastNudge = now;
        protection.NudgesLeft--;
        var owner = owners.Find(connection.Last.Inode);
        if (owner.First is null || Touch(connection, owner, present => present == protection.Armed ? present with { } : null, out _, out _, force: true) != TouchResult.Done)
        {
            EndTest(connection, protection, "failed", now);
        }
    }

    private void EndTest(TrackedConnection connection, Protection protection, string? outcome, TimeSpan now)
    {
        if (outcome is not null)
        {
            teller.Nudged(connection.Upstream.Name, outcome);
        }

        protection.NudgedSince = null;
        protection.NudgesLeft = 0;
        if (protection.IsForTestOnly)
        {
            Restore(connection, protection);
            protection.IsForTestOnly = false;
            protection.Armed = null;
            protection.NextLook = now + Retry;
        }
    }

    private void Restore(TrackedConnection connection, Protection protection)
    {
        var owner = owners.Find(connection.Last.Inode);
        if (owner.First is not null)
        {
            _ = Touch(connection, owner, present => present == protection.Armed ? protection.Original : null, out _, out _);
        }
    }

    private TouchResult Touch(
        TrackedConnection connection,
        in Ownership owner,
        Func<KeepaliveSettings, KeepaliveSettings?> decide,
        out KeepaliveSettings before,
        out KeepaliveSettings? after,
        bool force = false)
    {
        before = default;
        after = null;
        if (_process?.Identity != owner.First!.Identity)
        {
            _process?.Dispose();
            _process = ProcessHandle.TryOpen(owner.First.Identity, processes, out var failure);
            if (_process is null)
            {
                return failure == HandleFailure.Gone ? TouchResult.Gone : TouchResult.Failed;
            }
        }

        var result = ForeignSocket.TryChange(
            _process,
            owner.Descriptor,
            connection.Cookie,
            options => decide(From(options)) is { } wanted ? To(wanted) : null,
            out var was,
            out var set,
            force);
        before = From(was);
        after = set is { } options ? From(options) : null;
        return result;
    }

    private void Refused(TrackedConnection connection, TouchResult result)
    {
        if (result == TouchResult.Gone)
        {
            // Closed, or passed on: found anew at the next look.
            owners.Forget(connection.Last.Inode);
            connection.OwnerVersion = 0;
            return;
        }

        if (connection.Protection is null)
        {
            teller.Withheld(connection.Upstream.Name, Remedy.Keepalive, result == TouchResult.Failed ? Guardrail.Unknown : Guardrail.NotPermitted);
        }

        if (!_refusalTold)
        {
            _refusalTold = true;
            teller.Log(LogLevel.Warning, $"keepalive cannot be set on connections of other processes: {result switch
            {
                TouchResult.NotPermitted => "pidfd_getfd is not permitted (CAP_SYS_PTRACE, Yama or a security module)",
                TouchResult.NotSupported => "this kernel is older than 5.6",
                _ => "a socket option was refused",
            }}");
        }
    }

    private static KeepaliveSettings From(in KeepaliveOptions options) =>
        new(options.Enabled, options.Idle, options.Interval, options.Count, options.UserTimeout);

    private static KeepaliveOptions To(in KeepaliveSettings settings) =>
        new(settings.Enabled, settings.Idle, settings.Interval, settings.Count, settings.UserTimeout);
}
