using System.Globalization;

namespace Sidecar.Probes.Values;

/// <summary>Numbers of things, for people.</summary>
public static class Quantity
{
    /// <summary><c>1 process</c>, <c>5 processes</c>.</summary>
    /// <param name="count">How many.</param>
    /// <param name="one">What one of them is called.</param>
    /// <param name="many">What several are called; null: with an s at the end.</param>
    public static string Of(long count, string one, string? many = null) =>
        string.Create(CultureInfo.InvariantCulture, $"{count} {(count == 1 ? one : many ?? one + "s")}");
}

/// <summary>Points in time, for people: UTC, and said so.</summary>
public static class Moment
{
    /// <summary><c>2026-01-01 12:00:00Z</c></summary>
    public static string ForPeople(DateTimeOffset time) => time.UtcDateTime.ToString("yyyy-MM-dd HH:mm:ss'Z'", CultureInfo.InvariantCulture);

    /// <summary><c>12:00:00Z</c>, beside a time that has the date.</summary>
    public static string OfDay(DateTimeOffset time) => time.UtcDateTime.ToString("HH:mm:ss'Z'", CultureInfo.InvariantCulture);
}
