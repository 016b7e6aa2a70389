using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.SockDiag;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Observation;

/// <summary>
/// Hands over the last numbers of connections that the kernel has announced the end of (SKNLGRP_INET_TCP_DESTROY). One that a
/// router answered with RST has gone before the next scan.
/// </summary>
internal sealed class ResetWatch
{
    private readonly World _world;
    private readonly SocketVisitor _visitor;
    private readonly HashSet<ulong> _refused = [];
    private ulong _namespace;
    private TimeSpan _now;

    /// <summary>Listens from the first call on.</summary>
    public ResetWatch(World world)
    {
        _world = world;
        _visitor = Visit;
    }

    /// <summary>Takes what the kernel has said since the last call. To be called before a full scan.</summary>
    public void Drain(IEnumerable<NetworkNamespace> namespaces, TimeSpan now)
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

    private void Visit(in SocketObservation socket) => _world.Ended(_namespace, socket, _now);
}
