using System.Globalization;

namespace Sidecar.Benchmarks;

/// <summary>Several runs of one thing.</summary>
internal sealed class Measured(IEnumerable<double> values)
{
    private readonly double[] _sorted = [.. values.Order()];

    public int Runs => _sorted.Length;

    public double Median => Quantile(0.5);

    public double Quantile(double q)
    {
        if (_sorted.Length == 0)
        {
            return double.NaN;
        }

        var at = q * (_sorted.Length - 1);
        var below = (int)at;
        return below + 1 < _sorted.Length ? _sorted[below] + ((at - below) * (_sorted[below + 1] - _sorted[below])) : _sorted[below];
    }

    /// <summary>Median with the middle half of the runs: <c>1.21 (1.18–1.26)</c>.</summary>
    public string Text(string format = "0.00") => Runs switch
    {
        0 => "–",
        1 => Format(Median, format),
        _ => $"{Format(Median, format)} ({Format(Quantile(0.25), format)}–{Format(Quantile(0.75), format)})",
    };

    private static string Format(double value, string format) => value.ToString(format, CultureInfo.InvariantCulture);
}
