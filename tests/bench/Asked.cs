using System.Globalization;

namespace Sidecar.Benchmarks;

/// <summary>What the environment asks of the benchmarks, for a quick run or a long one.</summary>
internal static class Asked
{
    /// <summary>SIDECAR_BENCH_SECONDS: how long something is watched.</summary>
    public static TimeSpan Seconds(int usual) =>
        TimeSpan.FromSeconds(Environment.GetEnvironmentVariable("SIDECAR_BENCH_SECONDS") is { } seconds ? int.Parse(seconds, CultureInfo.InvariantCulture) : usual);

    /// <summary>SIDECAR_BENCH_SOCKETS: numbers of sockets, such as <c>1000,10000</c>; who wants one takes the last.</summary>
    public static int[] Sockets(params int[] usual) =>
        Environment.GetEnvironmentVariable("SIDECAR_BENCH_SOCKETS") is { } sizes ? [.. sizes.Split(',').Select(size => int.Parse(size, CultureInfo.InvariantCulture))] : usual;
}
