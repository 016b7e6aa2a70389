using Sidecar.Agent.Core.Recordings;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Tracking;

/// <summary>A path that stands for one of a recording.</summary>
public sealed partial class PathTracker
{
    /// <summary>Takes what was known of the path at a step; nothing is concluded from it here.</summary>
    internal void Restore(RecordedPath recorded)
    {
        CountsDataOnly = recorded.CountsDataOnly;
        IdleTimeout = (recorded.IdleTimeoutLower, recorded.IdleTimeoutUpper);
        Last = recorded.Last is { } outcome
            ? new PathProbe(outcome == ConnectProbeOutcome.Connected, default, default, ConnectProbeResult.Lasting(outcome, recorded.LastTook))
            : null;
    }
}
