using System.Diagnostics.CodeAnalysis;
using Sidecar.Agent.Core.Recordings;

namespace Sidecar.Agent.Core.Tracking;

/// <summary>A silence, written down for a recording and taken from one.</summary>
internal sealed partial class Silence
{
    internal RecordedSilence Keep() => new()
    {
        Start = Start,
        IdleBefore = IdleBefore,
        RetransmissionsAtStart = RetransmissionsAtStart,
        FirstSendCounts = FirstSendCounts,
        FoundLate = FoundLate,
        LastRetransmission = LastRetransmission,
        Confirmed = Confirmed,
        Clean = Clean,
        KernelProbes = KernelProbes,
        WindowProbes = WindowProbes,
        LastWindowProbe = LastWindowProbe,
        UpSince = _upSince,
        Pending = _earlier,
        LastPending = _lastEarlier,
        LatestPending = _latest,
    };

    [return: NotNullIfNotNull(nameof(recorded))]
    internal static Silence? Of(RecordedSilence? recorded) => recorded is null ? null : new Silence(recorded.Start, recorded.IdleBefore, recorded.RetransmissionsAtStart)
    {
        FirstSendCounts = recorded.FirstSendCounts,
        FoundLate = recorded.FoundLate,
        LastRetransmission = recorded.LastRetransmission,
        Confirmed = recorded.Confirmed,
        Clean = recorded.Clean,
        KernelProbes = recorded.KernelProbes,
        WindowProbes = recorded.WindowProbes,
        LastWindowProbe = recorded.LastWindowProbe,
        _upSince = recorded.UpSince,
        _earlier = recorded.Pending,
        _lastEarlier = recorded.LastPending,
        _latest = recorded.LatestPending,
    };
}
