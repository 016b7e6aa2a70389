using System.Diagnostics;
using System.Text;
using FsCheck;
using FsCheck.Fluent;
using Shouldly;
using Sidecar.Probes.Processes;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.UnitTests.Processes;

public sealed class ProcessReaderTests : IDisposable
{
    private const string Rest = " S 7 42 42 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 987654 1000 100 18446744073709551615 0";

    private readonly TemporaryDirectory _proc = new();

    public void Dispose() => _proc.Dispose();

    [Theory]
    [InlineData("worker")]
    [InlineData("two words")]
    [InlineData("(sd-pam)")]
    [InlineData(") R 1 1 1 (")]
    [InlineData("a)\n42 (b")]
    [InlineData("")]
    [InlineData(":;'\"\\")]
    public void A_hostile_command_name_is_only_a_name(string comm)
    {
        Parse($"42 ({comm}){Rest}\n").ShouldBe(new ProcessStat(new ProcessIdentity(42, 987654), comm, 'S', 7, false));
    }

    [Fact]
    public void Kernel_threads_are_known_by_their_flag() =>
        Parse("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 27 0 0\n").ShouldNotBeNull().IsKernelThread.ShouldBeTrue();

    [Theory]
    [InlineData("")]
    [InlineData("42")]
    [InlineData("42 (worker")]
    [InlineData("42 (worker)")]
    [InlineData("42 (worker) S")]
    [InlineData("42 (worker) S 7 42 42 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0")]
    [InlineData("x (worker) S 7 42 42 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 987654 1000")]
    public void A_line_cut_short_is_no_process(string line) => Parse(line).ShouldBeNull();

    [Fact]
    public void No_bytes_make_the_parsers_fail()
    {
        var bytes =
            from real in Gen.Elements($"42 (worker){Rest}\n", "", "0::/system.slice/web.service\n")
            from noise in Gen.Elements("()", " ", "\n", "0", "9", "-", "(", ")", "\u00e9", ":", "/").ArrayOf(6)
            from at in Gen.Choose(0, 60).ArrayOf(6)
            select noise.Zip(at).Aggregate(real, (text, change) => text.Insert(Math.Min(change.Second, text.Length), change.First));
        Check.One(Config.QuickThrowOnFailure.WithMaxTest(20_000), Prop.ForAll(bytes.ToArbitrary(), text =>
        {
            _ = Parse(text);
            _ = ProcessReader.ParseUnit(text);
            return true;
        }));
    }

    [Theory]
    [InlineData("0::/system.slice/web.service\n", "web.service")]
    [InlineData("0::/user.slice/user-1000.slice/user@1000.service/app.slice/uwsgi.service\n", "user@1000.service")]
    [InlineData("0::/user.slice/user-1000.slice/session-2.scope/uwsgi.service\n", "session-2.scope")]
    [InlineData("0::/system.slice/system-uwsgi.slice/uwsgi@shop.service\n", "uwsgi@shop.service")]
    [InlineData("0::/docker/0123/system.slice/web.service\n", null)]
    [InlineData("0::/system.slice/docker-0123.scope\n", "docker-0123.scope")]
    [InlineData("0::/system.slice/web.service/worker-3\n", "web.service")]
    [InlineData("12:cpu,cpuacct:/system.slice/other.service\n1:name=systemd:/system.slice/web.service\n", "web.service")]
    [InlineData("0::/\n", null)]
    [InlineData("0::/init.scope\n", "init.scope")]
    [InlineData("4:memory:/system.slice/web.service\n", null)]
    [InlineData("", null)]
    [InlineData("garbage", null)]
    public void The_unit_is_the_one_below_the_slices_so_that_nobody_names_one_of_his_own_like_it(string cgroup, string? unit) => ProcessReader.ParseUnit(cgroup).ShouldBe(unit);

    [Fact]
    public void Sockets_are_read_from_the_links_of_the_descriptors()
    {
        Link("10/fd/3", "socket:[123]");
        Link("10/fd/4", "/dev/null");
        Link("10/fd/5", "socket:[4294967295]");
        Link("10/fd/6", "socket:[12x]");
        Link("10/fd/7", "pipe:[9]");
        Link("10/fd/8", "socket:[]");
        var found = new List<(int, uint)>();
        Reader.TryVisitSockets(10, (fd, inode) => found.Add((fd, inode))).ShouldBeTrue();
        found.Order().ShouldBe([(3, 123u), (5, 4294967295u)]);
        Reader.HoldsSocket(10, 3, 123).ShouldBeTrue();
        Reader.HoldsSocket(10, 3, 124).ShouldBeFalse();
        Reader.HoldsSocket(10, 4, 123).ShouldBeFalse();
        Reader.HoldsSocket(10, 99, 123).ShouldBeFalse();
        Reader.HoldsSocket(10, 8, 0).ShouldBeFalse();
    }

    [Fact]
    public void A_socket_inherited_over_fork_has_all_its_owners()
    {
        Stat(10, 100);
        Stat(11, 200);
        Stat(12, 300);
        Link("10/fd/3", "socket:[123]");
        Link("11/fd/3", "socket:[123]");
        Link("11/fd/9", "socket:[123]");
        Link("12/fd/3", "socket:[124]");
        var owners = new SocketOwners(Reader);
        owners.Resolve([123, 124, 125, 0]);
        owners.Find(123).OrderBy(owner => owner.Process.Pid).Select(owner => owner.Process)
            .ShouldBe([new ProcessIdentity(10, 100), new ProcessIdentity(11, 200)]);
        owners.Find(124).ShouldBe([new SocketOwner(new ProcessIdentity(12, 300), 3)]);
        owners.Find(125).ShouldBeEmpty();
        owners.Forget(124);
        owners.Find(124).ShouldBeEmpty();
    }

    [Fact]
    public void A_process_that_vanishes_between_descriptors_and_stat_owns_nothing()
    {
        Link("10/fd/3", "socket:[123]"); // no stat: it has gone
        var owners = new SocketOwners(Reader);
        owners.Resolve([123]);
        owners.Find(123).ShouldBeEmpty();
    }

    [Fact]
    public void Of_a_process_that_is_not_there_nothing_is_known()
    {
        Reader.TryReadStat(10, out _).ShouldBeFalse();
        Reader.IsAlive(new ProcessIdentity(10, 1)).ShouldBeFalse();
        Reader.ReadExecutable(10).ShouldBeNull();
        Reader.ReadUid(10).ShouldBeNull();
        Reader.ReadUnit(10).ShouldBeNull();
        Reader.ReadContextSwitches(10).ShouldBeNull();
        Reader.ReadNetworkNamespace(10).ShouldBe(0ul);
        Reader.TryVisitSockets(10, (_, _) => { }).ShouldBeFalse();
        new ProcessReader(_proc.File("nowhere")).ReadPids().ShouldBeEmpty();
    }

    [Fact]
    public void A_zombie_and_a_reused_pid_are_not_alive()
    {
        Stat(10, 100);
        Reader.IsAlive(new ProcessIdentity(10, 100)).ShouldBeTrue();
        Reader.IsAlive(new ProcessIdentity(10, 101)).ShouldBeFalse();
        _proc.Write("11/stat", "11 (w) Z" + Rest[2..]);
        Reader.IsAlive(new ProcessIdentity(11, 987654)).ShouldBeFalse();
    }

    [Fact]
    public void Own_process_is_read_from_the_real_proc()
    {
        var real = new ProcessReader();
        real.TryReadStat(Environment.ProcessId, out var stat).ShouldBeTrue();
        real.IsAlive(stat.Identity).ShouldBeTrue();
        stat.IsKernelThread.ShouldBeFalse();
        real.ReadExecutable(Environment.ProcessId).ShouldBe(Environment.ProcessPath);
        real.ReadContextSwitches(Environment.ProcessId).ShouldNotBeNull().ShouldBeGreaterThan(0);
        real.ReadNetworkNamespace(Environment.ProcessId).ShouldNotBe(0ul);
        real.ReadPids().ShouldContain(Environment.ProcessId);
        using var connection = new Loopback();
        var inodes = new List<uint>();
        real.TryVisitSockets(Environment.ProcessId, (_, inode) => inodes.Add(inode)).ShouldBeTrue();
        using var diagnostics = Probes.SockDiag.SockDiagClient.Open();
        diagnostics.TryGet(connection.Key, out var socket).ShouldBeTrue();
        inodes.ShouldContain(socket.Inode);
    }

    private ProcessReader Reader => new(_proc.Path);

    private void Stat(int pid, int start) => _proc.Write($"{pid}/stat", $"{pid} (w){Rest.Replace("987654", start.ToString())}");

    private void Link(string name, string target)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(_proc.File(name))!);
        File.CreateSymbolicLink(_proc.File(name), target);
    }

    private static ProcessStat? Parse(string line) => ProcessReader.TryParseStat(Encoding.UTF8.GetBytes(line), out var stat) ? stat : null;
}

/// <summary>pidfds on children of this process.</summary>
public sealed class ProcessHandleTests : IDisposable
{
    private readonly ProcessReader _processes = new();
    private readonly Process _child = Process.Start(new ProcessStartInfo("sleep", "300") { UseShellExecute = false })!;

    public void Dispose()
    {
        if (!_child.HasExited)
        {
            _child.Kill();
        }

        _child.WaitForExit();
        _child.Dispose();
    }

    [Fact]
    public async Task A_terminated_process_is_seen_to_exit()
    {
        using var handle = ProcessHandle.TryOpen(Identity, _processes, out var failure).ShouldNotBeNull();
        failure.ShouldBe(HandleFailure.None);
        handle.HasExited.ShouldBeFalse();
        handle.Rehearse().ShouldBe(HandleFailure.None);
        handle.HasExited.ShouldBeFalse();
        handle.Terminate().ShouldBe(HandleFailure.None);
        await _child.WaitForExitAsync();
        handle.HasExited.ShouldBeTrue();
        handle.Kill().ShouldBe(HandleFailure.Gone);
    }

    [Fact]
    public void Another_start_time_is_another_process()
    {
        ProcessHandle.TryOpen(Identity with { StartTicks = Identity.StartTicks + 1 }, _processes, out var failure).ShouldBeNull();
        failure.ShouldBe(HandleFailure.Gone);
        _child.HasExited.ShouldBeFalse();
    }

    [Fact]
    public void A_process_gone_between_look_and_act_is_gone()
    {
        var identity = Identity;
        _child.Kill();
        _child.WaitForExit();
        ProcessHandle.TryOpen(identity, _processes, out var failure).ShouldBeNull();
        failure.ShouldBe(HandleFailure.Gone);
    }

    private ProcessIdentity Identity
    {
        get
        {
            _processes.TryReadStat(_child.Id, out var stat).ShouldBeTrue();
            return stat.Identity;
        }
    }
}
