using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Tracking;

/// <summary>
/// What is kept of an observation until the next scan: less than half of it, which is what decides the agent's size where
/// there are 200,000 connections. Names and units are those of <see cref="SocketObservation"/>.
/// </summary>
public readonly struct KeptObservation
{
    public KeptObservation(in SocketObservation socket)
    {
        Info = new KeptInfo(socket.Info);
        ZeroWindow = socket.Timer == SocketTimer.ZeroWindowProbe
            || (socket.Info is { HasSendWindow: true, SendWindow: 0, DataSegmentsOut: > 0 } info && (info.NotSentBytes > 0 || info.Unacked > 0));
        Inode = socket.Inode;
        ReceiveQueue = socket.ReceiveQueue;
        TimerExpiresMilliseconds = socket.TimerExpiresMilliseconds;
        State = socket.State;
        Timer = socket.Timer;
    }

    public KeptInfo Info { get; }

    public uint Inode { get; }

    public uint ReceiveQueue { get; }

    public uint TimerExpiresMilliseconds { get; }

    public TcpState State { get; }

    public SocketTimer Timer { get; }

    /// <summary>The peer's window is closed and there is something to send.</summary>
    public bool ZeroWindow { get; }
}

/// <summary>The TCP_INFO of a <see cref="KeptObservation"/>; names and units are those of <see cref="TcpInfo"/>.</summary>
public readonly struct KeptInfo
{
    internal KeptInfo(in TcpInfo info)
    {
        BytesAcked = info.BytesAcked;
        BytesReceived = info.BytesReceived;
        BusyMicroseconds = info.BusyMicroseconds;
        RtoMicroseconds = info.RtoMicroseconds;
        Unacked = info.Unacked;
        LastDataSentMilliseconds = info.LastDataSentMilliseconds;
        LastDataReceivedMilliseconds = info.LastDataReceivedMilliseconds;
        LastAckReceivedMilliseconds = info.LastAckReceivedMilliseconds;
        TotalRetransmissions = info.TotalRetransmissions;
        SegmentsOut = info.SegmentsOut;
        SegmentsIn = info.SegmentsIn;
        DataSegmentsIn = info.DataSegmentsIn;
        DataSegmentsOut = info.DataSegmentsOut;
        RttMicroseconds = info.RttMicroseconds;
        SendMss = (ushort)Math.Min(info.SendMss, ushort.MaxValue);
        PathMtu = (ushort)Math.Min(info.PathMtu, ushort.MaxValue);
        Retransmits = info.Retransmits;
        IsPresent = info.IsPresent;
    }

    public ulong BytesAcked { get; }

    public ulong BytesReceived { get; }

    public ulong BusyMicroseconds { get; }

    public uint RtoMicroseconds { get; }

    public uint Unacked { get; }

    public uint LastDataSentMilliseconds { get; }

    public uint LastDataReceivedMilliseconds { get; }

    public uint LastAckReceivedMilliseconds { get; }

    public uint TotalRetransmissions { get; }

    public uint SegmentsOut { get; }

    public uint SegmentsIn { get; }

    public uint DataSegmentsIn { get; }

    public uint DataSegmentsOut { get; }

    public uint RttMicroseconds { get; }

    public ushort SendMss { get; }

    public ushort PathMtu { get; }

    public byte Retransmits { get; }

    public bool IsPresent { get; }
}
