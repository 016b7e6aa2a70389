using System.Diagnostics;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Tracking;

/// <summary>What one observation of a connection teaches about its path.</summary>
/// <param name="Sent">Transmissions that have been answered or repeated since the last lesson; zero while a stall goes on.</param>
/// <param name="Failed">Those of them that had to be repeated.</param>
/// <param name="Survived">A rest after which something came back; zero where there was none.</param>
/// <param name="SilentSince">Where an answer came after retransmission timeouts: when that silence had begun.</param>
/// <param name="Proven">Something that was sent has been acknowledged, or a window probe answered: the path is up both ways.</param>
/// <param name="ProbeAnswered">A window probe was answered: the other end knows such segments.</param>
/// <param name="ProbesIgnored">It lives, and window probes were not answered while the path was up.</param>
public readonly record struct PathLesson(uint Sent, uint Failed, TimeSpan Survived, TimeSpan? SilentSince, bool Proven, bool ProbeAnswered, bool ProbesIgnored);

/// <summary>
/// What is remembered of one connection between scans: when segments last moved, and the stall in progress. Fed with
/// observations and monotonic time; asks no clock itself. There may be 200,000 of them, so what many have in common stands
/// in an object that they share, and what few have in one of their own.
/// </summary>
// Over 400 lines: because what is remembered and what it is evidence of share private state that nobody else may write; one file each.
public sealed partial class TrackedConnection
{
    /// <summary>A tick of the kernel's clock at HZ=250, in milliseconds: its ages are no finer.</summary>
    private const uint Jiffy = 4;

    /// <summary>An acknowledgement is delayed by less than this (RFC 1122, 4.2.3.2).</summary>
    private static readonly TimeSpan LatestAcknowledgement = TimeSpan.FromMilliseconds(500);

    private static readonly TimeSpan LongestInterest = TimeSpan.FromSeconds(20);
    private static readonly TimeSpan FetchedWithin = TimeSpan.FromSeconds(3);
    private static readonly TimeSpan ShortestInterest = TimeSpan.FromMilliseconds(200);

    /// <summary>A silence is seen within this time of its beginning, unless the agent was not there or looks rarely.</summary>
    private static readonly TimeSpan FoundSoon = TimeSpan.FromSeconds(2);

    // Its key without the addresses, which are those of its path.
    private readonly byte _family;
    private readonly ushort _localPort;
    private readonly ushort _peerPort;
    private readonly uint _interface;

    private KeptObservation _last;
    private bool _seen;
    private TimeSpan _lastHeard;
    private bool? _answerAwaited;
    private uint _decidedIn;
    private uint _decidedOut;

    private Silence? _stall;

    // Probes out and unanswered, the kernel's or the agent's, while nothing else is.
    private Silence? _probing;

    // Most connections are never probed.
    private WindowProbes? _probes;

    /// <summary>A connection of which nothing has been observed yet.</summary>
    /// <param name="key">The kernel's key for it.</param>
    /// <param name="user">Whose it is, on the path between its two addresses in its network namespace.</param>
    /// <param name="firstSeen">Monotonic.</param>
    public TrackedConnection(in SocketKey key, PathUser user, TimeSpan firstSeen)
    {
        var path = user.Path;
        Debug.Assert(path.Key.Source == key.Local.Address && path.Key.Destination.Address == key.Peer.Address, "the path leads elsewhere");
        _family = (byte)key.Family;
        _localPort = key.Local.Port;
        _peerPort = key.Peer.Port;
        _interface = key.Interface;
        Cookie = key.Cookie;
        User = user;
        FirstSeen = firstSeen;
    }

    public SocketKey Key => new(
        _family, new TcpEndPoint(Path.Key.Source, _localPort), new TcpEndPoint(Path.Key.Destination.Address, _peerPort), _interface, Cookie);

    /// <summary>The part of <see cref="Key"/> that tells it from all others in its network namespace.</summary>
    public SocketCookie Cookie { get; }

    public Upstream Upstream => Path.Upstream;

    /// <summary>Path whose connect probes speak for this one.</summary>
    public PathTracker Path => User.Path;

    /// <summary>What it shares with the other connections of its user on this path.</summary>
    public PathUser User { get; }

    public ulong NamespaceInode => Path.Key.NamespaceInode;

    public TimeSpan FirstSeen { get; }

    /// <summary>What is kept of the observation of the last scan.</summary>
    public ref readonly KeptObservation Last => ref _last;

    /// <summary>When it was made, monotonic.</summary>
    public TimeSpan LastSeen { get; private set; }

    /// <summary>Number of the last full scan that saw it.</summary>
    internal int LastScan { get; set; }

    /// <summary>Its place in the last full scan, a hint for the next one; -1 before the first.</summary>
    internal int Place { get; set; } = -1;

    /// <summary>Whether it has left the table.</summary>
    public bool IsGone { get; internal set; }

    /// <summary><see cref="OwnerTable.Version"/> when its owner was last known; 0 while it is not.</summary>
    public int OwnerVersion { get; internal set; }

    /// <summary>When segments last moved in either direction, monotonic; may lie before the agent's start.</summary>
    public TimeSpan LastMoved { get; private set; }

    /// <summary>When data last went either way, monotonic; may lie before the agent's start.</summary>
    public TimeSpan LastData { get; private set; }

    /// <summary>The verdict of the last scan.</summary>
    public Judged Judged { get; internal set; }

    /// <summary>What the remedies remember of it; null until one was considered.</summary>
    internal ConnectionCase? Case { get; set; }

    /// <summary>What is remembered of its keepalive options; null until they were looked at.</summary>
    internal Protection? Protection { get; set; }

    /// <summary>When the first of the unanswered probes went out, monotonic; null while none is out.</summary>
    public TimeSpan? ProbingStart => _probing?.Start;

    /// <summary>
    /// True when this connection is worth a recheck before the next scan: something has been unanswered for a while, and it is not
    /// silent for so long, on a path that is down or not known, that little is to be expected.
    /// </summary>
    public bool IsOfInterest
    {
        get
        {
            if (_probes is { IsOut: true } || Protection is { NudgesLeft: > 0 })
            {
                return true;
            }

            if ((_stall ?? _probing) is not { } silence || (_probing is null && Last.Info.Retransmits == 0 && LastSeen - silence.Start <= ShortestInterest))
            {
                return false;
            }

            // However long it has lasted: evidence is being fetched.
            var isAsked = Judged.Reason is Reason.RetransmittingPathUp or Reason.AnswerAwaitedProbesOut && LastSeen - LastWindowProbe < FetchedWithin;
            return isAsked || LastSeen - silence.Start < LongestInterest || Judged.Verdict == Verdict.Stuck || Path.CameBackAfter(LastSeen - LongestInterest);
        }
    }

    /// <summary>False only where <see cref="IsOfInterest"/> cannot be true, and nothing waits for a connect probe: at rest.</summary>
    internal bool MayBeOfInterest => _stall is not null || _probing is not null || _probes is not null || Case is not null || Protection is { NudgesLeft: > 0 };

    /// <summary>When the first send that was never answered happened, monotonic; null while nothing is unanswered.</summary>
    public TimeSpan? StallStart => _stall?.Start;

    /// <summary>When something unanswered was last sent again; null before the first time.</summary>
    public TimeSpan? LastRetransmission => (_stall ?? _probing)?.LastRetransmission;

    /// <summary>When the silence in progress began: of data, or of probes; null while there is none.</summary>
    public TimeSpan? SilenceStart => (_stall ?? _probing)?.Start;

    /// <summary>bytes_acked at the last scan: unchanged means that nothing of ours got through since.</summary>
    public ulong BytesAcknowledged => _last.Info.BytesAcked;

    /// <summary>It was watched by an agent with another configuration: its owner is to be named anew, its place in scans is not known.</summary>
    internal void Rebind()
    {
        OwnerVersion = 0;
        LastScan = 0;
        Place = -1;
    }

    /// <summary>
    /// Takes one observation.
    /// </summary>
    /// <returns>What the path can learn from it.</returns>
    public PathLesson Update(in SocketObservation socket, TimeSpan now)
    {
        if (IsAtRestAs(socket))
        {
            _last = new KeptObservation(socket);
            LastSeen = now;
            return default;
        }

        var info = socket.Info;
        var moved = !_seen || info.SegmentsIn != _last.Info.SegmentsIn || info.SegmentsOut != _last.Info.SegmentsOut;
        var answered = !_seen || info.SegmentsIn != _last.Info.SegmentsIn || info.BytesAcked != _last.Info.BytesAcked;
        var movedBefore = LastMoved;
        var acknowledged = _seen && info.BytesAcked != _last.Info.BytesAcked;
        var probeAnswered = TakeProbeAnswer(info, now, out var isCertain);

        var ignored = answered && _seen && !probeAnswered && HasIgnoredProbes;

        // Answers to probes while the data stays where it is come again and again; they are one silence.
        var silentSince = answered && Last.Info.Retransmits > 0 && (acknowledged || _probes is not { AnsweredInStall: > 1 }) ? _stall?.Start : null;
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

        if (acknowledged || info.Unacked == 0)
        {
            _probes?.Progressed();
        }

        UpdateOutOfOrder(info, now);
        UpdateProbing(socket, now, answered);
        var lesson = new PathLesson { SilentSince = silentSince, Proven = acknowledged || probeAnswered, ProbeAnswered = isCertain, ProbesIgnored = ignored };
        if (_seen && socket.Info.SegmentsIn != _last.Info.SegmentsIn)
        {
            // Something came back after a rest: the path survived at least the rest that the last scan had seen.
            lesson = lesson with { Survived = Positive(LastSeen - movedBefore) };
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
        LastSeen = now;
        return lesson;
    }

    /// <summary>Nothing has moved since the last scan, nothing is unanswered, and no probe is out: the most frequent case by far.</summary>
    private bool IsAtRestAs(in SocketObservation socket) =>
        _seen && _stall is null && _probing is null && _probes is null && _outOfOrderSince is null && _answerAwaited is not null
        && socket.State == TcpState.Established && (socket.Timer == SocketTimer.None || socket.TimerRetransmissions == 0) && socket.Info.Unacked == 0
        && socket.Info.SegmentsIn == _last.Info.SegmentsIn && socket.Info.SegmentsOut == _last.Info.SegmentsOut
        && socket.Info.BytesAcked == _last.Info.BytesAcked && socket.Info.BytesReceived == _last.Info.BytesReceived
        && socket.Info.TotalRetransmissions == _last.Info.TotalRetransmissions && socket.Info.OutOfOrderSegments == _outOfOrderBefore
        && socket.Info.DataSegmentsIn == _decidedIn && socket.Info.DataSegmentsOut == _decidedOut;

    /// <summary>
    /// Decides whether an answer is due: the last data went out after the last data came in. Null: that cannot be known.
    /// </summary>
    /// <remarks>
    /// Both ages count whole ticks (4 ms at HZ=250), and a driver often sends the next query in the very tick in which the
    /// answer before it arrived, just as a fast answer arrives in the tick of its query. Where the ages are equal the
    /// acknowledgement tells: an answer carries the acknowledgement of its query with it, whereas a query that is being
    /// worked on is acknowledged by itself, later (the delayed acknowledgement of RFC 1122, 40 ms on Linux). Answers to
    /// keepalives move that age too, so it is asked once per exchange and kept; where such an answer had come already when
    /// the exchange was first seen, as after a restart of the agent, the ages tell nothing.
    /// </remarks>
    private bool? DecideAnswerAwaited(in TcpInfo info)
    {
        if (info.DataSegmentsOut == 0 || info.DataSegmentsIn == 0)
        {
            return info.DataSegmentsOut != 0;
        }

        if (info.LastDataSentMilliseconds != info.LastDataReceivedMilliseconds)
        {
            return info.LastDataSentMilliseconds < info.LastDataReceivedMilliseconds;
        }

        if (info.DataSegmentsIn == _decidedIn && info.DataSegmentsOut == _decidedOut)
        {
            return _answerAwaited;
        }

        var acknowledgedAfter = Milliseconds(info.LastDataReceivedMilliseconds) - Milliseconds(info.LastAckReceivedMilliseconds);
        return acknowledgedAfter <= TimeSpan.Zero ? false
            : acknowledgedAfter < LatestAcknowledgement + Microseconds(2.0 * info.RttMicroseconds) ? true
            : null;
    }

    /// <summary>
    /// When segments moved, as well as the ages tell. A movement since the last scan that no age explains (the peer's
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
        return _seen && at < LastSeen ? now : at;
    }

    /// <summary>
    /// When the peer was last heard. Our own probes move segments too, but unanswered they say nothing of the path: the
    /// gap before a send is counted from here.
    /// </summary>
    private TimeSpan HeardAt(in TcpInfo info, TimeSpan now)
    {
        var age = info.DataSegmentsIn > 0 ? Math.Min(info.LastAckReceivedMilliseconds, info.LastDataReceivedMilliseconds) : info.LastAckReceivedMilliseconds;
        var at = now - Milliseconds(age);
        return _seen && at < LastSeen ? now : at;
    }

    /// <summary>When data moved; the age of what has never moved says nothing.</summary>
    private static TimeSpan DataAt(in TcpInfo info, TimeSpan now) => (info.DataSegmentsOut, info.DataSegmentsIn) switch
    {
        (0, 0) => now - Milliseconds(info.LastAckReceivedMilliseconds),
        (0, _) => now - Milliseconds(info.LastDataReceivedMilliseconds),
        (_, 0) => now - Milliseconds(info.LastDataSentMilliseconds),
        _ => now - Milliseconds(Math.Min(info.LastDataSentMilliseconds, info.LastDataReceivedMilliseconds)),
    };

    private Silence BeginStall(in TcpInfo info, TimeSpan now, TimeSpan heardBefore)
    {
        var lastAck = now - Milliseconds(info.LastAckReceivedMilliseconds);
        if (_stall is { } before && _last.Info.BytesAcked == info.BytesAcked && lastAck > before.Start + Milliseconds(Jiffy))
        {
            // The peer has answered something else than this data: it lives, and what failed before counts no longer.
            return new Silence(lastAck, TimeSpan.Zero, info.TotalRetransmissions) { FirstSendCounts = false };
        }

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
            // answered since the last scan, which ended at the last acknowledgement).
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

        var stall = new Silence(start, idleBefore, retransmissionsAtStart) { FoundLate = now - start > FoundSoon };
        if (info.TotalRetransmissions != retransmissionsAtStart)
        {
            stall.Retransmitted(now - Milliseconds(info.LastDataSentMilliseconds));
        }

        return stall;
    }

    private void UpdateProbing(in SocketObservation socket, TimeSpan now, bool answered)
    {
        var isResting = socket.State == TcpState.Established && socket.Info.Unacked == 0;
        var probes = isResting && socket.Timer is SocketTimer.Keepalive or SocketTimer.ZeroWindowProbe ? socket.TimerRetransmissions : 0;
        if (!isResting || (_probing is not null && answered) || (probes == 0 && _probing is not { WindowProbes: > 0 }))
        {
            _probing = null;
            return;
        }

        // A probe went out between the last observation and this one; of both ends the one that proves less is taken.
        var earliest = _seen && LastSeen < now ? LastSeen : now;
        _probing ??= new Silence(earliest, Positive(earliest - (now - Milliseconds(socket.Info.LastAckReceivedMilliseconds))), 0) { FoundLate = probes > 1 };
        if (probes > _probing.KernelProbes && _probing.KernelProbes + _probing.WindowProbes > 0)
        {
            _probing.Transmitted(earliest, now);
        }

        _probing.KernelProbes = Math.Max(probes, _probing.KernelProbes);
    }

    private static TimeSpan Milliseconds(uint value) => TimeSpan.FromMilliseconds(value);

    /// <summary>Whatever the kernel may send: a number beyond all reason is cut off, not a reason to fail.</summary>
    private static TimeSpan Microseconds(double value) => TimeSpan.FromMicroseconds(Math.Min(value, 1e14));

    private static TimeSpan Positive(TimeSpan value) => value < TimeSpan.Zero ? TimeSpan.Zero : value;
}
