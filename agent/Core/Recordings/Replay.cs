using System.Globalization;
using System.Net;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Recordings;

/// <summary>One step as it went now.</summary>
/// <param name="At">Since the first step.</param>
/// <param name="What">What was seen or done, in words.</param>
public sealed record ReplayedStep(TimeSpan At, string What)
{
    /// <summary>The verdict as recorded, and as given now; both null where none was given.</summary>
    public RecordedJudgement? Recorded { get; init; }

    public RecordedJudgement? Replayed { get; init; }

    /// <summary>The decision as recorded, and as made now; both null where none was made.</summary>
    public Decision? RecordedDecision { get; init; }

    public Decision? ReplayedDecision { get; init; }

    /// <summary>What each guardrail said of the remedy, each for itself.</summary>
    public IReadOnlyList<GuardrailAnswer> Guardrails { get; init; } = [];
}

/// <summary>What a replay came to.</summary>
/// <param name="Steps">The steps, up to the first that went otherwise.</param>
/// <param name="Difference">What went otherwise, in words; null: the decision is the same.</param>
/// <param name="Decision">The decision that the steps lead to; null where none was made.</param>
public sealed record ReplayResult(IReadOnlyList<ReplayedStep> Steps, string? Difference, Decision? Decision);

/// <summary>
/// Runs the core over a recording: the observations through the tracked connection, what it makes of them and what was known of the path
/// through the judge, the case and its circumstances through the planner; and compares with what was recorded.
/// </summary>
public sealed class Replay
{
    /// <summary>Share by which odds may differ: a processor's power function is not another's to the last bit.</summary>
    private const double Alike = 1e-4;

    private readonly Recording _recording;
    private readonly PathUser _user;
    private readonly TrackedConnection _connection;
    private readonly SocketKey _key;
    private readonly List<ReplayedStep> _steps = [];
    private RecordedPath? _known;
    private Decision? _decision;

    private Replay(Recording recording)
    {
        _recording = recording;
        var section = new UpstreamSection
        {
            Name = "recorded",
            Endpoints = [new EndpointPattern("recorded", null, new IPNetwork(IPAddress.Any, 0), 1)],
            Direction = recording.Start.Inbound ? UpstreamDirection.Inbound : UpstreamDirection.Outbound,
        };
        _user = new PathTracker(new PathKey(1, default, default), new Upstream(section)).User(0);
        _connection = TrackedConnection.Restore(recording.Start, _user);
        _key = _connection.Key;
    }

    /// <summary>Replays an incident.</summary>
    /// <param name="incident">What it says was decided.</param>
    /// <param name="recording">What led to it; sound (<see cref="RecordingCheck"/>).</param>
    public static ReplayResult Run(Incident incident, Recording recording)
    {
        var replay = new Replay(recording);
        var difference = replay.RunSteps() ?? replay.Compare(incident);
        return new ReplayResult(replay._steps, difference, replay._decision);
    }

    private string? RunSteps()
    {
        for (var i = 0; i < _recording.Steps.Count; i++)
        {
            var step = _recording.Steps[i];
            var at = step.At - _recording.Steps[0].At;
            if (Take(step, at, isFirst: i == 0) is { } difference)
            {
                return string.Create(CultureInfo.InvariantCulture, $"at +{at.TotalSeconds:0.000} s: {difference}");
            }
        }

        return null;
    }

    private string? Take(RecordedStep step, TimeSpan at, bool isFirst)
    {
        if (step.Path is { } path)
        {
            _user.Restore(path);
            _known = path;
        }

        if (step.Seen is { } seen && !isFirst)
        {
            _connection.Update(seen.ToObservation(_key), step.At);
        }

        if (step.WindowProbe)
        {
            _connection.NoteWindowProbe(step.At);
            _steps.Add(new ReplayedStep(at, "window probe sent"));
        }

        if (step.AnswerAwaited is { } isAwaited)
        {
            _connection.NoteAnswerAwaited(isAwaited);
            _steps.Add(new ReplayedStep(at, isAwaited ? "the server works on an answer" : "the server's session is idle: no answer is awaited"));
        }

        if (step.ConnectProbe is { } probe)
        {
            _connection.NoteConnectProbe(probe.Clean, probe.Started, probe.Ended);
            _steps.Add(new ReplayedStep(at, probe.Clean ? "connect probe, or a neighbour, was answered at once" : "connect probe failed, or its SYN had to be sent again"));
        }

        if (step.Outcome is { } outcome)
        {
            _steps.Add(new ReplayedStep(at, outcome));
        }

        return (step.Judged is { } judged ? Judge(judged, at) : null) ?? (step.Plan is { } plan ? Plan(plan, at) : null);
    }

    private string? Judge(RecordedJudgement recorded, TimeSpan at)
    {
        if (_known is null)
        {
            _connection.Judged = new Judged(recorded.Verdict, recorded.Reason, recorded.Odds);
            _steps.Add(new ReplayedStep(at, "judged; what was known of the path is not kept, so the verdict is taken as it was") { Recorded = recorded, Replayed = recorded });
            return null;
        }

        var now = _connection.LastSeen;
        var judged = Judgement.Judge.Decide(_connection.Evidence(now), _known.ToEvidence());
        _connection.Judged = judged;
        var info = _connection.Last.Info;
        _steps.Add(new ReplayedStep(at, string.Create(CultureInfo.InvariantCulture,
            $"{Explanation.Of(_connection, now)} (unacked {info.Unacked}, timeouts {info.Retransmits}, segs_in {info.SegmentsIn}, segs_out {info.SegmentsOut}; path {PathWord()})"))
        {
            Recorded = recorded,
            Replayed = new RecordedJudgement { Verdict = judged.Verdict, Reason = judged.Reason, Odds = judged.Odds },
        });
        return judged.Verdict == recorded.Verdict && judged.Reason == recorded.Reason && AreAlike(judged.Odds, recorded.Odds)
            ? null
            : $"recorded {Text(recorded.Verdict, recorded.Reason, recorded.Odds)}, now {Text(judged.Verdict, judged.Reason, judged.Odds)}";
    }

    private string? Plan(RecordedPlan recorded, TimeSpan at)
    {
        var late = recorded is { TickPlanned: { } planned, TickStarted: { } started, TickObserved: { } observed } ? StarvationGate.IsLate(planned, started, observed) : recorded.TickLate;
        var circumstances = recorded.ToCircumstances() with { TickLate = late, CommonMode = recorded.Kind == PlanKind.Stuck ? IsCommonMode(recorded) : recorded.CommonMode };
        Decision Decide(StuckCase stuck, Circumstances now) => recorded.Kind switch
        {
            PlanKind.Stuck => RemedyPlanner.ForStuck(stuck, now),
            PlanKind.Expired => RemedyPlanner.ForExpired(stuck, _connection.Judged.Reason == Reason.ProbesUnanswered, now),
            PlanKind.NearTheTimeout => RemedyPlanner.ForNearTheTimeout(stuck, recorded.IsAtRest, now),
            PlanKind.Partly => Recycling.IsTooSoonWhenPartly(recorded.Silence ?? TimeSpan.Zero, _connection.Judged.Odds) ? Decision.Withhold(Remedy.Recycle, Guardrail.Partly) : Decision.Nothing,
            PlanKind.Outage => Outages.Decision,
            PlanKind.Release => RemedyPlanner.ForRelease(recorded.ToRelease()),
            PlanKind.Ended => recorded.Decision, // what happened, and no decision: the verdicts before it are what is compared
            _ => Decision.Nothing,
        };

        var decision = Decide(recorded.ToCase(), circumstances);
        _decision = decision;
        _steps.Add(new ReplayedStep(at, recorded.Kind == PlanKind.Ended ? "it ended" : "decision")
        {
            RecordedDecision = recorded.Decision,
            ReplayedDecision = decision,
            Guardrails = recorded.Kind is PlanKind.Stuck or PlanKind.Expired or PlanKind.NearTheTimeout ? GuardrailAnswers.Of(recorded.ToCase(), circumstances, decision.Remedy, Decide) : [],
        });
        return decision == recorded.Decision ? null : $"recorded {Text(recorded.Decision)}, now {Text(decision)}";
    }

    /// <summary>Whether the steps lead to what the incident says.</summary>
    private string? Compare(Incident incident)
    {
        if (_decision is not { } decision)
        {
            return "the recording has no decision";
        }

        var cause = IncidentWriter.Cause(_connection.Judged.Verdict).ToName();
        if (cause != incident.Cause)
        {
            return $"the incident says that the cause was {incident.Cause}, its recording leads to {cause}";
        }

        // A back-end that is released without a decision on record: the recording ends with that on its connection.
        if (incident.Remedy == Remedy.Release.ToName() && decision.Remedy != Remedy.Release)
        {
            return null;
        }

        return decision.Remedy.ToName() == incident.Remedy && decision.WithheldBy?.ToName() == incident.WithheldBy
            ? null
            : $"the incident says {incident.Remedy}{(incident.WithheldBy is { } by ? $" withheld by {by}" : "")}, its recording leads to {Text(decision)}";
    }

    private static bool IsCommonMode(RecordedPlan plan)
    {
        var brake = new CommonModeBrake();
        brake.Update(plan.Silent, plan.Total, TimeSpan.Zero);
        return brake.IsOn;
    }

    private static bool AreAlike(double a, double b) => a == b || Math.Abs(a - b) <= Alike * Math.Max(Math.Abs(a), Math.Abs(b));

    private string PathWord() => _known?.State switch
    {
        PathState.Up => "up",
        PathState.Down => "down",
        PathState.Partly => "up in part",
        PathState.UpByNeighbours => "up by neighbours",
        PathState.Unprovable => "not provable",
        _ => "not known",
    };

    private static string Text(Verdict verdict, Reason reason, double odds) =>
        $"{verdict.ToName()} ({reason}{(odds == 0 ? "" : ", odds " + Odds(odds))})";

    /// <summary>Odds as they stand in incidents.</summary>
    public static string Odds(double odds) => odds.ToString("0.###e0", CultureInfo.InvariantCulture);

    /// <summary>A decision in words.</summary>
    public static string Text(in Decision decision) => decision switch
    {
        { Remedy: Remedy.None } => "nothing is done",
        { WithheldBy: { } guardrail } => $"{decision.Remedy.ToName()} withheld by {guardrail.ToName()}",
        _ => $"{decision.Remedy.ToName()} is carried out",
    };
}
