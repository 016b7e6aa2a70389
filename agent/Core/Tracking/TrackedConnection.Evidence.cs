using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Judgement.IdleTimeout;
using Sidecar.Agent.Core.Recordings;
using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Tracking;

/// <summary>What the observations of one connection amount to, for the judge; and the probes that fetch more of it.</summary>
public sealed partial class TrackedConnection
{
    /// <summary>Out-of-order data waits this long for the segment before it when that does not come again.</summary>
    private static readonly TimeSpan OutOfOrderFor = TimeSpan.FromSeconds(3);

    /// <summary>While a connection is suspect the path is tried so often: a burst of loss, or a dead leg of a bundle, would show.</summary>
    private static readonly TimeSpan Often = TimeSpan.FromMilliseconds(250);

    /// <summary>For so long an answer that is missing says that there is none at this moment: two ticks, and the connect probe that goes with it.</summary>
    private static readonly TimeSpan Recently = TimeSpan.FromMilliseconds(300);

    private uint _outOfOrderBefore;
    private TimeSpan? _outOfOrderSince;

    /// <summary>The evidence as of the last observation.</summary>
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
            AnswerAwaited = IsAnswerAwaited,
            KeepaliveAt = KeepaliveAt(now),
            ProbesAnswered = _probes?.AnsweredAfterRepeats ?? 0,
            OutOfOrder = _outOfOrderSince is { } since && now - since >= OutOfOrderFor,
            Stall = _stall is { } stall
                ? Of(stall, (stall.FirstSendCounts ? 1 : 0) + (int)(info.TotalRetransmissions - stall.RetransmissionsAtStart), now)
                : null,
            Probing = _probing is { } probing ? Of(probing, probing.KernelProbes, now) : null,
        };
    }

    /// <summary>What its path says at the last observation.</summary>
    internal PathEvidence EvidenceOfPath(in ConnectionEvidence evidence) =>
        User.Evidence(SilenceStart, LastSeen, wasInUse: evidence.Stall?.IdleBefore < ForgottenOdds.ShortestGap);

    /// <summary>The last data went out, and nothing has come back since. What a server has sent last is its answer: it awaits none.</summary>
    public bool IsAnswerAwaited => _answerAwaited == true && Upstream.Section.Direction == UpstreamDirection.Outbound;

    /// <summary>Nothing is in flight, and the ages do not tell whether an answer is awaited: it counts as resting until its session is known.</summary>
    internal bool IsAnswerUnknown => _answerAwaited is null && _last.Info.Unacked == 0 && Upstream.Section.Direction == UpstreamDirection.Outbound;

    /// <summary>When a window probe was last sent; null before the first.</summary>
    public TimeSpan? LastWindowProbe => _probes?.SentAt;

    /// <summary>A window probe is out, and its answer may still come.</summary>
    internal bool IsProbeOut => _probes is { IsOut: true };

    /// <summary>Probes of the kernel's own that are out and unanswered, keepalive or of a closed window.</summary>
    internal int KernelProbes => _probing?.KernelProbes ?? 0;

    /// <summary>When the peer was last heard, monotonic.</summary>
    internal TimeSpan LastHeard => _lastHeard;

    /// <summary>When a window probe was last answered; null before the first time.</summary>
    public TimeSpan? LastProbeAnswer => _probes?.AnsweredAt;

    /// <summary>
    /// When the next thing is due that says something of a silent connection: its retransmission timer, or the answer to a probe.
    /// </summary>
    internal TimeSpan NextEvent
    {
        get
        {
            var timer = Last.Timer == SocketTimer.Retransmission ? LastSeen + Milliseconds(Last.TimerExpiresMilliseconds + 1) : TimeSpan.MaxValue;
            return _probes is { IsOut: true } probes && probes.SentAt + AnswerWithin is var answer && answer < timer ? answer + Milliseconds(1) : timer;
        }
    }

    /// <summary>What was sent last wanted an answer, which should be there by now, and has not wanted it for long.</summary>
    internal bool IsUnansweredJustNow(TimeSpan now) => LastRetransmission is { } last && now - last >= AnswerWithin && now - last <= AnswerWithin + Recently;

    /// <summary>The server has told whether an answer to the last data is awaited.</summary>
    internal void NoteAnswerAwaited(bool isAwaited) => _answerAwaited = isAwaited;

    /// <summary>A window probe was sent just now.</summary>
    internal void NoteWindowProbe(TimeSpan now)
    {
        (_probes ??= new WindowProbes()).Sent(now, _last.Info);
        if (_stall is { } stall)
        {
            stall.Probed(now);
        }
        else
        {
            // How long nothing was heard is known from the last observation.
            (_probing ??= new Silence(now, Positive(now - _lastHeard), 0)).Probed(now);
        }
    }

    /// <summary>A connect probe ended; see <see cref="Silence.NoteConnectProbe"/>.</summary>
    internal void NoteConnectProbe(bool cleanSuccess, TimeSpan started, TimeSpan ended) => (_stall ?? _probing)?.NoteConnectProbe(cleanSuccess, started, ended);

    /// <summary>
    /// The idle gap after which the silence in progress found the connection dead; once per silence, null afterwards or
    /// where the gap is not known. To be asked when the verdict is conclusive.
    /// </summary>
    internal TimeSpan? TakeLostGap()
    {
        if ((_stall ?? _probing) is not { IsLossTaken: false } silence)
        {
            return null;
        }

        silence.IsLossTaken = true;
        return silence.IdleBefore;
    }

    /// <summary>
    /// Judges the last observation; a loss that is beyond doubt goes to the path's evidence. Returns whether a connect probe is
    /// wanted: every silent connection needs to know whether its path is up, and every transmission asks anew.
    /// </summary>
    internal bool Assess(DateTimeOffset utcNow, Recorder? recorder = null)
    {
        var path = Path;
        if (SilenceStart is null && _last.Info is { IsPresent: true, Unacked: 0 } && !_last.ZeroWindow && _outOfOrderSince is null && !IsAnswerAwaited)
        {
            // The most frequent case by far, without all that would be asked of another.
            Judged = Judge.AtRest(Positive(LastSeen - LastMoved), Positive(LastSeen - LastData), KeepaliveAt(LastSeen), path.CountsDataOnly, path.IdleTimeout);
            if (recorder is not null && Recorder.IsDecidedOn(this))
            {
                recorder.Judged(this, EvidenceOfPath(Evidence(LastSeen)));
            }

            return false;
        }

        var evidence = Evidence(LastSeen);
        var evidenceOfPath = EvidenceOfPath(evidence);
        Judged = Judge.Decide(evidence, evidenceOfPath);
        recorder?.Judged(this, evidenceOfPath);
        var isSilentData = evidence is { Unacknowledged: > 0, Timeouts: > 0, ZeroWindow: false };
        if (isSilentData || evidence.Probing is not null)
        {
            User.NoteSilence(LastSeen);
        }

        if (isSilentData && evidence is { Timeouts: >= 3, Stall: { } stall } && stall.IdleBefore < ForgottenOdds.ShortestGap)
        {
            User.NoteBusySilence(LastSeen);
        }

        if (Judged is { Verdict: Verdict.Stuck } or { Reason: Reason.ProbesUnanswered } && TakeLostGap() is { } gap && User.TeachesIdling(SilenceStart!.Value, gap, LastSeen))
        {
            path.Note(new GapObservation(gap, GapOutcome.Lost, utcNow, EvidenceSource.Passive));
        }

        return (isSilentData || evidence.Probing is not null) && SilenceStart is { } silenceStart
            && (path.IsOutdated(silenceStart, LastRetransmission) || (Judged.Verdict == Verdict.Suspect && path.IsOlderThan(Often, LastSeen)));
    }

    /// <summary>Idle time at which the keepalive timer that runs on it sends a probe; null where none is seen to run.</summary>
    public TimeSpan? KeepaliveAt(TimeSpan now) => Last.Timer switch
    {
        SocketTimer.Keepalive when Last.State == TcpState.Established => Positive(now - LastMoved) + Milliseconds(Last.TimerExpiresMilliseconds),

        // While data is out the retransmission timer is shown instead; what ran before is what will run again.
        _ => null,
    };

    private StallEvidence Of(Silence silence, int sentByKernel, TimeSpan now)
    {
        // The last probe may be on its way yet.
        var onItsWay = silence.LastWindowProbe is { } last && now - last < AnswerWithin ? 1 : 0;
        return new StallEvidence
        {
            Silence = Positive(now - silence.Start),
            IdleBefore = silence.IdleBefore,
            FailedTransmissions = sentByKernel + (User.AnswersProbes ? silence.WindowProbes - onItsWay : 0),
            ConfirmedFailures = silence.Confirmed,
            CleanConnections = silence.Clean,
            FoundLate = silence.FoundLate,
        };
    }

    /// <summary>
    /// An answer comes after window probes that were not answered, with the path up: this peer, or something between, ignores them.
    /// </summary>
    private bool HasIgnoredProbes => (_stall ?? _probing) is { WindowProbes: >= 3, Confirmed: >= 2 };

    /// <summary>An answer to a window probe is not delayed by the peer; the way there and back is doubled for good measure.</summary>
    private TimeSpan AnswerWithin => Silence.DelayedAcknowledgement + Microseconds(2.0 * Last.Info.RttMicroseconds);

    /// <summary>
    /// Whether the probe that is out has been answered. The answer shows in segs_in, and restarts last_ack_recv; the peer's own
    /// keepalives do only the former.
    /// </summary>
    /// <param name="info">As observed.</param>
    /// <param name="now">When, monotonic.</param>
    /// <param name="isCertain">It was the probe that was answered, and not something else that was sent about that time.</param>
    private bool TakeProbeAnswer(in TcpInfo info, TimeSpan now, out bool isCertain)
    {
        isCertain = false;
        if (_probes is not { IsOut: true } probes)
        {
            return false;
        }

        if (info.SegmentsIn != probes.SegmentsIn && now - Milliseconds(info.LastAckReceivedMilliseconds) >= probes.SentAt - Milliseconds(Jiffy))
        {
            isCertain = probes.IsAnswerToProbe(info);
            probes.Answered(now, info);
            return true;
        }

        if (now - probes.SentAt > AnswerWithin)
        {
            probes.Missed();
        }

        return false;
    }

    /// <summary>
    /// Data behind a hole is acknowledged and waits. A hole that is not filled, while nothing else comes in order either, is
    /// one that the network makes anew each time: the segment that is missing is too large for it.
    /// </summary>
    private void UpdateOutOfOrder(in TcpInfo info, TimeSpan now)
    {
        if (!_seen || info.BytesReceived != _last.Info.BytesReceived)
        {
            _outOfOrderBefore = info.OutOfOrderSegments;
            _outOfOrderSince = null;
        }
        else if (info.OutOfOrderSegments != _outOfOrderBefore)
        {
            _outOfOrderSince ??= now;
        }
    }

    /// <summary>The window probes of one connection.</summary>
    private sealed partial class WindowProbes
    {
        private uint _dataMoved;
        private uint _segmentsOut;
        private bool _wasAlone;
        private uint _repeats;

        internal TimeSpan SentAt { get; private set; }

        internal TimeSpan? AnsweredAt { get; private set; }

        /// <summary>segs_in when the last one was sent.</summary>
        internal uint SegmentsIn { get; private set; }

        /// <summary>The last one has not been answered, and may be yet.</summary>
        internal bool IsOut { get; private set; }

        /// <summary>Answers since data was last acknowledged.</summary>
        internal int AnsweredInStall { get; private set; }

        internal void Sent(TimeSpan now, in KeptInfo info)
        {
            SentAt = now;
            SegmentsIn = info.SegmentsIn;
            _dataMoved = info.DataSegmentsIn + info.DataSegmentsOut;
            _segmentsOut = info.SegmentsOut;
            _wasAlone = info.Unacked == 0;
            IsOut = true;
        }

        /// <summary>Nothing but the probe can have been answered: no data was out, and none has moved since.</summary>
        internal bool IsAnswerToProbe(in TcpInfo info) => _wasAlone && info.Unacked == 0 && info.DataSegmentsIn + info.DataSegmentsOut == _dataMoved
            && info.SegmentsIn == SegmentsIn + 1 && info.SegmentsOut == _segmentsOut + 1;

        /// <summary>Those of them before each of which the data had been sent again: only then does it show that data does not get through.</summary>
        internal int AnsweredAfterRepeats { get; private set; }

        internal void Answered(TimeSpan now, in TcpInfo info)
        {
            AnsweredAt = now;
            IsOut = false;
            if (info.Unacked > 0)
            {
                AnsweredAfterRepeats += AnsweredInStall == 0 || info.TotalRetransmissions != _repeats ? 1 : 0;
                AnsweredInStall++;
                _repeats = info.TotalRetransmissions;
            }
        }

        internal void Missed() => IsOut = false;

        internal void Progressed() => AnsweredInStall = AnsweredAfterRepeats = 0;
    }
}
