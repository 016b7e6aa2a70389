namespace Sidecar.Benchmarks;
internal static class OwnersBenchmark { public static Task<bool> RunAsync() => Task.FromResult(true); }
