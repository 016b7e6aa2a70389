using Sidecar.Agent.Core.Judgement;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Tracking;

/// <summary>
/// The connections of one upstream by verdict, counted while they are judged, so that neither the brakes nor the gauges
/// need a pass over all of them.
/// </summary>
public sealed class UpstreamTally
{
    private readonly int[] _verdicts = new int[VerdictNames.All.Count];
    private readonly Dictionary<uint, UserTally> _users = [];

    /// <summary>All connections.</summary>
    public int Total { get; private set; }

    /// <summary>Whether a connection has been watched at any time.</summary>
    public bool WasUsed { get; internal set; }

    /// <summary>Longest time since segments moved, at the last full scan.</summary>
    public TimeSpan IdleMax { get; private set; }

    /// <summary>Connections on which a keepalive timer ran at the last full scan.</summary>
    public int KeepaliveArmed { get; private set; }

    /// <summary>Suspect, stuck and outage.</summary>
    public int Silent => Of(Verdict.Suspect) + Of(Verdict.Stuck) + Of(Verdict.Outage) + Of(Verdict.Partly);

    /// <summary>The same by uid, for each user that has connections: what one user's do brakes nobody else.</summary>
    public IReadOnlyDictionary<uint, UserTally> Users => _users;

    /// <summary>Connections with that verdict.</summary>
    public int Of(Verdict verdict) => _verdicts[(int)verdict];

    /// <summary>A full scan begins: what is measured over all connections is measured anew.</summary>
    internal void BeginScan()
    {
        IdleMax = TimeSpan.Zero;
        KeepaliveArmed = 0;
    }

    /// <summary>A full scan has seen a connection.</summary>
    internal void Saw(TrackedConnection connection)
    {
        KeepaliveArmed += connection.Last.Timer == SocketTimer.Keepalive ? 1 : 0;
        var idle = connection.LastSeen - connection.LastMoved;
        IdleMax = idle > IdleMax ? idle : IdleMax;
    }

    /// <summary>A connection is watched from now on.</summary>
    internal void Add(TrackedConnection connection)
    {
        _verdicts[(int)connection.Judged.Verdict]++;
        Total++;
        WasUsed = true;
        Count(connection, 1, connection.Judged.Verdict);
    }

    /// <summary>A connection was judged anew.</summary>
    internal void Move(TrackedConnection connection, Verdict from)
    {
        var to = connection.Judged.Verdict;
        _verdicts[(int)from]--;
        _verdicts[(int)to]++;
        if (IsSilent(from) != IsSilent(to))
        {
            var user = _users[connection.User.Uid];
            _users[connection.User.Uid] = user with { Silent = user.Silent + (IsSilent(to) ? 1 : -1) };
        }
    }

    /// <summary>A connection has gone.</summary>
    internal void Remove(TrackedConnection connection)
    {
        _verdicts[(int)connection.Judged.Verdict]--;
        Total--;
        Count(connection, -1, connection.Judged.Verdict);
    }

    private static bool IsSilent(Verdict verdict) => verdict is Verdict.Suspect or Verdict.Stuck or Verdict.Outage or Verdict.Partly;

    private void Count(TrackedConnection connection, int change, Verdict verdict)
    {
        var uid = connection.User.Uid;
        var user = _users.GetValueOrDefault(uid);
        user = new UserTally(user.Total + change, user.Silent + (IsSilent(verdict) ? change : 0));
        if (user.Total == 0)
        {
            _users.Remove(uid);
        }
        else
        {
            _users[uid] = user;
        }
    }
}

/// <summary>The connections of one user to one upstream.</summary>
/// <param name="Total">All of them.</param>
/// <param name="Silent">Those on which something is unanswered: suspect, stuck, outage and partly.</param>
public readonly record struct UserTally(int Total, int Silent);
