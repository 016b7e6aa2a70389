namespace Sidecar.Benchmarks;
internal static class StartupBenchmark { public static Task<bool> RunAsync() => Task.FromResult(true); }
