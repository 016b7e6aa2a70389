using System.Runtime.InteropServices;

namespace Sidecar.Probes.Values;

/// <summary>
/// The fields of the kernel's struct tcp_info (include/uapi/linux/tcp.h) that are read here. Older kernels send a
/// shorter struct: fields beyond its end are absent, and <see cref="Length"/> tells which are there.
/// </summary>
public readonly struct TcpInfo
{
    /// <summary>Bytes the kernel sent; 0 when there was no TCP_INFO at all.</summary>
    public required int Length { get; init; }

    public bool IsPresent => Length >= OffsetTotalRetrans + 4;

    /// <summary>Retransmission timeouts in a row for the oldest unacknowledged segment (icsk_retransmits); no tail-loss probes.</summary>
    public byte Retransmits { get; init; }

    /// <summary>Unanswered keepalive or zero-window probes (icsk_probes_out).</summary>
    public byte Probes { get; init; }

    /// <summary>Exponent of the retransmission timer's back-off.</summary>
    public byte Backoff { get; init; }

    /// <summary>Current retransmission timeout, microseconds, back-off included.</summary>
    public uint RtoMicroseconds { get; init; }

    /// <summary>Segments sent and not acknowledged.</summary>
    public uint Unacked { get; init; }

    /// <summary>Milliseconds since data was last sent; restarts on every retransmission and tail-loss probe.</summary>
    public uint LastDataSentMilliseconds { get; init; }

    /// <summary>Milliseconds since data was last received; meaningless before the first data.</summary>
    public uint LastDataReceivedMilliseconds { get; init; }

    /// <summary>Milliseconds since an acknowledgement was last received; answers to keepalives count, the peer's own keepalives do not.</summary>
    public uint LastAckReceivedMilliseconds { get; init; }

    /// <summary>Smoothed round-trip time, microseconds.</summary>
    public uint RttMicroseconds { get; init; }

    /// <summary>Segments retransmitted over the connection's life, tail-loss probes included.</summary>
    public uint TotalRetransmissions { get; init; }

    /// <summary>Bytes of ours the peer has acknowledged (RFC 4898 tcpEStatsAppHCThruOctetsAcked).</summary>
    public ulong BytesAcked { get; init; }

    public ulong BytesReceived { get; init; }

    /// <summary>Segments sent, of any kind (RFC 4898 tcpEStatsPerfSegsOut).</summary>
    public uint SegmentsOut { get; init; }

    /// <summary>Segments received, of any kind; the only place where the peer's keepalives show.</summary>
    public uint SegmentsIn { get; init; }

    /// <summary>Segments received out of order over the connection's life (5.4 and later); 0 where absent.</summary>
    public uint OutOfOrderSegments { get; init; }

    /// <summary>Largest segment that is sent, bytes without headers.</summary>
    public uint SendMss { get; init; }

    /// <summary>Path MTU as the kernel believes it to be, bytes.</summary>
    public uint PathMtu { get; init; }

    /// <summary>Bytes written by the application and not yet sent once.</summary>
    public uint NotSentBytes { get; init; }

    public uint DataSegmentsIn { get; init; }

    public uint DataSegmentsOut { get; init; }

    /// <summary>Microseconds, over the connection's life, in which there was data to send or to be acknowledged.</summary>
    public ulong BusyMicroseconds { get; init; }

    /// <summary>Bytes sent, retransmissions included (4.19 and later); 0 where absent.</summary>
    public ulong BytesSent { get; init; }

    /// <summary>Bytes retransmitted (4.19 and later); 0 where absent.</summary>
    public ulong BytesRetransmitted { get; init; }

    /// <summary>The peer's receive window after scaling (5.4 and later).</summary>
    public uint SendWindow { get; init; }

    /// <summary>Whether <see cref="SendWindow"/> was sent by this kernel.</summary>
    public bool HasSendWindow => Length >= OffsetSendWindow + 4;

    public bool HasSegments => Length >= OffsetDataSegsOut + 4;

    public bool HasBytesSent => Length >= OffsetBytesRetrans + 8;

    private const int OffsetTotalRetrans = 100;
    private const int OffsetBytesAcked = 120;
    private const int OffsetBytesReceived = 128;
    private const int OffsetSegsOut = 136;
    private const int OffsetSegsIn = 140;
    private const int OffsetNotSent = 144;
    private const int OffsetDataSegsIn = 152;
    private const int OffsetDataSegsOut = 156;
    private const int OffsetBusyTime = 168;
    private const int OffsetBytesSent = 200;
    private const int OffsetBytesRetrans = 208;
    private const int OffsetOutOfOrder = 224;
    private const int OffsetSendWindow = 228;

    /// <summary>Reads what is there of a tcp_info of any kernel's length; never throws.</summary>
    public static TcpInfo Read(ReadOnlySpan<byte> bytes) => new()
    {
        Length = bytes.Length,
        Retransmits = U8(bytes, 2),
        Probes = U8(bytes, 3),
        Backoff = U8(bytes, 4),
        RtoMicroseconds = U32(bytes, 8),
        SendMss = U32(bytes, 16),
        Unacked = U32(bytes, 24),
        LastDataSentMilliseconds = U32(bytes, 44),
        LastDataReceivedMilliseconds = U32(bytes, 52),
        LastAckReceivedMilliseconds = U32(bytes, 56),
        PathMtu = U32(bytes, 60),
        RttMicroseconds = U32(bytes, 68),
        TotalRetransmissions = U32(bytes, OffsetTotalRetrans),
        BytesAcked = U64(bytes, OffsetBytesAcked),
        BytesReceived = U64(bytes, OffsetBytesReceived),
        SegmentsOut = U32(bytes, OffsetSegsOut),
        SegmentsIn = U32(bytes, OffsetSegsIn),
        NotSentBytes = U32(bytes, OffsetNotSent),
        DataSegmentsIn = U32(bytes, OffsetDataSegsIn),
        DataSegmentsOut = U32(bytes, OffsetDataSegsOut),
        BusyMicroseconds = U64(bytes, OffsetBusyTime),
        BytesSent = U64(bytes, OffsetBytesSent),
        BytesRetransmitted = U64(bytes, OffsetBytesRetrans),
        OutOfOrderSegments = U32(bytes, OffsetOutOfOrder),
        SendWindow = U32(bytes, OffsetSendWindow),
    };

    private static byte U8(ReadOnlySpan<byte> bytes, int offset) => offset < bytes.Length ? bytes[offset] : (byte)0;

    private static uint U32(ReadOnlySpan<byte> bytes, int offset) =>
        offset + 4 <= bytes.Length ? MemoryMarshal.Read<uint>(bytes[offset..]) : 0;

    private static ulong U64(ReadOnlySpan<byte> bytes, int offset) =>
        offset + 8 <= bytes.Length ? MemoryMarshal.Read<ulong>(bytes[offset..]) : 0;
}
