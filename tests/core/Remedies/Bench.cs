using System.Diagnostics;
using System.Net;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Recordings;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;

namespace Sidecar.CoreTests.Remedies;

/// <summary>A world and its engine in virtual time, over sockets and hands that do as the test says.</summary>
internal class Bench
{
    internal static readonly TimeSpan Short = TimeSpan.FromMilliseconds(100);

    internal static readonly TimeSpan IdleTimeout = TimeSpan.FromSeconds(60);

    internal static readonly WorkersSection Web = new() { Name = "web", Terminate = true, Executable = "uwsgi", Budget = new TerminationBudget(2, TimeSpan.FromHours(1)) };

    private readonly List<FakeSocket> _sockets = [];

    /// <summary>A bench with one upstream.</summary>
    /// <param name="mode">Whether anything is done.</param>
    /// <param name="with">Changes the upstream's section.</param>
    /// <param name="workers">The [workers:…] sections; null: <see cref="Web"/> alone.</param>
    internal Bench(AgentMode mode = AgentMode.Protect, Func<UpstreamSection, UpstreamSection>? with = null, IReadOnlyList<WorkersSection>? workers = null)
    {
        var section = new UpstreamSection
        {
            Name = "db",
            Endpoints = [new EndpointPattern("10.2.0.2:5432", null, new IPNetwork(IPAddress.Parse("10.2.0.2"), 32), 5432)],
            IdleTimeout = new IdleTimeoutSetting(IdleTimeoutSource.Declared, IdleTimeout),
            Keepalive = false,
        };
        World = NewWorld(new SidecarConfiguration { Agent = new AgentSection { Mode = mode }, Upstreams = [with?.Invoke(section) ?? section], Workers = workers ?? [Web], Files = [] });
        Engine = new RemedyEngine(World);
        Hands = new FakeHands(this);
    }

    internal World World { get; private set; }

    internal RemedyEngine Engine { get; private set; }

    internal FakeHands Hands { get; }

    internal TimeSpan Now { get; private set; } = TimeSpan.FromSeconds(10_000);

    /// <summary>How connect probes end, one tick after they began; null: they stay out.</summary>
    internal ConnectProbeOutcome? Path { get; set; } = ConnectProbeOutcome.Connected;

    /// <summary>How those from one local port end; the others end as <see cref="Path"/> says. Port 0 is as connect() takes it.</summary>
    internal Dictionary<int, ConnectProbeOutcome> PathFrom { get; } = [];

    internal bool ServerAnswers { get; set; }

    internal bool IsLate { get; set; }

    internal FakeSocket Of(TrackedConnection connection) => _sockets.Single(socket => socket.Cookie == connection.Cookie);

    internal TrackedConnection Connection(FakeSocket socket) => World.Connections.Find(1, socket.Cookie)!;

    /// <summary>A socket that was last used so long ago, held by a worker of its own.</summary>
    internal FakeSocket Open(double idle = 100, int holders = 1, int? pid = null, uint uid = 33, bool tick = true, WorkersSection? workers = null)
    {
        var socket = new FakeSocket(_sockets.Count + 1, Now - TimeSpan.FromSeconds(idle)) { Uid = uid };
        _sockets.Add(socket);
        var owner = new OwnerInfo(new ProcessIdentity(pid ?? 100 + _sockets.Count, 1), "uwsgi", "/usr/bin/uwsgi", null, uid, false, uid == 33 ? workers ?? Web : null);
        World.Owners.Add(owner);
        World.Owners.Found(socket.Inode, owner.Identity, 5, holders);
        if (tick)
        {
            Tick();
        }

        return socket;
    }

    internal virtual void Tick() => Tick(Short);

    /// <summary>One tick.</summary>
    /// <param name="after">Time since the last one.</param>
    internal void Tick(TimeSpan after)
    {
        Now += after;
        World.BeginTick(true, DateTimeOffset.UnixEpoch + Now);
        foreach (var socket in _sockets.Where(socket => !socket.IsClosed))
        {
            World.Saw(1, socket.Observe(Now), Now);
        }

        World.EndScan();
        foreach (var path in World.Paths.All.Where(path => path.IsProbing))
        {
            var port = Hands.All<ConnectProbe>().LastOrDefault(probe => probe.Path == path)?.LocalPort ?? 0;
            if (Path is { } usual)
            {
                var outcome = PathFrom.GetValueOrDefault(port, usual);
                var result = new ConnectProbeResult(outcome, 0, Stopwatch.Frequency / 1000, 0, null)
                {
                    AnswersWindowProbe = outcome == ConnectProbeOutcome.Connected ? true : null,
                    AnsweredAfter = ServerAnswers ? TimeSpan.FromMilliseconds(1) : null,
                    LocalPort = port == 0 ? 50_000 : port,
                };
                World.ConnectProbeEnded(path, result, Now);
                Engine.ConnectProbeEnded(path, Now);
            }
        }

        World.Judge();
        Hands.BeginTick();
        foreach (var command in Engine.Tick(IsLate, Now))
        {
            Hands.Carry(command);
        }
    }

    /// <summary>Another agent takes over with the same configuration.</summary>
    internal void Reload()
    {
        var earlier = World;
        World = NewWorld(earlier.Configuration);
        World.TakeOver(earlier);
        Engine = new RemedyEngine(World);
        foreach (var (process, socket) in earlier.Owners.Processes.Zip(_sockets))
        {
            World.Owners.Add(process);
            World.Owners.Found(socket.Inode, process.Identity, 5, earlier.Owners.Find(socket.Inode).Count);
        }
    }

    private static World NewWorld(SidecarConfiguration configuration) => new(configuration, 1, 4242, _ => false);

    internal void Run(double seconds)
    {
        for (var end = Now + TimeSpan.FromSeconds(seconds); Now < end;)
        {
            Tick();
        }
    }

    /// <summary>The worker sends into a connection that nobody answers on any more.</summary>
    internal void Forget(FakeSocket socket, double seconds = 10)
    {
        socket.Send(Now);
        Run(seconds);
    }
}

/// <summary>Carries commands out as scripted, and keeps them with the time.</summary>
internal sealed class FakeHands(Bench bench)
{
    // By commands of this tick.
    private TimeSpan _spent;

    internal List<(TimeSpan At, Command Command)> Log { get; } = [];

    internal RecycleOutcome Recycled { get; set; } = new(RecycleResult.Released, null, 7);

    internal WorkerState Worker { get; set; } = new(true, 8);

    internal BlockedOn Blocked { get; set; } = BlockedOn.Socket;

    internal bool? OtherProgress { get; set; } = false;

    internal SignalOutcome Signal { get; set; } = SignalOutcome.Sent;

    internal bool Exited { get; set; }

    internal TouchOutcome Touch { get; set; } = TouchOutcome.Done;

    internal ResumeOutcome Resumed { get; set; } = ResumeOutcome.Done;

    /// <summary>How long each takes.</summary>
    internal TimeSpan ResumingTakes { get; set; }
    /// <summary>The same for window probes alone, where that is not the same; null: as <see cref="Touch"/>.</summary>
    internal TouchOutcome? TouchByProbe { get; set; }

    /// <summary>How long one takes, the agent being held up before it acts.</summary>
    internal TimeSpan RecyclingTakes { get; set; }

    /// <summary>How long changing keepalive options takes.</summary>
    internal TimeSpan ChangeTakes { get; set; }

    internal KeepaliveOptions Options { get; set; } = new(false, TimeSpan.FromHours(2), TimeSpan.FromSeconds(75), 9, TimeSpan.Zero);

    internal IEnumerable<T> All<T>() => Log.Select(entry => entry.Command).OfType<T>();

    internal IEnumerable<string> Withheld => All<WithheldReport>().Select(report => $"{report.Remedy.ToName()} {report.Guardrail.ToName()}");

    internal IEnumerable<string> Ended => All<IncidentReport>().Where(report => report.Stage == IncidentStage.Ended).Select(report => $"{report.Incident.Remedy} {report.Incident.Outcome}");

    /// <summary>Whether anything was asked for that changes a socket or a process.</summary>
    internal bool Acted => Log.Any(entry => entry.Command is Recycle or Terminate or Kill or ChangeKeepalive or WindowProbe or Resume or ReleaseSession);

    /// <summary>A tick begins.</summary>
    internal void BeginTick() => _spent = TimeSpan.Zero;

    internal void Carry(Command command)
    {
        Log.Add((bench.Now, command));
        if (command is IncidentReport { Incident: { Recording: { } recording } incident } && (RecordingCheck.Of(recording) ?? Replay.Run(incident, recording).Difference) is { } wrong)
        {
            throw new InvalidOperationException($"whatever a test is about, what it decides a replay decides the same; of {incident.Remedy} it says: {wrong}");
        }

        switch (command)
        {
            case Recycle recycle:
                _spent += RecyclingTakes;
                var recycled = bench.Now + _spent > recycle.Until ? new RecycleOutcome(RecycleResult.Late, "the agent was held up", 7) : Recycled;
                if (recycled.Result == RecycleResult.Released)
                {
                    bench.Of(recycle.Connection).IsClosed = true;
                }

                recycle.Done(recycled, bench.Now + _spent);
                break;
            case WindowProbe probe:
                var touched = TouchByProbe ?? Touch;
                if (touched == TouchOutcome.Done)
                {
                    bench.Of(probe.Connection).WindowProbe(bench.Now);
                }

                probe.Done(touched, bench.Now);
                break;
            case Resume resume:
                if (Resumed == ResumeOutcome.Done)
                {
                    bench.Of(resume.Connection).Resume(bench.Now);
                }

                _spent += ResumingTakes;
                resume.Done(Resumed, bench.Now + _spent);
                break;
            case CheckWorker check:
                check.Done(Worker, bench.Now);
                break;
            case InspectWorker inspect:
                inspect.Done(new WorkerInspection(bench.World.Owners.Find(inspect.Connection.Last.Inode), Blocked, "", OtherProgress), bench.Now);
                break;
            case Terminate terminate:
                terminate.Done(Signal, bench.Now);
                break;
            case CheckExit exit:
                exit.Done(Exited, bench.Now);
                break;
            case Kill kill:
                kill.Done(SignalOutcome.Sent, bench.Now);
                break;
            case ChangeKeepalive change:
                var before = Options;
                var after = Touch == TouchOutcome.Done ? change.Decide(before) : null;
                Options = after ?? Options;
                if (Touch == TouchOutcome.Done && (after is not null || change.Force))
                {
                    bench.Of(change.Connection).KeepaliveChanged(bench.Now, Options);
                }

                _spent += ChangeTakes;
                change.Done(new KeepaliveOutcome(Touch, before, after), bench.Now + _spent);
                break;
        }
    }
}
