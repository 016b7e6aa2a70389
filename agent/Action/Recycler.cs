using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.SockDiag;

namespace Sidecar.Agent.Action;

/// <summary>Destroys one socket, after it was checked once more.</summary>
internal static class Recycler
{
    /// <summary>
    /// Reads the socket once more and destroys it only when it is as dead as it was judged. What is left of the race is the
    /// microseconds between two system calls.
    /// </summary>
    public static (RecycleResult Result, string? Detail) Recycle(TrackedConnection connection, NetworkNamespace network)
    {
        try
        {
            if (!network.Diagnostics.TryGet(connection.Key, out var present))
            {
                return (RecycleResult.Vanished, null);
            }

            if (!Core.Remedies.Recycle.IsAsJudged(connection.Last, present))
            {
                return (RecycleResult.Recovered, "it moved after it was judged");
            }

            return network.Diagnostics.Destroy(connection.Key) switch
            {
                DestroyResult.Destroyed => (RecycleResult.Released, null),
                DestroyResult.Gone => (RecycleResult.Vanished, null),
                DestroyResult.NotPermitted => (RecycleResult.Refused, "SOCK_DESTROY needs CAP_NET_ADMIN"),
                DestroyResult.NotSupported => (RecycleResult.Refused, "this kernel was built without CONFIG_INET_DIAG_DESTROY"),
                var other => (RecycleResult.Failed, other.ToString()),
            };
        }
        catch (KernelException e)
        {
            return (RecycleResult.Failed, e.Message);
        }
    }
}
