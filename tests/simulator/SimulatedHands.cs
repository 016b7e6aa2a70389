using Sidecar.Agent.Core;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;
using CoreReport = Sidecar.Agent.Core.Remedies.Report;

namespace Sidecar.Simulator;

/// <summary>The agent's hands among simulated sockets and processes. They translate; what an act does stands with what it is done to.</summary>
internal sealed class SimulatedHands(World world, Func<TimeSpan> now, Action<PathTracker, ConnectProbeResult, int, TimeSpan> probed) : IHands
{
    public void Carry(Command command)
    {
        switch (command)
        {
            case CoreReport told:
                world.Referee.Note(told, now());
                break;
            case ConnectProbe probe:
                world.Paths[PathIndex(probe.Path)].Probe(probe.LocalPort, probe.Timeout, now(), (result, generation, at) => probed(probe.Path, result, generation, at));
                break;
            case WindowProbe probe:
                probe.Done(Open(probe.Connection)?.WindowProbe(now()) ?? TouchOutcome.Gone, now());
                break;
            case Resume resume:
                resume.Done(Open(resume.Connection)?.Resume(now()) ?? ResumeOutcome.Gone, now());
                break;
            case ChangeKeepalive change:
                change.Done(Open(change.Connection)?.ChangeKeepalive(change.Decide, change.Force, now()) ?? new KeepaliveOutcome(TouchOutcome.Gone, default, null), now());
                break;
            case Recycle recycle:
                recycle.Done(world.Of(recycle.Connection).Destroy(recycle), now());
                break;
            case CheckWorker check:
                var worker = Find(check.Owner.Identity);
                check.Done(new WorkerState(worker is { Alive: true }, worker?.Switches), now());
                break;
            case InspectWorker inspect:
                inspect.Done(world.Of(inspect.Connection).Thread.Process.Inspect(world.Of(inspect.Connection), inspect.Stall, now()), now());
                break;
            case Terminate terminate:
                terminate.Done(Find(terminate.Owner.First!.Identity)?.Terminate(terminate, world.Of(terminate.Connection), now()) ?? SignalOutcome.Gone, now());
                break;
            case CheckExit exit:
                exit.Done(Find(exit.Process) is not { Alive: true }, now());
                break;
            case Kill kill:
                Find(kill.Process)?.Exit(now());
                kill.Done(SignalOutcome.Sent, now());
                break;
            case LetGo:
                break;
            default:
                throw new NotSupportedException($"no hand for {command.GetType().Name}");
        }
    }

    private static int PathIndex(PathTracker path) => int.Parse(path.Upstream.Name.AsSpan(2), System.Globalization.CultureInfo.InvariantCulture);

    private SimulatedConnection? Open(TrackedConnection tracked) => world.Of(tracked) is { Ended: null } open ? open : null;

    private SimulatedProcess? Find(ProcessIdentity identity) => world.Processes.Find(process => process.Identity == identity);
}
