using Sidecar.Agent.Core.Tracking;

namespace Sidecar.Agent.Core.Recordings;

/// <summary>
/// The steps of one silent connection. Those that bring no news replace the one before; of the others the newest are kept, in
/// segments that each begin with what was remembered then, so that the oldest can be dropped.
/// </summary>
/// <param name="connection">Whose.</param>
internal sealed class ConnectionRecorder(TrackedConnection connection)
{
    /// <summary>Steps are kept in so many segments.</summary>
    private const int MostSegments = 4;

    /// <summary>Of so many steps.</summary>
    private const int StepsPerSegment = 16;

    /// <summary>Steps that are kept at most.</summary>
    internal const int MostSteps = MostSegments * StepsPerSegment;

    /// <summary>Bytes that a recording has as JSON, about: older segments are left out until it has no more.</summary>
    private const int MostBytes = 16 * 1024;

    private readonly List<Segment> _segments = [];
    private int _leftOut;

    internal int Count => _segments.Sum(segment => segment.Steps.Count);

    /// <summary>When it was last added to.</summary>
    internal TimeSpan LastAt { get; private set; }

    /// <summary>Adds a step. What was seen has been taken by the connection already, what else happens has not.</summary>
    internal void Add(RecordedStep step)
    {
        LastAt = step.At;
        if (_segments.Count == 0 || _segments[^1].Steps.Count >= StepsPerSegment)
        {
            if (_segments.Count == MostSegments)
            {
                _leftOut += _segments[0].Steps.Count;
                _segments.RemoveAt(0);
            }

            _segments.Add(new Segment(connection.Keep()));
        }

        _segments[^1].Steps.Add(step);
    }

    /// <summary>What was seen last has been judged.</summary>
    /// <param name="path">On what was known of the path; null where that is not kept.</param>
    internal void Judged(RecordedPath? path)
    {
        var judged = new RecordedJudgement { Verdict = connection.Judged.Verdict, Reason = connection.Judged.Reason, Odds = connection.Judged.Odds };
        var steps = _segments[^1].Steps;
        if (steps[^1] is not { Seen: not null, Judged: null } last)
        {
            // Something else has come between, a connect probe's end: their order counts.
            Add(new RecordedStep { At = connection.LastSeen, Path = path, Judged = judged });
            return;
        }

        var step = last with { Path = path, Judged = judged };

        // Of a row of steps that bring no news the first one stays, and the last one is moved on.
        if (steps.Count > 2 && IsNoNews(steps[^3], steps[^2]) && IsNoNews(steps[^2], step))
        {
            steps.RemoveAt(steps.Count - 1);
        }

        steps[^1] = step;
    }

    /// <summary>A remedy was considered: told where it is not decided as before on the same grounds.</summary>
    internal void Planned(RecordedPlan plan, TimeSpan now)
    {
        if (LastPlan?.IsAs(plan) != true)
        {
            Add(new RecordedStep { At = now, Plan = plan });
        }
    }

    /// <summary>The recording as it stands.</summary>
    internal Recording Freeze()
    {
        var first = 0;
        while (first < _segments.Count - 1 && _segments.Skip(first).Sum(segment => segment.Steps.Sum(Size)) > MostBytes)
        {
            first++;
        }

        RecordedPath? known = null;
        var steps = new List<RecordedStep>();
        foreach (var step in _segments.Skip(first).SelectMany(segment => segment.Steps))
        {
            steps.Add(step.Path is { } path && path == known ? step with { Path = null } : step);
            known = step.Path ?? known;
        }

        // The decision may stand in what is left out; since then it was made again and again on the same grounds.
        if (LastPlan is { } plan && !steps.Exists(static step => step.Plan is not null))
        {
            steps.Add(new RecordedStep { At = LastAt, Plan = plan });
        }

        return new Recording { Version = Recording.Form, LeftOut = _leftOut + _segments.Take(first).Sum(segment => segment.Steps.Count), Start = _segments[first].Start, Steps = steps };
    }

    private RecordedPlan? LastPlan
    {
        get
        {
            for (var i = _segments.Count - 1; i >= 0; i--)
            {
                if (_segments[i].Steps.FindLast(step => step.Plan is not null) is { } step)
                {
                    return step.Plan;
                }
            }

            return null;
        }
    }

    /// <summary>Nothing but time has gone by between two observations.</summary>
    private static bool IsNoNews(RecordedStep earlier, RecordedStep later) =>
        later is { Seen: { } seen, Path: { } path, Judged: { } judged } && earlier is { Seen: { } seenBefore, Path: { } pathBefore, Judged: { } judgedBefore }
        && seen.IsAs(seenBefore) && path.IsAs(pathBefore) && judged.Verdict == judgedBefore.Verdict && judged.Reason == judgedBefore.Reason;

    /// <summary>Bytes of JSON, about.</summary>
    private static int Size(RecordedStep step) =>
        40 + (step.Seen is null ? 0 : 400) + (step.Path is null ? 0 : 200) + (step.Judged is null ? 0 : 80) + (step.Plan is null ? 0 : 500) + (step.ConnectProbe is null ? 0 : 80);

    private sealed class Segment(RecordedState start)
    {
        internal RecordedState Start { get; } = start;

        internal List<RecordedStep> Steps { get; } = [];
    }
}
