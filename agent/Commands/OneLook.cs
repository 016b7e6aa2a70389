using Sidecar.Agent.Configuration;
using Sidecar.Agent.Tracking;

namespace Sidecar.Agent.Commands;

/// <summary>The look that <c>status</c> takes itself where no agent is running.</summary>
internal static class OneLook
{
    /// <summary>Looks once at the sockets of the declared upstreams; changes nothing.</summary>
    public static AgentSnapshot Take(SidecarConfiguration configuration) => new()
    {
        Time = DateTimeOffset.UtcNow,
        Scan = 1,
        Duration = TimeSpan.Zero,
        Mode = configuration.Agent.Mode == AgentMode.Protect ? "protect" : "observe",
        Connections = [],
        Upstreams =
        [
            .. configuration.Upstreams.Select(u => new UpstreamStatus
            {
                Name = u.Name,
                Endpoint = string.Join(", ", u.Endpoints.Select(e => e.Text)),
                PathUp = null,
                PathRoundTrip = null,
                IdleTimeoutLower = u.IdleTimeout.Source == IdleTimeoutSource.Declared ? u.IdleTimeout.Value : null,
                IdleTimeoutUpper = u.IdleTimeout.Source == IdleTimeoutSource.Declared ? u.IdleTimeout.Value : null,
                Advice = [],
            }),
        ],

        // Nothing is looked at without the eyes; the agent's own look takes this method's place.
        Limitations = ["the socket table was not looked at: this build has no eyes"],
    };
}
