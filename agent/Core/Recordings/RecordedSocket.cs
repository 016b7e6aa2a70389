using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Recordings;

/// <summary>What tracking reads of one observation of a socket. Names and units are those of <see cref="SocketObservation"/> and the kernel's tcp_info.</summary>
public sealed record RecordedSocket
{
    /// <summary>Longer than any tcp_info whose fields are read: all of them are present.</summary>
    private const int AllOfTcpInfo = 280;

    public TcpState State { get; init; }

    public SocketTimer Timer { get; init; }

    public byte TimerRetrans { get; init; }

    public uint TimerExpiresMs { get; init; }

    /// <summary>The peer's window is closed and there is something to send, as <see cref="KeptObservation"/> concluded it.</summary>
    public bool ZeroWindow { get; init; }

    public uint ReceiveQueue { get; init; }

    public bool HasTcpInfo { get; init; }

    public byte Retransmits { get; init; }

    public byte Backoff { get; init; }

    public uint RtoUs { get; init; }

    public uint RttUs { get; init; }

    public uint Unacked { get; init; }

    public uint LastDataSentMs { get; init; }

    public uint LastDataRecvMs { get; init; }

    public uint LastAckRecvMs { get; init; }

    public uint TotalRetrans { get; init; }

    public ulong BytesAcked { get; init; }

    public ulong BytesReceived { get; init; }

    public ulong BusyUs { get; init; }

    public uint SegsIn { get; init; }

    public uint SegsOut { get; init; }

    public uint DataSegsIn { get; init; }

    public uint DataSegsOut { get; init; }

    public uint RcvOoopack { get; init; }

    public uint SndMss { get; init; }

    public uint Pmtu { get; init; }

    internal static RecordedSocket Of(in SocketObservation socket) => Of(new KeptObservation(socket)) with
    {
        TimerRetrans = socket.TimerRetransmissions,
        Backoff = socket.Info.Backoff,
        RcvOoopack = socket.Info.OutOfOrderSegments,
    };

    internal static RecordedSocket Of(in KeptObservation kept)
    {
        var info = kept.Info;
        return new RecordedSocket
        {
            State = kept.State,
            Timer = kept.Timer,
            TimerExpiresMs = kept.TimerExpiresMilliseconds,
            ZeroWindow = kept.ZeroWindow,
            ReceiveQueue = kept.ReceiveQueue,
            HasTcpInfo = info.IsPresent,
            Retransmits = info.Retransmits,
            RtoUs = info.RtoMicroseconds,
            RttUs = info.RttMicroseconds,
            Unacked = info.Unacked,
            LastDataSentMs = info.LastDataSentMilliseconds,
            LastDataRecvMs = info.LastDataReceivedMilliseconds,
            LastAckRecvMs = info.LastAckReceivedMilliseconds,
            TotalRetrans = info.TotalRetransmissions,
            BytesAcked = info.BytesAcked,
            BytesReceived = info.BytesReceived,
            BusyUs = info.BusyMicroseconds,
            SegsIn = info.SegmentsIn,
            SegsOut = info.SegmentsOut,
            DataSegsIn = info.DataSegmentsIn,
            DataSegsOut = info.DataSegmentsOut,
            SndMss = info.SendMss,
            Pmtu = info.PathMtu,
        };
    }

    /// <summary>Whether nothing that a judgement rests on, but ages, has changed since an earlier one.</summary>
    internal bool IsAs(RecordedSocket earlier) => SegsIn == earlier.SegsIn && SegsOut == earlier.SegsOut && DataSegsIn == earlier.DataSegsIn && DataSegsOut == earlier.DataSegsOut
        && BytesAcked == earlier.BytesAcked && BytesReceived == earlier.BytesReceived && TotalRetrans == earlier.TotalRetrans && Retransmits == earlier.Retransmits
        && Unacked == earlier.Unacked && State == earlier.State && Timer == earlier.Timer && TimerRetrans == earlier.TimerRetrans && ZeroWindow == earlier.ZeroWindow
        && RcvOoopack == earlier.RcvOoopack && HasTcpInfo == earlier.HasTcpInfo;

    internal SocketObservation ToObservation(in SocketKey key) => new()
    {
        Family = key.Family,
        Local = key.Local,
        Peer = key.Peer,
        Interface = key.Interface,
        Cookie = key.Cookie,
        State = State,
        Timer = Timer,
        TimerRetransmissions = TimerRetrans,
        TimerExpiresMilliseconds = TimerExpiresMs,
        ReceiveQueue = ReceiveQueue,
        SendQueue = 0,
        Uid = 0,
        Inode = 1,
        Info = new TcpInfo
        {
            Length = HasTcpInfo ? AllOfTcpInfo : 0,
            Retransmits = Retransmits,
            Backoff = Backoff,
            RtoMicroseconds = RtoUs,
            RttMicroseconds = RttUs,
            Unacked = Unacked,
            LastDataSentMilliseconds = LastDataSentMs,
            LastDataReceivedMilliseconds = LastDataRecvMs,
            LastAckReceivedMilliseconds = LastAckRecvMs,
            TotalRetransmissions = TotalRetrans,
            BytesAcked = BytesAcked,
            BytesReceived = BytesReceived,
            BusyMicroseconds = BusyUs,
            SegmentsIn = SegsIn,
            SegmentsOut = SegsOut,
            DataSegmentsIn = DataSegsIn,
            DataSegmentsOut = DataSegsOut,
            OutOfOrderSegments = RcvOoopack,
            SendMss = SndMss,
            PathMtu = Pmtu,

            // What is kept of the window is whether it is closed with something to send.
            SendWindow = ZeroWindow ? 0 : uint.MaxValue,
            NotSentBytes = ZeroWindow ? 1u : 0,
        },
    };
}
