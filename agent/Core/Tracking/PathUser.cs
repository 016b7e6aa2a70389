using Sidecar.Agent.Core.Judgement;

namespace Sidecar.Agent.Core.Tracking;

/// <summary>
/// What the connections of one user have shown of a path. It is kept apart for each: what one user's sockets do (and anybody can make
/// his own fall silent) never slows, brakes or condemns those of another.
/// </summary>
public sealed partial class PathUser
{
    /// <summary>Connections that are lost within this time are lost for the same reason.</summary>
    private static readonly TimeSpan SameMoment = TimeSpan.FromSeconds(60);

    /// <summary>Where probes were ignored once they are not believed to be answered for so long.</summary>
    private static readonly TimeSpan IgnoresProbesFor = TimeSpan.FromHours(1);

    private static readonly TimeSpan NeighboursFor = TimeSpan.FromSeconds(3);
    private static readonly TimeSpan BetweenNeighbours = TimeSpan.FromMilliseconds(600);

    private TimeSpan _ignoresProbesUntil = TimeSpan.MinValue;
    private TimeSpan? _lastBusySilence;
    private TimeSpan? _lastSilence;
    private TimeSpan? _lastNeighbour;
    private TimeSpan? _lastContradiction;

    internal PathUser(PathTracker path, uint uid, bool answersProbes)
    {
        Path = path;
        Uid = uid;
        AnswersProbes = answersProbes;
    }

    public PathTracker Path { get; }

    /// <summary>The uid that owns the sockets, as the kernel says (idiag_uid).</summary>
    public uint Uid { get; }

    /// <summary>How often transmissions fail, with those of the agent's own connect probes.</summary>
    public LossEstimate Loss { get; } = new();

    /// <summary>
    /// The other end, and all between, answer window probes: one has been answered. Where none has, a stack or a firewall may
    /// ignore such segments, and their silence says nothing.
    /// </summary>
    public bool AnswersProbes { get; private set; }

    /// <summary>When something that was sent was last acknowledged, on any connection; null before the first time.</summary>
    public TimeSpan? LastProven { get; private set; }

    /// <summary>The same of connections that were there for a minute before.</summary>
    internal TimeSpan? ProvenByOlder { get; private set; }

    /// <summary>Last time any connection was seen, to drop users that have none.</summary>
    internal TimeSpan LastUsed { get; private set; }

    /// <summary>What is known of a stall that began at <paramref name="stallStart"/>.</summary>
    /// <param name="stallStart">When it began, monotonic; null: there is none.</param>
    /// <param name="now">Monotonic time.</param>
    /// <param name="wasInUse">The connection was in use just before: it cannot have been forgotten for idling.</param>
    public PathEvidence Evidence(TimeSpan? stallStart, TimeSpan now, bool wasInUse = false)
    {
        var (lower, upper) = Path.IdleTimeout;
        return new PathEvidence
        {
            State = Path.State(this, stallStart, wasInUse, now),
            WasDownDuringStall = stallStart is { } start && Path.LastDown >= start,
            SynRetransmissions = Path.SynRetransmissions(stallStart),
            TransmissionFailureRate = Loss.RateAt(now),
            BlipRate = Loss.BlipRateAt(now),
            DeadLeg = Path.DeadLegAt(now, _lastContradiction),
            CountsDataOnly = Path.CountsDataOnly,
            IdleTimeoutLower = lower,
            IdleTimeoutUpper = upper,
        };
    }

    /// <summary>One of the connections was seen.</summary>
    /// <param name="lesson">What that teaches.</param>
    /// <param name="age">For how long the connection has been watched.</param>
    /// <param name="now">Monotonic time.</param>
    /// <param name="utcNow">Wall clock.</param>
    internal void Take(in PathLesson lesson, TimeSpan age, TimeSpan now, DateTimeOffset utcNow)
    {
        LastUsed = now;
        if (lesson.ProbesIgnored)
        {
            AnswersProbes = false;
            _ignoresProbesUntil = now + IgnoresProbesFor;
        }

        if (lesson.ProbeAnswered)
        {
            NoteProbeAnswer(now);
        }

        if (lesson.Proven)
        {
            LastProven = now;
            ProvenByOlder = age > SameMoment ? now : ProvenByOlder;
        }

        // What was lost while the path was down says nothing of how it is while it is up.
        if (lesson.Sent > 0 && !(Path.LastDown >= lesson.SilentSince))
        {
            Loss.Add(lesson.Sent, lesson.Failed, now);
            if (lesson.SilentSince is not null)
            {
                Loss.AddBlip(now);
            }
        }

        Path.Take(lesson, now, utcNow);
    }

    /// <summary>A window probe was answered.</summary>
    internal void NoteProbeAnswer(TimeSpan now) => AnswersProbes |= now >= _ignoresProbesUntil;

    /// <summary>A connection that was in use has fallen silent: not for having idled.</summary>
    internal void NoteBusySilence(TimeSpan now) => _lastBusySilence = now;

    /// <summary>
    /// Whether the loss of a connection tells of the path's idle timeout. It does not where connections in use were lost about
    /// the same time, nor where the path was away while it idled: a reboot, a fail-over, a burst.
    /// </summary>
    internal bool TeachesIdling(TimeSpan silenceStart, TimeSpan gap, TimeSpan now) =>
        !(_lastBusySilence > silenceStart - gap - SameMoment && _lastBusySilence <= now) && !(Path.LastDown >= silenceStart - gap);

    /// <summary>A connection is silent.</summary>
    internal void NoteSilence(TimeSpan now) => _lastSilence = now;

    /// <summary>
    /// Whether neighbours are to be asked: a connection is silent, and connect probes fail or cannot be made. A neighbour that is
    /// answered shows that the path is up, and that window probes are answered on it.
    /// </summary>
    internal bool IsNeighbourWanted(TimeSpan now) =>
        (Path.IsExhausted(now) || (Path.Last?.Up != true && (Path.Unprovable || Path.Last is not null))) && now - _lastSilence < NeighboursFor && !(now - _lastNeighbour < BetweenNeighbours);

    /// <summary>One was.</summary>
    internal void NeighbourAsked(TimeSpan now) => _lastNeighbour = now;

    /// <summary>A connect probe has failed that began then: what was acknowledged since contradicts it.</summary>
    internal void ConnectProbeFailed(TimeSpan began, TimeSpan now)
    {
        if (LastProven >= began)
        {
            _lastContradiction = now;
        }
    }

    /// <summary>
    /// Where connect probes cannot be made, are used up, or fail: another connection had something acknowledged since then.
    /// </summary>
    internal bool IsUpByNeighbours(TimeSpan since, TimeSpan now) => (Path.Unprovable || Path.Last is { Up: not true } || Path.IsExhausted(now)) && LastProven >= since && LastProven <= now;

    /// <summary>A connect probe that began then or later has succeeded; where none can be made, neighbours speak for the path.</summary>
    internal bool IsUpSince(TimeSpan since, TimeSpan now) => Path.IsUpSince(since, now) || IsUpByNeighbours(since, now);

    /// <summary>Until when what proves that the path is up just now holds; null: nothing proves it.</summary>
    /// <param name="lastTransmission">A connect probe counts that began after it.</param>
    /// <param name="now">Monotonic time.</param>
    internal TimeSpan? UpUntil(TimeSpan? lastTransmission, TimeSpan now) => Path.IsUpNow(lastTransmission, now)
        ? Path.Last!.Started + PathTracker.JustNow
        : IsUpByNeighbours(now - PathTracker.JustNow, now) ? LastProven + PathTracker.JustNow : null;
}
