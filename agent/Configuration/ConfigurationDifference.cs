using Sidecar.Agent.Core.Settings;

namespace Sidecar.Agent.Configuration;

/// <summary>What a reload changes, in the words of the files.</summary>
internal static class ConfigurationDifference
{
    /// <summary>
    /// <c>[agent] mode: protect -> observe</c>, <c>[upstream:orders-db] added</c>, <c>[workers:web] removed</c>: a line for each key
    /// whose value differs, defaults included, in the order of the sections. Empty where all is as it was.
    /// </summary>
    public static IReadOnlyList<string> Between(SidecarConfiguration before, SidecarConfiguration after)
    {
        var (old, now) = (Sections(before), Sections(after));
        var lines = new List<string>();
        foreach (var (section, keys) in now)
        {
            if (!old.TryGetValue(section, out var earlier))
            {
                lines.Add($"{section} added");
                continue;
            }

            lines.AddRange(earlier.Keys.Union(keys.Keys, StringComparer.Ordinal)
                .Select(key => (Key: key, Before: earlier.GetValueOrDefault(key, "none"), After: keys.GetValueOrDefault(key, "none")))
                .Where(value => value.Before != value.After)
                .Select(value => $"{section} {value.Key}: {value.Before} -> {value.After}"));
        }

        lines.AddRange(old.Keys.Where(section => !now.ContainsKey(section)).Select(section => $"{section} removed"));
        return lines;
    }

    private static OrderedDictionary<string, OrderedDictionary<string, string>> Sections(SidecarConfiguration configuration)
    {
        var sections = new OrderedDictionary<string, OrderedDictionary<string, string>>(StringComparer.Ordinal);
        foreach (var line in ConfigurationText.Write(configuration).Split('\n', StringSplitOptions.RemoveEmptyEntries))
        {
            if (line[0] == '[')
            {
                sections.Add(line, new OrderedDictionary<string, string>(StringComparer.Ordinal));
            }
            else if (line[0] != '#' && line.Split(" = ", 2) is [var key, var value])
            {
                sections.GetAt(sections.Count - 1).Value.Add(key, value);
            }
        }

        return sections;
    }
}
