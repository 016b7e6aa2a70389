using System.Diagnostics;
using System.Globalization;
using Sidecar.Lab;

namespace Sidecar.Benchmarks;

/// <summary>From the start of the process to the last of 10,000 existing connections protected, as ss sees it.</summary>
internal static class StartupBenchmark
{
    private const int Connections = 10_000;
    private static readonly TimeSpan Budget = TimeSpan.FromSeconds(1);

    public static async Task<bool> RunAsync()
    {
        var (starts, version) = (new List<double>(), new List<double>());
        for (var round = 0; round < 5; round++)
        {
            // New connections each time: those of the last round are protected already.
            await using var field = await Field.CreateAsync();
            await field.OpenAsync(Connections);
            var began = Stopwatch.GetTimestamp();
            await Command.RunAsync(AgentProcess.Binary, ["version"]);
            version.Add(Stopwatch.GetElapsedTime(began).TotalSeconds);
            began = Stopwatch.GetTimestamp();
            using var agent = PublishedAgent.Start(field);
            while (await ArmedAsync(field) < Connections)
            {
                if (Stopwatch.GetElapsedTime(began) > TimeSpan.FromMinutes(1))
                {
                    throw new TimeoutException("not all connections were protected within a minute");
                }
            }

            starts.Add(Stopwatch.GetElapsedTime(began).TotalSeconds);
        }

        var start = new Measured(starts);
        Report.Write("Start-up", "make bench TARGET=startup",
        [
            "| existing connections | exec to all keepalives set, s | of that the runtime's own start, s | goal |",
            "|---|---|---|---|",
            string.Create(CultureInfo.InvariantCulture, $"| {Connections:#,0} | {start.Text()} | {new Measured(version).Text()} | ≤ 1 s |"),
            "",
            "Seen from outside: ss lists the sockets on which a keepalive timer runs, again and again, and takes part of the processor.",
        ]);
        return start.Median <= Budget.TotalSeconds;
    }

    private static async Task<int> ArmedAsync(Field field) => int.Parse(
        await field.Worker.RunAsync(["sh", "-c", $"ss -Htno 'dport = :{Field.WatchedPort}' | grep -c timer:.keepalive || true"]), CultureInfo.InvariantCulture);
}
