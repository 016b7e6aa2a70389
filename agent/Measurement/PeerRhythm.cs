namespace Sidecar.Agent.Measurement;

/// <summary>
/// Tells a peer's keepalives from its retransmissions: keepalives come at equal distances, retransmissions at growing ones.
/// </summary>
internal sealed class PeerRhythm
{
    private const int Enough = 3;
    private const double Slack = 0.1;

    // What scans and a loaded host make of an equal distance.
    private static readonly TimeSpan LeastSlack = TimeSpan.FromSeconds(0.5);

    private TimeSpan _last;
    private int _alike;

    /// <summary>The peer has moved something of its own accord after so long.</summary>
    /// <returns>How often it does so; null before the third time in a row at the same distance.</returns>
    public TimeSpan? Note(TimeSpan after)
    {
        var slack = after * Slack > LeastSlack ? after * Slack : LeastSlack;
        _alike = (after - _last).Duration() <= slack ? _alike + 1 : 1;
        _last = after;
        return _alike >= Enough ? after : null;
    }
}
