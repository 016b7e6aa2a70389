using System.Net;
using Sidecar.Probes.Values;

namespace Sidecar.CoreTests.Remedies;

/// <summary>A client's socket in virtual time: data, retransmissions at doubling intervals, answers.</summary>
internal sealed class FakeSocket(int number, TimeSpan lastUse)
{
    private TimeSpan _lastSent = lastUse;
    private TimeSpan _lastReceived = lastUse + TimeSpan.FromMilliseconds(20);
    private TimeSpan _lastAck = lastUse + TimeSpan.FromMilliseconds(20);
    private TimeSpan _next = TimeSpan.MaxValue;
    private TimeSpan _rto = FirstRto;
    private uint _unacked;
    private byte _timeouts;
    private uint _retransmissions;
    private uint _segmentsIn = 2;
    private uint _segmentsOut = 2;
    private uint _dataOut = 1;
    private uint _dataIn = 1;
    private ulong _acked = 10;

    private int _probes;
    private TimeSpan _lastProbeAnswer = TimeSpan.MinValue / 2;
    private TimeSpan? _keepalive;

    private static readonly TimeSpan RateLimit = TimeSpan.FromMilliseconds(500);

    private static readonly TimeSpan FirstRto = TimeSpan.FromMilliseconds(200);

    internal SocketCookie Cookie { get; } = new((ulong)number);

    internal uint Inode { get; } = (uint)(1000 + number);

    /// <summary>Whether window probes, and those of a keepalive timer, are answered.</summary>
    internal bool Answers { get; set; }

    /// <summary>Probes get through, and data does not.</summary>
    internal bool IsTooLarge { get; set; }

    /// <summary>Keepalive probes that are out.</summary>
    internal byte KeepaliveProbes { get; set; }
    /// <summary>Answers no more than one window probe in 500 ms, as a Linux peer does (tcp_invalid_ratelimit).</summary>
    internal bool LimitsAnswers { get; set; }

    /// <summary>Window probes that get lost, counted from the first; null: none.</summary>
    internal Func<int, bool>? Loses { get; set; }

    /// <summary>Whether the scan shows the keepalive timer at work; the agent has set it.</summary>
    internal bool ShowsKeepalive { get; set; }

    /// <summary>What the scan shows of that timer, which the kernel sets anew only when it fires; null: as if each segment had set it.</summary>
    internal TimeSpan? TimerShown { get; set; }

    internal bool IsClosed { get; set; }

    /// <summary>Who owns it.</summary>
    internal uint Uid { get; init; } = 33;

    internal uint OutOfOrder { get; set; }

    internal void Send(TimeSpan now)
    {
        (_unacked, _lastSent, _rto, _next) = (1, now, FirstRto, now + FirstRto);
        _dataOut++;
        _segmentsOut++;
    }

    /// <summary>What was sent is acknowledged; an answer to it may be still to come.</summary>
    internal void Acknowledge(TimeSpan now)
    {
        (_unacked, _timeouts, _next, _lastAck) = (0, 0, TimeSpan.MaxValue, now);
        _acked += 10;
        _segmentsIn++;
    }

    internal void Receive(TimeSpan now)
    {
        _dataIn++;
        _lastReceived = now;
        Acknowledge(now);
    }

    /// <summary>Data is retransmitted at once; it gets through where probes are answered.</summary>
    internal void Resume(TimeSpan now)
    {
        (_lastSent, _rto, _next) = (now, FirstRto, now + FirstRto);
        _retransmissions++;
        _segmentsOut++;
        if (Answers && !IsTooLarge)
        {
            Acknowledge(now);
        }
    }

    internal void WindowProbe(TimeSpan now)
    {
        _segmentsOut++;
        var isLost = Loses?.Invoke(_probes++) == true;
        if (Answers && !isLost && !(LimitsAnswers && now - _lastProbeAnswer < RateLimit))
        {
            _segmentsIn++;
            _lastAck = now;
            _lastProbeAnswer = now;
        }
    }

    /// <summary>Its keepalive options were set: a TCP_KEEPIDLE below the elapsed idle time sends a probe at once.</summary>
    internal void KeepaliveChanged(TimeSpan now, in KeepaliveOptions options)
    {
        _keepalive = options.Enabled ? options.Idle : null;
        if (options.Enabled && now - (_lastSent > _lastAck ? _lastSent : _lastAck) >= options.Idle)
        {
            _segmentsOut++;
            if (Answers)
            {
                _segmentsIn++;
                _lastAck = now;
            }
        }
    }

    internal SocketObservation Observe(TimeSpan now)
    {
        while (_unacked > 0 && _next <= now)
        {
            _lastSent = _next;
            _rto *= 2;
            _next += _rto;
            _timeouts++;
            _retransmissions++;
            _segmentsOut++;
        }

        var keepaliveIn = ShowsKeepalive && _unacked == 0 && _keepalive is { } idle ? TimerShown ?? (idle - (now - _lastAck)) : (TimeSpan?)null;
        return new SocketObservation
        {
            Family = 2,
            State = TcpState.Established,
            Timer = _unacked > 0 ? SocketTimer.Retransmission : KeepaliveProbes > 0 || keepaliveIn is not null ? SocketTimer.Keepalive : SocketTimer.None,
            TimerRetransmissions = _unacked > 0 ? _timeouts : KeepaliveProbes,
            TimerExpiresMilliseconds = _unacked > 0 ? (uint)(_next - now).TotalMilliseconds : (uint)Math.Max(0, keepaliveIn?.TotalMilliseconds ?? 0),
            Local = TcpEndPoint.From(IPAddress.Parse("10.1.0.2"), 40000 + number),
            Peer = TcpEndPoint.From(IPAddress.Parse("10.2.0.2"), 5432),
            Interface = 0,
            Cookie = Cookie,
            ReceiveQueue = 0,
            SendQueue = _unacked * 10,
            Uid = Uid,
            Inode = Inode,
            Info = new TcpInfo
            {
                Length = 280,
                Unacked = _unacked,
                Retransmits = _timeouts,
                Backoff = _timeouts,
                RtoMicroseconds = (uint)_rto.TotalMicroseconds,
                RttMicroseconds = 10_000,
                LastDataSentMilliseconds = Age(_lastSent),
                LastDataReceivedMilliseconds = Age(_lastReceived),
                LastAckReceivedMilliseconds = Age(_lastAck),
                TotalRetransmissions = _retransmissions,
                SegmentsIn = _segmentsIn,
                SegmentsOut = _segmentsOut,
                DataSegmentsIn = _dataIn,
                DataSegmentsOut = _dataOut,
                BytesAcked = _acked,
                BytesReceived = _dataIn * 10,
                SendWindow = 60_000,
                OutOfOrderSegments = OutOfOrder,
            },
        };

        uint Age(TimeSpan at) => (uint)(now - at).TotalMilliseconds;
    }
}
