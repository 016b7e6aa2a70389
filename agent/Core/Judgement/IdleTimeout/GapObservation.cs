namespace Sidecar.Agent.Core.Judgement.IdleTimeout;

/// <summary>What became of a connection after an idle gap.</summary>
public enum GapOutcome
{
    /// <summary>It was answered: the path's timeout is at least the gap.</summary>
    Survived,

    /// <summary>It was silent, reset or closed while a fresh connection worked: the path's timeout is at most the gap.</summary>
    Lost,
}

/// <summary>Where an observation comes from.</summary>
public enum EvidenceSource
{
    /// <summary>A watched connection of somebody else's, which idled of its own accord.</summary>
    Passive,

    /// <summary>A connection of our own that idled for the purpose.</summary>
    Ladder,
}

/// <summary>
/// One interval-censored observation of a path's idle timeout. The observer errs on the safe side: a survived gap is
/// rounded down, a lost one up, by as much as it may have misjudged when the connection last moved.
/// </summary>
/// <param name="Gap">How long nothing moved, before the test.</param>
/// <param name="Outcome">What became of the connection.</param>
/// <param name="At">When it was seen, UTC.</param>
/// <param name="Source">Where it comes from.</param>
/// <param name="Weight">Belief in it: 1 for an ordinary sight; a controlled experiment counts for more.</param>
public readonly record struct GapObservation(TimeSpan Gap, GapOutcome Outcome, DateTimeOffset At, EvidenceSource Source, double Weight = 1)
{
    /// <summary>The weight of a verdict of the ladder, which idled undisturbed and was tested twice.</summary>
    public const double LadderWeight = 2;

    /// <summary>True when no single timeout explains both this and <paramref name="other"/>.</summary>
    public bool Contradicts(in GapObservation other) =>
        Outcome != other.Outcome && (Outcome == GapOutcome.Survived ? Gap > other.Gap : other.Gap > Gap);
}
