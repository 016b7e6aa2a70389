using Sidecar.Agent.Core.Judgement.IdleTimeout;
using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Ladder;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Measurement;

/// <summary>What a ladder has learnt so far, and what it is called in the end.</summary>
internal sealed class LadderFindings
{
    private readonly LadderEvidence _evidence = new();
    private readonly TimeProvider _clock;
    private readonly LadderSettings _settings;
    private readonly Action<GapObservation>? _learnt;
    private readonly List<GapObservation> _observations = [];
    private readonly List<(LadderTrial Trial, LossKind Kind, bool IsKept)> _losses = [];
    private readonly List<string> _notes = [];
    private TimeSpan? _peerKeepalive;
    private bool _hadEvent;

    /// <summary>Nothing is learnt yet.</summary>
    /// <param name="settings">Which gaps are known to be survived already, and what counts as the same gap.</param>
    /// <param name="learnt">Told each piece of evidence about the path as it comes.</param>
    /// <param name="clock">Dates the evidence.</param>
    public LadderFindings(LadderSettings settings, Action<GapObservation>? learnt, TimeProvider clock)
    {
        _clock = clock;
        _settings = settings;
        _learnt = learnt;
        if (settings.Survived > TimeSpan.Zero)
        {
            _evidence.Add(new LadderTrial(settings.Survived, true, TimeSpan.MinValue, TimeSpan.MinValue));
        }
    }

    /// <summary>How connections were lost, in order.</summary>
    public IReadOnlyList<LossKind> Losses => [.. _losses.Select(l => l.Kind)];

    public LadderEvidence Evidence => _evidence;

    /// <summary>Where to search.</summary>
    public LadderBounds Search() => _evidence.Search();

    /// <summary>Takes in that a gap was survived.</summary>
    /// <param name="gap">Longest idle time that was survived.</param>
    /// <param name="begun">When it began, by the ladder's clock.</param>
    /// <param name="ended">When that was known.</param>
    public void Survive(TimeSpan gap, TimeSpan begun, TimeSpan ended)
    {
        if (gap > TimeSpan.Zero)
        {
            _evidence.Add(new LadderTrial(gap, true, begun, ended));
            Hand(gap, GapOutcome.Survived);
        }
    }

    /// <summary>Takes in a loss.</summary>
    /// <param name="trial">What was lost.</param>
    /// <param name="kind">How.</param>
    /// <param name="isEvidence">Whether it says something about the path, and not of the server alone.</param>
    public void Lose(LadderTrial trial, LossKind kind, bool isEvidence)
    {
        _evidence.Add(trial);
        _losses.Add((trial, kind, isEvidence && trial.IsSuspect));
        if (isEvidence && !trial.IsSuspect)
        {
            Hand(trial.Gap, GapOutcome.Lost);
        }
    }

    /// <summary>What looked like a moment at which everything was forgotten is evidence after all where nothing has contradicted it.</summary>
    private void HandSuspects()
    {
        foreach (var (trial, _, _) in _losses.Where(l => l.IsKept && _evidence.Counts(l.Trial)))
        {
            Hand(trial.Gap, GapOutcome.Lost);
        }
    }

    private void Hand(TimeSpan gap, GapOutcome outcome)
    {
        var observation = new GapObservation(gap, outcome, _clock.GetUtcNow(), EvidenceSource.Ladder, GapObservation.LadderWeight);
        _observations.Add(observation);
        _learnt?.Invoke(observation);
    }

    /// <summary>Says what an operator should know besides, once.</summary>
    public void Note(string note)
    {
        if (!_notes.Contains(note))
        {
            _notes.Add(note);
        }
    }

    /// <summary>Takes in that the peer refreshes idle connections of its own accord this often.</summary>
    public void NotePeerKeepalive(TimeSpan every) => _peerKeepalive = _peerKeepalive is { } known && known < every ? known : every;

    /// <summary>
    /// Whether this occasion speaks for a path on which only data counts: connections with keepalives only were lost between the two
    /// ends, one with data was not (where there was one), and nothing else has happened that may have ended them.
    /// </summary>
    public bool SuggestsPayloadOnly(MeasurementTarget target, Comparison comparison) =>
        comparison.KeepaliveRefreshes == false
        && (comparison.PayloadRefreshes ?? target.Protocol == UpstreamProtocol.PostgreSql)
        && !_hadEvent && _evidence.Result() is { Upper: not null, Varies: false }
        && comparison.Losses.All(loss => ClockTrial.IsBetween(loss, target.Protocol))
        && Usual() is { } usual && ClockTrial.IsBetween(usual, target.Protocol);

    /// <summary>Two occasions have said so.</summary>
    public bool IsPayloadOnly { get; set; }

    /// <summary>Something has happened on the path, or at the server, that ends connections whatever their age.</summary>
    /// <param name="note">What, for people.</param>
    public void NoteEvent(string note)
    {
        _hadEvent = true;
        Note(note);
    }

    public MeasurementReport Report(MeasurementTarget target, TimeSpan elapsed, LadderOpener opener, Comparison? comparison, Witnesses? witnesses, bool interrupted)
    {
        HandSuspects();
        var result = _evidence.Result();
        var uncounted = _losses.Where(l => !_evidence.Counts(l.Trial)).Select(l => l.Trial).ToArray();
        if (uncounted.Length > 0)
        {
            Note($"{Quantity.Of(uncounted.Length, "connection")} lost after {string.Join(", ", uncounted.Select(t => Duration.ForPeople(t.Gap)))} did not count: such gaps were survived again and again (lost packets, or a router that forgot everything at once)");
        }

        var isConfirmed = result.Upper is null || _evidence.Wanting(_settings.WidthAt(result.Lower)) is (0, 0);
        if (!isConfirmed)
        {
            Note("there was no time to see each bound again: jitter would not show");
        }

        var (keepalive, payload) = (comparison?.KeepaliveRefreshes, IsPayloadOnly ? true : comparison?.PayloadRefreshes);
        var kind = Classify(result);
        if (kind != PathClass.PeerCloses && comparison?.Losses.Any(loss => loss is LossKind.PeerAnnounced) == true)
        {
            keepalive = null;
            Note("the server itself ended a session that only keepalives had kept alive (idle_session_timeout)");
        }

        if (kind == PathClass.PeerCloses && payload is null)
        {
            Note("no application data was sent (plain TCP): whether it keeps a connection alive is not known");
        }
        else if (keepalive == false && kind is PathClass.SilentDrop or PathClass.Reset or PathClass.NotKnown)
        {
            Note(payload is null
                ? "keepalives did not keep a connection alive, on one occasion; whether this path counts data only can be known with --payload or --protocol postgresql"
                : "keepalives did not keep a connection alive, on one occasion, which proves nothing; measure again");
        }

        if (target.Protocol == UpstreamProtocol.Tcp && target.Payload.IsEmpty)
        {
            Note("keepalives are answered by the nearest end of TCP: if that is a proxy, what lies behind it was not measured (--payload TEXT asks the server)");
        }

        if (witnesses?.ServerFirst == true)
        {
            Note("after the timeout data from the server still arrives, where data from this side is lost: the directions differ");
        }

        return new MeasurementReport
        {
            Endpoint = target.ToString(),
            Lower = result.Lower,
            Upper = result.Upper,
            Varies = result.Varies,
            Confirmed = isConfirmed,
            Class = kind,
            Elapsed = elapsed,
            ConnectionsUsed = opener.Opened,
            FreshConnects = opener.FreshConnects,
            KeepaliveRefreshes = keepalive,
            PayloadRefreshes = payload,
            ServerFirstPasses = witnesses?.ServerFirst,
            Hop = witnesses?.Hop?.Hop?.ToString(),
            HopReason = witnesses?.Hop?.Why,
            PeerKeepalive = _peerKeepalive,
            Interrupted = interrupted,
            Gaps = [.. _evidence.Trials.Where(t => t.Ended > TimeSpan.MinValue).Select(t => new TriedGap(t.Gap, t.Survived, t.Survived || _evidence.Counts(t)))],
            Observations = _observations,
            Notes = _notes,
        };
    }

    /// <summary>How connections are lost at the timeout: most of them, where not all alike.</summary>
    private LossKind? Usual() => (AtTimeout() is { Length: > 0 } losses ? losses : Counted).GroupBy(l => l.Kind).MaxBy(kinds => kinds.Count())?.Key;

    private (LadderTrial Trial, LossKind Kind, bool IsKept)[] Counted => [.. _losses.Where(l => _evidence.Counts(l.Trial))];

    /// <summary>And not long after it: something else may end them then.</summary>
    private (LadderTrial Trial, LossKind Kind, bool IsKept)[] AtTimeout()
    {
        var result = _evidence.Result();
        return [.. Counted.Where(l => l.Trial.Gap >= result.Upper && l.Trial.Gap <= result.Upper + _settings.WidthAt(result.Lower))];
    }

    private PathClass Classify(LadderBounds result)
    {
        if (result.Upper is null)
        {
            return result.Varies ? PathClass.NotKnown : PathClass.NoneSeen;
        }

        if (IsPayloadOnly)
        {
            return PathClass.PayloadOnly;
        }

        // One loss says how the path loses connections where nothing else has happened that may have ended it; else all are asked.
        var wasCalm = !_hadEvent && !result.Varies && _losses.All(l => !l.Trial.IsSuspect && _evidence.Counts(l.Trial));
        var losses = AtTimeout() is { Length: > 0 } some && (wasCalm || some.Length > 1) ? some : Counted;
        var kinds = losses.Select(l => ClassOf(l.Kind)).Distinct().ToArray();
        return kinds.Length == 1 && (wasCalm || losses.Length > 1) ? kinds[0] : PathClass.NotKnown;
    }

    private static PathClass ClassOf(LossKind kind) => kind switch
    {
        LossKind.PeerClosed or LossKind.PeerAnnounced => PathClass.PeerCloses,
        LossKind.Reset => PathClass.Reset,
        _ => PathClass.SilentDrop,
    };
}
