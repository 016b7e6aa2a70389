using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Core.Remedies;

/// <summary>
/// What the engine asks for, one at a time and in order: something to be done (<see cref="Command{T}"/>), or to be told
/// (<see cref="Report"/>). The engine goes on when it has been carried out.
/// </summary>
public abstract class Command;

/// <summary>A command that has an outcome. "Check once more, then act" is one command and never split.</summary>
/// <typeparam name="T">Its outcome.</typeparam>
public abstract class Command<T> : Command
{
    private T? _outcome;
    private TimeSpan? _at;

    /// <summary>What came of it.</summary>
    /// <exception cref="InvalidOperationException">Nobody has carried it out.</exception>
    public T Outcome => _at is null ? throw new InvalidOperationException($"{GetType().Name} has not been carried out") : _outcome!;

    /// <summary>When it was done, monotonic.</summary>
    public TimeSpan At => _at ?? throw new InvalidOperationException($"{GetType().Name} has not been carried out");

    /// <summary>It has been carried out.</summary>
    /// <param name="outcome">What came of it.</param>
    /// <param name="at">When, monotonic.</param>
    public void Done(T outcome, TimeSpan at) => (_outcome, _at) = (outcome, at);
}

/// <summary>What came of touching a worker's own socket.</summary>
public enum TouchOutcome
{
    Done,

    /// <summary>Process, descriptor or socket are no longer what was seen. Nothing was changed.</summary>
    Gone,

    /// <summary>A capability is missing, or a security module forbids it.</summary>
    NotPermitted,

    /// <summary>The kernel is too old.</summary>
    NotSupported,

    /// <summary>Anything else; nothing was changed as far as is known.</summary>
    Failed,
}

/// <summary>A connect probe on a path, in the background; its end comes as an observation.</summary>
/// <param name="path">From where to where.</param>
/// <param name="timeout">When to give up.</param>
/// <param name="localPort">The local port to connect from, so that it goes the way of an earlier probe; 0: as connect() takes it.</param>
public sealed class ConnectProbe(PathTracker path, TimeSpan timeout, int localPort) : Command
{
    public int LocalPort { get; } = localPort;

    public PathTracker Path { get; } = path;

    public TimeSpan Timeout { get; } = timeout;

    /// <summary>Whether it is to find out if the other end answers window probes: on this path none has been answered yet.</summary>
    public bool TestsWindowProbe { get; } = path.IsAnswerToProbesWanted;
}

/// <summary>A window probe on the worker's own socket, sent now.</summary>
/// <param name="connection">On which.</param>
/// <param name="owner">Who holds it.</param>
public sealed class WindowProbe(TrackedConnection connection, Ownership owner) : Command<TouchOutcome>
{
    public TrackedConnection Connection { get; } = connection;

    public Ownership Owner { get; } = owner;
}

/// <summary>What came of making a stalled connection retransmit.</summary>
public enum ResumeOutcome
{
    /// <summary>It has retransmitted, or does so shortly.</summary>
    Done,

    /// <summary>Nothing is stalled any more, or its application wants to be told of ICMP errors itself.</summary>
    LeftAlone,

    /// <summary>The segment that shows the sequence number was not seen to leave: rewritten (NAT) or dropped on this host.</summary>
    NotSeen,

    /// <summary>CAP_NET_RAW or the like is missing, or packet sockets are forbidden to the service.</summary>
    NotPermitted,

    /// <summary>Process, descriptor or socket are no longer what was seen.</summary>
    Gone,

    /// <summary>The kernel took no notice, or a call failed.</summary>
    Failed,
}

/// <summary>
/// Makes a connection that is proven alive retransmit at once what it has in flight, whatever its timer has backed off to (RFC 6069).
/// Only right after a window probe was answered: on a dead path the application would be told of an error that is none.
/// </summary>
/// <param name="connection">Which.</param>
/// <param name="owner">Who holds it.</param>
public sealed class Resume(TrackedConnection connection, Ownership owner) : Command<ResumeOutcome>
{
    public TrackedConnection Connection { get; } = connection;

    public Ownership Owner { get; } = owner;
}

/// <summary>What came of changing keepalive options.</summary>
/// <param name="Result">Whether the socket could be touched.</param>
/// <param name="Before">The options as they were found.</param>
/// <param name="After">As they were set; null where nothing was changed.</param>
public readonly record struct KeepaliveOutcome(TouchOutcome Result, KeepaliveOptions Before, KeepaliveOptions? After);

/// <summary>
/// Reads the keepalive options of the worker's own socket and sets others, on one duplicate of it, so that nothing is set on
/// grounds of stale options.
/// </summary>
/// <param name="connection">Of which.</param>
/// <param name="owner">Who holds it.</param>
/// <param name="decide">From the options present to those wanted; null: leave them. A pure function.</param>
/// <param name="force">TCP_KEEPIDLE is set even where it does not change, which re-arms the timer.</param>
public sealed class ChangeKeepalive(TrackedConnection connection, Ownership owner, Func<KeepaliveOptions, KeepaliveOptions?> decide, bool force = false) : Command<KeepaliveOutcome>
{
    public TrackedConnection Connection { get; } = connection;

    public Ownership Owner { get; } = owner;

    public Func<KeepaliveOptions, KeepaliveOptions?> Decide { get; } = decide;

    public bool Force { get; } = force;
}

/// <summary>What came of recycling.</summary>
public enum RecycleResult
{
    /// <summary>Destroyed; the owner's call has returned.</summary>
    Released,

    /// <summary>Gone before we acted.</summary>
    Vanished,

    /// <summary>It came back to life before we acted; nothing was done.</summary>
    Recovered,

    /// <summary>The kernel does not permit it, or cannot do it.</summary>
    Refused,

    /// <summary>Something else; nothing was done.</summary>
    Failed,

    /// <summary>The agent was held up, and what it goes by is too old by now; nothing was done.</summary>
    Late,
}

/// <summary>What came of recycling.</summary>
/// <param name="Result">What.</param>
/// <param name="Detail">Why, where it was refused or failed.</param>
/// <param name="SwitchesBefore">Context switches of the owner just before; null where they could not be read.</param>
public readonly record struct RecycleOutcome(RecycleResult Result, string? Detail, long? SwitchesBefore);

/// <summary>
/// Reads the socket once more and destroys it only when it is as dead as it was judged. What is left of the race is the
/// microseconds between two system calls.
/// </summary>
/// <param name="connection">Which.</param>
/// <param name="owner">Who holds it, where known.</param>
/// <param name="until">Until when it may be done, monotonic: the proof that the path is up holds for so long.</param>
public sealed class Recycle(TrackedConnection connection, OwnerInfo? owner, TimeSpan until) : Command<RecycleOutcome>
{
    public TimeSpan Until { get; } = until;

    public TrackedConnection Connection { get; } = connection;

    public OwnerInfo? Owner { get; } = owner;

    /// <summary>Whether the socket is still as dead as it was judged.</summary>
    /// <param name="judged">As judged.</param>
    /// <param name="present">As it is now.</param>
    public static bool IsAsJudged(in KeptObservation judged, in SocketObservation present) =>
        present.State == TcpState.Established && present.Info.SegmentsIn == judged.Info.SegmentsIn && present.Info.BytesAcked == judged.Info.BytesAcked
        && (judged.Info.Unacked > 0
            ? present.Info.Unacked > 0
            : present.Info.Unacked == 0 && present.Info.DataSegmentsOut == judged.Info.DataSegmentsOut);
}

/// <summary>Whether a recycled worker has run since.</summary>
/// <param name="owner">The worker.</param>
public sealed class CheckWorker(OwnerInfo owner) : Command<WorkerState>
{
    public OwnerInfo Owner { get; } = owner;
}

/// <summary>A worker at this moment.</summary>
/// <param name="IsAlive">The process is there.</param>
/// <param name="Switches">Its context switches; null where they could not be read.</param>
public readonly record struct WorkerState(bool IsAlive, long? Switches);

/// <summary>What a search over all processes, and a scan into one, found.</summary>
/// <param name="Ownership">Who holds the socket now; the search goes over all processes.</param>
/// <param name="Blocked">Whether the first of them is blocked on it.</param>
/// <param name="Detail">That in words.</param>
/// <param name="OtherProgress">Whether another of its sockets moved since the stall; null where that could not be seen.</param>
public readonly record struct WorkerInspection(Ownership Ownership, BlockedOn Blocked, string Detail, bool? OtherProgress);

/// <summary>
/// Scans for all holders of a socket anew and into the one that would be terminated. Expensive, so it is asked for only where
/// everything cheaper lets a termination pass.
/// </summary>
/// <param name="connection">Whose socket.</param>
/// <param name="stall">How long the stall has lasted.</param>
/// <param name="owners">What is known of processes.</param>
public sealed class InspectWorker(TrackedConnection connection, TimeSpan stall, OwnerTable owners) : Command<WorkerInspection>
{
    public OwnerTable Owners { get; } = owners;

    public TrackedConnection Connection { get; } = connection;

    public TimeSpan Stall { get; } = stall;
}

/// <summary>What came of a signal.</summary>
public enum SignalOutcome
{
    Sent,

    /// <summary>The process has exited, or what was judged holds no longer: it does not hold the socket, is not blocked on it, or the socket lives.</summary>
    Gone,

    /// <summary>CAP_KILL is missing, or a security module forbids it.</summary>
    NotPermitted,

    Failed,
}

/// <summary>
/// Takes hold of the process, checks once more that it holds the socket, is blocked on it and that the socket is as dead as
/// judged, and sends SIGTERM.
/// </summary>
/// <param name="connection">On whose account.</param>
/// <param name="owner">The worker and its descriptor.</param>
/// <param name="isRecycled">The socket has been destroyed: whether it lives is no question any more.</param>
public sealed class Terminate(TrackedConnection connection, Ownership owner, bool isRecycled) : Command<SignalOutcome>
{
    public TrackedConnection Connection { get; } = connection;

    public Ownership Owner { get; } = owner;

    public bool IsRecycled { get; } = isRecycled;
}

/// <summary>Whether a process that was terminated has exited.</summary>
/// <param name="process">Which; taken hold of by <see cref="Terminate"/>.</param>
public sealed class CheckExit(ProcessIdentity process) : Command<bool>
{
    public ProcessIdentity Process { get; } = process;
}

/// <summary>SIGKILL for a process that did not go on SIGTERM.</summary>
/// <param name="process">Which; taken hold of by <see cref="Terminate"/>.</param>
public sealed class Kill(ProcessIdentity process) : Command<SignalOutcome>
{
    public ProcessIdentity Process { get; } = process;
}

/// <summary>Lets go of a process that was terminated.</summary>
/// <param name="process">Which.</param>
public sealed class LetGo(ProcessIdentity process) : Command
{
    public ProcessIdentity Process { get; } = process;
}

/// <summary>Ends the back-end of a recycled connection, in the background; its end comes as an observation.</summary>
/// <param name="upstream">Whose server.</param>
/// <param name="claim">The connection.</param>
/// <param name="device">Interface that it was bound to, or 0.</param>
/// <param name="known">The back-end, where it was known before; another one in its place is not it.</param>
/// <param name="incident">The incident that tells of it.</param>
public sealed class ReleaseSession(string upstream, SessionClaim claim, uint device, ServerSession? known, string incident) : Command
{
    public string Upstream { get; } = upstream;

    public SessionClaim Claim { get; } = claim;

    public uint Device { get; } = device;

    public ServerSession? Known { get; } = known;

    public string Incident { get; } = incident;
}

/// <summary>How a release ended.</summary>
/// <param name="Incident">Id of the incident that tells of it.</param>
/// <param name="Outcome">As incidents name outcomes.</param>
/// <param name="WithheldBy">What withheld it, or null.</param>
/// <param name="Detail">Why, in words, or null.</param>
/// <param name="Session">The back-end that was ended, where one was.</param>
public sealed record ReleaseEnded(string Incident, string Outcome, Guardrail? WithheldBy, string? Detail, ServerSession? Session)
{
    /// <summary>What it was decided on; null where it did not come to a decision.</summary>
    public ReleaseCase? Orphan { get; init; }
}
