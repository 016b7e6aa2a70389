using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;

namespace Sidecar.Agent.Core.Remedies;

/// <summary>
/// Remedy 2: evidence is fetched. Window probes on connections that are silent, that wait for long, or whose age says that the
/// path may have forgotten them; connect probes on their paths.
/// </summary>
internal sealed class Probing(World world, Resuming resuming)
{
    /// <summary>Later than what the peer's rate limit swallows: <see cref="Silence.ProbeRateLimit"/>.</summary>
    internal static readonly TimeSpan Spacing = TimeSpan.FromMilliseconds(600);

    /// <summary>Connections that are not silent are asked so often.</summary>
    private static readonly TimeSpan NowAndThen = TimeSpan.FromSeconds(10);

    /// <summary>
    /// While the path is down there is nothing to be learnt but that it is back. One connection after another asks that for all of the
    /// path (<see cref="AskForPaths"/>), and each for itself no more often than this.
    /// </summary>
    private static readonly TimeSpan WhileDown = TimeSpan.FromSeconds(5);

    /// <summary>A path that is down is asked so often whether it is back.</summary>
    private static readonly TimeSpan ForPath = TimeSpan.FromMilliseconds(200);

    /// <summary>
    /// A probe costs 60 µs, and outages last: where there are many connections, or many paths, that can only wait, each is asked the
    /// less often, so that neither takes more than a tenth of these a second.
    /// </summary>
    private static readonly TimeSpan LeastBetween = TimeSpan.FromMilliseconds(5);

    private static readonly TimeSpan LongSilence = TimeSpan.FromSeconds(30);

    /// <summary>Where probes are not permitted it is tried again this much later: a capability may have been granted.</summary>
    private static readonly TimeSpan Retry = TimeSpan.FromSeconds(60);

    /// <summary>A probe costs 60 µs: no more than this many in a tick.</summary>
    private const int MostPerTick = 400;

    private readonly bool _observe = world.Configuration.Agent.Mode == AgentMode.Observe;
    private readonly Dictionary<TrackedConnection, TimeSpan> _tested = [];
    private readonly HashSet<TrackedConnection> _withheld = [];
    private readonly Dictionary<PathUser, DownPath> _down = [];
    private int _left;
    private int _waiting;
    private int _waitingAtLastScan;
    private TimeSpan _refusedUntil = TimeSpan.MinValue;
    private bool _refusalTold;

    /// <summary>Whether window probes can be sent here, as far as is known; where not, the keepalive timer serves.</summary>
    internal bool IsPermittedAt(TimeSpan now) => now >= _refusedUntil;

    /// <summary>True while a path is asked whether it is back: the next tick is due soon.</summary>
    internal bool IsAsking => _down.Count > 0;

    /// <summary>A tick begins.</summary>
    internal void BeginTick()
    {
        _left = MostPerTick;
        if (world.IsFull)
        {
            (_waitingAtLastScan, _waiting) = (_waiting, 0);
        }
    }

    /// <summary>Sends a window probe on a connection that was seen in this tick, where one is due.</summary>
    internal IEnumerable<Command> Consider(TrackedConnection connection, TimeSpan now)
    {
        IEnumerable<Command> told = [];
        if (_tested.Count > 0 && _tested.TryGetValue(connection, out var since)
            && (connection.LastProbeAnswer >= since || connection.Judged.Reason == Reason.ProbesUnanswered))
        {
            _tested.Remove(connection);
            told = [new NudgedReport(connection.Upstream.Name, connection.Judged.Reason == Reason.ProbesUnanswered ? "unanswered" : "answered")];
        }

        if (connection.Judged.Verdict == Verdict.Outage && !_observe)
        {
            NoteDown(connection);
        }

        return IsDue(connection, now) ? told.Concat(Send(connection, now)) : told;
    }

    /// <summary>
    /// Asks the paths that are down whether they are back, each on behalf of all silent connections of a user: on one of them after
    /// another, as some may have been forgotten meanwhile. As soon as one answers, all are asked.
    /// </summary>
    internal IEnumerable<Command> AskForPaths(TimeSpan now) => _down.Count > 0 ? AskForEach(now) : [];

    private IEnumerable<Command> AskForEach(TimeSpan now)
    {
        foreach (var (user, down) in _down.ToList())
        {
            if (now - down.LastAsked < Longer(ForPath, LeastBetween * _down.Count))
            {
                continue;
            }

            if (down.Next() is not { } connection)
            {
                _down.Remove(user);
            }
            else if (!connection.IsProbeOut)
            {
                down.LastAsked = now;
                foreach (var command in Send(connection, now))
                {
                    yield return command;
                }
            }
        }
    }

    private void NoteDown(TrackedConnection connection)
    {
        if (!_down.TryGetValue(connection.User, out var down))
        {
            _down[connection.User] = down = new DownPath();
        }

        down.Add(connection);
    }

    private IEnumerable<Command> Send(TrackedConnection connection, TimeSpan now)
    {
        if (_left == 0 || !IsPermittedAt(now))
        {
            yield break;
        }

        var owner = world.Owners.Find(connection.Last.Inode);
        if (owner.First is null)
        {
            yield break;
        }

        if (_observe)
        {
            if (_withheld.Add(connection))
            {
                yield return new WithheldReport(connection.Upstream.Name, Remedy.Nudge, Guardrail.Observe);
            }

            yield break;
        }

        _left--;
        var probe = new WindowProbe(connection, owner);
        yield return probe;
        switch (probe.Outcome)
        {
            case TouchOutcome.Done:
                if (connection.Judged.Verdict is Verdict.Expired or Verdict.Aging)
                {
                    _tested.TryAdd(connection, probe.At);
                }

                world.WindowProbed(connection, probe.At);
                break;
            case TouchOutcome.Gone:
                world.OwnerLost(connection);
                break;
            case TouchOutcome.NotPermitted or TouchOutcome.NotSupported:
                _refusedUntil = now + Retry;
                if (!_refusalTold)
                {
                    _refusalTold = true;
                    yield return new TouchRefusedReport(probe.Outcome);
                }

                break;
        }
    }

    /// <summary>Starts the connect probes that are wanted.</summary>
    internal IEnumerable<Command> ProbePaths(TimeSpan now)
    {
        foreach (var path in world.Paths.All)
        {
            if (path.IsProbeWanted && path.IsDue(now))
            {
                var (timeout, port) = (path.NextTimeout, path.NextPort);
                path.ProbeBegan(now);
                yield return new ConnectProbe(path, timeout, port);
            }
        }
    }

    /// <summary>A connection has gone.</summary>
    internal void Forget(TrackedConnection connection)
    {
        _tested.Remove(connection);
        _withheld.Remove(connection);
    }

    private bool IsDue(TrackedConnection connection, TimeSpan now)
    {
        var since = connection.LastWindowProbe is { } last ? now - last : TimeSpan.MaxValue;

        // What was asked before the path came back was lost with it, and started no clock at the peer: it may be asked again.
        var isBack = since >= ForPath && connection.LastWindowProbe < connection.Path.ReturnedAt && resuming.IsWanted(connection, now);
        if ((since < Spacing && !isBack) || connection.Last.State != Sidecar.Probes.Values.TcpState.Established)
        {
            return false;
        }

        // While the path is down, or not known after half a minute, there is little to be learnt. Where it is up in part a connection may be
        // closed by then, and what is closed was asked just before: its leg may have come back.
        var isUp = connection.Judged.Verdict == Verdict.Partly
            || connection.Judged.Reason is Reason.RetransmittingPathUp or Reason.SilentWhilePathUp or Reason.AnswerAwaitedProbesOut or Reason.AnswerLost or Reason.SilentWhileNeighboursAnswered;
        if (connection.Judged.Verdict == Verdict.Outage || (now - connection.SilenceStart > LongSilence && !isUp))
        {
            _waiting += world.IsFull ? 1 : 0;
            return isBack || since >= Longer(now - connection.Path.ReturnedAt < LongSilence ? Spacing : WhileDown, LeastBetween * _waitingAtLastScan);
        }

        // Something is unanswered: data that was sent again, or probes.
        if (connection.ProbingStart is not null || (connection.StallStart is not null && connection.LastRetransmission is not null))
        {
            return true;
        }

        // It lives, and its data waits for a timer that an outage has backed off.
        if (resuming.IsWanted(connection, now))
        {
            return true;
        }

        // Where no connect probe tells of the path, neighbours that are at rest are asked.
        if (connection.User.IsNeighbourWanted(now))
        {
            connection.User.NeighbourAsked(now);
            return true;
        }

        return connection.Judged switch
        {
            { Reason: Reason.PastTheTimeout } => connection.Upstream.Section.Recycle,
            { Verdict: Verdict.Waiting or Verdict.BlockedByPeer or Verdict.BlackHole } => since >= NowAndThen && now - connection.LastData >= NowAndThen / 2,
            _ => false,
        };
    }

    private static TimeSpan Longer(TimeSpan a, TimeSpan b) => a > b ? a : b;

    /// <summary>The silent connections of a user on a path that is down.</summary>
    private sealed class DownPath
    {
        private readonly Queue<TrackedConnection> _order = new();
        private readonly HashSet<TrackedConnection> _members = [];

        public TimeSpan LastAsked { get; set; }

        public void Add(TrackedConnection connection)
        {
            if (_members.Add(connection))
            {
                _order.Enqueue(connection);
            }
        }

        /// <summary>The one whose turn it is; null where none is left for which the path is down.</summary>
        public TrackedConnection? Next()
        {
            while (_order.TryDequeue(out var connection))
            {
                if (!connection.IsGone && connection.Judged.Verdict == Verdict.Outage)
                {
                    _order.Enqueue(connection);
                    return connection;
                }

                _members.Remove(connection);
            }

            return null;
        }
    }
}
