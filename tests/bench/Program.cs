using Sidecar.Benchmarks;
using Sidecar.Lab;

var benchmarks = new Dictionary<string, Func<Task<bool>>>(StringComparer.Ordinal)
{
    ["sweep"] = SweepBenchmark.RunAsync,
    ["owners"] = OwnersBenchmark.RunAsync,
    ["steady"] = SteadyBenchmark.RunAsync,
    ["churn"] = ChurnBenchmark.RunAsync,
    ["startup"] = StartupBenchmark.RunAsync,
    ["release"] = ReleaseBenchmark.RunAsync,
    ["release-many"] = ReleaseManyBenchmark.RunAsync,
    ["away"] = AwayBenchmark.RunAsync,
    ["scrape"] = ScrapeBenchmark.RunAsync,
    ["prevention"] = PreventionBenchmark.RunAsync,
};

if (args is ["scan", var network, var port, var directory])
{
    // The agent's side of a comparison, started by the benchmarks themselves.
    return ScanChild.Run(network, int.Parse(port), directory);
}

var unknown = args.Where(name => !benchmarks.ContainsKey(name)).ToList();
if (unknown.Count > 0)
{
    Console.Error.WriteLine($"no such benchmark: {string.Join(", ", unknown)}; there are: {string.Join(", ", benchmarks.Keys)}");
    return 2;
}

try
{
    var withinBudget = true;
    foreach (var name in args.Length > 0 ? args : [.. benchmarks.Keys])
    {
        withinBudget &= await benchmarks[name]();
    }

    return withinBudget ? 0 : 1;
}
catch (Exception e) when (e is InvalidOperationException or CommandFailedException or FileNotFoundException or TimeoutException)
{
    Console.Error.WriteLine($"bench: {e.Message}");
    return 1;
}
