using Sidecar.Benchmarks;

namespace Sidecar.LabTests;

/// <summary>
/// The short form of <c>make bench TARGET=sweep</c>: a ratio of two things that the same machine does at the same time,
/// with room to spare, so that it holds on a busy one.
/// </summary>
public sealed class SweepTests
{
    private const int Sockets = 10_000;
    private const int Scans = 10;
    private const double AtMost = 2;

    [Fact]
    public async Task A_look_at_ten_thousand_sockets_takes_no_more_than_twice_the_kernels_own_time()
    {
        await using var field = await Field.CreateAsync();
        await field.OpenAsync(Sockets);
        using var agent = PublishedAgent.Start(field);
        await agent.WaitForAsync("conn_sidecar_keepalive_armed_connections", Sockets, TimeSpan.FromMinutes(1));
        using var floor = Dialogue.Start(field.Worker, await Programs.PathAsync("floor"), field.Filter);

        var ratios = new List<double>();
        for (var attempt = 0; attempt < 3 && (attempt == 0 || ratios[^1] > AtMost); attempt++)
        {
            var (sum, count) = await ScansAsync(agent);
            var bottoms = new List<double>();
            (double Sum, double Count) after;
            do
            {
                await Task.Delay(500);
                var bottom = await floor.AskAsync();
                bottom[0].ShouldBe(Sockets);
                bottoms.Add(bottom[1] / 1e9);
                after = await ScansAsync(agent);
            }
            while (after.Count - count < Scans);

            ratios.Add((after.Sum - sum) / (after.Count - count) / bottoms.Average());
        }

        ratios[^1].ShouldBeLessThanOrEqualTo(AtMost, $"ratios of {ratios.Count} attempts: {string.Join(", ", ratios.Select(ratio => ratio.ToString("0.00")))}");
    }

    private static async Task<(double Sum, double Count)> ScansAsync(PublishedAgent agent) =>
        (await agent.MetricAsync("conn_sidecar_scan_duration_seconds_sum"), await agent.MetricAsync("conn_sidecar_scan_duration_seconds_count"));
}
