using System.Globalization;
using System.Net;
using System.Text;
using Shouldly;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Agent.Observation;
using Sidecar.Probes.Processes;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.UnitTests.Tracking;

/// <summary>Worker groups over a /proc of the test's own.</summary>
public sealed class WorkerMonitorTests : IDisposable
{
    private const long Mebibyte = 1 << 20;

    private readonly string _root = Directory.CreateTempSubdirectory("conn-sidecar-proc-").FullName;
    private readonly ProcessReader _processes;
    private readonly OwnerTable _owners;
    private readonly OwnerFinder _finder;
    private readonly WorkerMonitor _monitor;
    private readonly List<TrackedConnection> _connections = [];
    private TimeSpan _now = TimeSpan.FromSeconds(1000);

    public WorkerMonitorTests()
    {
        _processes = new ProcessReader(_root);
        _owners = new OwnerTable();
        _finder = new OwnerFinder(_processes, _owners, [new WorkersSection { Name = "web", Executable = "uwsgi" }]);
        _monitor = new WorkerMonitor(_processes, _owners);
    }

    public void Dispose() => Directory.Delete(_root, recursive: true);

    [Fact]
    public void The_sleepy_worker_shows()
    {
        Process(100);
        Process(200);
        var busy = Connection(100, 7001);
        var sleepy = Connection(200, 7002);
        Scan().ShouldAllBe(w => w.TrafficShare == null, "nothing moved yet");
        for (var i = 1; i <= 12; i++)
        {
            See(busy, (ulong)i * 5000, (ulong)i * 5000);
            See(sleepy, 0, 0);
            Scan();
        }

        Scan().Select(w => w.TrafficShare).ShouldBe([1, 0]);

        // A minute later the share is of that minute, and not of all time.
        for (var i = 1; i <= 12; i++)
        {
            See(sleepy, (ulong)i * 300, 0);
            See(busy, 60_000 + ((ulong)i * 100), 60_000);
            Scan();
        }

        var shares = Scan().Select(w => w.TrafficShare!.Value).ToList();
        shares.Sum().ShouldBe(1, 1e-9);
        shares[1].ShouldBe(0.75, 0.05);
    }

    [Fact]
    public void What_a_connection_carried_before_the_first_look_is_not_of_the_last_minute()
    {
        Process(100);
        Process(200);
        var old = Connection(100, 7001);
        See(old, 1_000_000_000, 0);
        Scan();
        See(Connection(200, 7002), 10, 30); // made since
        Scan().Select(w => w.TrafficShare).ShouldBe([0, 1]);
    }

    [Fact]
    public void Connections_and_requests_in_flight_are_counted_by_worker()
    {
        Process(100);
        Process(200);
        Connection(100, 7001).Judged = new Judged(Verdict.Waiting, Reason.AnswerAwaited);
        Connection(100, 7002).Judged = new Judged(Verdict.Stuck, Reason.SilentWhilePathUp);
        Connection(100, 7003).Judged = new Judged(Verdict.Healthy, Reason.InFlight);
        Connection(100, 7004).Judged = new Judged(Verdict.Expired, Reason.PastTheTimeout);
        Connection(200, 7005).Judged = new Judged(Verdict.Healthy, Reason.Active);
        Scan().Select(w => (w.Pid, w.Connections, w.RequestsInFlight)).ShouldBe([(100, 4, 3), (200, 1, 0)]);
        _connections.Clear();
        Scan().Select(w => (w.Pid, w.Connections, w.RequestsInFlight)).ShouldBe([(100, 0, 0), (200, 0, 0)]);
    }

    [Fact]
    public void A_worker_that_is_pinned_at_one_core_shows()
    {
        Process(100, cpuTicks: 5000);
        Process(200, cpuTicks: 5000);
        Connection(100, 7001);
        Connection(200, 7002);
        Scan().ShouldAllBe(w => w.CpuShare == null);
        Process(100, cpuTicks: 5500); // 5 s of CPU in 5 s
        Process(200, cpuTicks: 5025);
        var shares = Scan();
        shares[0].CpuShare!.Value.ShouldBe(1, 1e-9);
        shares[1].CpuShare!.Value.ShouldBe(0.05, 1e-9);
    }

    [Fact]
    public void Memory_that_grows_has_a_slope_and_memory_that_does_not_has_none()
    {
        Process(100);
        Process(200);
        Connection(100, 7001);
        Connection(200, 7002);
        for (var i = 0; i < 11; i++)
        {
            Process(100, resident: (50 + i) * Mebibyte);
            Scan().ShouldAllBe(w => w.ResidentGrowth == null);
        }

        Process(100, resident: 61 * Mebibyte);
        var workers = Scan();
        workers[0].ResidentBytes.ShouldBe(61 * Mebibyte);
        workers[0].ResidentGrowth!.Value.ShouldBe(Mebibyte / 5.0, 1e-3);
        workers[1].ResidentGrowth!.Value.ShouldBe(0, 1e-3);

        // What has stopped growing more than ten minutes ago has no slope any more.
        for (var i = 0; i < 120; i++)
        {
            workers = Scan();
        }

        workers[0].ResidentGrowth!.Value.ShouldBe(0, 1e-3);
    }

    [Fact]
    public void Numbers_are_kept_for_life_and_given_to_the_next_one_then()
    {
        foreach (var pid in new[] { 100, 200, 300 })
        {
            Process(pid, start: (ulong)pid);
            Connection(pid, (uint)(7000 + pid));
        }

        Scan().Select(w => (w.Pid, w.Index)).ShouldBe([(100, 0), (200, 1), (300, 2)]);
        Directory.Delete(Path.Combine(_root, "200"), recursive: true);
        _connections.RemoveAt(1);
        Scan().Select(w => (w.Pid, w.Index)).ShouldBe([(100, 0), (300, 2)]);
        Process(400, start: 400);
        Connection(400, 7400);
        Scan().Select(w => (w.Pid, w.Index)).ShouldBe([(100, 0), (400, 1), (300, 2)]);
    }

    [Fact]
    public void Another_process_with_the_pid_of_an_ended_worker_is_not_that_worker()
    {
        Process(100, start: 1, cpuTicks: 90_000);
        Connection(100, 7001);
        Scan().Count.ShouldBe(1);
        Process(100, start: 2, cpuTicks: 0);
        Scan().ShouldBeEmpty();
    }

    [Fact]
    public void Processes_of_no_group_are_not_looked_at()
    {
        Process(100, executable: "/usr/bin/psql");
        Connection(100, 7001);
        Scan().ShouldBeEmpty();
    }

    [Fact]
    public void Looks_that_come_sooner_than_every_five_seconds_read_nothing()
    {
        Process(100, resident: 50 * Mebibyte);
        Connection(100, 7001);
        var first = Scan();
        Process(100, resident: 60 * Mebibyte);
        _monitor.Measure(_connections, _now + TimeSpan.FromSeconds(1)).ShouldBeSameAs(first);
        _monitor.Measure(_connections, _now + TimeSpan.FromSeconds(4.95))[0].ResidentBytes.ShouldBe(60 * Mebibyte);
    }

    [Fact]
    public void The_machines_own_proc_gives_the_same_as_this_process_knows_of_itself()
    {
        using var self = System.Diagnostics.Process.GetCurrentProcess();
        var reader = new ProcessReader();
        reader.TryReadStat(self.Id, out var stat).ShouldBeTrue();
        reader.TryReadUsage(stat.Identity, out var usage).ShouldBeTrue();
        usage.Cpu.ShouldBe(self.TotalProcessorTime, TimeSpan.FromSeconds(1));
        ((double)usage.ResidentBytes).ShouldBe(self.WorkingSet64, 0.2 * self.WorkingSet64);
        reader.TryReadUsage(stat.Identity with { StartTicks = 1 }, out _).ShouldBeFalse();
    }

    [Theory]
    [InlineData("")]
    [InlineData("12")]
    [InlineData("12 (")]
    [InlineData("12 (a) S 1 2 3")]
    [InlineData("12 (a) S 1 1 1 0 -1 0 0 0 0 0 x 2 0 0 20 0 1 0 77 1000 25 ")]
    [InlineData("12 (a) S 1 1 1 0 -1 0 0 0 0 0 1 2 0 0 20 0 1 0 77 1000")]
    public void A_line_that_is_cut_or_spoilt_is_not_read(string line) => ProcessUsage.TryParse(Encoding.UTF8.GetBytes(line), 4096, out _).ShouldBeFalse();

    [Fact]
    public void A_name_with_parentheses_and_spaces_does_not_shift_the_fields()
    {
        ProcessUsage.TryParse("12 (a) S 9 (b) S 1 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0 1 0 77 1000 25 18446744073709551615\n"u8, 4096, out var usage).ShouldBeTrue();
        usage.ShouldBe(new ProcessUsage(new ProcessIdentity(12, 77), TimeSpan.FromSeconds(2), 25 * 4096));
    }

    private IReadOnlyList<WorkerStatus> Scan()
    {
        _finder.Find(_connections.Select(c => c.Last.Inode), _now);
        _now += WorkerMonitor.Interval;
        return _monitor.Measure(_connections, _now);
    }

    private TrackedConnection Connection(int pid, uint inode)
    {
        var connection = new PathTable().Track(
            new SocketKey(2, default, default, 0, new SocketCookie(inode)),
            new Upstream(new UpstreamSection { Name = "db", Endpoints = [new EndpointPattern("10.0.2.2:5432", null, new IPNetwork(IPAddress.Parse("10.0.2.2"), 32), 5432)] }),
            1,
            33,
            _now);
        _connections.Add(connection);
        Directory.CreateDirectory(Path.Combine(_root, Text(pid), "fd"));
        File.CreateSymbolicLink(Path.Combine(_root, Text(pid), "fd", Text(inode)), $"socket:[{inode}]");
        See(connection, 0, 0, inode);
        return connection;
    }

    private void See(TrackedConnection connection, ulong acknowledged, ulong received, uint? inode = null) => connection.Update(
        new SocketObservation
        {
            Family = 2,
            State = TcpState.Established,
            Timer = SocketTimer.None,
            TimerRetransmissions = 0,
            TimerExpiresMilliseconds = 0,
            Local = default,
            Peer = default,
            Interface = 0,
            Cookie = connection.Cookie,
            ReceiveQueue = 0,
            SendQueue = 0,
            Uid = 0,
            Inode = inode ?? connection.Last.Inode,
            Info = new TcpInfo { Length = 280, BytesAcked = acknowledged, BytesReceived = received },
        },
        _now);

    private void Process(int pid, long cpuTicks = 0, long resident = 50 * Mebibyte, ulong start = 77, string executable = "/usr/bin/uwsgi")
    {
        var directory = Path.Combine(_root, Text(pid));
        if (!Directory.Exists(directory))
        {
            Directory.CreateDirectory(Path.Combine(directory, "fd"));
            File.CreateSymbolicLink(Path.Combine(directory, "exe"), executable);
        }

        var user = cpuTicks / 2;
        var pages = resident / Environment.SystemPageSize;
        File.WriteAllText(
            Path.Combine(directory, "stat"),
            $"{pid} (uwsgi) S 1 1 1 0 -1 4194304 0 0 0 0 {user} {cpuTicks - user} 0 0 20 0 1 0 {start} 1000000 {pages} 18446744073709551615 0 0\n");
    }

    private static string Text(long number) => number.ToString(CultureInfo.InvariantCulture);
}
