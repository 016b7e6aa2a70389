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

    /// <summary>The line that sets a limit, at its place or to be added to the hop's.</summary>
    public static Change Set(Hop hop, Limit limit, TimeSpan value) => limit.Place is { } place
        ? new Change(place, limit.LineFor(value), IsNew: false)
        : new Change(hop.Place, limit.LineFor(value), IsNew: true);
}
