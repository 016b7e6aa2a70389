namespace Sidecar.Benchmarks;
internal static class SteadyBenchmark { public static Task<bool> RunAsync() => Task.FromResult(true); }
