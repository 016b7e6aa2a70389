using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Tracking;

namespace Sidecar.Agent.Core.Remedies;

/// <summary>
/// What is to be done, as a state machine: it reads the world, asks for commands one by one, and takes their outcomes. Every action
/// is recorded as pending before it is asked for, and again with what came of it.
/// </summary>
public sealed class RemedyEngine
{
    private static readonly TimeSpan ForgetUnseenAfter = TimeSpan.FromMinutes(10);

    /// <summary>How many consider each connection; see <see cref="Consider"/>.</summary>
    private const int Considering = 6;
    private const int Probes = 4;

    private readonly World _world;
    private readonly Keepalives _keepalives;
    private readonly Resuming _resuming;
    private readonly Probing _probing;
    private readonly Recycling _recycling;
    private readonly Terminations _terminations;
    private readonly Releases _releases;
    private readonly Outages _outages;
    private readonly Endings _endings;
    private readonly BlackHoles _blackHoles;

    public RemedyEngine(World world)
    {
        _world = world;
        var incidents = new IncidentWriter(world);
        _resuming = new Resuming(world);
        _probing = new Probing(world, _resuming);
        _keepalives = new Keepalives(world, _probing);
        _terminations = new Terminations(world, incidents);
        _releases = new Releases(world, incidents);
        _recycling = new Recycling(world, incidents, _terminations, _releases);
        _outages = new Outages(world, incidents);
        _endings = new Endings(world, incidents, _outages);
        _blackHoles = new BlackHoles(world, incidents);
    }

    /// <summary>True while an action is followed: the next tick is due soon.</summary>
    public bool IsFollowing => _recycling.IsFollowing || _releases.IsFollowing || _terminations.IsFollowing;

    /// <summary>True while a path that is down is asked whether it is back: the next tick is due soon.</summary>
    public bool IsAsking => _probing.IsAsking;

    /// <summary>True where connections wait for their keepalive: the next scan should not.</summary>
    public bool IsArming => _keepalives.IsUnfinished;

    /// <summary>Takes over what a restarted or reloaded agent must not forget: terminations that count against the budgets.</summary>
    /// <param name="recorded">Incidents as recorded.</param>
    /// <param name="utcNow">Wall clock.</param>
    /// <param name="now">Monotonic time.</param>
    public void Remember(IEnumerable<Incident> recorded, DateTimeOffset utcNow, TimeSpan now) => _terminations.Remember(recorded, utcNow, now);

    /// <summary>Takes up the keepalive options that an earlier run has set.</summary>
    public void Recall(IEnumerable<KeepaliveEntry> entries) => _keepalives.Recall(entries);

    /// <summary>
    /// The keepalive options in force that are the agent's, to be written down; null where nothing has changed since they were.
    /// Enumerated at once.
    /// </summary>
    public IEnumerable<KeepaliveEntry>? ChangedKeepalives => _keepalives.HasChanged
        ? _world.Connections.All
            .Where(connection => connection.Protection is { Armed: not null, Original: not null, IsForTestOnly: false, IsApplications: false })
            .Select(connection => new KeepaliveEntry(
                connection.NamespaceInode, connection.Cookie.Value, $"{connection.Key.Local} -> {connection.Key.Peer}", connection.Protection!.Original!.Value, connection.Protection.Armed!.Value))
            .Concat(_keepalives.Recalled)
        : null;

    /// <summary>The options were written down. Connections of an earlier run that have not been seen by now have closed meanwhile.</summary>
    /// <param name="now">Monotonic time since the agent's start.</param>
    public void KeepalivesSaved(TimeSpan now) => _keepalives.Saved(forgetUnseen: now > ForgetUnseenAfter);

    /// <summary>The release of a session has ended.</summary>
    public void ReleaseEnded(ReleaseEnded ended) => _releases.Ended(ended);

    /// <summary>A connect probe has ended; the world has been told before.</summary>
    public void ConnectProbeEnded(PathTracker path, TimeSpan now) => _recycling.NoteConnectProbe(path, now);

    /// <summary>
    /// Ends the incidents that an earlier run left <c>pending</c>: it was stopped between the action and its record. Whether
    /// the action was taken is not known, so nothing is done again on their account; what is still wrong is judged anew.
    /// </summary>
    /// <param name="recorded">Incidents as recorded.</param>
    public static IEnumerable<Command> CloseInterrupted(IEnumerable<Incident> recorded) => recorded
        .Where(incident => incident.Outcome == "pending")
        .Select(incident => new IncidentReport(
            incident with { Outcome = "interrupted", Why = $"{incident.Why}; the agent ended before it saw what came of it" }, IncidentStage.Ended));

    /// <summary>What is to be done about what this tick has seen. Each command is to be carried out before the next one is asked for.</summary>
    /// <param name="late">The tick came late: it gathers evidence and takes no action (guardrail 4).</param>
    /// <param name="now">Monotonic time.</param>
    public IEnumerable<Command> Tick(bool late, TimeSpan now)
    {
        foreach (var connection in _world.Gone)
        {
            _keepalives.Forget(connection);
            _probing.Forget(connection);
            _resuming.Forget(connection);
            _blackHoles.Forget(connection);
            _terminations.NoteGone(connection, now);
            foreach (var command in _endings.Consider(connection, now))
            {
                yield return command;
            }
        }

        _recycling.BeginTick(now);
        _probing.BeginTick();
        _resuming.BeginTick();
        _keepalives.BeginTick(now);
        foreach (var connection in _world.Seen)
        {
            for (var remedy = IsAtRest(connection) ? Probes : 0; remedy < Considering; remedy++)
            {
                // Most connections need nothing: what is empty is not enumerated.
                if (Consider(remedy, connection, late, now) is not Command[] { Length: 0 } and var commands)
                {
                    foreach (var command in commands)
                    {
                        yield return command;
                    }
                }
            }

            _world.Considered(connection);
        }

        foreach (var command in _recycling.Follow(late, now))
        {
            yield return command;
        }

        foreach (var command in _outages.Follow(now))
        {
            yield return command;
        }

        foreach (var command in _releases.Follow(now))
        {
            yield return command;
        }

        foreach (var command in _terminations.Follow(now))
        {
            yield return command;
        }

        foreach (var command in _probing.AskForPaths(now))
        {
            yield return command;
        }

        foreach (var command in _probing.ProbePaths(now))
        {
            yield return command;
        }
    }

    /// <summary>The agent ends in good order: what was set for a test only is put back.</summary>
    public IEnumerable<Command> Stop() => _keepalives.PutBack();

    /// <summary>Most are: what rests, and may go on resting, needs a keepalive at most, or is asked on behalf of a neighbour.</summary>
    private bool IsAtRest(TrackedConnection connection) => connection.Judged.Verdict == Verdict.Healthy && !connection.MayBeOfInterest && !_blackHoles.HasTold;

    /// <summary>In this order.</summary>
    private IEnumerable<Command> Consider(int remedy, TrackedConnection connection, bool late, TimeSpan now) => remedy switch
    {
        0 => _recycling.Consider(connection, late, now),
        1 => _outages.Consider(connection, now),
        2 => _blackHoles.Consider(connection, now),
        3 => _resuming.Consider(connection, late, now),
        Probes => _probing.Consider(connection, now),
        _ => _keepalives.Consider(connection, now),
    };
}
