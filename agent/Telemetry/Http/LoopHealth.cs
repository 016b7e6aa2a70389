namespace Sidecar.Agent.Telemetry;

/// <summary>What the loop says about itself when <c>/healthz</c> or <c>/readyz</c> is asked for.</summary>
internal sealed record LoopHealth
{
    /// <summary>Time since the loop last turned; before its first turn, since the agent started.</summary>
    public required TimeSpan SinceLastTurn { get; init; }

    public required TimeSpan ScanInterval { get; init; }

    /// <summary>Whether the first look is done.</summary>
    public required bool FirstLookDone { get; init; }

    /// <summary>Remedies that the configuration asks for and that are not possible here, a line each.</summary>
    public required IReadOnlyList<string> NotPossible { get; init; }

    /// <summary>A loop silent for longer than this is taken to hang: three intervals, and 5 s for a slow look.</summary>
    public TimeSpan LongestSilence => (3 * ScanInterval) + TimeSpan.FromSeconds(5);

    public bool Turns => SinceLastTurn <= LongestSilence;
}
