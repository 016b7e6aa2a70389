using System.Numerics;

namespace Sidecar.Simulator;

/// <summary>
/// xoshiro256** (Blackman and Vigna), seeded by splitmix64. Not System.Random, whose sequence for a seed may change with
/// the framework: a seed has to mean the same world for ever.
/// </summary>
internal sealed class Dice
{
    private ulong _a;
    private ulong _b;
    private ulong _c;
    private ulong _d;

    internal Dice(ulong seed)
    {
        ulong Split()
        {
            seed += 0x9e3779b97f4a7c15;
            var z = seed;
            z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
            z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
            return z ^ (z >> 31);
        }

        (_a, _b, _c, _d) = (Split(), Split(), Split(), Split());
    }

    internal ulong Next()
    {
        var result = BitOperations.RotateLeft(_b * 5, 7) * 9;
        var t = _b << 17;
        _c ^= _a;
        _d ^= _b;
        _b ^= _c;
        _a ^= _d;
        _c ^= t;
        _d = BitOperations.RotateLeft(_d, 45);
        return result;
    }

    /// <summary>0 ≤ x &lt; 1.</summary>
    internal double Unit() => (Next() >> 11) * (1.0 / (1UL << 53));

    internal bool Chance(double probability) => probability > 0 && Unit() < probability;

    internal double Between(double low, double high) => low + ((high - low) * Unit());

    /// <summary>Evenly over the orders of magnitude.</summary>
    internal double Magnitude(double low, double high) => low * Math.Pow(high / low, Unit());

    internal int Choose(int low, int high) => low + (int)(Unit() * (high - low + 1));

    internal T Pick<T>(params ReadOnlySpan<T> values) => values[(int)(Unit() * values.Length)];

    internal TimeSpan Exponential(double meanSeconds) => TimeSpan.FromSeconds(-Math.Log(1 - Unit()) * meanSeconds);

    internal TimeSpan Seconds(double low, double high) => TimeSpan.FromSeconds(Between(low, high));

    internal TimeSpan MagnitudeSeconds(double low, double high) => TimeSpan.FromSeconds(Magnitude(low, high));
}
