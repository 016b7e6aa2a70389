using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Tracking;

/// <summary>
/// Something that was sent and has not been answered: data, or probes on a connection that has nothing in flight; and what was
/// sent since.
/// </summary>
/// <param name="start">When it was sent first, monotonic.</param>
/// <param name="idleBefore">How long nothing had been heard before; null where not known.</param>
/// <param name="retransmissionsAtStart">total_retrans at that time.</param>
internal sealed partial class Silence(TimeSpan start, TimeSpan? idleBefore, uint retransmissionsAtStart)
{
    /// <summary>
    /// An acknowledgement may be delayed (RFC 1122; 40 ms on Linux) and then takes its way: before that, silence after a
    /// transmission says nothing.
    /// </summary>
    internal static readonly TimeSpan DelayedAcknowledgement = TimeSpan.FromMilliseconds(50);

    /// <summary>
    /// A Linux peer answers such probes at most once in this time (net.ipv4.tcp_invalid_ratelimit): the silence after one that
    /// followed another sooner says nothing.
    /// </summary>
    internal static readonly TimeSpan ProbeRateLimit = TimeSpan.FromMilliseconds(500);

    private TimeSpan? _upSince;

    // Not confirmed yet: the latest by itself, since a connect probe may come too soon after it and yet late enough for those before.
    private TimeSpan? _latest;
    private int _earlier;
    private TimeSpan _lastEarlier;

    internal TimeSpan Start { get; } = start;

    internal TimeSpan? IdleBefore { get; } = idleBefore;

    internal uint RetransmissionsAtStart { get; } = retransmissionsAtStart;

    /// <summary>The send that began it brought no answer either: false where an answer to something else did.</summary>
    internal bool FirstSendCounts { get; init; } = true;

    internal TimeSpan? LastRetransmission { get; private set; }

    internal int Confirmed { get; private set; }

    internal int Clean { get; private set; }

    internal bool FoundLate { get; init; }

    internal bool IsLossTaken { get; set; }

    /// <summary>Counters as of the last observation at which no stall was in progress, for the loss estimate.</summary>
    internal Transmissions Settled { get; set; }

    /// <summary>The kernel's own probes that are out: keepalive, or of a closed window.</summary>
    internal int KernelProbes { get; set; }

    /// <summary>Window probes of the agent's that went out.</summary>
    internal int WindowProbes { get; private set; }

    /// <summary>When the last of them went out.</summary>
    internal TimeSpan? LastWindowProbe { get; private set; }

    /// <summary>Data was sent again. Several times between two observations count once: only the last one's time is known.</summary>
    internal void Retransmitted(TimeSpan sentAt) => Transmitted(sentAt, sentAt);

    /// <summary>A window probe was sent.</summary>
    internal void Probed(TimeSpan sentAt)
    {
        var isEvidence = !(sentAt - LastWindowProbe <= ProbeRateLimit);
        LastWindowProbe = sentAt;
        if (isEvidence)
        {
            WindowProbes++;
            Transmitted(sentAt, sentAt);
        }
    }

    /// <summary>Something was sent that wants an answer, at some time between the two.</summary>
    internal void Transmitted(TimeSpan earliest, TimeSpan latest)
    {
        LastRetransmission = latest;
        if (_upSince is { } up && earliest >= up)
        {
            if (_latest is { } before)
            {
                _earlier++;
                _lastEarlier = before;
            }

            _latest = latest;
        }
    }

    /// <summary>
    /// A connect probe ended. A clean success confirms what was sent since an earlier clean success and before this one began;
    /// anything else means that the path may have been away, and nothing is confirmed.
    /// </summary>
    internal void NoteConnectProbe(bool cleanSuccess, TimeSpan started, TimeSpan ended)
    {
        if (started < Start)
        {
            return;
        }

        if (!cleanSuccess)
        {
            _upSince = null;
            _latest = null;
            _earlier = 0;
            Confirmed = 0;
            Clean = 0;
            return;
        }

        // A connect probe that began earlier was answered before the transmission had to be.
        if (_earlier > 0 && started >= _lastEarlier + DelayedAcknowledgement)
        {
            Confirmed += _earlier;
            _earlier = 0;
        }

        if (_latest is { } latest && started >= latest + DelayedAcknowledgement)
        {
            Confirmed++;
            _latest = null;
        }

        // In a burst of loss each of them would have had to get through by itself.
        Clean++;
        _upSince ??= ended;
    }
}

/// <summary>How much was sent, and how much of it again, since the connection was made.</summary>
internal readonly record struct Transmissions(uint Sent, uint Repeated)
{
    internal static Transmissions Of(in KeptInfo info) => new(info.DataSegmentsOut, info.TotalRetransmissions);

    internal static Transmissions Of(in TcpInfo info) => new(info.DataSegmentsOut, info.TotalRetransmissions);
}
