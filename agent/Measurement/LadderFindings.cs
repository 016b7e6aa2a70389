using Sidecar.Agent.Core.Judgement.IdleTimeout;
using Sidecar.Probes.Ladder;

namespace Sidecar.Agent.Measurement;

/// <summary>What a ladder has learnt so far, and what it is called in the end.</summary>
internal sealed class LadderFindings
{
    private readonly PathEstimator _estimator = new();
    private readonly Action<GapObservation>? _learnt;
    private readonly List<GapObservation> _observations = [];
    private readonly List<TriedGap> _gaps = [];
    private readonly List<string> _notes = [];
    private readonly List<LossKind> _losses = [];
    private readonly List<TimeSpan> _peerRefreshes = [];

    /// <param name="survived">Gaps up to this are known to be survived already.</param>
    /// <param name="learnt">Told each piece of evidence about the path as it comes.</param>
    public LadderFindings(TimeSpan survived, Action<GapObservation>? learnt)
    {
        _learnt = learnt;
        _estimator.Add(new GapObservation(survived, GapOutcome.Survived, DateTimeOffset.UtcNow, EvidenceSource.Passive));
    }

    /// <summary>How connections were lost, in order.</summary>
    public IReadOnlyList<LossKind> Losses => _losses;

    public IdleTimeoutEstimate Estimate() => _estimator.Estimate(DateTimeOffset.UtcNow);

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

            var observation = new GapObservation(value, outcome, DateTimeOffset.UtcNow, EvidenceSource.Ladder, GapObservation.LadderWeight);
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

    /// <summary>Takes in that the peer spoke of its own accord after so long.</summary>
    /// <returns>How often it does; null while that is not sure.</returns>
    public TimeSpan? NotePeerRefresh(TimeSpan age)
    {
        _peerRefreshes.Add(age);
        var least = _peerRefreshes.Min();
        return _peerRefreshes.Count(r => r <= least * 1.25) < 2 ? null : least;
    }

    public MeasurementReport Report(MeasurementTarget target, TimeSpan elapsed, LadderOpener opener, Comparison? comparison, Witnesses? witnesses, bool interrupted)
    {
        var estimate = Estimate();
        var (keepalive, payload) = (comparison?.KeepaliveRefreshes, comparison?.PayloadRefreshes);
        var kind = Classify(estimate.Upper is not null, keepalive, payload);
        if (kind is PathClass.PeerCloses or PathClass.PayloadOnly && payload is null)
        {
            Note("no application data was sent (plain TCP): whether it keeps a connection alive is not known");
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
            PeerKeepalive = _peerRefreshes.Count > 1 ? _peerRefreshes.Min() : null,
            Interrupted = interrupted,
            Gaps = _gaps,
            Observations = _observations,
            Notes = _notes,
        };
    }

    private PathClass Classify(bool lost, bool? keepalive, bool? payload)
    {
        if (!lost || _losses.Count == 0)
        {
            return PathClass.NoneSeen;
        }

        var usual = _losses.GroupBy(l => l).MaxBy(g => g.Count())!.Key;
        if (usual == LossKind.PeerAnnounced)
        {
            return PathClass.PeerCloses;
        }

        if (keepalive == false && payload == true)
        {
            return PathClass.PayloadOnly;
        }

        return usual switch
        {
            LossKind.PeerClosed => PathClass.PeerCloses,
            LossKind.Reset => PathClass.Reset,
            _ => keepalive == false && payload is null ? PathClass.PayloadOnly : PathClass.SilentDrop,
        };
    }
}
