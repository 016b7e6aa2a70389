using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using Microsoft.Extensions.Logging;
using Shouldly;
using Sidecar.Agent.Telemetry;
using Sidecar.Agent.Telemetry.Systemd;
using Xunit;

namespace Sidecar.UnitTests.Telemetry;

public sealed class SystemdTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    public void Dispose() => _directory.Dispose();

    [Fact]
    public void Systemd_is_told_each_state_and_the_watchdog_is_fed_no_more_often_than_needed()
    {
        using var socket = new Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified) { ReceiveTimeout = 5000 };
        socket.Bind(new UnixDomainSocketEndPoint(_directory["notify"]));
        TestTools.SetCEnvironment("NOTIFY_SOCKET", _directory["notify"]);
        TestTools.SetCEnvironment("WATCHDOG_USEC", "30000000");
        TestTools.SetCEnvironment("WATCHDOG_PID", Environment.ProcessId.ToString(CultureInfo.InvariantCulture));
        try
        {
            var notifier = new SystemdNotifier();
            notifier.WatchdogInterval.ShouldBe(TimeSpan.FromSeconds(30));
            notifier.Ready("watching 4 connections");
            Receive(socket).ShouldBe("READY=1\nSTATUS=watching 4 connections");
            notifier.Status("line\nREADY=0");
            Receive(socket).ShouldBe("STATUS=line\\x0aREADY=0");
            notifier.Reloading();
            var reloading = Receive(socket);
            reloading.ShouldStartWith("RELOADING=1\nMONOTONIC_USEC=");
            var microseconds = long.Parse(reloading[(reloading.LastIndexOf('=') + 1)..], CultureInfo.InvariantCulture);
            var uptime = double.Parse(File.ReadAllText("/proc/uptime").Split(' ')[0], CultureInfo.InvariantCulture);
            (microseconds / 1e6).ShouldBe(uptime, tolerance: 5);
            notifier.Alive();
            notifier.Alive();
            notifier.Stopping("bye");
            Receive(socket).ShouldBe("WATCHDOG=1");
            Receive(socket).ShouldBe("STOPPING=1\nSTATUS=bye");
        }
        finally
        {
            TestTools.SetCEnvironment("NOTIFY_SOCKET", null);
            TestTools.SetCEnvironment("WATCHDOG_USEC", null);
            TestTools.SetCEnvironment("WATCHDOG_PID", null);
        }

        var alone = new SystemdNotifier();
        alone.WatchdogInterval.ShouldBeNull();
        alone.Ready("nobody listens");
        alone.Alive();
    }

    [Fact]
    public void An_incident_reaches_a_real_journal_with_its_fields() => TestTools.WithOwnMounts(() =>
    {
        TestTools.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755");
        TestTools.Mount("tmpfs", "/var/log", "tmpfs", 0, "mode=0755");
        Directory.CreateDirectory("/run/systemd/journal");
        Directory.CreateDirectory("/run/log");
        using var journald = Process.Start(new ProcessStartInfo("/lib/systemd/systemd-journald") { UseShellExecute = false, RedirectStandardError = true, RedirectStandardOutput = true })!;
        try
        {
            SpinWait.SpinUntil(() => File.Exists("/run/systemd/journal/socket"), TimeSpan.FromSeconds(10)).ShouldBeTrue("systemd-journald did not come up");
            using var stderr = new MemoryStream();
            // The log's own thread shares the mounts of the thread that made it.
            using var log = new JournalLog(stderr, journal: true);
            log.UsesJournal.ShouldBeTrue();
            log.Incident(Samples.Incident("20260101T120000.000Z-000001", "released", executable: "/tmp/evil\nname"));
            log.Write(LogLevel.Information, "listening", null, new LogField("part", "http"));
            log.Flush(TimeSpan.FromSeconds(10)).ShouldBeTrue();
            Encoding.UTF8.GetString(stderr.ToArray()).ShouldBeEmpty();

            JsonElement entry = default;
            SpinWait.SpinUntil(
                () =>
                {
                    Thread.Sleep(50);
                    var (_, output) = TestTools.Run("journalctl", "", "-D", "/run/log/journal", "-o", "json", "-t", "conn-sidecar", $"MESSAGE_ID={MessageIds.Incident}");
                    if (!output.StartsWith('{'))
                    {
                        return false;
                    }

                    entry = JsonDocument.Parse(output.Split('\n')[0]).RootElement;
                    return true;
                },
                TimeSpan.FromSeconds(10)).ShouldBeTrue("the journal does not have the entry");
            Field("CONN_SIDECAR_UPSTREAM").ShouldBe("orders-db");
            Field("CONN_SIDECAR_VERDICT").ShouldBe("stuck");
            Field("CONN_SIDECAR_REMEDY").ShouldBe("recycle");
            Field("CONN_SIDECAR_OUTCOME").ShouldBe("released");
            Field("CONN_SIDECAR_PID").ShouldBe("4711");
            Field("CONN_SIDECAR_INCIDENT").ShouldBe("20260101T120000.000Z-000001");
            Field("CONN_SIDECAR_EXECUTABLE").ShouldBe("/tmp/evil\\x0aname");
            Field("SYSLOG_IDENTIFIER").ShouldBe("conn-sidecar");
            Field("PRIORITY").ShouldBe("4");
            entry.TryGetProperty("CONN_SIDECAR_WITHHELD_BY", out _).ShouldBeFalse();

            string? Field(string name) => entry.GetProperty(name).GetString();
        }
        finally
        {
            journald.Kill();
            journald.WaitForExit();
        }
    });

    [Fact]
    public void On_stderr_an_event_is_one_line_with_time_level_message_and_fields()
    {
        using var stderr = new MemoryStream();
        using (var log = new JournalLog(stderr, journal: false))
        {
            log.Write(LogLevel.Warning, "slow\r\nline \u001b[31mred\u202e 日本", MessageIds.Incident, new("upstream", "orders-db"), new("why", "two words \"quoted\""), new("empty", ""), new("none", null));
        }

        var line = Encoding.UTF8.GetString(stderr.ToArray());
        line.ShouldMatch(@"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z warning ");
        line[(line.IndexOf("warning", StringComparison.Ordinal) + 8)..]
            .ShouldBe("slow\\x0d\\x0aline \\x1b[31mred\\u202e 日本 upstream=orders-db why=\"two words \\\"quoted\\\"\" empty=\"\"\n");
    }

    [Fact]
    public void A_withheld_remedy_has_a_message_id_of_its_own_and_says_who_withheld_it()
    {
        using var stderr = new MemoryStream();
        using (var log = new JournalLog(stderr, journal: false))
        {
            log.Incident(Samples.Incident("a", "withheld", withheldBy: "observe"));
        }

        Encoding.UTF8.GetString(stderr.ToArray()).ShouldContain("recycle withheld by observe");
    }

    [Fact]
    public async Task A_reader_of_stderr_that_does_not_read_never_holds_up_the_agent()
    {
        using var stuck = new BlockingStream();
        using var log = new JournalLog(stuck, journal: false);
        for (var i = 0; i < 10_000; i++)
        {
            log.Write(LogLevel.Information, "event");
        }

        log.Dropped.ShouldBeGreaterThan(5000);
        stuck.Release();
        await TestTools.Eventually(() => log.Flush(TimeSpan.Zero), TimeSpan.FromSeconds(10), "the rest is written");
    }

    [Fact]
    public void A_closed_stderr_does_no_harm()
    {
        var closed = new MemoryStream();
        closed.Dispose();
        using var log = new JournalLog(closed, journal: false);
        log.Write(LogLevel.Error, "nobody hears this");
        log.Flush(TimeSpan.FromSeconds(5)).ShouldBeTrue();
    }

    [Fact]
    public void The_web_server_is_heard_only_when_something_is_wrong()
    {
        using var stderr = new MemoryStream();
        using (var log = new JournalLog(stderr, journal: false))
        {
            log.CreateLogger("Microsoft.AspNetCore.Server.Kestrel").LogInformation("chatter");
            log.CreateLogger("Microsoft.AspNetCore.Server.Kestrel").LogWarning("trouble");
            log.CreateLogger("incidents").LogInformation("ours");
        }

        var text = Encoding.UTF8.GetString(stderr.ToArray());
        text.ShouldNotContain("chatter");
        text.ShouldContain("trouble part=Microsoft.AspNetCore.Server.Kestrel");
        text.ShouldContain("ours part=incidents");
    }

    [Fact]
    public void Every_message_id_is_documented_and_none_is_used_twice()
    {
        var documentation = File.ReadAllText(TestTools.RepositoryFile("docs", "journal.md"));
        foreach (var (name, id) in MessageIds.All)
        {
            documentation.ShouldContain($"| `{id}` | {name} |");
        }

        MessageIds.All.Values.ShouldBeUnique();
        MessageIds.All.Values.ShouldAllBe(id => id.Length == 32);
    }

    private static string Receive(Socket socket)
    {
        var buffer = new byte[4096];
        return Encoding.UTF8.GetString(buffer, 0, socket.Receive(buffer));
    }

    private sealed class BlockingStream : MemoryStream
    {
        private readonly ManualResetEventSlim _released = new();

        public void Release() => _released.Set();

        public override void Write(ReadOnlySpan<byte> buffer)
        {
            _released.Wait();
            base.Write(buffer);
        }
    }
}
