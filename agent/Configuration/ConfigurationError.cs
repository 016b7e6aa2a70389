using System.Globalization;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Configuration;

/// <summary>One thing that is wrong with the configuration, and where.</summary>
/// <param name="File">The file as it was named.</param>
/// <param name="Line">Line from 1; 0 where the file as a whole is meant (missing, unreadable, too large).</param>
/// <param name="Section">The section's name without brackets, or null outside of one.</param>
/// <param name="Key">The key, or null where the line or the section is meant.</param>
/// <param name="Message">What was expected and what was found.</param>
internal sealed record ConfigurationError(string File, int Line, string? Section, string? Key, string Message)
{
    /// <summary><c>file:line: [section] key: message</c>, in which nothing can move a terminal's cursor.</summary>
    public override string ToString()
    {
        var place = Line > 0 ? string.Create(CultureInfo.InvariantCulture, $"{File}:{Line}") : File;
        var section = Section is null ? "" : $"[{Section}] ";
        var key = Key is null ? "" : $"{Key}: ";
        return Printable.Escape($"{place}: {section}{key}{Message}");
    }
}

/// <summary>The configuration cannot be used. Carries every error that was found, not only the first.</summary>
internal sealed class ConfigurationException(IReadOnlyList<ConfigurationError> errors)
    : Exception(string.Join('\n', errors))
{
    /// <summary>At least one, in the order of files and lines.</summary>
    public IReadOnlyList<ConfigurationError> Errors { get; } = errors;

    /// <summary>For <c>systemctl status</c>: that a reload was refused, and why.</summary>
    public string ReloadRefused => $"the last reload was refused, the configuration before it is in force: {Errors[0]}"
        + (Errors.Count > 1 ? $" (and {Quantity.Of(Errors.Count - 1, "further error")})" : "");
}
