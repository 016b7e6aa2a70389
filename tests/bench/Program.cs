using Sidecar.Benchmarks;

var benchmarks = new Dictionary<string, Func<Task<bool>>>(StringComparer.Ordinal)
{
    ["release"] = ReleaseBenchmark.RunAsync,
};

var unknown = args.Where(name => !benchmarks.ContainsKey(name)).ToList();
if (unknown.Count > 0)
{
    Console.Error.WriteLine($"no such benchmark: {string.Join(", ", unknown)}; there are: {string.Join(", ", benchmarks.Keys)}");
    return 2;
}

var withinBudget = true;
foreach (var name in args.Length > 0 ? args : [.. benchmarks.Keys])
{
    withinBudget &= await benchmarks[name]();
}

return withinBudget ? 0 : 1;
