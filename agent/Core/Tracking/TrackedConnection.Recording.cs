using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Recordings;
using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Tracking;

/// <summary>What is remembered of a connection, written down for a recording and taken from one.</summary>
public sealed partial class TrackedConnection
{
    /// <summary>Whether it is recorded: what is not costs no search.</summary>
    internal bool IsRecorded { get; set; }

    /// <summary>All that later observations and verdicts rest on.</summary>
    internal RecordedState Keep() => new()
    {
        Last = RecordedSocket.Of(_last),
        Inbound = Upstream.Section.Direction == UpstreamDirection.Inbound,
        FirstSeen = FirstSeen,
        LastSeen = LastSeen,
        LastMoved = LastMoved,
        LastData = LastData,
        LastHeard = _lastHeard,
        AnswerAwaited = _answerAwaited,
        DecidedIn = _decidedIn,
        DecidedOut = _decidedOut,
        OutOfOrderBefore = _outOfOrderBefore,
        OutOfOrderSince = _outOfOrderSince,
        Stall = _stall?.Keep(),
        Probing = _probing?.Keep(),
        WindowProbes = _probes?.Keep(),
        Judged = new RecordedJudgement { Verdict = Judged.Verdict, Reason = Judged.Reason, Odds = Judged.Odds },
    };

    /// <summary>A connection as it was.</summary>
    /// <param name="state">What was remembered of it.</param>
    /// <param name="user">What stands for its user and path.</param>
    internal static TrackedConnection Restore(RecordedState state, PathUser user)
    {
        var key = new SocketKey(2, new TcpEndPoint(user.Path.Key.Source, 0), user.Path.Key.Destination, 0, new SocketCookie(1));
        return new TrackedConnection(key, user, state.FirstSeen)
        {
            _last = new KeptObservation(state.Last.ToObservation(key)),
            _seen = true,
            Judged = state.Judged is { } judged ? new Judged(judged.Verdict, judged.Reason, judged.Odds) : default,
            LastSeen = state.LastSeen,
            LastMoved = state.LastMoved,
            LastData = state.LastData,
            _lastHeard = state.LastHeard,
            _answerAwaited = state.AnswerAwaited,
            _decidedIn = state.DecidedIn,
            _decidedOut = state.DecidedOut,
            _outOfOrderBefore = state.OutOfOrderBefore,
            _outOfOrderSince = state.OutOfOrderSince,
            _stall = Silence.Of(state.Stall),
            _probing = Silence.Of(state.Probing),
            _probes = state.WindowProbes is { } probes ? new WindowProbes(probes) : null,
        };
    }

    private sealed partial class WindowProbes
    {
        internal WindowProbes()
        {
        }

        internal WindowProbes(RecordedWindowProbes recorded)
        {
            SentAt = recorded.SentAt;
            AnsweredAt = recorded.AnsweredAt;
            SegmentsIn = recorded.SegsIn;
            IsOut = recorded.IsOut;
            AnsweredInStall = recorded.AnsweredInStall;
            AnsweredAfterRepeats = recorded.AnsweredAfterRepeats;
            _repeats = recorded.Repeats;
            _dataMoved = recorded.DataMoved;
            _segmentsOut = recorded.SegsOut;
            _wasAlone = recorded.WasAlone;
        }

        internal RecordedWindowProbes Keep() => new()
        {
            SentAt = SentAt,
            AnsweredAt = AnsweredAt,
            SegsIn = SegmentsIn,
            IsOut = IsOut,
            AnsweredInStall = AnsweredInStall,
            AnsweredAfterRepeats = AnsweredAfterRepeats,
            Repeats = _repeats,
            DataMoved = _dataMoved,
            SegsOut = _segmentsOut,
            WasAlone = _wasAlone,
        };
    }
}
