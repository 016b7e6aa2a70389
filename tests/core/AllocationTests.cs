using Shouldly;
using Sidecar.CoreTests.Remedies;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.CoreTests;

/// <summary>What a scan costs in memory does not grow with the connections that need nothing.</summary>
public sealed class AllocationTests
{
    [Fact]
    public void A_connection_at_rest_allocates_nothing_in_a_scan() => (Allocated(2000) - Allocated(1000)).ShouldBeLessThan(1000, "bytes for a thousand more");

    private static long Allocated(int connections)
    {
        var bench = new Bench();
        var sockets = new SocketObservation[connections];
        for (var i = 0; i < connections; i++)
        {
            var socket = bench.Open(tick: false);
            sockets[i] = socket.Observe(bench.Now);
        }

        bench.Run(1);
        Scan(bench, sockets);
        var before = GC.GetAllocatedBytesForCurrentThread();
        Scan(bench, sockets);
        return GC.GetAllocatedBytesForCurrentThread() - before;
    }

    private static void Scan(Bench bench, SocketObservation[] sockets)
    {
        bench.World.BeginTick(true, DateTimeOffset.UnixEpoch + bench.Now);
        foreach (ref readonly var socket in sockets.AsSpan())
        {
            bench.World.Saw(1, socket, bench.Now);
        }

        bench.World.EndScan();
        bench.World.Judge();
        bench.Engine.Tick(late: false, bench.Now).ShouldBeEmpty();
    }
}
