using Sidecar.Probes.Values;

namespace Sidecar.Agent.Configuration;

/// <summary>The names that a configuration file may use, and the ranges of their values.</summary>
internal static class ConfigurationKeys
{
    public const string AgentSection = "agent";
    public const string UpstreamPrefix = "upstream:";
    public const string WorkersPrefix = "workers:";
    public const string HaproxyPrefix = "haproxy:";
    public const string CheckPrefix = "check:";

    /// <summary>Keys of <c>[agent]</c>.</summary>
    public static readonly IReadOnlyList<string> Agent =
        ["mode", "listen", "listen-remote", "host-names", "state-directory", "runtime-directory", "scan-interval", "network-namespaces", "otlp-endpoint"];

    /// <summary>Keys of <c>[upstream:NAME]</c>.</summary>
    public static readonly IReadOnlyList<string> Upstream =
        ["endpoint", "direction", "protocol", "idle-timeout", "refreshed-by", "keepalive", "recycle", "dead-after", "dsn-file", "server-role"];

    /// <summary>Keys of <c>[workers:NAME]</c>.</summary>
    public static readonly IReadOnlyList<string> Workers =
        ["unit", "user", "executable", "terminate", "grace", "budget"];

    /// <summary>Keys of <c>[haproxy:NAME]</c>.</summary>
    public static readonly IReadOnlyList<string> Haproxy = ["socket"];

    /// <summary>Keys of <c>[check:NAME]</c>.</summary>
    public static readonly IReadOnlyList<string> Check =
        ["expected-command", "expected-query", "actual-command", "actual-query", "upstream", "user", "interval", "timeout"];

    /// <summary>Keys of all kinds of sections.</summary>
    public static readonly IReadOnlyList<string> All = [.. Agent.Concat(Upstream).Concat(Workers).Concat(Haproxy).Concat(Check).Distinct(StringComparer.Ordinal)];

    public static readonly DurationRange CheckInterval = new(TimeSpan.FromSeconds(1), TimeSpan.FromDays(1));
    public static readonly DurationRange CheckTimeout = new(TimeSpan.FromSeconds(1), TimeSpan.FromSeconds(60));
    public static readonly DurationRange ScanInterval = new(TimeSpan.FromMilliseconds(100), TimeSpan.FromSeconds(60));
    public static readonly DurationRange DeadAfter = new(TimeSpan.FromSeconds(10), TimeSpan.FromDays(1));
    public static readonly DurationRange IdleTimeout = new(TimeSpan.FromSeconds(1), TimeSpan.FromDays(30));
    public static readonly DurationRange Grace = new(TimeSpan.Zero, TimeSpan.FromMinutes(10));
    public static readonly DurationRange BudgetPeriod = new(TimeSpan.FromMinutes(1), TimeSpan.FromDays(30));

    /// <summary>The name of <paramref name="known"/> that was probably meant, or null where none is near.</summary>
    public static string? Nearest(string name, IEnumerable<string> known)
    {
        // Names are short; a longer one is not a slip of the pen, and the distance costs the product of both lengths.
        if (name.Length > 64)
        {
            return null;
        }

        var best = known.Select(k => (Name: k, Distance: Distance(name.ToLowerInvariant(), k))).MinBy(c => c.Distance);
        return best.Name is not null && best.Distance <= Math.Max(2, best.Name.Length / 3) ? best.Name : null;
    }

    /// <summary>Levenshtein distance, except that <c>_</c> for <c>-</c> costs nothing.</summary>
    private static int Distance(string a, string b)
    {
        a = a.Replace('_', '-');
        var row = new int[b.Length + 1];
        for (var j = 0; j <= b.Length; j++)
        {
            row[j] = j;
        }

        for (var i = 1; i <= a.Length; i++)
        {
            var diagonal = row[0];
            row[0] = i;
            for (var j = 1; j <= b.Length; j++)
            {
                var above = row[j];
                row[j] = Math.Min(Math.Min(above, row[j - 1]) + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1));
                diagonal = above;
            }
        }

        return row[b.Length];
    }
}

/// <summary>The durations that a key takes, both ends included.</summary>
internal readonly record struct DurationRange(TimeSpan Shortest, TimeSpan Longest)
{
    public bool Contains(TimeSpan value) => value >= Shortest && value <= Longest;

    /// <summary>For error messages: <c>100ms to 60s</c>.</summary>
    public override string ToString() => $"{Duration.Format(Shortest)} to {Duration.Format(Longest)}";
}
