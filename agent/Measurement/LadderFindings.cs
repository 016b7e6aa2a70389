using Sidecar.Agent.Core.Judgement.IdleTimeout;
using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Ladder;

namespace Sidecar.Agent.Measurement;

/// <summary>What a ladder has learnt so far, and what it is called in the end.</summary>
internal sealed class LadderFindings
{
    private readonly PathEstimator _estimator = new();
    private readonly TimeProvider _clock;
    private readonly Action<GapObservation>? _learnt;
    private readonly List<GapObservation> _observations = [];
    private readonly List<TriedGap> _gaps = [];
    private readonly List<string> _notes = [];
    private readonly List<LossKind> _losses = [];
    private TimeSpan? _peerKeepalive;
    private bool _hadEvent;

    /// <summary>Nothing is learnt yet.</summary>
    /// <param name="survived">Gaps up to this are known to be survived already.</param>
    /// <param name="learnt">Told each piece of evidence about the path as it comes.</param>
    /// <param name="clock">Dates the evidence.</param>
    public LadderFindings(TimeSpan survived, Action<GapObservation>? learnt, TimeProvider clock)
    {
        _clock = clock;
        _learnt = learnt;
        _estimator.Add(new GapObservation(survived, GapOutcome.Survived, _clock.GetUtcNow(), EvidenceSource.Passive));
    }

    /// <summary>How connections were lost, in order.</summary>
    public IReadOnlyList<LossKind> Losses => _losses;

    public IdleTimeoutEstimate Estimate() => _estimator.Estimate(_clock.GetUtcNow());

    /// <summary>Takes in the result of one gap.</summary>
    /// <param name="survived">Longest idle time that was survived; null for none.</param>
    /// <param name="lost">Shortest idle time that was lost; null for none.</param>
    /// <param name="isEvidence">Whether it says something about the path, and not of the server alone.</param>
    public void Learn(TimeSpan? survived, TimeSpan? lost, bool isEvidence = true)
    {
        foreach (var (gap, outcome) in new[] { (survived, GapOutcome.Survived), (lost, GapOutcome.Lost) })
        {
            if (gap is not { } value || value <= TimeSpan.Zero)
            {
                continue;
            }

            var observation = new GapObservation(value, outcome, _clock.GetUtcNow(), EvidenceSource.Ladder, GapObservation.LadderWeight);
            if (isEvidence)
            {
                _observations.Add(observation);
                _learnt?.Invoke(observation);
            }

            _gaps.Add(new TriedGap(value, outcome == GapOutcome.Survived));
            _estimator.Add(observation);
        }
    }

    /// <summary>Takes in how one was lost.</summary>
    public void NoteLoss(LossKind loss) => _losses.Add(loss);

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
        && !_hadEvent && Estimate() is { Upper: not null, Contradicted: false }
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
        var estimate = Estimate();
        var (keepalive, payload) = (comparison?.KeepaliveRefreshes, IsPayloadOnly ? true : comparison?.PayloadRefreshes);
        var kind = Classify(estimate.Upper is not null);
        if (kind != PathClass.PeerCloses && comparison?.Losses.Any(loss => loss is LossKind.PeerAnnounced) == true)
        {
            keepalive = null;
            Note("the server itself ended a session that only keepalives had kept alive (idle_session_timeout)");
        }

        if (kind == PathClass.PeerCloses && payload is null)
        {
            Note("no application data was sent (plain TCP): whether it keeps a connection alive is not known");
        }
        else if (keepalive == false && kind is PathClass.SilentDrop or PathClass.Reset)
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
            Lower = estimate.Lower,
            Upper = estimate.Upper,
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
            Gaps = _gaps,
            Observations = _observations,
            Notes = _notes,
        };
    }

    private LossKind? Usual() => _losses.Count == 0 ? null : _losses.GroupBy(l => l).MaxBy(g => g.Count())!.Key;

    private PathClass Classify(bool lost) => lost ? Usual() switch
    {
        null => PathClass.NoneSeen,
        _ when IsPayloadOnly => PathClass.PayloadOnly,
        LossKind.PeerClosed or LossKind.PeerAnnounced => PathClass.PeerCloses,
        LossKind.Reset => PathClass.Reset,
        _ => PathClass.SilentDrop,
    }
    : PathClass.NoneSeen;
}
