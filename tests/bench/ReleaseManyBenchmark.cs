namespace Sidecar.Benchmarks;
internal static class ReleaseManyBenchmark { public static Task<bool> RunAsync() => Task.FromResult(true); }
