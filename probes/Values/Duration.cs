using System.Globalization;
using System.Text;

namespace Sidecar.Probes.Values;

/// <summary>
/// The notation of durations in configuration files and on the command line: whole numbers with the units
/// <c>d h m s ms</c>, largest first, each at most once: <c>500ms</c>, <c>30s</c>, <c>2h4m</c>, <c>1d</c>.
/// </summary>
public static class Duration
{
    private static readonly (string Suffix, long Ticks)[] Units =
    [
        ("d", TimeSpan.TicksPerDay),
        ("h", TimeSpan.TicksPerHour),
        ("m", TimeSpan.TicksPerMinute),
        ("s", TimeSpan.TicksPerSecond),
        ("ms", TimeSpan.TicksPerMillisecond),
    ];

    /// <summary>Reads a duration; false for anything else, a negative or an overlong one included.</summary>
    public static bool TryParse(ReadOnlySpan<char> text, out TimeSpan value)
    {
        value = TimeSpan.Zero;
        if (text.IsEmpty)
        {
            return false;
        }

        long total = 0;
        var nextUnit = 0;
        while (!text.IsEmpty)
        {
            var digits = text.IndexOfAnyExceptInRange('0', '9');
            if (digits <= 0 || !long.TryParse(text[..digits], NumberStyles.None, CultureInfo.InvariantCulture, out var count))
            {
                return false;
            }

            text = text[digits..];
            var letters = text.IndexOfAnyExceptInRange('a', 'z');
            var suffix = letters < 0 ? text : text[..letters];
            var unit = IndexOfUnit(suffix);
            if (unit < nextUnit)
            {
                return false;
            }

            var (_, ticks) = Units[unit];
            if (count > (TimeSpan.MaxValue.Ticks - total) / ticks)
            {
                return false;
            }

            total += count * ticks;
            nextUnit = unit + 1;
            text = text[suffix.Length..];
        }

        value = TimeSpan.FromTicks(total);
        return true;
    }

    /// <summary>
    /// The shortest exact notation, which <see cref="TryParse"/> reads back to the same value; below a millisecond is cut off.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative, for which there is no notation.</exception>
    public static string Format(TimeSpan value)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(value, TimeSpan.Zero);
        var rest = value.Ticks;
        var text = new StringBuilder();
        foreach (var (suffix, ticks) in Units)
        {
            var count = rest / ticks;
            rest -= count * ticks;
            if (count > 0)
            {
                text.Append(CultureInfo.InvariantCulture, $"{count}{suffix}");
            }
        }

        return text.Length == 0 ? "0s" : text.ToString();
    }

    /// <summary>Rounded for people: <c>3.2s</c>, <c>42s</c>, <c>5m12s</c>, <c>2h4m</c>, <c>3d2h</c>; a negative one reads <c>0s</c>.</summary>
    public static string ForPeople(TimeSpan value)
    {
        if (value <= TimeSpan.Zero)
        {
            return "0s";
        }

        if (value < TimeSpan.FromMilliseconds(99.95))
        {
            return string.Create(CultureInfo.InvariantCulture, $"{value.TotalMilliseconds:0.#}ms");
        }

        if (value < TimeSpan.FromSeconds(9.95))
        {
            return string.Create(CultureInfo.InvariantCulture, $"{value.TotalSeconds:0.0}s");
        }

        // From here on two units are enough: cut (not round) below the second of them.
        long unit = value switch
        {
            { TotalHours: < 1 } => TimeSpan.TicksPerSecond,
            { TotalDays: < 1 } => TimeSpan.TicksPerMinute,
            _ => TimeSpan.TicksPerHour,
        };
        return Format(TimeSpan.FromTicks(value.Ticks - (value.Ticks % unit)));
    }

    private static int IndexOfUnit(ReadOnlySpan<char> suffix)
    {
        for (var i = 0; i < Units.Length; i++)
        {
            if (suffix.SequenceEqual(Units[i].Suffix))
            {
                return i;
            }
        }

        return -1;
    }
}
