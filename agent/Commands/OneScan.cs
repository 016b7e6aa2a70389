using Microsoft.Extensions.Logging;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Observation;
using Sidecar.Agent.Service;
using Sidecar.Agent.Telemetry;

namespace Sidecar.Agent.Commands;

/// <summary>The scan that <c>status</c> takes itself where no agent is running.</summary>
internal static class OneScan
{
    /// <summary>
    /// Scans once at the sockets of the declared upstreams, with the agent's own eyes and judgement. Makes fresh
    /// connections where something is silent; changes nothing and records nothing.
    /// </summary>
    /// <exception cref="Probes.KernelException">The kernel's socket table cannot be read.</exception>
    public static AgentSnapshot Take(SidecarConfiguration configuration)
    {
        var observing = configuration with { Agent = configuration.Agent with { Mode = AgentMode.Observe } };
        using var log = new JournalLog(LogLevel.None);
        using var metrics = new SidecarMetrics(ProductVersion.Text, [.. Enum.GetValues<Guardrail>().Select(guardrail => guardrail.ToName())]);
        var clock = new Clock(TimeProvider.System);
        using var surroundings = new Surroundings(observing, clock);
        surroundings.ScanOnce();
        using var rooms = new AgentRooms(observing, metrics, null, log, SelfCheck.Run(configuration), clock, surroundings: surroundings);
        return rooms.ScanOnce() with { Mode = configuration.Agent.Mode == AgentMode.Observe ? "observe" : "protect" };
    }
}
