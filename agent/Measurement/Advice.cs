using Sidecar.Probes.Values;

namespace Sidecar.Agent.Measurement;

/// <summary>What a measurement means for the upstream's section in the configuration.</summary>
internal static class Advice
{
    // Beyond RFC 5382's 2 h 4 min a path without losses may be called one that forgets nothing.
    private static readonly TimeSpan LongEnough = TimeSpan.FromSeconds(7440);

    /// <summary>The lines for the <c>[upstream:…]</c> section; comments start with #.</summary>
    public static IReadOnlyList<string> ConfigurationLines(MeasurementReport report)
    {
        if (report is { Upper: null, Varies: false })
        {
            return report.Lower >= LongEnough
                ? ["idle-timeout = none"]
                : [$"# nothing lost up to {Duration.ForPeople(report.Lower)}; longer timeouts are possible", "idle-timeout = measure"];
        }

        if (report.Lower < TimeSpan.FromSeconds(1))
        {
            return ["# even the shortest gap was lost", "idle-timeout = measure"];
        }

        // The agent plans from the declared value: it has to be a time that connections survive.
        var declared = $"idle-timeout = {Duration.Format(TimeSpan.FromSeconds(Math.Floor(report.Lower.TotalSeconds)))}";
        return report.Class switch
        {
            _ when report.Varies => ["# the path forgets at varying times: this is the safe end", .. ConfigurationLines(report with { Varies = false, Upper = report.Upper ?? report.Lower })],
            PathClass.PayloadOnly => [declared, "# keepalives do not count on this path; with a dsn-file, idle connections are recycled before the limit", "refreshed-by = data"],
            PathClass.PeerCloses => [declared, "# the far end closes idle connections itself: let the pool give them up sooner, or raise the limit there"],
            _ => [declared],
        };
    }
}
