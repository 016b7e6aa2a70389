using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Tracking;

/// <summary>What the last numbers of a connection that has gone tell of how it ended.</summary>
public static class ResetEvidence
{
    /// <summary>
    /// The idle gap before the send that was answered with RST; null where it ended otherwise, or nobody can tell. The send
    /// came after the last observation and was never acknowledged, repeated or answered; a close in good order would have waited
    /// for that. A process that aborts its connection clears these numbers (tcp_disconnect) or has received something.
    /// </summary>
    /// <param name="last">As last observed.</param>
    /// <param name="end">As of its end.</param>
    public static TimeSpan? GapBeforeReset(in KeptInfo last, in TcpInfo end)
    {
        const ulong syn = 1; // counts as a byte that was acknowledged
        var isAnsweredByReset = last is { IsPresent: true, Unacked: 0 } && end.HasBytesSent
            && end.DataSegmentsOut > last.DataSegmentsOut
            && end.BytesReceived == last.BytesReceived
            && end.TotalRetransmissions == last.TotalRetransmissions
            && end.BytesAcked < end.BytesSent - end.BytesRetransmitted + syn
            && end.LastAckReceivedMilliseconds >= end.LastDataSentMilliseconds;
        return isAnsweredByReset ? TimeSpan.FromMilliseconds(end.LastAckReceivedMilliseconds - end.LastDataSentMilliseconds) : null;
    }
}
