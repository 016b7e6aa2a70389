using Microsoft.Extensions.Logging;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Judgement;
using Sidecar.Agent.Stack;
using Sidecar.Agent.Telemetry;
using Sidecar.Agent.Tracking;

namespace Sidecar.Agent.Commands;

/// <summary>The look that <c>status</c> takes itself where no agent is running.</summary>
internal static class OneLook
{
    /// <summary>
    /// Looks once at the sockets of the declared upstreams, with the agent's own eyes and judgement. Makes fresh
    /// connections where something is silent; changes nothing and records nothing.
    /// </summary>
    /// <exception cref="Probes.KernelException">The kernel's socket table cannot be read.</exception>
    public static AgentSnapshot Take(SidecarConfiguration configuration)
    {
        var observing = configuration with { Agent = configuration.Agent with { Mode = AgentMode.Observe } };
        using var log = new JournalLog(LogLevel.None);
        using var metrics = new SidecarMetrics(ProductVersion.Text, [.. Enum.GetValues<Guardrail>().Select(guardrail => guardrail.ToName())]);
        var clock = SidecarLoop.MonotonicClock();
        using var surroundings = new Surroundings(observing, clock);
        surroundings.LookOnce();
        using var loop = new SidecarLoop(observing, metrics, null, log, SelfCheck.Run(configuration), clock, surroundings: surroundings);
        return loop.LookOnce() with { Mode = configuration.Agent.Mode == AgentMode.Observe ? "observe" : "protect" };
    }
}
