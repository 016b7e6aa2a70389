using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Judgement.IdleTimeout;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Tracking;

/// <summary>The connect probes of one path: at most one is out at a time, so a hundred suspects of one endpoint cost one connection.</summary>
public sealed partial class PathTracker
{
    /// <summary>SYNs go out at 0, 1 and 3 s: three chances, then the path counts as down.</summary>
    public static readonly TimeSpan ConnectTimeout = TimeSpan.FromSeconds(3.6);

    /// <summary>A connect probe that began within this time of a stall's beginning tells how the path was then.</summary>
    private static readonly TimeSpan YoungStall = TimeSpan.FromSeconds(2);

    /// <summary>
    /// While the path is down each probe is one SYN: one that is answered late by a path that has come back says less than the next.
    /// </summary>
    private static readonly TimeSpan TimeoutWhenDown = TimeSpan.FromSeconds(0.8);

    /// <summary>Least time between two probes of a path that is up.</summary>
    private static readonly TimeSpan Spacing = TimeSpan.FromMilliseconds(100);

    /// <summary>And of one that is down.</summary>
    private static readonly TimeSpan SpacingWhenDown = TimeSpan.FromMilliseconds(200);

    /// <summary>
    /// MySQL and MariaDB block a host after 100 handshakes in a row that were not completed (max_connect_errors): so many probes at the
    /// most, in this time.
    /// </summary>
    private const int MostMySqlProbes = 20;

    /// <summary>Whatever the protocol is declared to be.</summary>
    private const int MySqlPort = 3306;

    private static readonly TimeSpan MySqlPeriod = TimeSpan.FromMinutes(10);

    /// <summary>How much later than the last one an answer may come before it is missed.</summary>
    private static readonly TimeSpan Overdue = TimeSpan.FromMilliseconds(250);

    /// <summary>Probability to reckon with that a leg is dead, on a path that has shown to have several; and for how long that is remembered.</summary>
    private const double DeadLeg = 1e-2;

    private static readonly TimeSpan LegsRememberedFor = TimeSpan.FromDays(1);

    /// <summary>Age of a connect probe on which an action may rest.</summary>
    internal static readonly TimeSpan JustNow = TimeSpan.FromSeconds(1);

    private static readonly TimeSpan HalfASecond = TimeSpan.FromMilliseconds(500);

    private PathProbe? _lastUneven;
    private int _failedPort;
    private bool _otherPortUp;
    private bool _isContradicted;
    private bool _onFailedPort;
    private TimeSpan? _lastContradiction;
    private TimeSpan _usual;
    private TimeSpan? _runningSince;
    private TimeSpan? _lastEnded;

    /// <summary>
    /// What the server bears of connect probes; null where that is not limited. The server counts for the host: all paths to it share
    /// one, and it outlasts a reload.
    /// </summary>
    internal SlidingBudget? Budget { get; set; }

    /// <summary>The last probe that said something about the path, or null.</summary>
    public PathProbe? Last { get; private set; }

    /// <summary>When the path was last seen down, monotonic.</summary>
    public TimeSpan? LastDown { get; private set; }

    /// <summary>When it was last learnt that the path is back, or not down for all; null before the first time.</summary>
    internal TimeSpan? ReturnedAt { get; set; }

    /// <summary>Whether the path is up, and was down since then.</summary>
    internal bool CameBackAfter(TimeSpan time) => Last?.Up == true && LastDown >= time;

    /// <summary>Whether a connect probe is out.</summary>
    public bool IsProbing => _runningSince is not null;

    /// <summary>Whether a connect probe is wanted since the last one began.</summary>
    internal bool IsProbeWanted { get; set; }

    /// <summary>Whether a connect probe may be started: none is out, and the last one did not end just now.</summary>
    internal bool IsDue(TimeSpan now)
    {
        if (Unprovable || IsProbing)
        {
            return false;
        }

        var spacing = Last?.Up == false ? SpacingWhenDown : Spacing;
        return (_lastEnded is not { } ended || now - ended >= spacing) && Budget?.IsLeftAt(now) != false;
    }

    /// <summary>Whether the server has had as many as it bears: until some time has passed neighbours speak for the path.</summary>
    internal bool IsExhausted(TimeSpan now) => Budget?.IsLeftAt(now) == false;

    /// <summary>When the next probe is to be given up.</summary>
    internal TimeSpan NextTimeout => Last is { Up: false } last && 3 * last.Result.Elapsed < ConnectTimeout ? Longer(TimeoutWhenDown, 3 * _usual) : ConnectTimeout;

    /// <summary>
    /// The port that the next probe is to be made from. One that got no answer is tried again in turn with others: whether all of
    /// the path is away, or the leg of a bundle that this port is hashed to, shows only there.
    /// </summary>
    internal int NextPort => _failedPort != 0 && !_onFailedPort ? _failedPort : 0;

    /// <summary>A connect probe has been started.</summary>
    internal void ProbeBegan(TimeSpan now)
    {
        IsProbeWanted = false;
        _onFailedPort = NextPort != 0;
        _runningSince = now;
    }

    /// <summary>It has ended. Returns it, or null where it says nothing about the path.</summary>
    /// <param name="result">How; null where it was given up.</param>
    /// <param name="now">When the loop learnt of its end, monotonic.</param>
    internal PathProbe? ProbeEnded(ConnectProbeResult? result, TimeSpan now)
    {
        if (_runningSince is not { } began)
        {
            return null;
        }

        _runningSince = null;
        _lastEnded = now;

        // A handshake that was not completed has not reached the server's accept(), which is what counts there.
        if (result?.Outcome is not (ConnectProbeOutcome.TimedOut or ConnectProbeOutcome.Unreachable or ConnectProbeOutcome.NotTried))
        {
            Budget?.Spend(now);
        }

        if (result is null)
        {
            return null;
        }

        if (result.Outcome == ConnectProbeOutcome.NotTried)
        {
            Last = new PathProbe(null, began, now, result);
            return null;
        }

        if (result.AnswersWindowProbe == true)
        {
            _answersProbes = true;
            foreach (var user in _users.Values)
            {
                user.NoteProbeAnswer(now);
            }
        }

        var up = result.Outcome == ConnectProbeOutcome.Connected;
        var hasReturned = up && _onFailedPort && _failedPort != 0;
        NotePort(up, result);
        if (up)
        {
            _usual = result.Elapsed;
            foreach (var user in _users.Values)
            {
                user.Loss.Add(1 + result.SynRetransmissions, result.SynRetransmissions, now);
            }
        }
        else
        {
            LastDown = now;
        }

        if (_isContradicted)
        {
            _lastContradiction = now;
        }

        if (!up)
        {
            foreach (var user in _users.Values)
            {
                user.ConnectProbeFailed(began, now);
            }
        }

        Last = new PathProbe(up, began, now, result) { HasReturned = hasReturned };
        if (up && result.SynRetransmissions > 0)
        {
            _lastUneven = Last;
        }

        if (_reset is { } reset && began >= reset.Since)
        {
            _reset = null;
            if (up)
            {
                Note(new GapObservation(reset.Gap, GapOutcome.Lost, reset.At, EvidenceSource.Passive));
            }
        }

        return Last;
    }

    /// <summary>Probability to reckon with that a leg is dead while connect probes take others: see <see cref="PathEvidence.DeadLeg"/>.</summary>
    /// <param name="now">Monotonic.</param>
    /// <param name="byNeighbours">When a user's own neighbours contradicted a connect probe last; another user's say nothing to him.</param>
    internal double DeadLegAt(TimeSpan now, TimeSpan? byNeighbours) =>
        now - _lastContradiction < LegsRememberedFor || now - byNeighbours < LegsRememberedFor ? DeadLeg : 0;

    /// <summary>Throws away what is known, because the agent was not awake to keep it true.</summary>
    internal void Distrust()
    {
        Last = null;
        (_failedPort, _otherPortUp, _isContradicted) = (0, false, false);
    }

    private void NotePort(bool up, ConnectProbeResult result)
    {
        if (up && (_onFailedPort || _failedPort == 0))
        {
            (_failedPort, _otherPortUp, _isContradicted) = (0, false, false);
        }
        else if (up)
        {
            _otherPortUp = true;
        }
        else if (_onFailedPort)
        {
            _isContradicted = _otherPortUp;
        }
        else
        {
            (_otherPortUp, _isContradicted) = (false, false); // nothing gets through
            _failedPort = _failedPort == 0 && result.Outcome == ConnectProbeOutcome.TimedOut ? result.LocalPort : _failedPort;
        }
    }

    private static TimeSpan Longer(TimeSpan a, TimeSpan b) => a > b ? a : b;

    /// <summary>Whether what connect probes have said is older than a silence, or than what was last sent in it.</summary>
    internal bool IsOutdated(TimeSpan silenceStart, TimeSpan? lastTransmission) =>
        Last is not { } last || last.Started < silenceStart || last.Up != true || last.Started < lastTransmission + Silence.DelayedAcknowledgement;

    /// <summary>Whether the last connect probe began longer ago than that.</summary>
    internal bool IsOlderThan(TimeSpan age, TimeSpan now) => Last is not { } last || now - last.Started > age;

    /// <summary>True when the latest connect probe began since then and succeeded, and no later one is overdue.</summary>
    internal bool IsUpSince(TimeSpan since, TimeSpan now) => Last is { Up: true } last && last.Started >= since && !IsOverdue(now) && (_failedPort == 0 || _isContradicted);

    /// <summary>
    /// True when a connect probe has succeeded just now, after the latest transmission: what an action needs, since
    /// between retransmissions, and more so between keepalive probes, the path has time to go. It counts from the
    /// beginning of the probe: the server's answer is older than its arrival, by up to a round trip.
    /// </summary>
    internal bool IsUpNow(TimeSpan? lastTransmission, TimeSpan now) =>
        Last is { Up: true } last && !(last.Started < lastTransmission) && now - last.Started <= JustNow && !IsOverdue(now);

    /// <summary>
    /// A connect probe is out that should have been answered: the path may have gone just now, and what an earlier one
    /// said holds no longer.
    /// </summary>
    private bool IsOverdue(TimeSpan now) =>
        _runningSince is { } since && now - since > Overdue + (Last is { Up: true } last ? last.Result.Elapsed : TimeSpan.Zero);

    /// <summary>How often the SYN of a connect probe had to be repeated that tells of the first seconds of a stall.</summary>
    internal int SynRetransmissions(TimeSpan? stallStart) =>
        _lastUneven is { } uneven && uneven.Ended >= stallStart && uneven.Started <= stallStart + YoungStall ? uneven.Result.SynRetransmissions : 0;

    /// <summary>What connect probes, and the connections of one user, say of the path since a stall began.</summary>
    internal PathState State(PathUser user, TimeSpan? stallStart, bool wasInUse, TimeSpan now)
    {
        if (Unprovable || (IsExhausted(now) && !IsProbing && !(Last?.Started >= stallStart)))
        {
            return user.LastProven >= stallStart ? PathState.UpByNeighbours : PathState.Unprovable;
        }

        if (Last is not { } last || stallStart is null || last.Started < stallStart || (last.Up == true && IsOverdue(now)))
        {
            return PathState.Unknown;
        }

        if (_isContradicted)
        {
            return PathState.Partly;
        }

        return last.Up switch
        {
            // One port got no answer and another one did: not known, until the first has been tried again.
            true when _failedPort != 0 => PathState.Unknown,

            // It was in use a moment ago, and older connections of the path go on: one leg may be away, or one server of several.
            true when wasInUse && user.ProvenByOlder > stallStart + HalfASecond => PathState.Partly,
            true => PathState.Up,

            // They fail, and neighbours have been answered since the last one began: not all of the path is down.
            false => user.LastProven >= last.Started ? PathState.Partly : PathState.Down,
            null => user.LastProven >= stallStart ? PathState.UpByNeighbours : PathState.Unprovable,
        };
    }
}

/// <summary>One connect probe as the loop saw it, in the loop's monotonic time.</summary>
/// <param name="Up">Succeeded; null where it could not be tried.</param>
/// <param name="Started">When it was started (not after the SYN).</param>
/// <param name="Ended">When the loop learnt of its end (not before the answer).</param>
/// <param name="Result">Outcome, round trip and error.</param>
public sealed record PathProbe(bool? Up, TimeSpan Started, TimeSpan Ended, ConnectProbeResult Result)
{
    /// <summary>
    /// It succeeded from a port from which an earlier one had got no answer: the path, or a leg of it, has come back. What was sent before
    /// may have been lost with it.
    /// </summary>
    public bool HasReturned { get; init; }

    /// <summary>Succeeded at the first SYN, and not for the first time after it had not.</summary>
    public bool IsCleanSuccess => Up == true && Result.SynRetransmissions == 0 && !HasReturned;
}
