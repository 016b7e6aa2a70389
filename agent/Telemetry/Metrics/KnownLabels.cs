using System.Globalization;
using Sidecar.Agent.Core.Judgement;

namespace Sidecar.Agent.Telemetry;

/// <summary>
/// The label values known beforehand. Every counter starts at zero for each of them, so that the first event is an
/// increase that <c>rate()</c> and <c>increase()</c> see, and not the birth of a series, which they do not.
/// </summary>
internal static class KnownLabels
{
    /// <summary>What became of a keepalive probe sent on request.</summary>
    public static readonly IReadOnlyList<string> NudgeOutcomes = ["answered", "unanswered", "failed"];

    /// <summary>Why a connection was recycled.</summary>
    public static readonly IReadOnlyList<string> RecycleReasons = ["expired", "stuck"];

    /// <summary>Signals sent to a worker.</summary>
    public static readonly IReadOnlyList<string> Signals = ["TERM", "KILL"];

    /// <summary>Remedies that a guardrail can withhold.</summary>
    public static readonly IReadOnlyList<string> Remedies = [.. Enum.GetValues<Remedy>().Where(r => r != Remedy.None).Select(RemedyNames.ToName)];

    /// <summary>
    /// Numbers of workers in a group. Those beyond are counted but not shown one by one: a label needs a bound, and a
    /// group of so many is read by its extremes.
    /// </summary>
    public static readonly IReadOnlyList<string> WorkerNumbers = [.. Enumerable.Range(0, 64).Select(i => i.ToString(CultureInfo.InvariantCulture))];

    /// <summary>Numbers of listening addresses in a group; those beyond are in the status, not in the metrics.</summary>
    public static readonly IReadOnlyList<string> ListenerNumbers = [.. Enumerable.Range(0, 32).Select(i => i.ToString(CultureInfo.InvariantCulture))];

    /// <summary>Where a connection was when its client went away.</summary>
    public static readonly IReadOnlyList<string> Stages = ["waiting", "served"];

    /// <summary>How a server of HAProxy is: in use, down, or neither (maintenance, draining).</summary>
    public static readonly IReadOnlyList<string> ServerStates = ["up", "down", "other"];

    /// <summary>Backends of one HAProxy that are shown one by one; those beyond are in the status.</summary>
    public const int MostBackends = 64;

    /// <summary>What a database server can be.</summary>
    public static readonly IReadOnlyList<string> ServerRoles = ["primary", "standby", "read-only"];

    /// <summary>Verdicts that make an incident.</summary>
    public static readonly IReadOnlyList<string> Causes = ["expired", "stuck", "outage", "blocked-by-peer", "partly", "black-hole"];
}
