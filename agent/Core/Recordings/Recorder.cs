using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Recordings;

/// <summary>
/// Keeps what led to the decisions on connections that are silent, for their incidents. A connection that is not costs nothing;
/// beyond so many at a time one that falls silent has a recording of its last step alone.
/// </summary>
internal sealed class Recorder
{
    /// <summary>Connections that are recorded at a time: some 6 MB at the most.</summary>
    internal const int MostRecorded = 512;

    /// <summary>Connections that fall silent together, beyond those: what was known of their paths is kept within the tick.</summary>
    private const int MostPaths = 8192;

    /// <summary>A connection that was closed is followed; its recording is kept for so long after the last step.</summary>
    private static readonly TimeSpan KeptWhenGone = TimeSpan.FromSeconds(60);

    private readonly Dictionary<TrackedConnection, ConnectionRecorder> _recorders = [];

    // Of connections that are not recorded, and may be decided on in this tick.
    private readonly Dictionary<TrackedConnection, PathEvidence> _paths = [];
    private readonly List<TrackedConnection> _left = [];
    private (TrackedConnection? Connection, RecordedPlan? Plan, TimeSpan At) _last;
    private (TimeSpan Planned, TimeSpan Started, TimeSpan Observed)? _tick;

    /// <summary>Connections that are recorded at present.</summary>
    internal int Count => _recorders.Count;

    /// <summary>Takes over what was recorded of connections that are still watched.</summary>
    internal void TakeOver(Recorder earlier, TrackedConnection connection)
    {
        if (earlier._recorders.TryGetValue(connection, out var recorder))
        {
            _recorders[connection] = recorder;
        }
    }

    /// <summary>A connection has gone. One that the agent has closed is followed on.</summary>
    internal void Left(TrackedConnection connection)
    {
        if (connection.IsRecorded)
        {
            _left.Add(connection); // its end may be an incident of this tick
        }
    }

    /// <summary>A tick begins.</summary>
    internal void BeginTick()
    {
        _paths.Clear();
        _tick = null;
        foreach (var connection in _left)
        {
            if (connection.Case is not { RecycledFrom: not null })
            {
                Forget(connection);
            }
        }

        _left.Clear();
    }

    /// <summary>When the tick was due, when it began, and when it had observed.</summary>
    internal void Ticked(TimeSpan planned, TimeSpan started, TimeSpan observed)
    {
        _tick = (planned, started, observed);
        if (_recorders.Count > 0)
        {
            foreach (var (connection, recorder) in _recorders)
            {
                if (connection.IsGone && observed - recorder.LastAt > KeptWhenGone)
                {
                    Forget(connection);
                }
            }
        }
    }

    /// <summary>A connection was observed, and has taken that.</summary>
    internal void Saw(TrackedConnection connection, in SocketObservation socket, TimeSpan now)
    {
        var isSilent = connection.SilenceStart is not null && (socket.Info.Retransmits > 0 || connection.ProbingStart is not null);
        if (!isSilent)
        {
            Forget(connection);
            return;
        }

        if (Find(connection) is not { } recorder)
        {
            if (_recorders.Count >= MostRecorded)
            {
                return;
            }

            _recorders[connection] = recorder = new ConnectionRecorder(connection);
            connection.IsRecorded = true;
        }

        recorder.Add(new RecordedStep { At = now, Seen = RecordedSocket.Of(socket) });
    }

    /// <summary>It was judged.</summary>
    internal void Judged(TrackedConnection connection, in PathEvidence path)
    {
        if (Find(connection) is { } recorder)
        {
            recorder.Judged(RecordedPath.Of(connection.User, path));
        }
        else if (IsDecidedOn(connection) && _paths.Count < MostPaths)
        {
            _paths[connection] = path;
        }
    }

    /// <summary>A window probe was sent on it, which it is told of next.</summary>
    internal void WindowProbed(TrackedConnection connection, TimeSpan now)
    {
        if (Find(connection) is { } recorder)
        {
            recorder.Add(new RecordedStep { At = now, WindowProbe = true });
        }
    }

    /// <summary>The server has told whether an answer is awaited on it, which it is told of next.</summary>
    internal void AnswerKnown(TrackedConnection connection, bool isAwaited)
    {
        if (Find(connection) is { } recorder)
        {
            recorder.Add(new RecordedStep { At = connection.LastSeen, AnswerAwaited = isAwaited });
        }
    }

    /// <summary>A connect probe on its path has ended, which it is told of next.</summary>
    internal void ConnectProbed(TrackedConnection connection, bool isClean, TimeSpan started, TimeSpan ended)
    {
        if (Find(connection) is { } recorder)
        {
            recorder.Add(new RecordedStep { At = ended, ConnectProbe = new RecordedConnectProbe { Clean = isClean, Started = started, Ended = ended } });
        }
    }

    /// <summary>A remedy was considered for it.</summary>
    internal void Planned(TrackedConnection connection, RecordedPlan plan, TimeSpan now)
    {
        if (plan.Remedy == Remedy.None && plan.Kind is not (PlanKind.BlackHole or PlanKind.Ended))
        {
            return;
        }

        var tally = connection.Upstream.Tally.Users.GetValueOrDefault(connection.User.Uid);
        plan = plan with { TickPlanned = _tick?.Planned, TickStarted = _tick?.Started, TickObserved = _tick?.Observed, Silent = tally.Silent, Total = tally.Total };
        _last = (connection, plan, now);
        if (Find(connection) is { } recorder)
        {
            recorder.Planned(plan, now);
        }
    }

    /// <summary>What came of a command.</summary>
    internal void Told(TrackedConnection connection, string outcome, TimeSpan at)
    {
        if (Find(connection) is { } recorder)
        {
            recorder.Add(new RecordedStep { At = at, Outcome = outcome });
        }
    }

    /// <summary>What led to the decision on a connection that has just been made.</summary>
    internal Recording Freeze(TrackedConnection connection)
    {
        if (Find(connection) is { } recorder)
        {
            return recorder.Freeze();
        }

        recorder = new ConnectionRecorder(connection);
        recorder.Add(new RecordedStep { At = connection.LastSeen, Seen = RecordedSocket.Of(connection.Last) });

        // Asked again now, the path may say something else than when it was judged.
        recorder.Judged(_paths.TryGetValue(connection, out var path) ? RecordedPath.Of(connection.User, path) : null);
        if (ReferenceEquals(_last.Connection, connection))
        {
            recorder.Planned(_last.Plan!, _last.At);
        }

        return recorder.Freeze();
    }

    private ConnectionRecorder? Find(TrackedConnection connection) => connection.IsRecorded ? _recorders.GetValueOrDefault(connection) : null;

    private void Forget(TrackedConnection connection)
    {
        if (connection.IsRecorded)
        {
            connection.IsRecorded = false;
            _recorders.Remove(connection);
        }
    }

    /// <summary>What is judged like that may lead to an incident.</summary>
    internal static bool IsDecidedOn(TrackedConnection connection) => connection.Judged.Verdict switch
    {
        Verdict.Stuck or Verdict.Partly or Verdict.Outage or Verdict.BlackHole => true,
        Verdict.Expired => connection.ProbingStart is not null,
        _ => connection.Judged.Reason == Reason.NearTheTimeout,
    };
}
