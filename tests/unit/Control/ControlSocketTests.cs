using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using Shouldly;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Endpoints;
using Xunit;

namespace Sidecar.UnitTests.Control;

public sealed class ControlSocketTests
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);

    [Fact]
    public async Task Status_carries_everything_that_the_snapshot_has()
    {
        using var directory = new TemporaryDirectory();
        await using var server = Serve(directory.Path, () => Snapshots.Of(Snapshots.Connection(verdict: Verdict.Stuck)) with { Limitations = ["no CAP_NET_ADMIN"] });
        var status = JsonDocument.Parse(Ask(directory.Path, "status\n")).RootElement;
        status.GetProperty("time").GetDateTimeOffset().ShouldBe(new DateTimeOffset(2026, 3, 4, 5, 6, 7, TimeSpan.Zero));
        status.GetProperty("running").GetBoolean().ShouldBeTrue();
        status.GetProperty("mode").GetString().ShouldBe("protect");
        status.GetProperty("version").GetString().ShouldNotBeNullOrEmpty();
        status.GetProperty("limitations")[0].GetString().ShouldBe("no CAP_NET_ADMIN");
        var upstream = status.GetProperty("upstreams")[0];
        upstream.GetProperty("name").GetString().ShouldBe("db");
        upstream.GetProperty("path_up").GetBoolean().ShouldBeTrue();
        upstream.GetProperty("idle_timeout_lower_seconds").GetDouble().ShouldBe(300);
        var connection = status.GetProperty("connections")[0];
        connection.EnumerateObject().Select(p => p.Name).ShouldBe(
        [
            "local", "peer", "pid", "executable", "unit", "upstream", "namespace", "idle_seconds", "verdict", "why",
            "stuck_seconds", "keepalive", "cookie", "session",
        ]);
        connection.GetProperty("local").GetString().ShouldBe("10.0.1.2:40001");
        connection.GetProperty("peer").GetString().ShouldBe("10.0.2.2:5432");
        connection.GetProperty("pid").GetInt32().ShouldBe(1234);
        connection.GetProperty("executable").GetString().ShouldBe("/usr/bin/uwsgi-core");
        connection.GetProperty("unit").GetString().ShouldBe("uwsgi.service");
        connection.GetProperty("idle_seconds").GetDouble().ShouldBe(12.345679);
        connection.GetProperty("verdict").GetString().ShouldBe("stuck");
        connection.GetProperty("stuck_seconds").GetDouble().ShouldBe(2.5);
        connection.GetProperty("keepalive").GetBoolean().ShouldBeFalse();
        connection.GetProperty("cookie").GetString().ShouldBe("18446744073709551615");
    }

    [Fact]
    public async Task The_client_reads_what_the_server_writes()
    {
        using var directory = new TemporaryDirectory();
        var asked = 0;
        await using var server = ControlServer.Start(directory.Path, () => Snapshots.Of(Snapshots.Connection(1), Snapshots.Connection(2)), last =>
        {
            asked = last;
            return [Snapshots.Incident(1), Snapshots.Incident(2)];
        });
        var client = new ControlClient(directory.Path);
        client.Ping().Pid.ShouldBe(Environment.ProcessId);
        client.Status().Connections.Select(c => c.Local).ShouldBe(["10.0.1.2:1", "10.0.1.2:2"]);
        client.Incidents(7).Select(i => i.Id).ShouldBe([Snapshots.Incident(1).Id, Snapshots.Incident(2).Id]);
        asked.ShouldBe(7);
    }

    [Fact]
    public async Task A_hundred_thousand_connections_are_answered_in_pieces()
    {
        using var directory = new TemporaryDirectory();
        var connection = Snapshots.Connection();
        var snapshot = Snapshots.Of([.. Enumerable.Repeat(connection, 100_000)]);
        await using var server = Serve(directory.Path, () => snapshot);
        new ControlClient(directory.Path).Status().Connections.Count().ShouldBe(100_000);
    }

    [Fact]
    public async Task The_socket_is_for_owner_and_group_alone()
    {
        using var directory = new TemporaryDirectory();
        var runtime = directory.File("run");
        await using var server = Serve(runtime, () => null);
        File.GetUnixFileMode(runtime).ShouldBe((UnixFileMode)0x1e8);
        File.GetUnixFileMode(ControlSocket.PathIn(runtime)).ShouldBe((UnixFileMode)0x1b0);
    }

    [Fact]
    public async Task A_directory_that_is_there_keeps_its_mode()
    {
        using var directory = new TemporaryDirectory();
        File.SetUnixFileMode(directory.Path, (UnixFileMode)0x1ed);
        await using var server = Serve(directory.Path, () => null);
        File.GetUnixFileMode(directory.Path).ShouldBe((UnixFileMode)0x1ed);
    }

    [Fact]
    public async Task A_second_agent_is_refused_and_the_first_goes_on()
    {
        using var directory = new TemporaryDirectory();
        await using var server = Serve(directory.Path, () => null);
        var refusal = Should.Throw<ControlException>(() => Serve(directory.Path, () => null));
        refusal.Failure.ShouldBe(ControlFailure.AlreadyRunning);
        refusal.Message.ShouldContain("another conn-sidecar is already running");
        new ControlClient(directory.Path).Ping().Pid.ShouldBe(Environment.ProcessId);
    }

    [Fact]
    public async Task A_live_socket_is_respected_even_where_its_lock_file_was_removed()
    {
        using var directory = new TemporaryDirectory();
        await using var server = Serve(directory.Path, () => null);
        File.Delete(directory.File("control.lock"));
        Should.Throw<ControlException>(() => Serve(directory.Path, () => null)).Failure.ShouldBe(ControlFailure.AlreadyRunning);
        new ControlClient(directory.Path).Ping().Pid.ShouldBe(Environment.ProcessId);
    }

    [Fact]
    public async Task The_socket_of_a_dead_agent_is_replaced()
    {
        using var directory = new TemporaryDirectory();
        var path = ControlSocket.PathIn(directory.Path);
        using (var dead = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified))
        {
            // Bound under another name and moved, so that closing it leaves the file behind as a crash does.
            dead.Bind(new UnixDomainSocketEndPoint(path + "x"));
            dead.Listen();
            File.Move(path + "x", path);
        }

        File.Exists(path).ShouldBeTrue();
        await using var server = Serve(directory.Path, () => null);
        new ControlClient(directory.Path).Ping().Pid.ShouldBe(Environment.ProcessId);
    }

    [Fact]
    public async Task An_agent_that_ends_leaves_no_socket_and_the_next_one_starts()
    {
        using var directory = new TemporaryDirectory();
        await Serve(directory.Path, () => null).DisposeAsync();
        File.Exists(ControlSocket.PathIn(directory.Path)).ShouldBeFalse();
        await using var next = Serve(directory.Path, () => null);
        new ControlClient(directory.Path).Ping().Pid.ShouldBe(Environment.ProcessId);
    }

    [Fact]
    public void A_directory_that_cannot_be_made_is_told()
    {
        using var directory = new TemporaryDirectory();
        var file = directory.Write("file", "");
        var refusal = Should.Throw<ControlException>(() => Serve(Path.Combine(file, "run"), () => null));
        refusal.Failure.ShouldBe(ControlFailure.CannotServe);
        refusal.Message.ShouldContain("cannot make the control socket");
    }

    [Fact]
    public void Without_an_agent_the_client_says_so()
    {
        using var directory = new TemporaryDirectory();
        Should.Throw<ControlException>(() => new ControlClient(directory.Path).Status()).Failure.ShouldBe(ControlFailure.NotRunning);
    }

    [Fact]
    public async Task The_client_waits_for_the_first_look()
    {
        using var directory = new TemporaryDirectory();
        var asked = 0;
        await using var server = Serve(directory.Path, () => Interlocked.Increment(ref asked) < 3 ? null : Snapshots.Of());
        new ControlClient(directory.Path).Status().Scan.ShouldBe(42);
        asked.ShouldBe(3);
    }

    [Theory]
    [InlineData("")]
    [InlineData("\n")]
    [InlineData("nonsense\n")]
    [InlineData("status now\n")]
    [InlineData("STATUS\n")]
    [InlineData("incidents\n")]
    [InlineData("incidents 0\n")]
    [InlineData("incidents -1\n")]
    [InlineData("incidents 10001\n")]
    [InlineData("incidents 99999999999999999999\n")]
    [InlineData("incidents 1 2\n")]
    [InlineData("\0\u0001\n")]
    [InlineData("status")]
    public async Task A_request_that_is_none_is_answered_with_what_was_expected(string request)
    {
        using var directory = new TemporaryDirectory();
        await using var server = Serve(directory.Path, () => Snapshots.Of());
        JsonDocument.Parse(Ask(directory.Path, request)).RootElement.GetProperty("error").GetString()!.ShouldContain("expected");
    }

    [Fact]
    public async Task A_request_without_an_end_is_cut_off_at_its_bound()
    {
        using var directory = new TemporaryDirectory();
        await using var server = Serve(directory.Path, () => Snapshots.Of());
        var exact = Ask(directory.Path, new string(' ', ControlSocket.MaxRequestBytes - 5) + "ping\n");
        JsonDocument.Parse(exact).RootElement.GetProperty("pid").GetInt32().ShouldBe(Environment.ProcessId);
        var over = Ask(directory.Path, new string('x', ControlSocket.MaxRequestBytes));
        JsonDocument.Parse(over).RootElement.GetProperty("error").GetString()!.ShouldContain("4096 bytes");
    }

    [Fact]
    public async Task Clients_that_say_nothing_are_cut_off_and_others_are_served_again()
    {
        using var directory = new TemporaryDirectory();
        await using var server = Serve(directory.Path, () => Snapshots.Of());
        var silent = Enumerable.Range(0, 16).Select(_ => Connect(directory.Path)).ToList();
        try
        {
            // All places are taken: the next one is turned away at once, without an answer.
            using (var oneMore = Connect(directory.Path))
            {
                ReadToEnd(oneMore).ShouldBeEmpty();
            }

            var clock = Stopwatch.StartNew();
            foreach (var socket in silent)
            {
                ReadToEnd(socket).ShouldBeEmpty();
            }

            clock.Elapsed.ShouldBeLessThan(Patience);
            JsonDocument.Parse(AskUntilServed(directory.Path)).RootElement.GetProperty("pid").GetInt32().ShouldBe(Environment.ProcessId);
        }
        finally
        {
            silent.ForEach(s => s.Dispose());
        }
    }

    [Fact]
    public async Task A_client_that_trickles_is_cut_off_in_all_its_time()
    {
        using var directory = new TemporaryDirectory();
        await using var server = Serve(directory.Path, () => Snapshots.Of());
        using var slow = Connect(directory.Path);
        var clock = Stopwatch.StartNew();
        var ended = Task.Run(() => ReadToEnd(slow));
        while (!ended.IsCompleted && clock.Elapsed < Patience)
        {
            try
            {
                slow.Send("x"u8);
            }
            catch (SocketException)
            {
                break;
            }

            await Task.WhenAny(ended, Task.Delay(100));
        }

        (await ended).ShouldBeEmpty();
        clock.Elapsed.ShouldBeLessThan(Patience);
    }

    [Fact]
    public async Task A_client_that_does_not_read_does_not_keep_the_agent_from_ending()
    {
        using var directory = new TemporaryDirectory();
        var snapshot = Snapshots.Of([.. Enumerable.Repeat(Snapshots.Connection(), 50_000)]);
        var asked = new TaskCompletionSource();
        var server = Serve(directory.Path, () =>
        {
            asked.TrySetResult();
            return snapshot;
        });
        using var lazy = Connect(directory.Path);
        lazy.Send("status\n"u8);
        await asked.Task.WaitAsync(Patience);
        await server.DisposeAsync().AsTask().WaitAsync(Patience);
    }

    [Fact]
    public async Task Names_that_are_no_text_are_answered_as_valid_json()
    {
        using var directory = new TemporaryDirectory();
        await using var server = Serve(directory.Path, () => Snapshots.Of(Snapshots.Connection() with { Executable = "/tmp/\ud800\u001b[2J\"\n" }));
        var text = Ask(directory.Path, "status\n");
        text.TrimEnd('\n').ShouldAllBe(c => !char.IsControl(c));
        JsonDocument.Parse(text).RootElement.GetProperty("connections")[0].GetProperty("executable").GetString()!.ShouldEndWith("\u001b[2J\"\n");
    }

    private static ControlServer Serve(string directory, Func<AgentSnapshot?> snapshot) => ControlServer.Start(directory, snapshot, _ => Array.Empty<Incident>());

    private static Socket Connect(string directory)
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { ReceiveTimeout = (int)Patience.TotalMilliseconds };
        socket.Connect(new UnixDomainSocketEndPoint(ControlSocket.PathIn(directory)));
        return socket;
    }

    /// <summary>Sends the request, says that nothing follows, and reads until the server closes.</summary>
    private static string Ask(string directory, string request)
    {
        using var socket = Connect(directory);
        socket.Send(Encoding.UTF8.GetBytes(request));
        socket.Shutdown(SocketShutdown.Send);
        return ReadToEnd(socket);
    }

    /// <summary>The place of a client that was cut off is free a moment after the client sees it.</summary>
    private static string AskUntilServed(string directory)
    {
        var clock = Stopwatch.StartNew();
        while (true)
        {
            try
            {
                var answer = Ask(directory, "ping\n");
                if (answer.Length > 0 || clock.Elapsed > Patience)
                {
                    return answer;
                }
            }
            catch (SocketException) when (clock.Elapsed < Patience)
            {
                // Turned away while it was still sending.
            }
        }
    }

    private static string ReadToEnd(Socket socket)
    {
        var all = new MemoryStream();
        var buffer = new byte[65536];
        while (true)
        {
            int read;
            try
            {
                read = socket.Receive(buffer);
            }
            catch (SocketException e) when (e.SocketErrorCode == SocketError.ConnectionReset)
            {
                // Closed with something of ours unread.
                read = 0;
            }

            if (read == 0)
            {
                return Encoding.UTF8.GetString(all.ToArray());
            }

            all.Write(buffer, 0, read);
        }
    }
}
