using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Tracking;

namespace Sidecar.Agent.Core.Remedies;

/// <summary>
/// Guardrail 3 for each user of each upstream: connections that one user lets fall silent neither brake the rescue of another's nor
/// spend his share of the rate.
/// </summary>
internal sealed class Brakes(IReadOnlyList<Upstream> upstreams)
{
    private readonly Dictionary<(Upstream Upstream, uint Uid), CommonModeBrake> _brakes = [];

    /// <summary>The brake of a connection's user.</summary>
    internal CommonModeBrake Of(TrackedConnection connection) => Of(connection.Upstream, connection.User.Uid);

    /// <summary>A tick begins: the brakes are set by what has fallen silent.</summary>
    internal void Update(TimeSpan now)
    {
        foreach (var upstream in upstreams)
        {
            foreach (var (uid, tally) in upstream.Tally.Users)
            {
                if (tally.Silent >= CommonModeBrake.Crowd)
                {
                    Of(upstream, uid);
                }
            }
        }

        foreach (var (key, brake) in _brakes)
        {
            var tally = key.Upstream.Tally.Users.GetValueOrDefault(key.Uid);
            brake.Update(tally.Silent, tally.Total, now);
            if (tally.Total == 0 && brake.IsAtRestAt(now))
            {
                _brakes.Remove(key);
            }
        }
    }

    /// <summary>A connect probe has ended: it tells how the server bears the rates.</summary>
    /// <param name="upstream">Whose server.</param>
    /// <param name="took">How long the handshake took; null where it failed.</param>
    /// <param name="now">When, monotonic.</param>
    internal void Probed(Upstream upstream, TimeSpan? took, TimeSpan now)
    {
        foreach (var (key, brake) in _brakes)
        {
            if (key.Upstream == upstream)
            {
                brake.Probed(took, now);
            }
        }
    }

    private CommonModeBrake Of(Upstream upstream, uint uid)
    {
        if (!_brakes.TryGetValue((upstream, uid), out var brake))
        {
            _brakes[(upstream, uid)] = brake = new CommonModeBrake();
        }

        return brake;
    }
}
