using Sidecar.Agent.Core.Judgement.IdleTimeout;

namespace Sidecar.Agent.Measurement;

/// <summary>
/// What a ladder does beyond the search: it sees both bounds again, and where a gap was lost and a longer one survived, it tries
/// gaps all over the range, once.
/// </summary>
/// <param name="evidence">What has been learnt.</param>
/// <param name="rungs">What idles.</param>
/// <param name="end">When the ladder has to be over, by its own clock.</param>
internal sealed class Confirmation(LadderEvidence evidence, Rungs rungs, TimeSpan end)
{
    private const int MostSurveys = 2;

    /// <summary>Connections that it opens beyond those of the search, at most.</summary>
    private const int MostFurther = 20;

    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);

    private TimeSpan _upper;
    private TimeSpan _until;
    private List<TimeSpan>? _survey;
    private int _surveys;

    /// <summary>
    /// Seeing the bounds again takes as long as the longer one, and as much again where they do not hold; once for each repetition
    /// where the connections follow one another.
    /// </summary>
    private static TimeSpan Time(TimeSpan upper, LadderSettings settings) => (upper * (settings.IsGuest ? 7 : 2.2)) + (Patience * 2);

    /// <summary>The next step; null where the search goes on.</summary>
    /// <param name="bounds">Where it searches.</param>
    /// <param name="settings">What is wanted.</param>
    /// <param name="now">Time since the ladder's start.</param>
    public LadderStep? Next(LadderBounds bounds, LadderSettings settings, TimeSpan now)
    {
        if (rungs.Opened > settings.Connections + MostFurther)
        {
            return new LadderStep { Finished = true };
        }

        if (_survey is { } gaps)
        {
            if (gaps.Count > 0 || rungs.All.Any(r => r.Test is not null))
            {
                return LadderPlan.Try(gaps, rungs.Idlers(), settings);
            }

            (_survey, _upper) = (null, TimeSpan.Zero);
            if (bounds.Varies)
            {
                return new LadderStep { Finished = true };
            }
        }

        if (bounds.Varies && _surveys < MostSurveys && LadderPlan.Survey(bounds.Upper!.Value, evidence.Longest, settings) is var survey && now + survey[^1] + Patience < end)
        {
            _surveys++;
            _survey = [.. survey];
            return LadderPlan.Try(_survey, rungs.Idlers(), settings);
        }

        if (!LadderPlan.IsFinished(bounds.Lower, bounds.Upper, settings))
        {
            return null;
        }

        if (bounds.Upper is { } upper)
        {
            if (upper > _upper)
            {
                (_upper, _until) = (upper, now + upper + Patience < end ? now + Time(upper, settings) : now);
            }

            var wanting = evidence.Wanting(settings.WidthAt(bounds.Lower));
            if (wanting is not (0, 0) && now < _until)
            {
                return LadderPlan.Repeat(bounds.Lower, upper, wanting, rungs.Idlers(), settings);
            }
        }

        return new LadderStep { Finished = true };
    }

    /// <summary>Takes note of the tests that have begun just now.</summary>
    public void NoteBegun() => _survey?.RemoveAll(gap => rungs.All.Any(r => r.Test is not null && r.Target == gap));
}
