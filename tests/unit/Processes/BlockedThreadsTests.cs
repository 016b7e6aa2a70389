using System.Buffers.Binary;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Shouldly;
using Sidecar.Probes.Processes;
using Sidecar.Probes.Values;
using Sidecar.UnitTests.Paths;
using Xunit;

namespace Sidecar.UnitTests.Processes;

/// <summary>Small real processes that wait in every way a worker can; <c>s</c> is their connection, <c>other</c> another one.</summary>
public sealed class BlockedThreadsTests : IDisposable
{
    private const string Python = "/usr/bin/python3";

    private static readonly TimeSpan Enough = TimeSpan.FromSeconds(30);

    private readonly ProcessReader _processes = new();
    private readonly Socket _listener = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
    private readonly List<Socket> _accepted = [];
    private readonly List<string> _groups = [];
    private Process? _child;

    public BlockedThreadsTests()
    {
        Root.Needed("/proc/PID/syscall of another user's process needs CAP_SYS_PTRACE");
        _listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        _listener.Listen(8);
    }

    public void Dispose()
    {
        foreach (var group in _groups)
        {
            File.WriteAllText(Path.Combine(group, File.Exists(group + "/cgroup.freeze") ? "cgroup.freeze" : "freezer.state"), File.Exists(group + "/cgroup.freeze") ? "0" : "THAWED");
        }

        _child?.Kill();
        _child?.WaitForExit();
        _child?.Dispose();
        foreach (var group in _groups)
        {
            SpinWait.SpinUntil(() => File.ReadAllText(group + "/cgroup.procs").Length == 0, Enough).ShouldBeTrue();
            Directory.Delete(group);
        }

        _accepted.ForEach(socket => socket.Dispose());
        _listener.Dispose();
    }

    [Theory]
    [InlineData("s.recv(1)", "recvfrom")]
    [InlineData("os.read(s.fileno(), 1)", "read")]
    [InlineData("os.readv(s.fileno(), [bytearray(1)])", "readv")]
    [InlineData("s.recvmsg(1)", "recvmsg")]
    [InlineData("s.sendall(bytes(100_000_000))", "sendto")]
    [InlineData("os.writev(s.fileno(), [bytes(100_000_000)])", "writev")]
    [InlineData("p = select.poll(); p.register(s, select.POLLIN); p.poll()", "poll")]
    [InlineData("p = select.poll(); p.register(s, select.POLLIN); p.register(other, 0); p.poll(100_000)", "poll")]
    [InlineData("select.select([s], [], [])", "select")]
    [InlineData("fill(s); select.select([s], [s], [s], 100)", "select")]
    public void A_wait_for_the_socket_alone_is_proven(string wait, string call)
    {
        Start(wait);

        // The C library chooses between poll and ppoll, select and pselect6.
        var found = Await(BlockedVerdict.OnSocket, call);
        found.Reason.ShouldStartWith($"thread {_child!.Id} waits in ");
        found.Reason.ShouldEndWith(" on descriptor 7");
        (found.Threads, found.ThreadsOnSocket).ShouldBe((1, 1));
    }

    [Theory]
    [InlineData("l = socket.socket(); l.listen(); l.accept()", "accept")]
    [InlineData("p = select.epoll(); p.register(s, select.EPOLLIN); p.poll()", "epoll_")]
    [InlineData("time.sleep(100)", "nanosleep")]
    [InlineData("other.recv(1)", "recvfrom on descriptor 8")]
    [InlineData("p = select.poll(); p.register(s, select.POLLIN); p.register(other, select.POLLIN); p.poll()", "on descriptor")]
    [InlineData("p = select.poll(); p.register(s, 0); p.poll()", "on no descriptor")]
    [InlineData("select.select([s, other], [], [])", "on descriptor")]
    [InlineData("select.select([s], [], [other])", "on descriptor")]
    [InlineData("r, w = os.pipe(); os.read(r, 1)", "read on descriptor")]
    [InlineData("l = threading.Lock(); l.acquire(); l.acquire()", "futex")]
    [InlineData("while True: pass", "runs")]
    public void Any_other_wait_and_none_at_all_are_not(string wait, string reason)
    {
        Start(wait);
        Await(BlockedVerdict.NotBlocked, reason).ThreadsOnSocket.ShouldBe(0);
    }

    [Fact]
    public void A_duplicate_of_the_descriptor_is_the_same_socket()
    {
        Start("d = os.dup(s.fileno()); os.read(d, 1)");
        Await(BlockedVerdict.OnSocket, "read on descriptor");
        Inspect(7).Reason.ShouldNotContain("descriptor 7");
    }

    [Fact]
    public void Every_thread_is_read_and_those_that_run_are_counted()
    {
        Start("threading.Thread(target=lambda: s.recv(1)).start()\nwhile True: pass");
        Await(BlockedVerdict.OnSocket, "recvfrom on descriptor 7", found => found is { Threads: 2, ThreadsOnSocket: 1, ThreadsRunning: 1 });
    }

    [Fact]
    public void Threads_that_wait_elsewhere_do_not_hide_one_that_waits_here()
    {
        Start("[threading.Thread(target=lambda: time.sleep(100)).start() for _ in range(5)]; s.recv(1)");
        Await(BlockedVerdict.OnSocket, "recvfrom on descriptor 7", found => found is { Threads: 6, ThreadsOnSocket: 1, ThreadsRunning: 0 });
    }

    [Fact]
    public void A_stopped_process_is_stopped_and_blocked_again_once_continued()
    {
        Start("s.recv(1)");
        Await(BlockedVerdict.OnSocket, "recvfrom");
        Signal("STOP");
        Await(BlockedVerdict.Stopped, "is stopped");
        Signal("CONT");
        Await(BlockedVerdict.OnSocket, "recvfrom");
    }

    [Fact]
    public void A_traced_process_is_stopped_even_while_its_tracer_lets_it_run()
    {
        Start("s.recv(1)");
        Await(BlockedVerdict.OnSocket, "recvfrom");
        const string seize = "import ctypes,sys; c=ctypes.CDLL(None); c.ptrace.argtypes=[ctypes.c_long]*4; assert c.ptrace(0x4206, int(sys.argv[1]), 0, 0) == 0; print('ready', flush=True); sys.stdin.read()";
        using var tracer = Process.Start(new ProcessStartInfo(Python, ["-c", seize, _child!.Id.ToString()]) { UseShellExecute = false, RedirectStandardInput = true, RedirectStandardOutput = true })!;
        tracer.StandardOutput.ReadLine().ShouldBe("ready");
        Inspect(7).ShouldSatisfyAllConditions(found => found.Verdict.ShouldBe(BlockedVerdict.Stopped), found => found.Reason.ShouldContain($"traced by process {tracer.Id}"));
        tracer.StandardInput.Close();
        tracer.WaitForExit();
        Await(BlockedVerdict.OnSocket, "recvfrom");
    }

    [Theory]
    [InlineData("/sys/fs/cgroup")]
    [InlineData("/sys/fs/cgroup-that-is-not-there")] // where control groups cannot be read, the threads' wait channel says it
    public void A_process_frozen_by_its_control_group_is_stopped(string mount)
    {
        var unified = File.Exists("/sys/fs/cgroup/cgroup.controllers") ? "/sys/fs/cgroup" : "/sys/fs/cgroup/unified";
        Start("s.recv(1)");
        Await(BlockedVerdict.OnSocket, "recvfrom", cgroups: mount);
        var group = Group(unified);
        File.WriteAllText(group + "/cgroup.procs", _child!.Id.ToString());
        Await(BlockedVerdict.OnSocket, "recvfrom", cgroups: mount);
        File.WriteAllText(group + "/cgroup.freeze", "1");
        Await(BlockedVerdict.Stopped, "frozen", cgroups: mount);
        File.WriteAllText(group + "/cgroup.freeze", "0");
        Await(BlockedVerdict.OnSocket, "recvfrom", cgroups: mount);
    }

    [Fact]
    public void With_nothing_that_tells_frozen_from_blocked_nothing_is_claimed()
    {
        using var proc = new TemporaryDirectory();
        Fake(proc, "45 0x7 0x0 0x1 0x0 0x0 0x0 0x7ff0 0x7ff1\n");
        FakeInspect(proc).Verdict.ShouldBe(BlockedVerdict.OnSocket);
        File.Delete(proc.File("10/cgroup"));
        FakeInspect(proc).Verdict.ShouldBe(BlockedVerdict.OnSocket, "the wait channel tells");
        File.Delete(proc.File("10/task/10/wchan"));
        FakeInspect(proc).Verdict.ShouldBe(BlockedVerdict.Unknown);
        proc.Write("10/cgroup", "0::/../elsewhere\n");
        FakeInspect(proc).Verdict.ShouldBe(BlockedVerdict.Unknown);
    }

    [Theory]
    [InlineData("0::/a/b\n", "unified/a/b/cgroup.events", "populated 1\nfrozen 1\n")]
    [InlineData("0::/a/b\n", "unified/a/cgroup.freeze", "1\n")]
    [InlineData("3:cpu:/x\n2:freezer:/a\n", "freezer/a/freezer.state", "FROZEN\n")]
    [InlineData("2:freezer:/a\n0::/a/b\n", "freezer/a/freezer.state", "FREEZING\n")]
    public void Both_versions_of_control_groups_freeze(string cgroup, string file, string content)
    {
        using var proc = new TemporaryDirectory();
        Fake(proc, "45 0x7 0x0 0x1 0x0 0x0 0x0 0x7ff0 0x7ff1\n");
        proc.Write("10/cgroup", cgroup);
        proc.Write("cgroup/unified/a/b/cgroup.events", "populated 1\nfrozen 0\n");
        proc.Write("cgroup/freezer/a/freezer.state", "THAWED\n");
        FakeInspect(proc).Verdict.ShouldBe(BlockedVerdict.OnSocket);
        proc.Write("cgroup/" + file, content);
        FakeInspect(proc).Verdict.ShouldBe(BlockedVerdict.Stopped);
    }

    [Theory]
    [InlineData(Architecture.X64, "45 0x7 0x0 0x1 0x0 0x0 0x0 0x7ff0 0x7ff1\n", BlockedVerdict.OnSocket)]
    [InlineData(Architecture.Arm64, "207 0x7 0x0 0x1 0x0 0x0 0x0 0x7ff0 0x7ff1\n", BlockedVerdict.OnSocket)]
    [InlineData(Architecture.Arm64, "63 0xffffffff00000007 0x0 0x1 0x0 0x0 0x0 0x7ff0 0x7ff1\n", BlockedVerdict.OnSocket)] // the upper half of an int's register is anything
    [InlineData(Architecture.Arm64, "45 0x7 0x0 0x1 0x0 0x0 0x0 0x7ff0 0x7ff1\n", BlockedVerdict.NotBlocked)]
    [InlineData(Architecture.S390x, "45 0x7 0x0 0x1 0x0 0x0 0x0 0x7ff0 0x7ff1\n", BlockedVerdict.Unknown)]
    [InlineData(Architecture.X64, "45 0x8 0x0 0x1 0x0 0x0 0x0 0x7ff0 0x7ff1\n", BlockedVerdict.NotBlocked)]
    [InlineData(Architecture.X64, "219 0x7 0x0 0x1 0x0 0x0 0x0 0x7ff0 0x7ff1\n", BlockedVerdict.NotBlocked)]
    [InlineData(Architecture.X64, "-1 0x7ff0 0x7ff1\n", BlockedVerdict.NotBlocked)]
    [InlineData(Architecture.X64, "running\n", BlockedVerdict.NotBlocked)]
    [InlineData(Architecture.X64, "45 0x7\n", BlockedVerdict.Unknown)]
    [InlineData(Architecture.X64, "45 7 0 0 0 0 0 0 0\n", BlockedVerdict.Unknown)]
    [InlineData(Architecture.X64, "garbage\n", BlockedVerdict.Unknown)]
    public void What_the_kernel_says_of_a_thread_is_read_by_the_architecture(Architecture architecture, string syscall, BlockedVerdict verdict)
    {
        using var proc = new TemporaryDirectory();
        Fake(proc, syscall);
        FakeInspect(proc, architecture).Verdict.ShouldBe(verdict);
    }

    [Theory]
    [InlineData("03000000348004080400000020000000050000000100000007000000000000000000000000000000")] // i386: pairs of 32 bits, AT_PHENT is 32
    [InlineData("040000000000000020000000000000000000000000000000 0000000000000000")] // x32: pairs of 64 bits, AT_PHENT is 32
    [InlineData("")] // a kernel thread, or one that has exited
    public void A_32_bit_program_is_not_judged(string auxv)
    {
        using var proc = new TemporaryDirectory();
        Fake(proc, "45 0x7 0x0 0x1 0x0 0x0 0x0 0x7ff0 0x7ff1\n");
        File.WriteAllBytes(proc.File("10/auxv"), Convert.FromHexString(auxv.Replace(" ", "")));
        FakeInspect(proc).ShouldSatisfyAllConditions(found => found.Verdict.ShouldBe(BlockedVerdict.Unknown), found => found.Reason.ShouldContain("32-bit"));
    }

    [Theory]
    [InlineData('D', BlockedVerdict.NotBlocked)] // version 1 of control groups has frozen it, or it waits for memory
    [InlineData('R', BlockedVerdict.NotBlocked)]
    [InlineData('T', BlockedVerdict.Stopped)]
    [InlineData('t', BlockedVerdict.Stopped)]
    [InlineData('Z', BlockedVerdict.Unknown)]
    [InlineData('S', BlockedVerdict.OnSocket)]
    public void Only_an_interruptible_sleep_is_a_wait_for_a_socket(char state, BlockedVerdict verdict)
    {
        using var proc = new TemporaryDirectory();
        Fake(proc, "45 0x7 0x0 0x1 0x0 0x0 0x0 0x7ff0 0x7ff1\n", state);
        FakeInspect(proc).Verdict.ShouldBe(verdict);
    }

    [Fact]
    public void A_query_that_waits_in_libpq_is_blocked_on_its_connection()
    {
        using var server = RealServer.PostgreSql(tls: false);
        Start($"import psycopg2; c = psycopg2.connect(host='127.0.0.1', port={server.Port}, user='postgres', dbname='postgres'); q = c.fileno(); print(q, flush=True); c.cursor().execute('SELECT pg_sleep(1000)')");
        var descriptor = int.Parse(_child!.StandardOutput.ReadLine()!);
        Await(BlockedVerdict.OnSocket, $"poll on descriptor {descriptor}", descriptor: descriptor);
        Inspect(7).Verdict.ShouldBe(BlockedVerdict.NotBlocked, "on its other connection it is not");
    }

    [Fact]
    public void Another_socket_behind_the_descriptor_and_another_process_behind_the_pid_are_not_judged()
    {
        Start("s.recv(1)");
        Await(BlockedVerdict.OnSocket, "recvfrom");
        BlockedThreads.Inspect(_processes, Identity, 7, Inode(8)).Verdict.ShouldBe(BlockedVerdict.Unknown);
        BlockedThreads.Inspect(_processes, Identity, 99, Inode(7)).Verdict.ShouldBe(BlockedVerdict.Unknown);
        BlockedThreads.Inspect(_processes, Identity with { StartTicks = 1 }, 7, Inode(7)).Verdict.ShouldBe(BlockedVerdict.Unknown);
        var (identity, inode) = (Identity, Inode(7));
        _child!.Kill();
        _child.WaitForExit();
        BlockedThreads.Inspect(_processes, identity, 7, inode).Verdict.ShouldBe(BlockedVerdict.Unknown);
    }

    [Fact]
    public void Without_the_capabilities_another_users_process_is_unknown()
    {
        Start("s.recv(1)", user: "65534");
        Await(BlockedVerdict.OnSocket, "recvfrom");
        var (identity, inode) = (Identity, Inode(7));
        BlockedVerdict Without(params Capability[] dropped) => CapabilityThread.Without(() => BlockedThreads.Inspect(_processes, identity, 7, inode).Verdict, dropped);
        Without().ShouldBe(BlockedVerdict.OnSocket);
        Without(Capability.SysPtrace).ShouldBe(BlockedVerdict.Unknown);
        Without(Capability.DacReadSearch).ShouldBe(BlockedVerdict.Unknown);
    }

    private ProcessIdentity Identity
    {
        get
        {
            _processes.TryReadStat(_child!.Id, out var stat).ShouldBeTrue();
            return stat.Identity;
        }
    }

    /// <summary>A process with its connection at descriptor 7 and another at 8, which then runs <paramref name="wait"/>.</summary>
    private void Start(string wait, string? user = null)
    {
        var script = $$"""
            import os, select, socket, threading, time
            def connect(place):
                c = socket.create_connection(("127.0.0.1", {{((IPEndPoint)_listener.LocalEndPoint!).Port}}))
                os.dup2(c.fileno(), place)
                return socket.socket(fileno=place)
            def fill(c):
                c.setblocking(False)
                try:
                    while True: c.send(bytes(1_000_000))
                except BlockingIOError: pass
                c.setblocking(True)
            s, other = connect(7), connect(8)
            print("ready", flush=True)
            {{wait}}
            """;
        string[] command = user is null ? [Python, "-c", script] : ["setpriv", "--reuid=" + user, "--clear-groups", Python, "-c", script];
        _child = Process.Start(new ProcessStartInfo(command[0], command[1..]) { UseShellExecute = false, RedirectStandardOutput = true })!;
        _accepted.Add(_listener.Accept());
        _accepted.Add(_listener.Accept());
        _child.StandardOutput.ReadLine().ShouldBe("ready");
    }

    private uint Inode(int descriptor)
    {
        uint found = 0;
        _processes.TryVisitSockets(_child!.Id, (fd, inode) => found = fd == descriptor ? inode : found).ShouldBeTrue();
        return found;
    }

    private BlockedInspection Inspect(int descriptor, string cgroups = "/sys/fs/cgroup") => BlockedThreads.Inspect(_processes, Identity, descriptor, Inode(descriptor), cgroups);

    private BlockedInspection Await(
        BlockedVerdict verdict, string reason, Func<BlockedInspection, bool>? also = null, int descriptor = 7, string cgroups = "/sys/fs/cgroup")
    {
        BlockedInspection found = default;
        SpinWait.SpinUntil(
            () =>
            {
                found = Inspect(descriptor, cgroups);
                return found.Verdict == verdict && found.Reason.Contains(reason, StringComparison.Ordinal) && also?.Invoke(found) != false;
            },
            Enough).ShouldBeTrue($"{found}");
        return found;
    }

    private void Signal(string name)
    {
        using var kill = Process.Start("kill", ["-" + name, _child!.Id.ToString()]);
        kill.WaitForExit();
    }

    private string Group(string mount)
    {
        var group = Path.Combine(mount, $"conn-sidecar-test-{Guid.NewGuid():N}");
        Directory.CreateDirectory(group);
        _groups.Add(group);
        return group;
    }

    /// <summary>A process 10 in a directory that is no /proc, whose descriptor 7 is socket 123.</summary>
    private static void Fake(TemporaryDirectory proc, string syscall, char state = 'S')
    {
        proc.Write("10/stat", "10 (w) S 7 42 42 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 100 1000 100 18446744073709551615 0\n");
        var vector = new byte[32];
        BinaryPrimitives.WriteUInt64LittleEndian(vector, 4);
        BinaryPrimitives.WriteUInt64LittleEndian(vector.AsSpan(8), 56);
        File.WriteAllBytes(Path.Combine(proc.Path, "10", "auxv"), vector);
        proc.Write("10/cgroup", "0::/\n");
        proc.Write("cgroup/unified/cgroup.controllers", "");
        proc.Write("10/task/10/status", $"Name:\tw\nState:\t{state} (x)\nTracerPid:\t0\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t1\n");
        proc.Write("10/task/10/syscall", syscall);
        proc.Write("10/task/10/wchan", "sk_wait_data");
        Directory.CreateDirectory(proc.File("10/fd"));
        File.CreateSymbolicLink(proc.File("10/fd/7"), "socket:[123]");
        File.CreateSymbolicLink(proc.File("10/fd/8"), "socket:[124]");
    }

    private static BlockedInspection FakeInspect(TemporaryDirectory proc, Architecture architecture = Architecture.X64) =>
        BlockedThreads.Inspect(new ProcessReader(proc.Path), new ProcessIdentity(10, 100), 7, 123, proc.File("cgroup"), architecture);
}
