using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Tracking;

/// <summary>A process that holds watched connections, with what an operator knows it by.</summary>
/// <param name="Identity">Pid and start time.</param>
/// <param name="Comm">Command name.</param>
/// <param name="Executable">Path of its executable, or null where not readable.</param>
/// <param name="Unit">systemd unit, or null.</param>
/// <param name="Uid">Real uid, or null.</param>
/// <param name="IsKernelThread">Never to be touched.</param>
/// <param name="Workers">The first [workers:…] section that names it, or null.</param>
public sealed record OwnerInfo(
    ProcessIdentity Identity, string Comm, string? Executable, string? Unit, uint? Uid, bool IsKernelThread, WorkersSection? Workers);

/// <summary>The owners of one socket.</summary>
/// <param name="First">The one that is shown, or null where none is known.</param>
/// <param name="Descriptor">Its descriptor number.</param>
/// <param name="Count">How many processes hold the socket; more than one after a fork.</param>
public readonly record struct Ownership(OwnerInfo? First, int Descriptor, int Count)
{
    /// <summary>True when exactly one process holds it and is known.</summary>
    public bool IsSole => First is not null && Count == 1;
}
