namespace Sidecar.Simulator;

/// <summary>World after world.</summary>
internal static class Simulation
{
    /// <summary>Worlds that may be waiting to run or to be counted, for each processor: one may take a hundred times as long as the next.</summary>
    private const int Ahead = 16;

    /// <summary>Runs worlds with the seeds from <paramref name="seed"/> on until so many connection-hours are done.</summary>
    /// <remarks>
    /// Worlds know nothing of each other and run side by side. They are counted in the order of their seeds, up to the one
    /// with which the hours are done, so the report is the same on any machine.
    /// </remarks>
    internal static Report Run(ulong seed, double hours, WorldKind? kind = null)
    {
        var report = new Report();
        using var done = new CancellationTokenSource();
        var side = new TaskFactory<Report>(done.Token, TaskCreationOptions.None, TaskContinuationOptions.None,
            new ConcurrentExclusiveSchedulerPair(TaskScheduler.Default, Environment.ProcessorCount).ConcurrentScheduler);
        var running = new Queue<Task<Report>>();
        while (report.ConnectionHours < hours)
        {
            while (running.Count < Environment.ProcessorCount * Ahead)
            {
                var next = seed++;
                running.Enqueue(side.StartNew(() => One(next, kind)));
            }

            report.Add(running.Dequeue().Result);
        }

        done.Cancel();
        return report;
    }

    /// <summary>One world. An exception in it is a find like any other.</summary>
    private static Report One(ulong seed, WorldKind? kind)
    {
        var report = new Report();
        World? world = null;
        try
        {
            world = new World(seed, report, null, kind);
            world.Run();
        }
        catch (Exception e)
        {
            report.Failure(world?.Replay ?? $"{seed}", world?.Now ?? TimeSpan.Zero, "exception", $"{e.GetType().Name}: {e.Message} {e.StackTrace}");
        }

        return report;
    }
}
