using Sidecar.Agent.Tracking;
using Sidecar.Probes;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.SockDiag;

namespace Sidecar.Agent.Remedies;

/// <summary>What came of recycling.</summary>
public enum RecycleOutcome
{
    /// <summary>Destroyed; the owner's call has returned.</summary>
    Released,

    /// <summary>Gone before we acted.</summary>
    Vanished,

    /// <summary>It came back to life before we acted; nothing was done.</summary>
    Recovered,

    /// <summary>The kernel does not permit it, or cannot do it.</summary>
    Refused,

    /// <summary>Something else; nothing was done.</summary>
    Failed,
}

/// <summary>Destroys one socket, after a last look at it.</summary>
public static class Recycler
{
    /// <summary>
    /// Reads the socket once more and destroys it only when it is as dead as it was judged: established, nothing received
    /// and nothing acknowledged since the look that judged it. What is left of the race is the microseconds between two
    /// system calls.
    /// </summary>
    public static (RecycleOutcome Outcome, string? Detail) Recycle(TrackedConnection connection, NetworkNamespace network)
    {
        try
        {
            if (!network.Diagnostics.TryGet(connection.Key, out var present))
            {
                return (RecycleOutcome.Vanished, null);
            }

            if (!IsAsJudged(connection.Last.Info, present))
            {
                return (RecycleOutcome.Recovered, "it moved between look and act");
            }

            return network.Diagnostics.Destroy(connection.Key) switch
            {
                DestroyResult.Destroyed => (RecycleOutcome.Released, null),
                DestroyResult.Gone => (RecycleOutcome.Vanished, null),
                DestroyResult.NotPermitted => (RecycleOutcome.Refused, "SOCK_DESTROY needs CAP_NET_ADMIN"),
                DestroyResult.NotSupported => (RecycleOutcome.Refused, "this kernel was built without CONFIG_INET_DIAG_DESTROY"),
                var other => (RecycleOutcome.Failed, other.ToString()),
            };
        }
        catch (KernelException e)
        {
            return (RecycleOutcome.Failed, e.Message);
        }
    }

    /// <summary>Whether the socket is still as dead as it was judged.</summary>
    internal static bool IsAsJudged(in KeptInfo judged, in SocketObservation present) =>
        present.State == TcpState.Established && present.Info.SegmentsIn == judged.SegmentsIn && present.Info.BytesAcked == judged.BytesAcked
        && (judged.Unacked > 0
            ? present.Info.Unacked > 0
            : present.Info.Unacked == 0 && present.Info.DataSegmentsOut == judged.DataSegmentsOut);
}
