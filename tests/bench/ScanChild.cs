using System.Diagnostics;
using System.Globalization;
using Microsoft.Extensions.Logging;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Observation;
using Sidecar.Agent.Service;
using Sidecar.Agent.Telemetry;

namespace Sidecar.Benchmarks;

/// <summary>
/// The agent's loop without its timer: every line on standard input is one full scan with all that follows from it
/// (owners, tracking, judging, remedies), answered with what it cost. "allocation" is answered with the bytes that a scan
/// allocates, by BenchmarkDotNet's memory diagnoser.
/// </summary>
internal static class ScanChild
{
    /// <summary>A configuration that watches one network and port, in the own namespace only.</summary>
    public static SidecarConfiguration Configuration(string network, int port, string directory)
    {
        var path = Path.Combine(directory, "scan.conf");
        File.WriteAllText(path, Text(network, port, directory));
        return ConfigurationLoader.Load(path);
    }

    /// <summary>Its text.</summary>
    public static string Text(string network, int port, string directory, string idleTimeout = "350s") => string.Create(
        CultureInfo.InvariantCulture,
        $"""
         [agent]
         mode = protect
         listen = 127.0.0.1:10042
         network-namespaces = own
         state-directory = {directory}
         runtime-directory = {directory}

         [upstream:bench]
         endpoint = {network}:{port}
         protocol = tcp
         idle-timeout = {idleTimeout}

         """);

    /// <summary>Answers "TOTAL-NS SCAN-NS ALLOCATED-BYTES CONNECTIONS OWNERS-NS" to each line.</summary>
    public static int Run(string network, int port, string directory)
    {
        var configuration = Configuration(network, port, directory);
        using var log = new JournalLog(LogLevel.Error);
        using var metrics = new SidecarMetrics("bench", [.. Enum.GetValues<Guardrail>().Select(guardrail => guardrail.ToName())]);
        using var incidents = new IncidentStore(directory, log.CreateLogger("incidents"), TimeProvider.System);
        using var rooms = new AgentRooms(configuration, metrics, incidents, log, SelfCheck.Run(configuration), new Clock(TimeProvider.System));
        var loop = new BenchLoop(rooms);
        while (Console.In.ReadLine() is { } line)
        {
            if (line == "allocation")
            {
                Console.WriteLine(ScanAllocation.Measure(loop, directory));
                continue;
            }

            var allocated = GC.GetAllocatedBytesForCurrentThread();
            var began = Stopwatch.GetTimestamp();
            var (scan, owners, connections) = loop.TickAtOnce();
            var total = Stopwatch.GetElapsedTime(began);
            allocated = GC.GetAllocatedBytesForCurrentThread() - allocated;
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{total.Ticks * 100} {scan.Ticks * 100} {allocated} {connections} {owners.Ticks * 100}"));
        }

        return 0;
    }
}

/// <summary>Full ticks on demand.</summary>
internal sealed class BenchLoop(AgentRooms rooms)
{
    private readonly AgentLoop _loop = new(rooms);

    /// <summary>One full tick now, however soon after the last one.</summary>
    /// <returns>How long observing took, how long of that finding owners, and how many connections are watched.</returns>
    public (TimeSpan Scan, TimeSpan Owners, int Connections) TickAtOnce()
    {
        var now = rooms.Eyes.Now;
        rooms.Core.Pacing.Bring(TimeSpan.Zero, now);
        _loop.Tick(now);
        return (rooms.Core.Took, rooms.Eyes.OwnersTook, _loop.Watched);
    }
}
