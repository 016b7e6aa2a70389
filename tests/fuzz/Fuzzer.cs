using System.Diagnostics;
using Sidecar.Simulator;

namespace Sidecar.Fuzz;

/// <summary>What came of one target.</summary>
/// <param name="Inputs">Inputs tried.</param>
/// <param name="Took">How long that took.</param>
/// <param name="Grown">Bytes of memory in use after the last input and not after the first tenth.</param>
/// <param name="Findings">Inputs that went wrong, by seed; the first ten.</param>
internal sealed record FuzzReport(long Inputs, TimeSpan Took, long Grown, IReadOnlyList<(ulong Seed, string What)> Findings);

/// <summary>Tries a target with one input after another, each from a seed of its own.</summary>
internal static class Fuzzer
{
    /// <summary>An input that takes longer than this hangs.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(2);

    /// <summary>What caches and pools may keep; a leak of a hundred bytes an input is more.</summary>
    private const long MostGrown = 24 * 1024 * 1024;

    private static readonly TimeSpan PoolsKeep = TimeSpan.FromSeconds(100);

    private const int MostFindings = 10;

    /// <summary>Runs the inputs with seeds from <paramref name="seed"/> on.</summary>
    /// <param name="kind">What is tried.</param>
    /// <param name="inputs">How many inputs.</param>
    /// <param name="seed">Seed of the first.</param>
    /// <param name="threads">How many are tried side by side.</param>
    internal static FuzzReport Run(FuzzKind kind, long inputs, ulong seed, int threads = 1)
    {
        var started = Stopwatch.GetTimestamp();
        var findings = new List<(ulong, string)>();
        var targets = Enumerable.Range(0, threads).Select(_ => kind.Make()).ToList();
        try
        {
            var first = Math.Max(1, inputs / 10);
            Try(targets, seed, first, findings);
            var before = GC.GetTotalMemory(forceFullCollection: true);
            Try(targets, seed + (ulong)first, inputs - first, findings);
            var grown = Growth(before);
            if (grown > MostGrown)
            {
                findings.Add((seed, $"{grown} bytes more are in use after {inputs} inputs than after {first}"));
            }

            return new FuzzReport(inputs, Stopwatch.GetElapsedTime(started), grown, findings);
        }
        finally
        {
            targets.ForEach(target => target.Dispose());
        }
    }

    /// <summary>What stays. The runtime's pools give back what they hold only when it has not been used for a minute.</summary>
    private static long Growth(long before)
    {
        for (var since = Stopwatch.GetTimestamp(); ; Thread.Sleep(TimeSpan.FromSeconds(2)))
        {
            var grown = GC.GetTotalMemory(forceFullCollection: true) - before;
            if (grown <= MostGrown || Stopwatch.GetElapsedTime(since) > PoolsKeep)
            {
                return grown;
            }
        }
    }

    private static void Try(List<FuzzTarget> targets, ulong seed, long inputs, List<(ulong, string)> findings)
    {
        var next = -1L;
        var current = new (ulong Seed, long Since)[targets.Count];
        var workers = targets.Select((target, index) => new Thread(() =>
        {
            while (Interlocked.Increment(ref next) is var number && number < inputs && findings.Count < MostFindings)
            {
                var own = seed + (ulong)number;
                current[index] = (own, Stopwatch.GetTimestamp());
                try
                {
                    target.Try(new Dice(own));
                }
                catch (Exception e)
                {
                    lock (findings)
                    {
                        findings.Add((own, e is WrongException ? e.Message : e.ToString()));
                    }
                }
            }

            current[index] = default;
        })
        {
            IsBackground = true,
        }).ToList();
        workers.ForEach(worker => worker.Start());
        while (workers.Exists(worker => !worker.Join(TimeSpan.FromSeconds(1))))
        {
            foreach (var (own, since) in current)
            {
                if (since != 0 && Stopwatch.GetElapsedTime(since) > Patience)
                {
                    throw new TimeoutException($"the input with seed {own} hangs");
                }
            }
        }
    }
}
