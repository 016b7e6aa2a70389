using Sidecar.Agent.Tracking;
using Sidecar.Probes;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.Processes;
using Sidecar.Probes.SockDiag;

namespace Sidecar.Agent.Remedies;

/// <summary>
/// Guardrail 5: whether a process did anything on another of its TCP connections since a stall began. A process that
/// reads or writes elsewhere is not hung, whatever one of its connections does.
/// </summary>
internal static class ProgressProbe
{
    /// <summary>What happened this shortly before the stall (the request that led to it) is no progress.</summary>
    internal static readonly TimeSpan Margin = TimeSpan.FromMilliseconds(250);

    private const uint AllStates = 0xfff & ~(1u << (int)TcpState.Listen) & ~(1u << (int)TcpState.TimeWait);

    /// <summary>True: it moved; false: every other connection has rested; null: that cannot be seen.</summary>
    internal static bool? MovedSince(TimeSpan silence, int pid, uint stuckInode, NetworkNamespace network, ProcessReader processes)
    {
        var inodes = new HashSet<uint>();
        if (!processes.TryVisitSockets(pid, (_, inode) => inodes.Add(inode)))
        {
            return null;
        }

        inodes.Remove(stuckInode);
        if (inodes.Count == 0)
        {
            return false;
        }

        var moved = false;
        void Visit(in SocketObservation socket)
        {
            if (inodes.Contains(socket.Inode))
            {
                moved |= Shows(socket, silence);
            }
        }

        try
        {
            network.Diagnostics.Dump(AllStates, [], withInfo: true, Visit);
            return moved;
        }
        catch (KernelException)
        {
            return null;
        }
    }

    /// <summary>Whether one other connection of the process shows that the process wrote or read within the time of the silence.</summary>
    internal static bool Shows(in SocketObservation socket, TimeSpan silence) => Age(new KeptObservation(socket)) < silence - Margin;

    /// <summary>How long before the observation the process last wrote to, or read from, the connection; null where that cannot be told.</summary>
    internal static TimeSpan? Age(in KeptObservation socket)
    {
        var info = socket.Info;
        if (!info.IsPresent)
        {
            return null;
        }

        // A retransmission restarts last_data_sent, so a connection that is itself unanswered has not written.
        uint? age = info.DataSegmentsOut > 0 && info.Retransmits == 0 ? info.LastDataSentMilliseconds : null;

        // The kernel receives for a hung process too; only what was taken out of the queue counts.
        if (info.DataSegmentsIn > 0 && socket.ReceiveQueue == 0 && !(info.LastDataReceivedMilliseconds >= age))
        {
            age = info.LastDataReceivedMilliseconds;
        }

        return age is { } milliseconds ? TimeSpan.FromMilliseconds(milliseconds) : null;
    }
}
