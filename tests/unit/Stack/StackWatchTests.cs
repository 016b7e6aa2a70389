using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Shouldly;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Observation;
using Sidecar.UnitTests.Telemetry;
using Xunit;

namespace Sidecar.UnitTests.Stack;

/// <summary>Groups of real processes: this one with its sockets, and children that a copy of sleep does not wait for.</summary>
public sealed class StackWatchTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();
    private readonly List<IDisposable> _open = [];
    private readonly ManualClock _time = new(DateTimeOffset.UnixEpoch);

    public void Dispose()
    {
        _open.Reverse();
        _open.ForEach(open => open.Dispose());
        _directory.Dispose();
    }

    [Fact]
    public void The_queues_of_a_group_are_shown_with_their_fullest_moment()
    {
        using var watch = Watch(Self);
        var tcp = Listen(new IPEndPoint(IPAddress.Loopback, 0));
        var unix = Listen(new UnixDomainSocketEndPoint(_directory.File("app.sock")));
        foreach (var listener in new[] { tcp, unix })
        {
            Connect(listener.LocalEndPoint!);
            Connect(listener.LocalEndPoint!);
        }

        Find(Scan(watch), tcp).ShouldSatisfyAllConditions(
            l => l.Workers.ShouldBe("test"), l => l.Pid.ShouldBe(Environment.ProcessId), l => l.Namespace.ShouldBe("own"),
            l => l.Waiting.ShouldBe(2), l => l.Peak.ShouldBe(2), l => l.Limit.ShouldBe(5), l => l.IsCut.ShouldBeFalse(), l => l.Drops.ShouldBe(0));
        Find(Scan(watch), unix).Waiting.ShouldBe(2);
        foreach (var listener in new[] { tcp, unix })
        {
            _open.Add(listener.Accept());
            _open.Add(listener.Accept());
        }

        Find(Scan(watch), tcp).ShouldSatisfyAllConditions(l => l.Waiting.ShouldBe(0), l => l.Peak.ShouldBe(2));
        Pass(watch, TimeSpan.FromSeconds(40));
        var both = Scan(watch);
        Find(both, tcp).Connections.ShouldBe(2);
        Find(both, unix).Connections.ShouldBe(2);
        Find(both, unix).Peak.ShouldBe(2);
        Pass(watch, TimeSpan.FromSeconds(61));
        Find(Scan(watch), tcp).Peak.ShouldBe(0);
    }

    [Fact]
    public void A_number_is_kept_while_others_come_and_go()
    {
        using var watch = Watch(Self);
        Listen(new UnixDomainSocketEndPoint(_directory.File("b.sock")));
        var b = Number(Scan(watch), "b.sock");
        var a = Listen(new UnixDomainSocketEndPoint(_directory.File("a.sock")));
        Number(Scan(watch), "a.sock").ShouldNotBe(b);
        Number(Scan(watch), "b.sock").ShouldBe(b);
        a.Dispose();
        Number(Scan(watch), "b.sock").ShouldBe(b);

        int Number(StackView view, string name) => view.Listeners.Single(l => l.Address == _directory.File(name)).Index;
    }

    [Fact]
    public void What_a_full_queue_drops_is_counted()
    {
        using var watch = Watch(Self);
        var listener = Listen(new IPEndPoint(IPAddress.Loopback, 0));
        var before = Scan(watch);
        for (var i = 0; i < 12; i++)
        {
            var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { Blocking = false };
            _open.Add(client);
            Should.Throw<SocketException>(() => client.Connect(listener.LocalEndPoint!)).SocketErrorCode.ShouldBe(SocketError.WouldBlock);
        }

        StackView view = before;
        SpinWait.SpinUntil(() => Find(view = Scan(watch), listener).Drops > 0, TimeSpan.FromSeconds(20)).ShouldBeTrue();
        Find(view, listener).Waiting.ShouldBe(6);
        view.Groups.Single().Drops.ShouldBeGreaterThan(before.Groups.Single().Drops);
        view.Overflows.ShouldBeGreaterThan(before.Overflows);
    }

    [Fact]
    public void A_client_that_went_away_from_a_busy_worker_is_counted_and_grows_old()
    {
        using var watch = Watch(Self);
        var listener = Listen(new UnixDomainSocketEndPoint(_directory.File("busy.sock")));
        var client = Connect(listener.LocalEndPoint!);
        var served = listener.Accept();
        _open.Add(served);
        var before = Scan(watch).Groups.Single().GonePeersServed;
        client.Dispose();
        Pass(watch, TimeSpan.FromSeconds(40));
        Pass(watch, TimeSpan.FromSeconds(40));
        var group = Scan(watch).Groups.Single();
        group.GonePeersServed.ShouldBeGreaterThan(before);
        group.GonePeerMax.ShouldBeGreaterThanOrEqualTo(TimeSpan.FromSeconds(40));
    }

    [Fact]
    public void Children_that_nobody_waits_for_are_counted_with_their_parents_group()
    {
        var sleep = _directory.Program("sleeper", "/bin/sleep");
        using var watch = Watch(sleep);
        using var shell = Process.Start(new ProcessStartInfo("/bin/sh", ["-c", $"true & true & sleep 300 & exec {sleep} 300"]) { UseShellExecute = false })!;
        try
        {
            SpinWait.SpinUntil(() =>
            {
                _time.Advance(TimeSpan.FromSeconds(60));
                return watch.Scan().Groups.Single() is { Processes: 1, Zombies: 2, Children: 1 };
            }, TimeSpan.FromSeconds(20)).ShouldBeTrue(watch.View.Groups.Single().ToString());
        }
        finally
        {
            shell.Kill(entireProcessTree: true);
            shell.WaitForExit();
        }
    }

    [Fact]
    public void Without_a_group_nothing_is_looked_at()
    {
        using var watch = new StackWatch(ConfigurationLoader.BuiltIn(), new Clock(_time));
        watch.Start();
        watch.Scan().ShouldSatisfyAllConditions(v => v.Listeners.ShouldBeEmpty(), v => v.Groups.ShouldBeEmpty(), v => v.Problems.ShouldBeEmpty());
    }

    [Fact]
    public void The_thread_looks_by_itself_and_ends_with_the_watch()
    {
        var listener = Listen(new UnixDomainSocketEndPoint(_directory.File("thread.sock")));
        var watch = new StackWatch(Configuration(Self), new Clock(TimeProvider.System));
        watch.Start();
        SpinWait.SpinUntil(() => watch.View.Listeners.Any(l => l.Address == _directory.File("thread.sock")), TimeSpan.FromSeconds(30)).ShouldBeTrue();
        watch.Dispose();
        listener.Dispose();
    }

    /// <summary>A start script that waits, for the database say, has long been looked at when it becomes the worker.</summary>
    [Fact]
    public void A_process_that_becomes_a_worker_late_joins_the_group()
    {
        var sleep = _directory.Program("sleeper", "/bin/sleep");
        using var watch = Watch(sleep);
        using var script = Process.Start(new ProcessStartInfo("/bin/sh", ["-c", $"read go; exec {sleep} 300"]) { UseShellExecute = false, RedirectStandardInput = true })!;
        try
        {
            for (var i = 0; i < 6; i++)
            {
                Pass(watch, TimeSpan.FromSeconds(60));
            }

            watch.View.Groups.Single().Processes.ShouldBe(0);
            script.StandardInput.WriteLine();
            SpinWait.SpinUntil(() =>
            {
                Pass(watch, TimeSpan.FromSeconds(60));
                return watch.View.Groups.Single().Processes == 1;
            }, TimeSpan.FromSeconds(20)).ShouldBeTrue(watch.View.Groups.Single().ToString());
        }
        finally
        {
            script.Kill(entireProcessTree: true);
            script.WaitForExit();
        }
    }

    [Theory]
    [InlineData(new[] { 1.0, 1.0 }, 0.0)]
    [InlineData(new[] { 1.0, 0.0 }, 1.0)]
    [InlineData(new[] { 0.75, 0.25 }, 0.5)]
    [InlineData(new[] { 0.9, 0.0, 0.0, 0.0 }, 1.0)]
    [InlineData(new[] { 0.5, 0.5, 0.0, 0.0 }, 1 / 3.0)]
    public void Imbalance_runs_from_all_the_same_to_one_for_all(double[] cores, double imbalance) =>
        GroupMonitor.Imbalance(cores).ShouldNotBeNull().ShouldBe(imbalance, 1e-9);

    [Theory]
    [InlineData(new double[0])]
    [InlineData(new[] { 1.0 })]
    [InlineData(new[] { 0.05, 0.0 })]
    public void Where_there_is_nothing_to_share_there_is_no_imbalance(double[] cores) => GroupMonitor.Imbalance(cores).ShouldBeNull();

    private static string Self => Environment.ProcessPath!;

    private static ListenerStatus Find(StackView view, Socket listener) => view.Listeners.Single(l => l.Address == listener.LocalEndPoint!.ToString());

    private static SidecarConfiguration Configuration(string executable) =>
        ConfigurationLoader.BuiltIn() with { Workers = [new WorkersSection { Name = "test", Executable = executable }] };

    private StackWatch Watch(string executable) => new(Configuration(executable), new Clock(_time));

    /// <summary>A scan that finds new processes and new sockets.</summary>
    private StackView Scan(StackWatch watch)
    {
        _time.Advance(TimeSpan.FromSeconds(1));
        return watch.Scan();
    }

    /// <summary>Lets so much time pass and looks at everything anew.</summary>
    private void Pass(StackWatch watch, TimeSpan time)
    {
        _time.Advance(time);
        watch.Scan();
    }

    private Socket Listen(EndPoint address)
    {
        var socket = new Socket(address.AddressFamily, SocketType.Stream, address is IPEndPoint ? ProtocolType.Tcp : ProtocolType.Unspecified);
        _open.Add(socket);
        socket.Bind(address);
        socket.Listen(5);
        return socket;
    }

    private Socket Connect(EndPoint address)
    {
        var socket = new Socket(address.AddressFamily, SocketType.Stream, address is IPEndPoint ? ProtocolType.Tcp : ProtocolType.Unspecified);
        _open.Add(socket);
        socket.Connect(address);
        return socket;
    }
}
