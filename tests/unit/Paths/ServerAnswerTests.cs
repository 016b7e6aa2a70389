using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text;
using Shouldly;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.Paths;
using Sidecar.Probes.Processes;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.UnitTests.Paths;

/// <summary>Connect probes that ask the server itself: real servers, and small ones that misbehave.</summary>
public sealed class ServerAnswerTests : IDisposable
{
    private static readonly TimeSpan Enough = TimeSpan.FromSeconds(30);

    private readonly NetworkNamespace _network = NetworkNamespace.OpenOwn(1);
    private readonly Socket _listener = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);

    public ServerAnswerTests()
    {
        _listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        _listener.Listen(64);
    }

    public void Dispose()
    {
        _listener.Dispose();
        _network.Dispose();
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task PostgreSql_answers_and_logs_nothing(bool tls)
    {
        using var server = RealServer.PostgreSql(tls);
        var before = server.Log;
        ShouldHaveAnswered(await Try(server.EndPoint, ConnectProbeProtocol.PostgreSql));
        await Ended(server.EndPoint);
        server.Log.ShouldBe(before);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task With_log_connections_PostgreSql_logs_that_one_came_and_no_error(bool tls)
    {
        using var server = RealServer.PostgreSql(tls, "-c log_connections=on");
        var before = server.Log.Length;
        ShouldHaveAnswered(await Try(server.EndPoint, ConnectProbeProtocol.PostgreSql));
        await Ended(server.EndPoint);
        server.Log[before..].ShouldSatisfyAllConditions(
            log => log.ShouldContain("connection received: host=127.0.0.1"),
            log => log.Count(c => c == '\n').ShouldBe(1));
    }

    [Fact]
    public async Task Redis_answers_even_where_a_password_is_wanted()
    {
        using var server = RealServer.Redis();
        var before = server.Log;
        ShouldHaveAnswered(await Try(server.EndPoint, ConnectProbeProtocol.Redis));
        await Ended(server.EndPoint);
        server.Log.ShouldBe(before);
    }

    [Fact]
    public async Task An_http_server_answers_with_whatever_status()
    {
        using var server = RealServer.Nginx();
        ShouldHaveAnswered(await Try(server.EndPoint, ConnectProbeProtocol.Http));
    }

    [Theory]
    [InlineData("")]
    [InlineData("-tls1_3")]
    [InlineData("-tls1_2")]
    [InlineData("-tls1_2 -cipher PSK")] // no cipher in common: an alert
    public async Task A_tls_server_answers_with_its_hello_or_an_alert(string options)
    {
        using var server = RealServer.Tls(options);
        ShouldHaveAnswered(await Try(server.EndPoint, ConnectProbeProtocol.Tls));
    }

    [Theory]
    [InlineData(ConnectProbeProtocol.PostgreSql)]
    [InlineData(ConnectProbeProtocol.MySql)]
    [InlineData(ConnectProbeProtocol.Redis)]
    [InlineData(ConnectProbeProtocol.Http)]
    [InlineData(ConnectProbeProtocol.Tls)]
    public async Task A_handshake_without_an_answer_proves_no_server(ConnectProbeProtocol protocol)
    {
        // The kernel completes the handshake for a listener that accepts nothing, as a SYN proxy does.
        var result = await Try(Listener, protocol, TimeSpan.FromSeconds(0.3));
        (result.Outcome, result.ServerAnswered, result.AnsweredAfter).ShouldBe((ConnectProbeOutcome.NoAnswer, false, null));
        result.Detail.ShouldNotBeNull().ShouldContain("did not answer in time");
        result.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(0.3), "it is the handshake's");
    }

    [Fact]
    public async Task The_handshake_alone_is_no_answer_of_the_server()
    {
        var result = await Try(Listener, ConnectProbeProtocol.Tcp);
        (result.Outcome, result.ServerAnswered).ShouldBe((ConnectProbeOutcome.Connected, false));
    }

    [Theory]
    [InlineData(ConnectProbeProtocol.PostgreSql, "S")]
    [InlineData(ConnectProbeProtocol.PostgreSql, "N")]
    [InlineData(ConnectProbeProtocol.PostgreSql, "E\0\0\0\u0010SFATAL\0\0")]
    [InlineData(ConnectProbeProtocol.MySql, "\u0010\0\0\0\u000a8.0")]
    [InlineData(ConnectProbeProtocol.MySql, "\u0010\0\0\0\u00ffi\u0004Host is blocked")]
    [InlineData(ConnectProbeProtocol.Redis, "+PONG\r\n")]
    [InlineData(ConnectProbeProtocol.Redis, "-LOADING\r\n")]
    [InlineData(ConnectProbeProtocol.Http, "HTTP/1.0 503 x\r\n\r\n")]
    [InlineData(ConnectProbeProtocol.Tls, "\u0015\u0003\u0003\0\u0002\u0002(")]
    public async Task One_that_trickles_is_heard_to_the_end(ConnectProbeProtocol protocol, string answer)
    {
        var result = await Against(protocol, async (server, question) =>
        {
            foreach (var one in Encoding.Latin1.GetBytes(answer))
            {
                try
                {
                    await server.SendAsync(new[] { one });
                }
                catch (SocketException)
                {
                    return; // it has heard enough
                }

                await Task.Yield();
            }
        });
        ShouldHaveAnswered(result);
    }

    [Theory]
    [InlineData(ConnectProbeProtocol.PostgreSql, "SSH-2.0-OpenSSH_9.2\r\n")]
    [InlineData(ConnectProbeProtocol.PostgreSql, "HTTP/1.1 400 Bad Request\r\n")]
    [InlineData(ConnectProbeProtocol.MySql, "SSH-2.0-OpenSSH_9.2\r\n")]
    [InlineData(ConnectProbeProtocol.MySql, "\u0010\0\0\u0001\u000a8.0")]
    [InlineData(ConnectProbeProtocol.Redis, "HTTP/1.1 400 Bad Request\r\n")]
    [InlineData(ConnectProbeProtocol.Http, "220 mail.example ESMTP\r\n")]
    [InlineData(ConnectProbeProtocol.Tls, "HTTP/1.1 400 Bad Request\r\n")]
    [InlineData(ConnectProbeProtocol.Tls, "\u0016\u0003\u0003\0\u0010\u0001aaaaaaaaaaaaaaa")] // a handshake record, and no ServerHello
    public async Task Something_else_that_answers_there_is_not_the_server(ConnectProbeProtocol protocol, string garbage)
    {
        var result = await Against(protocol, (server, _) => server.SendAsync(Encoding.Latin1.GetBytes(garbage)));
        (result.Outcome, result.ServerAnswered).ShouldBe((ConnectProbeOutcome.NoAnswer, false), result.Detail);
        result.Detail.ShouldNotBeNull().ShouldStartWith("what came back is not");
    }

    [Fact]
    public async Task One_that_never_ends_its_line_is_not_listened_to_for_ever()
    {
        var result = await Against(ConnectProbeProtocol.Redis, (server, _) => server.SendAsync(Encoding.ASCII.GetBytes("+" + new string('a', 10_000))));
        (result.Outcome, result.Detail).ShouldBe((ConnectProbeOutcome.NoAnswer, "what came back is not Redis"));
    }

    [Fact]
    public async Task One_that_closes_at_once_gives_no_answer()
    {
        var result = await Against(ConnectProbeProtocol.PostgreSql, (_, _) => Task.CompletedTask);
        (result.Outcome, result.Detail).ShouldBe((ConnectProbeOutcome.NoAnswer, "closed without an answer"));
    }

    [Fact]
    public async Task A_reset_before_the_answer_is_a_refusal()
    {
        var result = await Against(ConnectProbeProtocol.PostgreSql, (server, _) =>
        {
            server.LingerState = new LingerOption(true, 0);
            return Task.CompletedTask;
        });
        (result.Outcome, result.ServerAnswered, result.Detail).ShouldBe((ConnectProbeOutcome.Refused, false, "reset before the answer"));
    }

    [Fact]
    public async Task The_questions_are_those_of_the_protocols()
    {
        async Task<string> Asked(ConnectProbeProtocol protocol)
        {
            var question = "";
            await Against(protocol, (_, asked) =>
            {
                question = Encoding.Latin1.GetString(asked);
                return Task.CompletedTask;
            });
            return question;
        }

        (await Asked(ConnectProbeProtocol.PostgreSql)).ShouldBe("\0\0\0\u0008\u0004\u00d2\u0016\u002f");
        (await Asked(ConnectProbeProtocol.Redis)).ShouldBe("*1\r\n$4\r\nPING\r\n");
        (await Asked(ConnectProbeProtocol.Http)).ShouldBe($"OPTIONS * HTTP/1.1\r\nHost: {Listener}\r\nUser-Agent: conn-sidecar\r\nConnection: close\r\n\r\n");
    }

    [Theory]
    [InlineData("127.0.0.1")]
    [InlineData("::1")]
    public async Task Ports_are_taken_as_connect_takes_them(string address)
    {
        var ip = IPAddress.Parse(address);
        using var listener = new Socket(ip.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(ip, 0));
        listener.Listen(200);
        var probes = new List<int>();
        var workers = new List<int>();
        for (var i = 0; i < 50; i++)
        {
            (await Try((IPEndPoint)listener.LocalEndPoint!, ConnectProbeProtocol.Tcp)).Outcome.ShouldBe(ConnectProbeOutcome.Connected);
            using var probe = await listener.AcceptAsync();
            probes.Add(((IPEndPoint)probe.RemoteEndPoint!).Port);
            using var worker = new Socket(ip.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
            await worker.ConnectAsync(listener.LocalEndPoint!);
            workers.Add(((IPEndPoint)worker.LocalEndPoint!).Port);
            using var accepted = await listener.AcceptAsync();
        }

        // Almost all, not all: connect() takes the other parity for a port that is free there when its own is used up.
        var parity = workers.Count(port => port % 2 != 0) > 25 ? 1 : 0;
        workers.Count(port => port % 2 == parity).ShouldBeGreaterThan(45, string.Join(' ', workers));
        probes.Count(port => port % 2 == parity).ShouldBeGreaterThan(45, string.Join(' ', probes));
        probes.Distinct().Count().ShouldBeGreaterThan(40);
    }

    private IPEndPoint Listener => (IPEndPoint)_listener.LocalEndPoint!;

    private Task<ConnectProbeResult> Try(IPEndPoint destination, ConnectProbeProtocol protocol, TimeSpan? timeout = null) =>
        ConnectProbe.TryAsync(
            _network,
            destination.AddressFamily == AddressFamily.InterNetwork ? IPAddress.Loopback : IPAddress.IPv6Loopback,
            destination,
            protocol,
            timeout ?? Enough,
            CancellationToken.None);

    /// <summary>Probes a server of this test: it reads the question, does what it is told, and closes.</summary>
    private async Task<ConnectProbeResult> Against(ConnectProbeProtocol protocol, Func<Socket, byte[], Task> serve)
    {
        var probing = Try(Listener, protocol);
        using (var server = await _listener.AcceptAsync())
        {
            server.NoDelay = true;
            var question = new byte[4096];
            var length = protocol == ConnectProbeProtocol.MySql ? 0 : await server.ReceiveAsync(question);
            await serve(server, question[..length]);
        }

        return await probing;
    }

    private static void ShouldHaveAnswered(ConnectProbeResult result)
    {
        (result.Outcome, result.ServerAnswered).ShouldBe((ConnectProbeOutcome.Connected, true), result.Detail);
        result.AnsweredAfter.ShouldNotBeNull().ShouldBeGreaterThan(TimeSpan.Zero);
    }

    /// <summary>Waits until the probe's connection has ended on the server's side, too: nothing more can come into its log.</summary>
    private async Task Ended(IPEndPoint server)
    {
        bool open;
        do
        {
            open = false;
            _network.Diagnostics.Dump(Probes.SockDiag.SockDiagClient.StatesOfConnections, [], withInfo: false, (in SocketObservation socket) =>
                open |= (socket.Local.Port == server.Port || socket.Peer.Port == server.Port) && socket.State != TcpState.TimeWait);
            await Task.Delay(20);
        }
        while (open);
    }
}

/// <summary>A real MariaDB with name resolution on, which counts handshakes that are not completed against the host.</summary>
public sealed class MariaDbProbeTests : IDisposable
{
    private static readonly IPEndPoint Server = new(IPAddress.Parse("192.0.2.1"), 3306);
    private static readonly IPAddress Worker = IPAddress.Parse("192.0.2.2");

    private readonly TemporaryDirectory _directory = new();
    private readonly Process _server;
    private readonly NetworkNamespace _inside;

    public MariaDbProbeTests()
    {
        Root.Needed("the server gets a namespace and a hosts file of its own");
        var d = _directory.Path;
        var script = $"""
            ip link set lo up; ip addr add 192.0.2.1/32 dev lo; ip addr add 192.0.2.2/32 dev lo
            printf '127.0.0.1 localhost\n192.0.2.2 worker.test\n' > {d}/hosts; mount --bind {d}/hosts /etc/hosts
            echo 'hosts: files' > {d}/nsswitch; mount --bind {d}/nsswitch /etc/nsswitch.conf
            chown mysql {d}
            mariadb-install-db --no-defaults --force --user=mysql --datadir={d}/data --skip-test-db --auth-root-authentication-method=normal > {d}/install 2>&1
            exec mariadbd --no-defaults --user=mysql --datadir={d}/data --socket={d}/s --pid-file={d}/pid --bind-address=192.0.2.1 --performance-schema=ON > {d}/log 2>&1
            """;
        _server = Process.Start(new ProcessStartInfo("unshare", ["--net", "--mount", "sh", "-ec", script]) { UseShellExecute = false })!;
        SpinWait.SpinUntil(() => _server.HasExited || (File.Exists(d + "/log") && File.ReadAllText(d + "/log").Contains("ready for connections", StringComparison.Ordinal)), TimeSpan.FromMinutes(2)).ShouldBeTrue();
        _server.HasExited.ShouldBeFalse();
        var processes = new ProcessReader();
        _inside = NetworkNamespace.Open(processes.ReadNetworkNamespace(_server.Id), processes.NetworkNamespacePath(_server.Id));
    }

    public void Dispose()
    {
        _inside.Dispose();
        using (var kill = Process.Start("kill", ["-TERM", _server.Id.ToString()]))
        {
            kill.WaitForExit();
        }

        _server.WaitForExit();
        _server.Dispose();
        _directory.Dispose();
    }

    [Fact]
    public async Task A_hundred_and_thirty_probes_block_nobody()
    {
        Query("CREATE USER worker@'worker.test'");
        for (var i = 0; i < 130; i++)
        {
            var result = await ConnectProbe.TryAsync(_inside, Worker, Server, ConnectProbeProtocol.MySql, TimeSpan.FromSeconds(30), CancellationToken.None);
            (result.Outcome, result.ServerAnswered).ShouldBe((ConnectProbeOutcome.Connected, true), result.Detail);
        }

        // Each has ended: refused as a user that is not known, which is not counted.
        SpinWait.SpinUntil(() => Query("SHOW GLOBAL STATUS LIKE 'Aborted_connects'").Contains("\t130", StringComparison.Ordinal), TimeSpan.FromSeconds(30)).ShouldBeTrue();
        Query("SELECT SUM_CONNECT_ERRORS, COUNT_HANDSHAKE_ERRORS, COUNT_HOST_BLOCKED_ERRORS FROM performance_schema.host_cache").ShouldBe("0\t0\t0\n");
    }

    [Fact]
    public async Task A_host_that_is_not_allowed_gets_an_answer_as_well()
    {
        var result = await ConnectProbe.TryAsync(_inside, Worker, Server, ConnectProbeProtocol.MySql, TimeSpan.FromSeconds(30), CancellationToken.None);
        (result.Outcome, result.ServerAnswered).ShouldBe((ConnectProbeOutcome.Connected, true), result.Detail);
        SpinWait.SpinUntil(() => Query("SHOW GLOBAL STATUS LIKE 'Aborted_connects'").Contains("\t1", StringComparison.Ordinal), TimeSpan.FromSeconds(30)).ShouldBeTrue();
        Query("SELECT COUNT(*) FROM performance_schema.host_cache WHERE SUM_CONNECT_ERRORS > 0").ShouldBe("0\n");
    }

    private string Query(string sql) => RealServer.Command("mariadb", "--no-defaults", "-S", _directory.File("s"), "-uroot", "-N", "-e", sql);
}
