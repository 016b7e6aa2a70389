using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Shouldly;
using Sidecar.Agent.Action;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Agent.Observation;
using Sidecar.Probes.Processes;
using Sidecar.Probes.SockDiag;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.UnitTests.Remedies;

/// <summary>Each command carried out on a real worker with a real connection, and its outcome.</summary>
public sealed class KernelHandsTests : IDisposable
{
    private const int Descriptor = 7;

    private static readonly TimeSpan Enough = TimeSpan.FromSeconds(30);

    private readonly ProcessReader _processes = new();
    private readonly NamespaceTable _namespaces;
    private readonly Inbox _inbox = new();
    private readonly SessionTable _sessions;
    private readonly List<Report> _reports = [];
    private readonly Socket _listener = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
    private readonly List<Socket> _accepted = [];
    private readonly KernelHands _hands;
    private readonly World _world;
    private readonly RemedyEngine _engine;
    private readonly Clock _clock = new(TimeProvider.System);
    private Process? _child;

    public KernelHandsTests()
    {
        Root.Needed("other processes' sockets are touched");
        _namespaces = new NamespaceTable(_processes);
        _listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        _listener.Listen(8);
        var section = new UpstreamSection
        {
            Name = "db",
            Endpoints = [new EndpointPattern("127.0.0.1", null, new IPNetwork(IPAddress.Loopback, 32), Port)],
        };
        var configuration = new SidecarConfiguration { Agent = new AgentSection(), Upstreams = [section], Workers = [], Files = [] };
        _sessions = new SessionTable(configuration, _clock);
        _hands = new KernelHands(_processes, _namespaces, _inbox, _sessions, _reports.Add, _clock);
        _world = new World(configuration, _namespaces.Own.Inode, 1, _ => false);
        _engine = new RemedyEngine(_world);
    }

    private TimeSpan Now => _clock.Now;

    private int Port => ((IPEndPoint)_listener.LocalEndPoint!).Port;

    public void Dispose()
    {
        _hands.Dispose();
        if (_child is { } child)
        {
            child.Kill(entireProcessTree: true);
            child.WaitForExit();
            child.Dispose();
        }

        _accepted.ForEach(socket => socket.Dispose());
        _listener.Dispose();
        _sessions.Dispose();
        _inbox.Dispose();
        _namespaces.Dispose();
    }

    [Fact]
    public void A_window_probe_reaches_the_peer_and_its_answer_is_seen()
    {
        var (connection, owner) = Worker("s.recv(1)");
        var before = connection.Last.Info;
        Carry(new WindowProbe(connection, owner)).ShouldBe(TouchOutcome.Done);
        SpinWait.SpinUntil(() => Scan().Last.Info.SegmentsIn == before.SegmentsIn + 1, Enough).ShouldBeTrue();
    }

    [Theory]
    [InlineData("descriptor")]
    [InlineData("start time")]
    public void What_is_no_longer_as_it_was_seen_is_gone_and_nothing_is_changed(string what)
    {
        var (connection, owner) = Worker("s.recv(1)");
        owner = what == "descriptor"
            ? owner with { Descriptor = 8 }
            : owner with { First = owner.First! with { Identity = owner.First.Identity with { StartTicks = owner.First.Identity.StartTicks + 1 } } };
        Carry(new WindowProbe(connection, owner)).ShouldBe(TouchOutcome.Gone);
        var change = Carry(new ChangeKeepalive(connection, owner, present => present with { Enabled = true }));
        (change.Result, change.After).ShouldBe((TouchOutcome.Gone, null));
        Carry(new Terminate(connection, owner, isRecycled: true)).ShouldBe(SignalOutcome.Gone);
        Scan().Last.Info.SegmentsOut.ShouldBe(connection.Last.Info.SegmentsOut);
        _child!.HasExited.ShouldBeFalse();
    }

    [Fact]
    public void Without_the_capability_it_is_not_permitted()
    {
        var (connection, owner) = Worker("s.recv(1)");
        CapabilityThread.Without(() => Carry(new WindowProbe(connection, owner)), Capability.NetAdmin).ShouldBe(TouchOutcome.NotPermitted);
    }

    [Fact]
    public void Keepalive_options_are_read_decided_upon_and_set_in_one_step()
    {
        var (connection, owner) = Worker("s.recv(1)");
        KeepaliveOptions seen = default;
        var outcome = Carry(new ChangeKeepalive(connection, owner, present => (seen = present) with { Enabled = true, Idle = TimeSpan.FromSeconds(40) }));
        (outcome.Result, outcome.Before, outcome.Before.Enabled).ShouldBe((TouchOutcome.Done, seen, false));
        outcome.After.ShouldBe(seen with { Enabled = true, Idle = TimeSpan.FromSeconds(40) });
        Scan().KeepaliveAt(Now).ShouldNotBeNull().ShouldBeInRange(TimeSpan.FromSeconds(35), TimeSpan.FromSeconds(41));

        var left = Carry(new ChangeKeepalive(connection, owner, _ => null));
        (left.Result, left.Before, left.After).ShouldBe((TouchOutcome.Done, outcome.After!.Value, null));
    }

    [Fact]
    public void A_connection_as_it_was_judged_is_destroyed_and_its_owners_call_returns()
    {
        var (connection, owner) = Worker("try: s.recv(1)\nexcept ConnectionAbortedError: print('aborted', flush=True)\ntime.sleep(300)");
        var outcome = Carry(new Recycle(connection, owner.First, TimeSpan.MaxValue));
        outcome.Result.ShouldBe(RecycleResult.Released);
        outcome.SwitchesBefore.ShouldNotBeNull().ShouldBeGreaterThan(0);
        _child!.StandardOutput.ReadLine().ShouldBe("aborted");
        Carry(new CheckWorker(owner.First!)).ShouldSatisfyAllConditions(
            state => state.IsAlive.ShouldBeTrue(), state => state.Switches.ShouldNotBeNull().ShouldBeGreaterThan(outcome.SwitchesBefore!.Value));
        Carry(new Recycle(connection, owner.First, TimeSpan.MaxValue)).Result.ShouldBe(RecycleResult.Vanished);
    }

    [Fact]
    public void One_that_has_moved_since_has_recovered()
    {
        var (connection, owner) = Worker("s.recv(1); time.sleep(300)");
        _accepted[0].Send("x"u8);
        Carry(new Recycle(connection, owner.First, TimeSpan.MaxValue)).Result.ShouldBe(RecycleResult.Recovered);
    }

    [Fact]
    public void What_the_agent_was_held_up_for_is_not_done_any_more()
    {
        var (connection, owner) = Worker("s.recv(1); time.sleep(300)");
        Carry(new Recycle(connection, owner.First, TimeSpan.Zero)).Result.ShouldBe(RecycleResult.Late);
        Scan().Last.State.ShouldBe(TcpState.Established);
    }

    [Fact]
    public void One_in_a_namespace_that_is_gone_is_not_closed()
    {
        var (connection, owner) = Worker("s.recv(1)");
        var elsewhere = new PathTable().Track(connection.Key, _world.Upstreams[0], 12345, 0, Now);
        Carry(new Recycle(elsewhere, owner.First, TimeSpan.MaxValue)).ShouldSatisfyAllConditions(
            outcome => outcome.Result.ShouldBe(RecycleResult.Failed), outcome => outcome.Detail.ShouldNotBeNull().ShouldContain("namespace"));
        Carry(new Terminate(elsewhere, owner, isRecycled: false)).ShouldBe(SignalOutcome.Gone);
        _child!.HasExited.ShouldBeFalse();
    }

    [Fact]
    public void Without_the_capability_closing_is_refused_and_the_reason_given()
    {
        var (connection, owner) = Worker("s.recv(1)");
        var outcome = CapabilityThread.Without(() => Carry(new Recycle(connection, owner.First, TimeSpan.MaxValue)), Capability.NetAdmin);
        outcome.Result.ShouldBe(RecycleResult.Refused);
        outcome.Detail.ShouldNotBeNull().ShouldContain("CAP_NET_ADMIN");
    }

    [Fact]
    public void An_inspection_finds_the_one_holder_and_that_it_is_blocked_on_the_socket()
    {
        var (connection, owner) = Worker("s.recv(1)");
        var found = Await(connection, inspection => inspection.Blocked == BlockedOn.Socket);
        (found.Ownership.IsSole, found.Ownership.First!.Identity, found.OtherProgress).ShouldBe((true, owner.First!.Identity, false));
    }

    [Fact]
    public void It_finds_a_second_holder_after_a_fork()
    {
        var (connection, _) = Worker("os.fork() == 0 and time.sleep(300); s.recv(1)");
        Await(connection, inspection => inspection.Ownership.Count == 2).Ownership.IsSole.ShouldBeFalse();
    }

    [Fact]
    public void A_worker_that_waits_elsewhere_is_not_blocked_on_the_socket()
    {
        var (connection, owner) = Worker("time.sleep(300)");
        Await(connection, inspection => inspection.Blocked == BlockedOn.Other);
        Carry(new Terminate(connection, owner, isRecycled: true)).ShouldBe(SignalOutcome.Gone, "that is checked once more before the signal");
        _child!.HasExited.ShouldBeFalse();
    }

    [Fact]
    public void Use_of_another_connection_since_the_stall_is_progress()
    {
        var (connection, _) = Worker("threading.Thread(target=lambda: [(other.send(b'x'), time.sleep(0.05)) for _ in range(5000)]).start(); s.recv(1)");
        SpinWait.SpinUntil(() => Carry(new InspectWorker(connection, TimeSpan.FromSeconds(5), _world.Owners)).OtherProgress == true, Enough).ShouldBeTrue();
    }

    [Fact]
    public void A_socket_that_nobody_holds_any_more_is_unknown()
    {
        var (connection, _) = Worker("s.recv(1)");
        _child!.Kill();
        _child.WaitForExit();
        var inspect = new InspectWorker(connection, TimeSpan.FromSeconds(5), _world.Owners);
        _hands.Carry(inspect);
        (inspect.Outcome.Blocked, inspect.Outcome.Ownership.First, inspect.Outcome.OtherProgress).ShouldBe((BlockedOn.Unknown, null, null));
    }

    [Fact]
    public void A_worker_that_is_blocked_on_its_dead_connection_is_ended_and_let_go()
    {
        var (connection, owner) = Worker("s.recv(1)");
        Await(connection, inspection => inspection.Blocked == BlockedOn.Socket);
        Carry(new Terminate(connection, owner, isRecycled: false)).ShouldBe(SignalOutcome.Sent);
        var process = owner.First!.Identity;
        SpinWait.SpinUntil(() => Carry(new CheckExit(process)), Enough).ShouldBeTrue();
        _child!.WaitForExit();
        _child.ExitCode.ShouldBe(128 + 15);
        _hands.Carry(new LetGo(process));
        Carry(new Kill(process)).ShouldBe(SignalOutcome.Gone);
        Carry(new CheckWorker(owner.First)).IsAlive.ShouldBeFalse();
    }

    [Fact]
    public void One_that_ignores_SIGTERM_is_killed()
    {
        var (connection, owner) = Worker("s.recv(1)", before: "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)");
        Await(connection, inspection => inspection.Blocked == BlockedOn.Socket);
        Carry(new Terminate(connection, owner, isRecycled: false)).ShouldBe(SignalOutcome.Sent);
        Carry(new CheckExit(owner.First!.Identity)).ShouldBeFalse();
        Carry(new Kill(owner.First.Identity)).ShouldBe(SignalOutcome.Sent);
        SpinWait.SpinUntil(() => Carry(new CheckExit(owner.First.Identity)), Enough).ShouldBeTrue();
    }

    [Fact]
    public void A_worker_whose_connection_lives_after_all_is_not_ended()
    {
        var (connection, owner) = Worker("s.recv(1); s.recv(1)");
        Await(connection, inspection => inspection.Blocked == BlockedOn.Socket);
        _accepted[0].Send("x"u8);
        SpinWait.SpinUntil(() => Inspect(connection).Blocked == BlockedOn.Socket, Enough).ShouldBeTrue();
        Carry(new Terminate(connection, owner, isRecycled: false)).ShouldBe(SignalOutcome.Gone);
        _child!.HasExited.ShouldBeFalse();
    }

    [Fact]
    public void A_process_that_was_never_terminated_is_not_killed()
    {
        var (_, owner) = Worker("s.recv(1)");
        Carry(new Kill(owner.First!.Identity)).ShouldBe(SignalOutcome.Gone);
        _child!.HasExited.ShouldBeFalse();
    }

    [Fact]
    public void A_connect_probe_ends_in_the_inbox_and_wakes_the_loop()
    {
        var (connection, _) = Worker("s.recv(1)");
        var path = connection.Path;
        path.ProbeBegan(Now);
        _hands.Carry(new ConnectProbe(path, TimeSpan.FromSeconds(5), 0));
        _inbox.Wait(Enough).ShouldBeTrue();
        _inbox.Empty(_world, _engine, Now);
        path.IsProbing.ShouldBeFalse();
        path.Last.ShouldNotBeNull().Up.ShouldBe(true);
    }

    [Fact]
    public void A_connect_probe_from_a_namespace_that_is_gone_is_given_up()
    {
        var path = new PathTracker(new PathKey(12345, 1, new TcpEndPoint(2, 5432)), _world.Upstreams[0]);
        path.ProbeBegan(Now);
        _hands.Carry(new ConnectProbe(path, TimeSpan.FromSeconds(5), 0));
        _inbox.Wait(Enough).ShouldBeTrue();
        _inbox.Empty(_world, _engine, Now);
        (path.IsProbing, path.Last).ShouldBe((false, null));
    }

    [Fact]
    public void What_is_to_be_told_goes_to_the_reporter()
    {
        var told = new WithheldReport("db", Remedy.Recycle, Guardrail.LateTick);
        _hands.Carry(told);
        _reports.ShouldBe([told]);
    }

    [Fact]
    public void A_release_that_no_session_can_be_asked_for_ends_as_failed()
    {
        var (connection, _) = Worker("s.recv(1)");
        _hands.Carry(new ReleaseSession("db", SessionClaim.Of(connection, _namespaces.Own.Inode, null), 0, null, "incident"));
        _inbox.Wait(Enough).ShouldBeTrue();
    }

    /// <summary>A worker whose descriptor 7 is the connection in question, and 8 another one.</summary>
    private (TrackedConnection Connection, Ownership Owner) Worker(string waits, string before = "pass")
    {
        var script = $$"""
            import os, socket, threading, time
            def connect(place):
                c = socket.create_connection(("127.0.0.1", {{Port}}))
                os.dup2(c.fileno(), place)
                return socket.socket(fileno=place)
            s, other = connect(7), connect(8)
            {{before}}
            print("ready", flush=True)
            {{waits}}
            """;
        _child = Process.Start(new ProcessStartInfo("/usr/bin/python3", ["-c", script]) { UseShellExecute = false, RedirectStandardOutput = true })!;
        _accepted.Add(_listener.Accept());
        _accepted.Add(_listener.Accept());
        _child.StandardOutput.ReadLine().ShouldBe("ready");
        _processes.TryReadStat(_child.Id, out var stat).ShouldBeTrue();
        return (Scan(), new Ownership(OwnerReader.Read(_processes, stat.Identity), Descriptor, 1));
    }

    /// <summary>The worker's connection as it is now.</summary>
    private TrackedConnection Scan()
    {
        var port = ((IPEndPoint)_accepted[0].RemoteEndPoint!).Port;
        _world.BeginTick(true, DateTimeOffset.UnixEpoch);
        _namespaces.Own.Diagnostics.Dump(SockDiagClient.StatesOfConnections, [], withInfo: true, (in SocketObservation socket) =>
        {
            if (socket.Local.Port == port && socket.Peer.Port == Port)
            {
                _world.Saw(_namespaces.Own.Inode, socket, Now);
            }
        });
        _world.EndScan();
        return _world.Connections.All.Single();
    }

    private T Carry<T>(Command<T> command)
    {
        _hands.Carry(command);
        _hands.EndTick();
        return command.Outcome;
    }

    private WorkerInspection Inspect(TrackedConnection connection) => Carry(new InspectWorker(connection, TimeSpan.Zero, _world.Owners));

    private WorkerInspection Await(TrackedConnection connection, Func<WorkerInspection, bool> condition)
    {
        WorkerInspection found = default;
        SpinWait.SpinUntil(() => condition(found = Inspect(connection)), Enough).ShouldBeTrue($"{found}");
        return found;
    }
}
