using System.Globalization;
using Sidecar.Agent.Audit.Model;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Audit.Findings;

/// <summary>Numbers and times as findings show them.</summary>
internal static class Texts
{
    public static string Time(TimeSpan value) => Duration.Format(value);

    public static string Time(TimeSpan? value) => value is { } time ? Duration.Format(time) : "none";

    public static string Number(long value) => value.ToString(CultureInfo.InvariantCulture);

    /// <summary><c>timeout server 6s</c> with where it stands.</summary>
    public static string Setting(Limit limit) =>
        limit.Value is null ? $"{limit.Setting} is not set" : $"{limit.Setting} {Time(limit.Value)}{(limit.Place is null ? " (default)" : "")}";
}
