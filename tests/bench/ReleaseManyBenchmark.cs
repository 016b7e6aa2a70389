using System.Globalization;
using Sidecar.Lab;

namespace Sidecar.Benchmarks;

/// <summary>How long 1, 10 and 100 connections hang that a router forgot together, among 10,000 that it knows.</summary>
internal static class ReleaseManyBenchmark
{
    private const int Healthy = 10_000;

    public static async Task<bool> RunAsync()
    {
        var healthy = int.Parse(Environment.GetEnvironmentVariable("SIDECAR_BENCH_SOCKETS")?.Split(',')[^1] ?? Healthy.ToString(CultureInfo.InvariantCulture), CultureInfo.InvariantCulture);
        var rows = new List<string> { "| path's timeout | hanging at once | median, s | p99, s | goal for the median |", "|---|---|---|---|---|" };
        var within = true;
        foreach (var (name, idleTimeout, budget) in new[] { ("known", "10s", 1.0), ("not known", "measure", 3.0) })
        {
            foreach (var hanging in new[] { 1, 10, 100 })
            {
                var released = await ReleaseAsync(hanging, healthy, idleTimeout);
                within &= released.Median <= budget;
                rows.Add(string.Create(
                    CultureInfo.InvariantCulture,
                    $"| {name} | {hanging} | {released.Median:0.00} | {released.Quantile(0.99):0.00} | ≤ {budget:0} s{(released.Median <= budget ? "" : ", missed")} |"));
                Console.WriteLine(rows[^1]);
            }
        }

        rows.AddRange(
        [
            "",
            string.Create(CultureInfo.InvariantCulture, $"Measured in the client: from its send to the return of its read, among {healthy:#,0} further connections that the agent watches."),
            "keepalive = off, else nothing would hang. Where the odds need it the agent waits for a retransmission, hence the steps.",
        ]);
        Report.Write("Release of many", "make bench TARGET=release-many", rows);
        return within;
    }

    private static async Task<Measured> ReleaseAsync(int hanging, int healthy, string idleTimeout)
    {
        // Forgetting is the router's only for those that are told to it by hand; the others rest in its table for long.
        await using var field = await Field.CreateAsync(new LabOptions { Router = RouterBehaviour.SilentDrop, IdleTimeout = TimeSpan.FromHours(1) });
        await field.OpenAsync(healthy);
        var asking = await field.StartClientAsync("ask", hanging, Field.WatchedPort);
        using var agent = PublishedAgent.Start(field, idleTimeout, keepalive: false);
        await agent.WaitForAsync("conn_sidecar_connections", healthy + hanging, TimeSpan.FromSeconds(60));

        // Idle beyond the declared timeout, and beyond the shortest gap that counts as one.
        await Task.Delay(TimeSpan.FromSeconds(12));
        await field.ForgetAsync(asking);
        asking.Send(Signal.User1);
        await asking.WaitForLineAsync(line => line.StartsWith("all ", StringComparison.Ordinal), TimeSpan.FromMinutes(3));
        var lines = asking.Lines.Where(line => line.Contains(" ended ", StringComparison.Ordinal)).Select(line => line.Split(' ')).ToList();
        return new Measured(lines.Select(line => double.Parse(line[3], CultureInfo.InvariantCulture)));
    }
}
