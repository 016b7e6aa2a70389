using BenchmarkDotNet.Attributes;
using BenchmarkDotNet.Configs;
using BenchmarkDotNet.Diagnosers;
using BenchmarkDotNet.Jobs;
using BenchmarkDotNet.Loggers;
using BenchmarkDotNet.Running;
using BenchmarkDotNet.Toolchains.InProcess.NoEmit;

namespace Sidecar.Benchmarks;

/// <summary>What a full scan allocates, on whatever thread, by the memory diagnoser; inside the process whose loop it is.</summary>
public class ScanAllocation
{
    private static BenchLoop? _loop;

    [Benchmark]
    public int Scan() => _loop!.TickAtOnce().Connections;

    /// <summary>Takes some hundred scans.</summary>
    /// <returns>Bytes for each.</returns>
    internal static long Measure(BenchLoop warm, string directory)
    {
        _loop = warm;
        var job = Job.Default.WithToolchain(InProcessNoEmitToolchain.DontLogOutput).WithWarmupCount(2).WithIterationCount(5).WithInvocationCount(32).WithUnrollFactor(1);
        var summary = BenchmarkRunner.Run<ScanAllocation>(ManualConfig.CreateEmpty()
            .AddJob(job)
            .AddDiagnoser(MemoryDiagnoser.Default)
            .AddLogger(NullLogger.Instance)
            .WithOptions(ConfigOptions.DisableLogFile)
            .WithArtifactsPath(directory));
        return summary.Reports.Single() is { Success: true } report && report.GcStats.GetBytesAllocatedPerOperation(report.BenchmarkCase) is { } bytes
            ? bytes
            : throw new InvalidOperationException($"no allocation was measured: {string.Join(' ', summary.ValidationErrors.Select(error => error.Message))}");
    }
}
