using Sidecar.Agent.Configuration;
using Sidecar.Agent.Judgement;
using Sidecar.Probes;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.SockDiag;

namespace Sidecar.Agent.Tracking;

/// <summary>
/// Learns from connections that a router answered with RST. Such a connection is gone before the next look; what the kernel
/// says of it at its end tells what it died of.
/// </summary>
internal sealed class ResetWatch
{
    private readonly ConnectionTable _connections;
    private readonly Action<TrackedConnection> _probe;
    private readonly SocketVisitor _visitor;
    private readonly HashSet<ulong> _refused = [];
    private ulong _namespace;
    private TimeSpan _now;

    /// <summary>Listens from the first look on.</summary>
    /// <param name="connections">Where connections are looked up.</param>
    /// <param name="probe">Asks for a fresh connection: without one a RST may come from a server that is down.</param>
    public ResetWatch(ConnectionTable connections, Action<TrackedConnection> probe)
    {
        _connections = connections;
        _probe = probe;
        _visitor = Visit;
    }

    /// <summary>Takes what the kernel has said since the last look. To be called before a full look.</summary>
    public void Look(IEnumerable<NetworkNamespace> namespaces, TimeSpan now)
    {
        _now = now;
        foreach (var network in namespaces)
        {
            if (_refused.Contains(network.Inode))
            {
                continue;
            }

            _namespace = network.Inode;
            try
            {
                network.Closed.Drain(_visitor);
            }
            catch (KernelException)
            {
                _refused.Add(network.Inode); // an old kernel: nothing is learnt from RST then
            }
        }
    }

    /// <summary>
    /// The idle gap before the send that was answered with RST; null where it ended otherwise, or nobody can tell. The send
    /// came after the last look and was never acknowledged, repeated or answered; a close in good order would have waited
    /// for that. A process that aborts its connection clears these numbers (tcp_disconnect) or has received something.
    /// </summary>
    /// <param name="last">As of the last look.</param>
    /// <param name="end">As of its end.</param>
    internal static TimeSpan? GapBeforeReset(in KeptInfo last, in TcpInfo end)
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

    private void Visit(in SocketObservation socket)
    {
        if (_connections.Find(_namespace, socket.Cookie) is { } connection
            && connection.Upstream.Section.IdleTimeout.Source == IdleTimeoutSource.Measure
            && GapBeforeReset(connection.Last.Info, socket.Info) is { } gap && gap >= ForgottenOdds.ShortestGap)
        {
            connection.Path.NoteReset(gap, DateTimeOffset.UtcNow, _now);
            _probe(connection);
        }
    }
}
