namespace Sidecar.Simulator;

/// <summary>World after world.</summary>
internal static class Simulation
{
    /// <summary>Runs worlds with the seeds from <paramref name="seed"/> on until so many connection-hours are done.</summary>
    internal static Report Run(ulong seed, double hours)
    {
        var report = new Report();
        for (; report.ConnectionHours < hours; seed++)
        {
            new World(seed, report).Run();
        }

        return report;
    }
}
