namespace Sidecar.Agent.Core.Judgement.IdleTimeout;

/// <summary>What is known of a path's idle timeout at one moment.</summary>
public sealed record IdleTimeoutEstimate
{
    /// <summary>Nothing is known.</summary>
    public static readonly IdleTimeoutEstimate Unknown = new()
    {
        Lower = TimeSpan.Zero,
        Upper = null,
        Count = 0,
        Confidence = 0,
        Contradicted = false,
        Age = null,
    };

    /// <summary>A gap of this length was survived; zero when none was seen.</summary>
    public required TimeSpan Lower { get; init; }

    /// <summary>A gap of this length was lost; null when no loss is known.</summary>
    public required TimeSpan? Upper { get; init; }

    /// <summary>Observations taken so far, those that have been superseded included.</summary>
    public required long Count { get; init; }

    /// <summary>Share of the evidence that agrees with the interval, damped while there is little: 0 (none) to 1.</summary>
    public required double Confidence { get; init; }

    /// <summary>True while some of the evidence disagrees with the rest: the router may have changed; measure again.</summary>
    public required bool Contradicted { get; init; }

    /// <summary>Time since the newest evidence; null when there is none.</summary>
    public required TimeSpan? Age { get; init; }

    /// <summary>True when the interval is no wider than <paramref name="precision"/> (a share of the lower bound) or <paramref name="width"/>.</summary>
    public bool IsTight(double precision, TimeSpan width) =>
        Upper is { } upper && upper - Lower <= Max(Lower * precision, width);

    private static TimeSpan Max(TimeSpan a, TimeSpan b) => a > b ? a : b;
}
