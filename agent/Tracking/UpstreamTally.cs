using Sidecar.Agent.Judgement;
using Sidecar.Probes.SockDiag;

namespace Sidecar.Agent.Tracking;

/// <summary>
/// The connections of one upstream by verdict, counted while they are judged, so that neither the brakes nor the gauges
/// need a pass over all of them.
/// </summary>
public sealed class UpstreamTally
{
    private readonly int[] _verdicts = new int[VerdictNames.All.Count];

    /// <summary>All connections.</summary>
    public int Total { get; private set; }

    /// <summary>Longest time since segments moved, at the last full look.</summary>
    public TimeSpan IdleMax { get; private set; }

    /// <summary>Connections on which a keepalive timer ran at the last full look.</summary>
    public int KeepaliveArmed { get; private set; }

    /// <summary>Suspect, stuck and outage.</summary>
    public int Silent => Of(Verdict.Suspect) + Of(Verdict.Stuck) + Of(Verdict.Outage);

    /// <summary>Connections with that verdict.</summary>
    public int Of(Verdict verdict) => _verdicts[(int)verdict];

    /// <summary>Begins anew, before a full look is judged.</summary>
    internal void Clear()
    {
        Array.Clear(_verdicts);
        Total = 0;
        IdleMax = TimeSpan.Zero;
        KeepaliveArmed = 0;
    }

    /// <summary>Counts a connection that was judged in a full look.</summary>
    internal void Add(TrackedConnection connection)
    {
        _verdicts[(int)connection.Judged.Verdict]++;
        Total++;
        KeepaliveArmed += connection.Last.Timer == SocketTimer.Keepalive ? 1 : 0;
        var idle = connection.LastLook - connection.LastMoved;
        IdleMax = idle > IdleMax ? idle : IdleMax;
    }

    /// <summary>A short look gave another verdict.</summary>
    internal void Move(Verdict from, Verdict to)
    {
        _verdicts[(int)from]--;
        _verdicts[(int)to]++;
    }

    /// <summary>A short look found it gone.</summary>
    internal void Remove(Verdict verdict)
    {
        _verdicts[(int)verdict]--;
        Total--;
    }
}
