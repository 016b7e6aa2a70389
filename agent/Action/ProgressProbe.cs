using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.Processes;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Action;

/// <summary>
/// Guardrail 5: whether a process did anything on another of its TCP connections since a stall began. A process that
/// reads or writes elsewhere is not hung, whatever one of its connections does.
/// </summary>
internal static class ProgressProbe
{
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
            var dump = network.Diagnostics.Dump(AllStates, [], withInfo: true, Visit);
            return moved ? true : dump.IsComplete ? false : null; // what was not told of may have moved
        }
        catch (KernelException)
        {
            return null;
        }
    }

    /// <summary>Whether one other connection of the process shows that the process wrote or read within the time of the silence.</summary>
    internal static bool Shows(in SocketObservation socket, TimeSpan silence) => Progress.Age(new KeptObservation(socket)) < silence - Progress.Margin;
}
