using System.Globalization;
using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Configuration;

/// <summary>Reads the values of one section; whatever is wrong is added to the common list and replaced by the default.</summary>
internal sealed class SectionReader(IniSection section, IReadOnlyList<string> known, List<ConfigurationError> errors)
{
    public string SectionName => section.Name;

    /// <summary>Reports keys that this kind of section does not have.</summary>
    public void ReportUnknownKeys()
    {
        foreach (var entry in section.Entries.Where(e => !known.Contains(e.Key, StringComparer.Ordinal)))
        {
            var hint = ConfigurationKeys.Nearest(entry.Key, known) is { } nearest ? $"; did you mean {nearest}?" : $" (there are: {string.Join(", ", known)})";
            errors.Add(new ConfigurationError(entry.File, entry.Line, section.Name, entry.Key, "expected a known key" + hint));
        }
    }

    /// <summary>The entry, or null where the key is not written.</summary>
    public IniEntry? Find(string key)
    {
        if (!known.Contains(key, StringComparer.Ordinal))
        {
            throw new ArgumentException($"{key} is not in the list of known keys", nameof(key));
        }

        return section.Entries.Find(e => string.Equals(e.Key, key, StringComparison.Ordinal));
    }

    /// <summary>Reports that the entry's value is not what was expected.</summary>
    public void Reject(IniEntry entry, string expected)
    {
        var comment = entry.Value.AsSpan().IndexOfAny('#', ';') > 0 ? " (comments stand on lines of their own)" : "";
        errors.Add(new ConfigurationError(entry.File, entry.Line, section.Name, entry.Key, $"expected {expected}, got {Printable.Quote(entry.Value)}{comment}"));
    }

    /// <summary>Reports something about the section as a whole.</summary>
    public void RejectSection(string? key, string message) =>
        errors.Add(new ConfigurationError(section.File, section.Line, section.Name, key, message));

    public T Choice<T>(string key, T fallback, params ReadOnlySpan<(string Word, T Value)> choices)
    {
        if (Find(key) is not { } entry)
        {
            return fallback;
        }

        var words = new List<string>();
        foreach (var (word, value) in choices)
        {
            if (string.Equals(word, entry.Value, StringComparison.OrdinalIgnoreCase))
            {
                return value;
            }

            words.Add(word);
        }

        Reject(entry, string.Join(" or ", words));
        return fallback;
    }

    /// <summary><c>on</c> or <c>off</c>; <c>yes</c>, <c>no</c>, <c>true</c> and <c>false</c> are taken as well.</summary>
    public bool Switch(string key, bool fallback, string on = "on", string off = "off")
    {
        if (Find(key) is not { } entry)
        {
            return fallback;
        }

        switch (entry.Value.ToUpperInvariant())
        {
            case "ON" or "YES" or "TRUE":
                return true;
            case "OFF" or "NO" or "FALSE":
                return false;
            default:
                Reject(entry, $"{on} or {off}");
                return fallback;
        }
    }

    public TimeSpan Time(string key, TimeSpan fallback, DurationRange range)
    {
        if (Find(key) is not { } entry)
        {
            return fallback;
        }

        if (Duration.TryParse(entry.Value, out var value) && range.Contains(value))
        {
            return value;
        }

        Reject(entry, $"a duration of {range}");
        return fallback;
    }

    /// <summary><c>N/PERIOD</c>, where the period is a duration or a single unit: <c>3/h</c>, <c>10/d</c>, <c>2/30m</c>.</summary>
    public TerminationBudget Budget(string key, TerminationBudget fallback)
    {
        if (Find(key) is not { } entry)
        {
            return fallback;
        }

        var slash = entry.Value.IndexOf('/', StringComparison.Ordinal);
        if (slash > 0
            && int.TryParse(entry.Value.AsSpan(0, slash), NumberStyles.None, CultureInfo.InvariantCulture, out var count)
            && count is >= 1 and <= 1000)
        {
            var period = entry.Value[(slash + 1)..];
            if (period.Length > 0 && char.IsAsciiLetterLower(period[0]))
            {
                period = "1" + period;
            }

            if (Duration.TryParse(period, out var value) && ConfigurationKeys.BudgetPeriod.Contains(value))
            {
                return new TerminationBudget(count, value);
            }
        }

        Reject(entry, $"COUNT/PERIOD such as 3/h, 10/d or 2/30m, with a count of 1 to 1000 and a period of {ConfigurationKeys.BudgetPeriod}");
        return fallback;
    }

    /// <summary>An absolute path without <c>..</c>; a slash at its end is dropped.</summary>
    public string? AbsolutePath(string key, string? fallback, int maxLength)
    {
        if (Find(key) is not { } entry)
        {
            return fallback;
        }

        var path = entry.Value.Length > 1 ? entry.Value.TrimEnd('/') : entry.Value;
        if (path.StartsWith('/') && path.Length <= maxLength && !path.Split('/').Contains("..", StringComparer.Ordinal))
        {
            return path;
        }

        Reject(entry, string.Create(CultureInfo.InvariantCulture, $"an absolute path of at most {maxLength} characters without \"..\""));
        return fallback;
    }

    /// <summary>A value that <paramref name="accept"/> takes, or null where it is not written.</summary>
    public string? Text(string key, string expected, Predicate<string> accept)
    {
        if (Find(key) is not { } entry)
        {
            return null;
        }

        if (accept(entry.Value))
        {
            return entry.Value;
        }

        Reject(entry, expected);
        return null;
    }
}
