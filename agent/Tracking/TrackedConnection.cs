using System.Diagnostics;
using Sidecar.Agent.Judgement;
using Sidecar.Agent.Judgement.IdleTimeout;
using Sidecar.Probes.SockDiag;

namespace Sidecar.Agent.Tracking;

/// <summary>What one observation of a connection teaches about its path.</summary>
/// <param name="Sent">Transmissions that have been answered or repeated since the last lesson; zero while a stall goes on.</param>
/// <param name="Failed">Those of them that had to be repeated.</param>
/// <param name="Survived">A rest after which something came back; zero where there was none.</param>
/// <param name="SilentSince">Where this look found an answer after retransmission timeouts: when that silence had begun.</param>
public readonly record struct PathLesson(uint Sent, uint Failed, TimeSpan Survived, TimeSpan? SilentSince);

/// <summary>
/// What is remembered of one connection between looks: when segments last moved, and the stall in progress. Fed with
/// observations and monotonic time; asks no clock itself. There may be 200,000 of them, so what many have in common stands
/// in an object that they share, and what few have in one of their own.
/// </summary>
public sealed class TrackedConnection
{
    private static readonly TimeSpan ShortestInterest = TimeSpan.FromMilliseconds(200);
    private static readonly TimeSpan LongestInterest = TimeSpan.FromSeconds(20);

    /// <summary>A silence is seen within this time of its beginning, unless the agent was not there or looks rarely.</summary>
    private static readonly TimeSpan FoundSoon = TimeSpan.FromSeconds(2);

    /// <summary>
    /// An acknowledgement may be delayed (RFC 1122; 40 ms on Linux) and then takes its way: before that, silence after a
    /// retransmission says nothing.
    /// </summary>
    private static readonly TimeSpan DelayedAcknowledgement = TimeSpan.FromMilliseconds(50);

    // Its key without the addresses, which are those of its path.
    private readonly byte _family;
    private readonly ushort _localPort;
    private readonly ushort _peerPort;
    private readonly uint _interface;

    private KeptObservation _last;
    private bool _seen;
    private TimeSpan _lastHeard;
    private bool _answerAwaited;
    private uint _decidedIn;
    private uint _decidedOut;

    private Stall? _stall;

    // Keepalive probes out and unanswered, while nothing else is.
    private Stall? _probing;

    /// <summary>A connection of which nothing has been observed yet.</summary>
    /// <param name="key">The kernel's key for it.</param>
    /// <param name="upstream">What it belongs to.</param>
    /// <param name="path">The path between its two addresses, in its network namespace.</param>
    /// <param name="firstSeen">Monotonic.</param>
    public TrackedConnection(in SocketKey key, Upstream upstream, PathTracker path, TimeSpan firstSeen)
    {
        Debug.Assert(path.Key.Source == key.Local.Address && path.Key.Destination.Address == key.Peer.Address, "the path leads elsewhere");
        _family = (byte)key.Family;
        _localPort = key.Local.Port;
        _peerPort = key.Peer.Port;
        _interface = key.Interface;
        Cookie = key.Cookie;
        Upstream = upstream;
        Path = path;
        FirstSeen = firstSeen;
    }

    public SocketKey Key => new(
        _family, new TcpEndPoint(Path.Key.Source, _localPort), new TcpEndPoint(Path.Key.Destination.Address, _peerPort), _interface, Cookie);

    /// <summary>The part of <see cref="Key"/> that tells it from all others in its network namespace.</summary>
    public SocketCookie Cookie { get; }

    public Upstream Upstream { get; }

    /// <summary>Path whose fresh connections speak for this one.</summary>
    public PathTracker Path { get; }

    public ulong NamespaceInode => Path.Key.NamespaceInode;

    public TimeSpan FirstSeen { get; }

    /// <summary>What is kept of the observation of the last look.</summary>
    public ref readonly KeptObservation Last => ref _last;

    /// <summary>When it was made, monotonic.</summary>
    public TimeSpan LastLook { get; private set; }

    /// <summary>Number of the last full look that saw it.</summary>
    public int LastScan { get; set; }

    /// <summary>Its place in the last full look, a hint for the next one; -1 before the first.</summary>
    internal int Place { get; set; } = -1;

    /// <summary>Whether it has left the table.</summary>
    internal bool IsGone { get; set; }

    /// <summary><see cref="OwnerTable.Version"/> when its owner was last known; 0 while it is not.</summary>
    internal int OwnerVersion { get; set; }

    /// <summary>When segments last moved in either direction, monotonic; may lie before the agent's start.</summary>
    public TimeSpan LastMoved { get; private set; }

    /// <summary>When data last went either way, monotonic; may lie before the agent's start.</summary>
    public TimeSpan LastData { get; private set; }

    /// <summary>The verdict of the last look.</summary>
    public Judged Judged { get; set; }

    /// <summary>What the remedies remember of it; null until one was considered.</summary>
    public Remedies.ConnectionCase? Case { get; set; }

    /// <summary>What is remembered of its keepalive options; null until they were looked at.</summary>
    public Remedies.Protection? Protection { get; set; }

    /// <summary>When the first of the unanswered probes went out, monotonic; null while none is out.</summary>
    public TimeSpan? ProbingStart => _probing?.Start;

    /// <summary>
    /// True when short looks at this connection are worth their while: something has been unanswered for a while, and not
    /// for so long that its retransmissions are far between (the full looks see those soon enough).
    /// </summary>
    public bool IsOfInterest => _probing is not null || Protection is { NudgesLeft: > 0 }
        || (_stall is { } stall && (Last.Info.Retransmits > 0 || LastLook - stall.Start > ShortestInterest)
            && (LastLook - stall.Start < LongestInterest || Judged.Verdict == Verdict.Stuck));

    /// <summary>When the first send that was never answered happened, monotonic; null while nothing is unanswered.</summary>
    public TimeSpan? StallStart => _stall?.Start;

    /// <summary>When something unanswered was last sent again; null before the first time.</summary>
    public TimeSpan? LastRetransmission => (_stall ?? _probing)?.LastRetransmission;

    /// <summary>When the silence in progress began: of data, or of probes; null while there is none.</summary>
    public TimeSpan? SilenceStart => (_stall ?? _probing)?.Start;

    /// <summary>bytes_acked at the last look: unchanged means that nothing of ours got through since.</summary>
    public ulong BytesAcknowledged => _last.Info.BytesAcked;

    /// <summary>
    /// Takes one observation.
    /// </summary>
    /// <returns>What the path can learn from it.</returns>
    public PathLesson Update(in SocketObservation socket, TimeSpan now)
    {
        var info = socket.Info;
        var moved = !_seen || info.SegmentsIn != _last.Info.SegmentsIn || info.SegmentsOut != _last.Info.SegmentsOut;
        var answered = !_seen || info.SegmentsIn != _last.Info.SegmentsIn || info.BytesAcked != _last.Info.BytesAcked;
        var movedBefore = LastMoved;
        var silentSince = answered && Last.Info.Retransmits > 0 ? _stall?.Start : null;
        var heardBefore = _lastHeard;
        var settled = _stall?.Settled ?? Transmissions.Of(_last.Info);
        if (!_seen || info.SegmentsIn != _last.Info.SegmentsIn)
        {
            _lastHeard = HeardAt(info, now);
        }

        if (moved)
        {
            LastMoved = MovedAt(info, now);
        }

        if (!_seen || info.DataSegmentsIn != _last.Info.DataSegmentsIn || info.DataSegmentsOut != _last.Info.DataSegmentsOut)
        {
            LastData = DataAt(info, now);
        }

        if (info.Unacked == 0 || socket.State != TcpState.Established)
        {
            _stall = null;
        }
        else if (_stall is null || answered)
        {
            _stall = BeginStall(info, now, heardBefore);
        }
        else if (info.TotalRetransmissions != _last.Info.TotalRetransmissions)
        {
            _stall.Retransmitted(now - Milliseconds(info.LastDataSentMilliseconds));
        }

        UpdateProbing(socket, now, answered);
        var lesson = new PathLesson { SilentSince = silentSince };
        if (_seen && socket.Info.SegmentsIn != _last.Info.SegmentsIn)
        {
            // Something came back after a rest: the path survived at least the rest that the last look had seen.
            lesson = lesson with { Survived = Positive(LastLook - movedBefore) };
        }

        if (_stall is null || answered)
        {
            if (_seen)
            {
                lesson = lesson with { Sent = info.DataSegmentsOut - settled.Sent, Failed = info.TotalRetransmissions - settled.Repeated };
            }

            settled = Transmissions.Of(info);
        }

        if (_stall is not null)
        {
            _stall.Settled = settled;
        }

        if (info.Unacked == 0)
        {
            _answerAwaited = DecideAnswerAwaited(info);
            _decidedIn = info.DataSegmentsIn;
            _decidedOut = info.DataSegmentsOut;
        }

        _seen = true;
        _last = new KeptObservation(socket);
        LastLook = now;
        return lesson;
    }

    /// <summary>
    /// The idle gap after which the silence in progress found the connection dead; once per silence, null afterwards or
    /// where the gap is not known. To be asked when the verdict is conclusive.
    /// </summary>
    public TimeSpan? TakeLostGap()
    {
        if ((_stall ?? _probing) is not { IsLossTaken: false } silence)
        {
            return null;
        }

        silence.IsLossTaken = true;
        return silence.IdleBefore;
    }

    /// <summary>
    /// Judges the last look; a loss that is beyond doubt goes to the path's evidence. Returns whether a fresh connection is
    /// wanted: every silent connection needs to know whether its path is up, and every retransmission asks anew.
    /// </summary>
    public bool Assess(DateTimeOffset utcNow)
    {
        var path = Path;
        var evidence = Evidence(LastLook);
        Judged = Judge.Decide(evidence, path.Evidence(SilenceStart, LastLook));
        if (Judged is { Verdict: Verdict.Stuck } or { Reason: Reason.ProbesUnanswered } && TakeLostGap() is { } gap)
        {
            path.Note(new Observation(gap, GapOutcome.Lost, utcNow, EvidenceSource.Passive));
        }

        return evidence is { Unacknowledged: > 0, Timeouts: > 0, ZeroWindow: false } or { Unacknowledged: 0, Probing: not null, AnswerAwaited: false }
            && SilenceStart is { } silenceStart
            && (path.Last is not { } last || last.Started < silenceStart || last.Up != true || last.Started < LastRetransmission + DelayedAcknowledgement);
    }

    /// <summary>The evidence of the last look, for the judge.</summary>
    public ConnectionEvidence Evidence(TimeSpan now)
    {
        var info = Last.Info;
        return new ConnectionEvidence
        {
            HasTcpInfo = info.IsPresent,
            Idle = Positive(now - LastMoved),
            WithoutData = Positive(now - LastData),
            Unacknowledged = info.Unacked,
            ZeroWindow = Last.ZeroWindow,
            Timeouts = info.Retransmits,

            // What a server has sent last is its answer: it awaits none.
            AnswerAwaited = _answerAwaited && Upstream.Section.Direction == Configuration.UpstreamDirection.Outbound,
            KeepaliveAt = KeepaliveAt(now),
            Stall = _stall is { } stall
                ? new StallEvidence
                {
                    Silence = Positive(now - stall.Start),
                    IdleBefore = stall.IdleBefore,
                    FailedTransmissions = (int)(1 + info.TotalRetransmissions - stall.RetransmissionsAtStart),
                    ConfirmedFailures = stall.Confirmed,
                    CleanConnections = stall.Clean,
                    FoundLate = stall.FoundLate,
                }
                : null,
            Probing = _probing is { } probing
                ? new StallEvidence
                {
                    Silence = Positive(now - probing.Start),
                    IdleBefore = probing.IdleBefore,
                    FailedTransmissions = probing.Probes,
                    ConfirmedFailures = probing.Confirmed,
                    CleanConnections = probing.Clean,
                    FoundLate = probing.FoundLate,
                }
                : null,
        };
    }

    /// <summary>
    /// A fresh connection ended. A clean success confirms the retransmissions that were sent since an earlier clean
    /// success and before this one began; anything else means that the path may have been away, and nothing is confirmed.
    /// </summary>
    public void NoteFreshConnect(bool cleanSuccess, TimeSpan started, TimeSpan ended) => (_stall ?? _probing)?.NoteFreshConnect(cleanSuccess, started, ended);

    /// <summary>
    /// Decides whether an answer is due: the last data went out after the last data came in.
    /// </summary>
    /// <remarks>
    /// Both ages count whole ticks (4 ms at HZ=250), and a driver often sends the next query in the very tick in which the
    /// answer before it arrived, just as a fast answer arrives in the tick of its query. Where the ages are equal the
    /// acknowledgement tells: an answer carries the acknowledgement of its query with it, whereas a query that is being
    /// worked on is acknowledged by itself, later (the delayed acknowledgement of RFC 1122, 40 ms on Linux). Answers to
    /// keepalives move that age too, so it is asked once per exchange and kept.
    /// </remarks>
    private bool DecideAnswerAwaited(in TcpInfo info)
    {
        if (info.DataSegmentsOut == 0 || info.DataSegmentsIn == 0)
        {
            return info.DataSegmentsOut != 0;
        }

        if (info.LastDataSentMilliseconds != info.LastDataReceivedMilliseconds)
        {
            return info.LastDataSentMilliseconds < info.LastDataReceivedMilliseconds;
        }

        return info.DataSegmentsIn == _decidedIn && info.DataSegmentsOut == _decidedOut
            ? _answerAwaited
            : info.LastAckReceivedMilliseconds < info.LastDataReceivedMilliseconds;
    }

    /// <summary>Idle time at which the keepalive timer that runs on it sends a probe; null where none is seen to run.</summary>
    internal TimeSpan? KeepaliveAt(TimeSpan now) => Last.Timer switch
    {
        SocketTimer.Keepalive when Last.State == TcpState.Established => Positive(now - LastMoved) + Milliseconds(Last.TimerExpiresMilliseconds),

        // While data is out the retransmission timer is shown instead; what ran before is what will run again.
        _ => null,
    };

    /// <summary>
    /// When segments moved, as well as the ages tell. A movement since the last look that no age explains (the peer's
    /// keepalive) counts as just now: younger is the careful reading of an idle clock.
    /// </summary>
    private TimeSpan MovedAt(in TcpInfo info, TimeSpan now)
    {
        var age = info.LastAckReceivedMilliseconds;
        if (info.DataSegmentsOut > 0)
        {
            age = Math.Min(age, info.LastDataSentMilliseconds);
        }

        if (info.DataSegmentsIn > 0)
        {
            age = Math.Min(age, info.LastDataReceivedMilliseconds);
        }

        var at = now - Milliseconds(age);
        return _seen && at < LastLook ? now : at;
    }

    /// <summary>
    /// When the peer was last heard. Our own probes move segments too, but unanswered they say nothing of the path: the
    /// gap before a send is counted from here.
    /// </summary>
    private TimeSpan HeardAt(in TcpInfo info, TimeSpan now)
    {
        var age = info.DataSegmentsIn > 0 ? Math.Min(info.LastAckReceivedMilliseconds, info.LastDataReceivedMilliseconds) : info.LastAckReceivedMilliseconds;
        var at = now - Milliseconds(age);
        return _seen && at < LastLook ? now : at;
    }

    /// <summary>When data moved; the age of what has never moved says nothing.</summary>
    private static TimeSpan DataAt(in TcpInfo info, TimeSpan now) => (info.DataSegmentsOut, info.DataSegmentsIn) switch
    {
        (0, 0) => now - Milliseconds(info.LastAckReceivedMilliseconds),
        (0, _) => now - Milliseconds(info.LastDataReceivedMilliseconds),
        (_, 0) => now - Milliseconds(info.LastDataSentMilliseconds),
        _ => now - Milliseconds(Math.Min(info.LastDataSentMilliseconds, info.LastDataReceivedMilliseconds)),
    };

    private Stall BeginStall(in TcpInfo info, TimeSpan now, TimeSpan heardBefore)
    {
        var lastAck = now - Milliseconds(info.LastAckReceivedMilliseconds);
        TimeSpan start;
        uint retransmissionsAtStart;
        if (_seen && _last.Info.Unacked == 0 && _last.Info.TotalRetransmissions == info.TotalRetransmissions)
        {
            start = now - Milliseconds(info.LastDataSentMilliseconds);
            retransmissionsAtStart = info.TotalRetransmissions;
        }
        else if (_seen && _last.Info.Unacked == 0)
        {
            // Retransmitted already. The kernel's busy clock has run since the first send (and through exchanges
            // answered since the last look, which ended at the last acknowledgement).
            start = now - Microseconds(info.BusyMicroseconds > _last.Info.BusyMicroseconds ? info.BusyMicroseconds - _last.Info.BusyMicroseconds : 0);
            retransmissionsAtStart = _last.Info.TotalRetransmissions;
        }
        else
        {
            // First sight of a stall that was there before: the back-off tells how long it has lasted, the sum of the
            // timeouts so far being rto0 · (2^backoff - 1).
            var firstRto = info.RtoMicroseconds / Math.Pow(2, Math.Min((int)info.Backoff, 30));
            var waited = info.Retransmits == 0 ? TimeSpan.Zero : Microseconds(firstRto * (Math.Pow(2, Math.Min((int)info.Backoff, 30)) - 1));
            start = now - waited - Milliseconds(info.LastDataSentMilliseconds);
            retransmissionsAtStart = info.TotalRetransmissions - Math.Min(info.Retransmits, info.TotalRetransmissions);
        }

        // Nothing before the last acknowledgement can still be unanswered since before it.
        start = start < lastAck ? lastAck : start;
        TimeSpan? idleBefore = start - lastAck;
        if (_seen && heardBefore > lastAck)
        {
            // Something moved that was no acknowledgement (the peer's keepalives): the path was in use until then.
            idleBefore = Positive(start - heardBefore);
        }

        return new Stall(start, idleBefore, retransmissionsAtStart)
        {
            FoundLate = now - start > FoundSoon,
            LastRetransmission = info.TotalRetransmissions != retransmissionsAtStart ? now - Milliseconds(info.LastDataSentMilliseconds) : null,
        };
    }

    private void UpdateProbing(in SocketObservation socket, TimeSpan now, bool answered)
    {
        var probes = socket.Timer == SocketTimer.Keepalive && socket.State == TcpState.Established && socket.Info.Unacked == 0
            ? socket.TimerRetransmissions
            : 0;
        if (probes == 0 || (_probing is not null && answered))
        {
            _probing = null;
            return;
        }

        // A probe went out between the last look and this one; of both ends the one that proves less is taken.
        var earliest = _seen && LastLook < now ? LastLook : now;
        _probing ??= new Stall(earliest, Positive(earliest - (now - Milliseconds(socket.Info.LastAckReceivedMilliseconds))), 0) { FoundLate = probes > 1 };
        if (probes > _probing.Probes && _probing.Probes > 0)
        {
            _probing.Transmitted(earliest, now);
        }

        _probing.Probes = probes;
    }

    private static TimeSpan Milliseconds(uint value) => TimeSpan.FromMilliseconds(value);

    /// <summary>Whatever the kernel may send: a number beyond all reason is cut off, not a reason to fail.</summary>
    private static TimeSpan Microseconds(double value) => TimeSpan.FromMicroseconds(Math.Min(value, 1e14));

    private static TimeSpan Positive(TimeSpan value) => value < TimeSpan.Zero ? TimeSpan.Zero : value;

    /// <summary>How much was sent, and how much of it again, since the connection was made.</summary>
    private readonly record struct Transmissions(uint Sent, uint Repeated)
    {
        internal static Transmissions Of(in KeptInfo info) => new(info.DataSegmentsOut, info.TotalRetransmissions);

        internal static Transmissions Of(in TcpInfo info) => new(info.DataSegmentsOut, info.TotalRetransmissions);
    }

    /// <summary>A send that has not been answered, and what its retransmissions met.</summary>
    private sealed class Stall(TimeSpan start, TimeSpan? idleBefore, uint retransmissionsAtStart)
    {
        private TimeSpan? _upSince;
        private int _pending;
        private TimeSpan _lastPending;

        internal TimeSpan Start { get; } = start;

        internal TimeSpan? IdleBefore { get; } = idleBefore;

        internal uint RetransmissionsAtStart { get; } = retransmissionsAtStart;

        internal TimeSpan? LastRetransmission { get; set; }

        internal int Confirmed { get; private set; }

        internal int Clean { get; private set; }

        internal bool FoundLate { get; init; }

        internal bool IsLossTaken { get; set; }

        /// <summary>Counters as of the last look at which no stall was in progress, for the loss estimate.</summary>
        internal Transmissions Settled { get; set; }

        /// <summary>Keepalive probes that are out, where it is they that are unanswered.</summary>
        internal int Probes { get; set; }

        /// <summary>Data was sent again. Several times between two looks count once: only the last one's time is known.</summary>
        internal void Retransmitted(TimeSpan sentAt) => Transmitted(sentAt, sentAt);

        /// <summary>Something was sent that wants an answer, at some time between the two.</summary>
        internal void Transmitted(TimeSpan earliest, TimeSpan latest)
        {
            LastRetransmission = latest;
            if (_upSince is { } up && earliest >= up)
            {
                _pending++;
                _lastPending = latest;
            }
        }

        internal void NoteFreshConnect(bool cleanSuccess, TimeSpan started, TimeSpan ended)
        {
            if (started < Start)
            {
                return;
            }

            if (!cleanSuccess)
            {
                _upSince = null;
                _pending = 0;
                Confirmed = 0;
                Clean = 0;
                return;
            }

            // A fresh connection that began earlier was answered before the retransmission had to be.
            if (_pending > 0 && started >= _lastPending + DelayedAcknowledgement)
            {
                Confirmed += _pending;
                _pending = 0;
                Clean++;
            }
            else if (_upSince is null)
            {
                Clean++;
            }

            _upSince ??= ended;
        }
    }
}
