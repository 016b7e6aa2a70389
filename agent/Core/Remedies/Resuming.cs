using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Remedies;

/// <summary>
/// After an outage: connections that are alive and have data in flight go on at once, and not when a timer that has backed off up
/// to two minutes says so. Once for each stall and outage, and only right after a window probe was answered.
/// </summary>
internal sealed class Resuming(World world)
{
    /// <summary>An answer proves as much, this long after its probe was sent.</summary>
    private static readonly TimeSpan ProvenFor = TimeSpan.FromSeconds(1);

    /// <summary>A timer that expires sooner needs no help.</summary>
    private const uint SoonMilliseconds = 100;

    /// <summary>Fewer timeouts than these are loss, which the kernel itself deals with soon.</summary>
    private const int LeastTimeouts = 2;

    /// <summary>It takes well below a millisecond each, and up to 30 where something is wrong: more of it waits for the next tick.</summary>
    private static readonly TimeSpan LongestInTick = TimeSpan.FromMilliseconds(100);

    /// <summary>Where it is not possible it is tried again this much later.</summary>
    private static readonly TimeSpan Retry = TimeSpan.FromSeconds(60);

    /// <summary>Failures in a row that are no accident.</summary>
    private const int MostFailures = 3;

    private readonly bool _observe = world.Configuration.Agent.Mode == AgentMode.Observe;
    private readonly Dictionary<TrackedConnection, (ulong Acknowledged, TimeSpan At)> _asked = [];
    private readonly Dictionary<PathTracker, TimeSpan> _unseenUntil = [];
    private TimeSpan _refusedUntil = TimeSpan.MinValue;
    private bool _refusalTold;
    private bool _isEnough;
    private int _failures;

    /// <summary>A tick begins.</summary>
    internal void BeginTick() => _isEnough = false;

    /// <summary>Makes a connection that was seen in this tick retransmit, where it has just been proven alive.</summary>
    /// <param name="connection">Which.</param>
    /// <param name="late">The tick came late: what was answered may have been answered long ago.</param>
    /// <param name="now">Monotonic time.</param>
    internal IEnumerable<Command> Consider(TrackedConnection connection, bool late, TimeSpan now)
    {
        if (late || _isEnough || !IsWanted(connection, now) || connection.LastProbeAnswer is not { } answered
            || answered < connection.LastWindowProbe || now - connection.LastWindowProbe > ProvenFor)
        {
            return [];
        }

        return ResumeProven(connection, now);
    }

    private IEnumerable<Command> ResumeProven(TrackedConnection connection, TimeSpan now)
    {
        var owner = world.Owners.Find(connection.Last.Inode);
        if (owner.First is null)
        {
            yield break;
        }

        var resume = new Resume(connection, owner);
        yield return resume;
        _asked[connection] = (connection.BytesAcknowledged, resume.At);
        _isEnough = resume.At - now > LongestInTick;
        _failures = resume.Outcome == ResumeOutcome.Failed ? _failures + 1 : 0;
        switch (resume.Outcome)
        {
            case ResumeOutcome.Done:
                yield return new ResumedReport(connection.Upstream.Name);
                break;
            case ResumeOutcome.Gone:
                world.OwnerLost(connection);
                break;
            case ResumeOutcome.NotSeen:
                // Whatever keeps it from being seen keeps the others of the path from it as well.
                _unseenUntil[connection.Path] = now + Retry;
                break;
            case ResumeOutcome.Failed:
                _isEnough = true;
                break;
        }

        if (resume.Outcome == ResumeOutcome.NotPermitted || _failures >= MostFailures)
        {
            _failures = 0;
            _refusedUntil = now + Retry;
            if (!_refusalTold)
            {
                _refusalTold = true;
                yield return new ResumeRefusedReport(resume.Outcome);
            }
        }
    }

    /// <summary>Whether a connection is stalled by what an outage has left behind, and is to go on as soon as a probe on it is answered.</summary>
    internal bool IsWanted(TrackedConnection connection, TimeSpan now)
    {
        ref readonly var last = ref connection.Last;
        if (_observe || last.Info.Retransmits < LeastTimeouts || last.Info.Unacked == 0 || last.ZeroWindow || last.State != TcpState.Established
            || last.Timer != SocketTimer.Retransmission || last.TimerExpiresMilliseconds < SoonMilliseconds)
        {
            return false;
        }

        if (now < _refusedUntil)
        {
            return false;
        }

        if (_unseenUntil.TryGetValue(connection.Path, out var until))
        {
            if (now < until)
            {
                return false;
            }

            _unseenUntil.Remove(connection.Path);
        }

        // Once for a stall: what does not get through although probes do is lost for another reason, unless it was an outage again.
        return !(_asked.TryGetValue(connection, out var asked) && asked.Acknowledged == connection.BytesAcknowledged && !(connection.Path.LastDown > asked.At));
    }

    /// <summary>A connection has gone.</summary>
    internal void Forget(TrackedConnection connection) => _asked.Remove(connection);
}
