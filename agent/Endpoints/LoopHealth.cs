namespace Sidecar.Agent.Endpoints;

/// <summary>What the loop says about itself when <c>/healthz</c> or <c>/readyz</c> is asked for.</summary>
internal sealed record LoopHealth
{
    /// <summary>Time since the last tick; before the first, since the agent started.</summary>
    public required TimeSpan SinceLastTick { get; init; }

    public required TimeSpan ScanInterval { get; init; }

    /// <summary>Whether the first scan is done.</summary>
    public required bool FirstScanDone { get; init; }

    /// <summary>Remedies that the configuration asks for and that are not possible here, a line each.</summary>
    public required IReadOnlyList<string> NotPossible { get; init; }

    /// <summary>A loop silent for longer than this is taken to hang: three intervals, and 5 s for a slow scan.</summary>
    public TimeSpan LongestSilence => (3 * ScanInterval) + TimeSpan.FromSeconds(5);

    public bool IsTicking => SinceLastTick <= LongestSilence;
}
