using Sidecar.Probes.Values;

namespace Sidecar.Simulator;

/// <summary>
/// The client kernel's side of one TCP connection: what happens to it, and what sock_diag would say of it. Ages count
/// whole jiffies of 4 ms, last_data_sent restarts on retransmissions, a tail-loss probe counts in total_retrans alone,
/// the peer's keepalives show in segs_in and segs_out only.
/// </summary>
internal sealed class ClientSocket(SocketKey key, uint inode, TimeSpan established, TimeSpan roundTrip)
{
    /// <summary>TCP_RTO_MIN (net/tcp.h).</summary>
    internal static readonly TimeSpan LeastTimeout = TimeSpan.FromMilliseconds(200);

    private static readonly TimeSpan MostTimeout = TimeSpan.FromSeconds(120);
    private static readonly TimeSpan Jiffy = TimeSpan.FromMilliseconds(4);

    private uint _segmentsIn = 1;
    private uint _segmentsOut = 2;
    private uint _dataIn;
    private uint _dataOut;
    private ulong _acked = 1;
    private ulong _received;
    private uint _retransmissions;
    private uint _outOfOrder;
    private byte _backoff;
    private byte _probes;
    private TimeSpan _lastSent = established;
    private TimeSpan _lastReceived = established;
    private TimeSpan _lastAck = established;
    private TimeSpan _busy;
    private TimeSpan _busySince;

    internal SocketKey Key { get; } = key;

    internal uint Inode { get; } = inode;

    internal TcpState State { get; set; } = TcpState.Established;

    internal uint Unacknowledged { get; private set; }

    internal byte Timeouts { get; private set; }

    internal uint ReceiveQueue { get; set; }

    /// <summary>Bytes that a closed window holds back.</summary>
    internal uint NotSent { get; private set; }

    /// <summary>When the running timer fires; meaningless without one.</summary>
    internal TimeSpan TimerAt { get; set; }

    /// <summary>When the keepalive timer fires; null without SO_KEEPALIVE.</summary>
    internal TimeSpan? KeepaliveAt { get; set; }

    /// <summary>When anything was last heard from the peer that counts for the keepalive timer.</summary>
    internal TimeSpan LastHeard => _lastReceived > _lastAck ? _lastReceived : _lastAck;

    /// <summary>When the oldest unacknowledged data was first sent.</summary>
    internal TimeSpan FirstSent { get; private set; }

    /// <summary>The retransmission timeout as it stands, back-off included.</summary>
    internal TimeSpan Timeout
    {
        get
        {
            var timeout = (LeastTimeout + roundTrip) * (1L << Math.Min((int)_backoff, 12));
            return timeout > MostTimeout ? MostTimeout : timeout;
        }
    }

    internal void Send(TimeSpan now, uint segments = 1)
    {
        if (Unacknowledged == 0)
        {
            _busySince = now;
            FirstSent = now;
        }

        Unacknowledged += segments;
        _segmentsOut += segments;
        _dataOut += segments;
        _lastSent = now;
    }

    internal void TailLossProbe(TimeSpan now) => Retransmit(now);

    internal void RetransmissionTimeout(TimeSpan now)
    {
        Timeouts++;
        _backoff++;
        Retransmit(now);
    }

    /// <summary>An ICMP error has quoted what is in flight: the next timeout is a first one.</summary>
    internal void RevertBackoff() => _backoff = 0;

    /// <summary>Everything sent is acknowledged, in a segment that carries no data.</summary>
    internal void Acknowledge(TimeSpan now)
    {
        _segmentsIn++;
        TakeAcknowledgement(now);
    }

    /// <summary>Data that acknowledges everything sent.</summary>
    internal void Receive(TimeSpan now)
    {
        _segmentsIn++;
        _segmentsOut++;
        _dataIn++;
        _received += 100;
        _lastReceived = now;
        TakeAcknowledgement(now);
    }

    /// <summary>The end of an answer whose beginning the network drops: kept behind the hole. It acknowledges what was sent.</summary>
    internal void ReceiveOutOfOrder(TimeSpan now)
    {
        _segmentsIn++;
        _segmentsOut++;
        _dataIn++;
        _outOfOrder++;
        _lastReceived = now;
        TakeAcknowledgement(now);
    }

    /// <summary>The peer asks whether we live, and is answered.</summary>
    internal void PeerKeepalive()
    {
        _segmentsIn++;
        _segmentsOut++;
    }

    /// <summary>Our own keepalive goes out.</summary>
    internal void SendKeepalive()
    {
        _segmentsOut++;
        _probes++;
    }

    /// <summary>The agent's window probe goes out: no timer counts it.</summary>
    internal void SendWindowProbe() => _segmentsOut++;

    /// <summary>And is answered, with data unacknowledged or not: the back-off stays as it is.</summary>
    internal void WindowProbeAnswered(TimeSpan now)
    {
        _segmentsIn++;
        _lastAck = now;
        _probes = 0;
    }

    /// <summary>And is answered; so is a zero-window probe.</summary>
    internal void ProbeAnswered(TimeSpan now)
    {
        _segmentsIn++;
        _lastAck = now;
        _probes = 0;
        _backoff = 0;
    }

    /// <summary>What was sent is acknowledged, the peer's window is closed, and more waits to be sent.</summary>
    internal void CloseWindow(TimeSpan now)
    {
        Acknowledge(now);
        NotSent = 100_000;
    }

    internal void OpenWindow() => NotSent = 0;

    internal void ZeroWindowProbe()
    {
        _segmentsOut++;
        _probes++;
        _backoff++;
    }

    internal byte Probes => _probes;

    /// <summary>What sock_diag says of it.</summary>
    internal SocketObservation Observe(TimeSpan now) => new()
    {
        Family = Key.Family,
        State = State,
        Timer = Unacknowledged > 0 ? SocketTimer.Retransmission
            : NotSent > 0 ? SocketTimer.ZeroWindowProbe
            : KeepaliveAt is null ? SocketTimer.None
            : SocketTimer.Keepalive,
        TimerRetransmissions = Unacknowledged > 0 ? Timeouts : _probes,
        TimerExpiresMilliseconds = (uint)Math.Max(0, ((Unacknowledged > 0 || NotSent > 0 ? TimerAt : KeepaliveAt ?? now) - now).TotalMilliseconds),
        Local = Key.Local,
        Peer = Key.Peer,
        Interface = 0,
        Cookie = Key.Cookie,
        ReceiveQueue = ReceiveQueue,
        SendQueue = Unacknowledged * 100,
        Uid = 1000,
        Inode = Inode,
        Info = new TcpInfo
        {
            Length = 280,
            Retransmits = Timeouts,
            Probes = _probes,
            Backoff = _backoff,
            RtoMicroseconds = (uint)Timeout.TotalMicroseconds,
            Unacked = Unacknowledged,
            LastDataSentMilliseconds = Age(_lastSent, now),
            LastDataReceivedMilliseconds = Age(_lastReceived, now),
            LastAckReceivedMilliseconds = Age(_lastAck, now),
            RttMicroseconds = (uint)roundTrip.TotalMicroseconds,
            TotalRetransmissions = _retransmissions,
            BytesAcked = _acked,
            BytesReceived = _received,
            SegmentsOut = _segmentsOut,
            SegmentsIn = _segmentsIn,
            NotSentBytes = NotSent,
            DataSegmentsIn = _dataIn,
            OutOfOrderSegments = _outOfOrder,
            DataSegmentsOut = _dataOut,
            BusyMicroseconds = (ulong)(Unacknowledged > 0 ? _busy + (now - _busySince) : _busy).TotalMicroseconds,
            BytesSent = _dataOut * 100UL,
            BytesRetransmitted = _retransmissions * 100UL,
            SendWindow = NotSent > 0 ? 0 : 65536u,
        },
    };

    private void Retransmit(TimeSpan now)
    {
        _segmentsOut++;
        _dataOut++;
        _retransmissions++;
        _lastSent = now;
    }

    private void TakeAcknowledgement(TimeSpan now)
    {
        _lastAck = now;
        if (Unacknowledged == 0)
        {
            return;
        }

        _acked += Unacknowledged * 100;
        _busy += now - _busySince;
        Unacknowledged = 0;
        Timeouts = 0;
        _backoff = 0;
    }

    /// <summary>tcp_jiffies32 differences, as milliseconds.</summary>
    private static uint Age(TimeSpan since, TimeSpan now) => (uint)(((now.Ticks / Jiffy.Ticks) - (since.Ticks / Jiffy.Ticks)) * 4);
}
