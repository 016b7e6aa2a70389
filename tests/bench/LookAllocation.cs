using BenchmarkDotNet.Attributes;
using BenchmarkDotNet.Configs;
using BenchmarkDotNet.Diagnosers;
using BenchmarkDotNet.Jobs;
using BenchmarkDotNet.Loggers;
using BenchmarkDotNet.Running;
using BenchmarkDotNet.Toolchains.InProcess.NoEmit;
using Sidecar.Agent;

namespace Sidecar.Benchmarks;

/// <summary>What a full look allocates, on whatever thread, by the memory diagnoser; inside the process whose loop it is.</summary>
public class LookAllocation
{
    private static SidecarLoop? loop;

    [Benchmark]
    public int Look() => loop!.TurnAtOnce().Connections;

    /// <summary>Takes some hundred looks.</summary>
    /// <returns>Bytes for each.</returns>
    internal static long Measure(SidecarLoop warm, string directory)
    {
        loop = warm;
        var job = Job.Default.WithToolchain(InProcessNoEmitToolchain.DontLogOutput).WithWarmupCount(2).WithIterationCount(5).WithInvocationCount(32).WithUnrollFactor(1);
        var summary = BenchmarkRunner.Run<LookAllocation>(ManualConfig.CreateEmpty()
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
