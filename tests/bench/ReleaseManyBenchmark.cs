using System.Diagnostics;
using System.Globalization;
using Sidecar.Lab;

namespace Sidecar.Benchmarks;

/// <summary>How long 1, 10 and 100 connections hang that a router forgot together, among 10,000 that it knows.</summary>
internal static class ReleaseManyBenchmark
{
    private const int Healthy = 10_000;

    /// <summary>Beyond the shortest gap that counts as one, so that a path without a known timeout may have one here.</summary>
    private static readonly TimeSpan IdleTimeout = TimeSpan.FromSeconds(12);

    /// <summary>An agent that knows the timeout tests whatever has passed it, and closes it when it is dead: used a little later, it would not hang.</summary>
    private static readonly TimeSpan SendAfter = TimeSpan.FromMilliseconds(50);

    private static readonly TimeSpan ForgetBefore = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan UsedEvery = TimeSpan.FromSeconds(5);

    public static async Task<bool> RunAsync()
    {
        var healthy = Asked.Sockets(Healthy)[^1];
        var rows = new List<string> { "| path's timeout | hanging at once | trials | hung | median, s | p99, s | most, s | goal for the median |", "|---|---|---|---|---|---|---|---|" };
        var within = true;
        foreach (var (name, idleTimeout, budget) in new[] { ("known", $"{IdleTimeout.TotalSeconds:0}s", 1.0), ("not known", "measure", 3.0) })
        {
            await using var field = await Field.CreateAsync(new LabOptions { Router = RouterBehaviour.SilentDrop, IdleTimeout = TimeSpan.FromHours(1) });
            await field.UseAsync(healthy, UsedEvery);
            using var agent = PublishedAgent.Start(field, idleTimeout, keepalive: false);
            foreach (var (hanging, trials) in new[] { (1, 12), (10, 6), (100, 4) })
            {
                var seconds = new List<double>();
                for (var trial = 0; trial < trials; trial++)
                {
                    seconds.AddRange(await HangAsync(field, agent, hanging, healthy));
                }

                var released = new Measured(seconds);
                within &= released.Median <= budget;
                rows.Add(string.Create(
                    CultureInfo.InvariantCulture,
                    $"| {name} | {hanging} | {trials} | {released.Runs} | {released.Median:0.00} | {released.Quantile(0.99):0.00} | {released.Quantile(1):0.00} | ≤ {budget:0} s{(released.Median <= budget ? "" : ", missed")} |"));
                Console.WriteLine(rows[^1]);
            }
        }

        rows.AddRange(
        [
            "",
            string.Create(CultureInfo.InvariantCulture, $"Measured in the client: from its send to the return of its read, among {healthy:#,0} others that are used every {UsedEvery.TotalSeconds:0} s."),
            "keepalive = off, else nothing would hang. Where the odds need it the agent waits for a retransmission, hence the steps.",
        ]);
        Report.Write("Release of many", "make bench TARGET=release-many", rows);
        return within;
    }

    /// <summary>Connections are made, used, forgotten by the router, and used again when their idle timeout has just passed.</summary>
    /// <returns>For each that hung, seconds from its send to the return of its read. One that was closed before it was used has not hung.</returns>
    private static async Task<IEnumerable<double>> HangAsync(Field field, PublishedAgent agent, int hanging, int healthy)
    {
        using var asking = await field.StartClientAsync("ask", hanging, Field.WatchedPort);
        var idle = Stopwatch.StartNew();
        await agent.WaitForAsync("conn_sidecar_connections", healthy + hanging, TimeSpan.FromSeconds(60));
        await Task.Delay(IdleTimeout - ForgetBefore - idle.Elapsed);
        await field.ForgetAsync(asking);
        await Task.Delay(IdleTimeout + SendAfter - idle.Elapsed);
        asking.Send(Signal.User1);
        await asking.WaitForLineAsync(line => line.StartsWith("all ", StringComparison.Ordinal), TimeSpan.FromMinutes(3));
        return asking.Lines.Where(line => line.Contains(" ended ", StringComparison.Ordinal)).Select(line => double.Parse(line.Split(' ')[3], CultureInfo.InvariantCulture));
    }
}
