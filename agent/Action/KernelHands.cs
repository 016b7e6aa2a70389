using Sidecar.Agent.Core;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Agent.Observation;
using Sidecar.Probes;
using Sidecar.Probes.Paths;
using Sidecar.Probes.Processes;
using Sidecar.Probes.Sockets;
using Sidecar.Probes.Values;
using ConnectProbe = Sidecar.Agent.Core.Remedies.ConnectProbe;
using WindowProbe = Sidecar.Agent.Core.Remedies.WindowProbe;

namespace Sidecar.Agent.Action;

/// <summary>
/// The hands: carry out one command after another on the loop's thread. "Check once more, then act" happens here, between two
/// system calls. What takes longer goes to the background and comes back through the inbox. Reports go to the reporter.
/// </summary>
/// <param name="processes">Reads /proc.</param>
/// <param name="namespaces">The network namespaces.</param>
/// <param name="inbox">Where the ends of background work go.</param>
/// <param name="sessions">Sessions on database servers.</param>
/// <param name="report">Takes what is to be told.</param>
/// <param name="clock">The agent's.</param>
internal sealed class KernelHands(
    ProcessReader processes, NamespaceTable namespaces, Inbox inbox, SessionTable sessions, Action<Report> report, Clock clock) : IHands, IDisposable
{
    /// <summary>For the owners of a socket whose worker is about to be ended.</summary>
    private static readonly TimeSpan LongestSearch = TimeSpan.FromMilliseconds(250);

    private readonly Dictionary<ProcessIdentity, ProcessHandle> _terminating = [];
    private readonly SocketOwners _search = new(processes);
    private readonly ProcessOrder _order = new(processes, workers: null);
    private readonly SessionEnder _ender = new(sessions, inbox, clock);
    private readonly CancellationTokenSource _stopping = new();

    // What makes stalled connections retransmit, for each network namespace; while it is there every packet costs a little more.
    private readonly Dictionary<ulong, ResumeStalled> _resuming = [];

    // The process whose sockets are being touched: connections of one process follow one another.
    private ProcessHandle? _process;

    public void Carry(Command command)
    {
        switch (command)
        {
            case Report told:
                report(told);
                break;
            case ChangeKeepalive change:
                change.Done(Change(change), clock.Now);
                break;
            case WindowProbe probe:
                probe.Done(Probe(probe), clock.Now);
                break;
            case Resume resume:
                resume.Done(Retransmit(resume), clock.Now);
                break;
            case ConnectProbe probe:
                _ = ProbeAsync(probe);
                break;
            case Recycle recycle:
                recycle.Done(Destroy(recycle), clock.Now);
                break;
            case CheckWorker check:
                check.Done(new WorkerState(processes.IsAlive(check.Owner.Identity), processes.ReadContextSwitches(check.Owner.Identity.Pid)), clock.Now);
                break;
            case InspectWorker inspect:
                inspect.Done(Inspect(inspect), clock.Now);
                break;
            case Terminate terminate:
                terminate.Done(Signal(terminate), clock.Now);
                break;
            case CheckExit check:
                check.Done(!_terminating.TryGetValue(check.Process, out var ended) || ended.HasExited, clock.Now);
                break;
            case Kill kill:
                kill.Done(_terminating.TryGetValue(kill.Process, out var worker) ? Of(worker.Kill()) : SignalOutcome.Gone, clock.Now);
                break;
            case LetGo done:
                if (_terminating.Remove(done.Process, out var handle))
                {
                    handle.Dispose();
                }

                break;
            case ReleaseSession release:
                _ender.Begin(release);
                break;
            default:
                throw new ArgumentOutOfRangeException(nameof(command), command, "no such command");
        }
    }

    /// <summary>No process is held on to between ticks, and no packet is looked at.</summary>
    public void EndTick()
    {
        _process?.Dispose();
        _process = null;
        foreach (var resuming in _resuming.Values)
        {
            resuming.Dispose();
        }

        _resuming.Clear();
    }

    public void Dispose()
    {
        EndTick();
        _stopping.Cancel();
        _stopping.Dispose();
        foreach (var worker in _terminating.Values)
        {
            worker.Dispose();
        }
    }

    private KeepaliveOutcome Change(ChangeKeepalive change)
    {
        if (Open(change.Owner) is not { } process)
        {
            return new KeepaliveOutcome(TouchOutcome.Gone, default, null);
        }

        var result = ForeignSocket.TryChange(process, change.Owner.Descriptor, change.Connection.Cookie, change.Decide, out var before, out var after, change.Force);
        return new KeepaliveOutcome(Of(result), before, after);
    }

    private TouchOutcome Probe(WindowProbe probe) => Open(probe.Owner) is { } process
        ? Of(Sidecar.Probes.Sockets.WindowProbe.TrySend(process, probe.Owner.Descriptor, probe.Connection.Cookie))
        : TouchOutcome.Gone;

    private ResumeOutcome Retransmit(Resume resume)
    {
        var connection = resume.Connection;
        if (Open(resume.Owner) is not { } process || namespaces.Find(connection.NamespaceInode) is not { } network)
        {
            return ResumeOutcome.Gone;
        }

        if (!_resuming.TryGetValue(connection.NamespaceInode, out var resuming))
        {
            _resuming[connection.NamespaceInode] = resuming = new ResumeStalled(network);
        }

        return resuming.TryResume(process, resume.Owner.Descriptor, connection.Key) switch
        {
            ResumeResult.Sent => ResumeOutcome.Done,
            ResumeResult.LeftAlone => ResumeOutcome.LeftAlone,
            ResumeResult.NotSeen => ResumeOutcome.NotSeen,
            ResumeResult.NotPermitted => ResumeOutcome.NotPermitted,
            ResumeResult.Gone => ResumeOutcome.Gone,
            _ => ResumeOutcome.Failed,
        };
    }

    private ProcessHandle? Open(in Ownership owner)
    {
        if (_process?.Identity != owner.First!.Identity)
        {
            _process?.Dispose();
            _process = ProcessHandle.TryOpen(owner.First.Identity, processes, out _);
        }

        return _process;
    }

    private async Task ProbeAsync(ConnectProbe command)
    {
        var path = command.Path;
        ConnectProbeResult? result = null;
        try
        {
            if (namespaces.Find(path.Key.NamespaceInode) is { } network)
            {
                var source = new TcpEndPoint(path.Key.Source, 0).ToIPAddress();
                var destination = path.Key.Destination.ToEndPoint();
                var stopping = _stopping.Token;
                result = await Task.Run(() => Sidecar.Probes.Paths.ConnectProbe.TryAsync(network, source, destination, Of(path.Upstream.Section.Protocol), command.Timeout, stopping, command.TestsWindowProbe, command.LocalPort), stopping).ConfigureAwait(false);
            }
        }
        catch (Exception e) when (e is OperationCanceledException or ObjectDisposedException)
        {
            // the agent ends
        }
        finally
        {
            inbox.ConnectProbeEnded(path, result);
        }
    }

    private RecycleOutcome Destroy(Recycle recycle)
    {
        var connection = recycle.Connection;
        if (namespaces.Find(connection.NamespaceInode) is not { } network)
        {
            return new RecycleOutcome(RecycleResult.Failed, "its network namespace is gone", null);
        }

        var switches = recycle.Owner is { } owner ? processes.ReadContextSwitches(owner.Identity.Pid) : null;
        if (clock.Now > recycle.Until)
        {
            return new RecycleOutcome(RecycleResult.Late, "the agent was held up since the path was proven up", switches);
        }

        var (result, detail) = Recycler.Recycle(connection, network);
        return new RecycleOutcome(result, detail, switches);
    }

    private WorkerInspection Inspect(InspectWorker command)
    {
        var connection = command.Connection;
        var inode = connection.Last.Inode;
        // Whoever holds millions of descriptors does not hold up the others: what is found in this time counts.
        _search.Continue(_search.Begin([inode], _order.All(command.Owners.Processes.Select(process => process.Identity.Pid))), LongestSearch);
        if (!_search.TryFind(inode, out var first, out var count))
        {
            return new WorkerInspection(default, BlockedOn.Unknown, "no process is seen to hold the socket", null);
        }

        _search.Forget(inode);
        if (OwnerReader.Read(processes, first.Process) is not { } owner)
        {
            return new WorkerInspection(default, BlockedOn.Unknown, "its owner has ended", null);
        }

        // Whether a section names it was decided when it was first seen.
        var known = command.Owners.Process(first.Process) ?? owner;
        var blocked = BlockedThreads.Inspect(processes, first.Process, first.Descriptor, inode);
        var progress = namespaces.Find(connection.NamespaceInode) is { } network
            ? ProgressProbe.MovedSince(command.Stall, first.Process.Pid, inode, network, processes)
            : null;
        return new WorkerInspection(new Ownership(known, first.Descriptor, count), Of(blocked.Verdict), blocked.Reason, progress);
    }

    private SignalOutcome Signal(Terminate command)
    {
        var (owner, descriptor, _) = command.Owner;
        var inode = command.Connection.Last.Inode;
        var worker = ProcessHandle.TryOpen(owner!.Identity, processes, out var failure);
        if (worker is null)
        {
            return Of(failure);
        }

        // With the process in hand everything that was judged is checked once more.
        if (!IsStillStuck(command) || BlockedThreads.Inspect(processes, owner.Identity, descriptor, inode).Verdict != BlockedVerdict.OnSocket)
        {
            worker.Dispose();
            return SignalOutcome.Gone;
        }

        var outcome = Of(worker.Terminate());
        if (outcome == SignalOutcome.Sent)
        {
            _terminating[owner.Identity] = worker;
        }
        else
        {
            worker.Dispose();
        }

        return outcome;
    }

    private bool IsStillStuck(Terminate command)
    {
        if (command.IsRecycled)
        {
            return true;
        }

        try
        {
            return namespaces.Find(command.Connection.NamespaceInode) is { } network
                && network.Diagnostics.TryGet(command.Connection.Key, out var present)
                && Recycle.IsAsJudged(command.Connection.Last, present);
        }
        catch (KernelException)
        {
            return false;
        }
    }

    private static ConnectProbeProtocol Of(UpstreamProtocol protocol) => protocol switch
    {
        UpstreamProtocol.PostgreSql => ConnectProbeProtocol.PostgreSql,
        UpstreamProtocol.MySql => ConnectProbeProtocol.MySql,
        UpstreamProtocol.Redis => ConnectProbeProtocol.Redis,
        UpstreamProtocol.Http => ConnectProbeProtocol.Http,
        UpstreamProtocol.Tls => ConnectProbeProtocol.Tls,
        _ => ConnectProbeProtocol.Tcp,
    };

    private static BlockedOn Of(BlockedVerdict verdict) => verdict switch
    {
        BlockedVerdict.OnSocket => BlockedOn.Socket,
        BlockedVerdict.NotBlocked => BlockedOn.Other,
        BlockedVerdict.Stopped => BlockedOn.Stopped,
        _ => BlockedOn.Unknown,
    };

    private static TouchOutcome Of(TouchResult result) => result switch
    {
        TouchResult.Done => TouchOutcome.Done,
        TouchResult.Gone => TouchOutcome.Gone,
        TouchResult.NotPermitted => TouchOutcome.NotPermitted,
        TouchResult.NotSupported => TouchOutcome.NotSupported,
        _ => TouchOutcome.Failed,
    };

    private static SignalOutcome Of(HandleFailure failure) => failure switch
    {
        HandleFailure.None => SignalOutcome.Sent,
        HandleFailure.Gone => SignalOutcome.Gone,
        HandleFailure.NotPermitted => SignalOutcome.NotPermitted,
        _ => SignalOutcome.Failed,
    };
}
