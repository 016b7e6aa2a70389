using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using Microsoft.Extensions.Logging;
using Shouldly;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Endpoints;
using Sidecar.Agent.Telemetry;
using Xunit;

namespace Sidecar.UnitTests.Telemetry;

public sealed class HttpEndpointTests : IAsyncLifetime
{
    private readonly SidecarMetrics _metrics = MetricsTests.Filled();
    private readonly ListLogger _logger = new();
    private readonly LoggerFactory _loggers;
    private readonly HttpClient _client = new();
    private readonly HttpEndpoint _endpoint;
    private AgentSnapshot? _snapshot = Samples.Snapshot();
    private LoopHealth _health = Samples.Health();
    private IReadOnlyList<Incident> _incidents = [Samples.Incident("a", "released"), Samples.Incident("b")];

    public HttpEndpointTests()
    {
        _loggers = new LoggerFactory([_logger]);
        _endpoint = NewEndpoint(new IPEndPoint(IPAddress.Loopback, 0));
    }

    public async Task InitializeAsync()
    {
        await _endpoint.StartAsync();
        _client.BaseAddress = new Uri($"http://{_endpoint.Bound}");
    }

    public async Task DisposeAsync()
    {
        _client.Dispose();
        await _endpoint.DisposeAsync();
        _metrics.Dispose();
        _loggers.Dispose();
        _logger.Lines.ShouldNotContain(l => l.Level >= LogLevel.Error && l.Text.Contains("xception", StringComparison.Ordinal) && !l.Text.Contains("cannot listen", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Metrics_come_in_the_format_that_is_asked_for()
    {
        var plain = await _client.GetAsync("/metrics");
        plain.StatusCode.ShouldBe(HttpStatusCode.OK);
        plain.Content.Headers.ContentType!.ToString().ShouldBe(ExpositionWriter.PrometheusTextType);
        (await plain.Content.ReadAsStringAsync()).ShouldBe(MetricsTests.Scrape(_metrics));

        using var request = new HttpRequestMessage(HttpMethod.Get, "/metrics");
        request.Headers.TryAddWithoutValidation("Accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5");
        var open = await _client.SendAsync(request);
        open.Content.Headers.ContentType!.ToString().ShouldBe(ExpositionWriter.OpenMetricsType);
        (await open.Content.ReadAsStringAsync()).ShouldEndWith("# EOF\n");
    }

    [Fact]
    public async Task Promtool_is_content_with_a_live_scrape()
    {
        var (exitCode, output) = TestTools.Run("promtool", await _client.GetStringAsync("/metrics"), "check", "metrics");
        output.ShouldBeEmpty();
        exitCode.ShouldBe(0);
    }

    [Fact]
    public async Task Health_is_whether_the_loop_turns_and_readiness_what_it_can_do()
    {
        (await Get("/healthz")).ShouldBe((200, "ok\n"));
        (await Get("/readyz")).ShouldBe((200, "ready\n"));
        _health = Samples.Health(notPossible: "no CAP_NET_ADMIN: nothing is recycled");
        (await Get("/readyz")).ShouldBe((503, "not possible here: no CAP_NET_ADMIN: nothing is recycled\n"));
        _health = Samples.Health(firstScan: false);
        (await Get("/readyz")).Status.ShouldBe(503);
        _health = Samples.Health(silence: 7.9);
        (await Get("/healthz")).Status.ShouldBe(200);
        _health = Samples.Health(silence: 8.1);
        (await Get("/healthz")).ShouldBe((503, "the loop has not run for 8.1 s\n"));
    }

    [Fact]
    public async Task Connections_have_the_field_names_of_status()
    {
        _snapshot = Samples.Snapshot([Samples.Connection(), Samples.Connection(Verdict.Stuck, stuck: 2.5, keepalive: null) with { Pid = null, Unit = null }]);
        using var json = JsonDocument.Parse((await Get("/api/v1/connections")).Body);
        json.RootElement.GetProperty("mode").GetString().ShouldBe("protect");
        var connections = json.RootElement.GetProperty("connections").EnumerateArray().ToList();
        connections.Count.ShouldBe(2);
        connections[0].EnumerateObject().Select(p => p.Name).ShouldBe(
            ["local", "peer", "pid", "executable", "unit", "upstream", "namespace", "idle_seconds", "verdict", "why", "stuck_seconds", "keepalive", "cookie", "session"]);
        connections[0].GetProperty("local").GetString().ShouldBe("10.0.1.2:40000");
        connections[0].GetProperty("cookie").GetString().ShouldBe("18446744073709551615");
        connections[0].GetProperty("stuck_seconds").ValueKind.ShouldBe(JsonValueKind.Null);
        connections[1].GetProperty("verdict").GetString().ShouldBe("stuck");
        connections[1].GetProperty("stuck_seconds").GetDouble().ShouldBe(2.5);
        connections[1].GetProperty("pid").ValueKind.ShouldBe(JsonValueKind.Null);
        connections[1].GetProperty("keepalive").ValueKind.ShouldBe(JsonValueKind.Null);

        using var stuck = JsonDocument.Parse((await Get("/api/v1/connections?verdict=stuck&upstream=orders-db")).Body);
        stuck.RootElement.GetProperty("connections").GetArrayLength().ShouldBe(1);
        using var none = JsonDocument.Parse((await Get("/api/v1/connections?upstream=nobody")).Body);
        none.RootElement.GetProperty("connections").GetArrayLength().ShouldBe(0);
    }

    [Fact]
    public async Task Ten_thousand_connections_arrive_whole()
    {
        _snapshot = Samples.Snapshot([.. Enumerable.Range(0, 10_000).Select(i => Samples.Connection(port: 10_000 + i))]);
        using var json = JsonDocument.Parse((await Get("/api/v1/connections")).Body);
        json.RootElement.GetProperty("connections").GetArrayLength().ShouldBe(10_000);
    }

    [Fact]
    public async Task Incidents_and_paths_are_there_as_JSON()
    {
        using var all = JsonDocument.Parse((await Get("/api/v1/incidents")).Body);
        var list = all.RootElement.GetProperty("incidents").EnumerateArray().ToList();
        list.Select(i => i.GetProperty("id").GetString()).ShouldBe(["a", "b"]);
        list[0].GetProperty("withheld_by").ValueKind.ShouldBe(JsonValueKind.Null);
        using var one = JsonDocument.Parse((await Get("/api/v1/incidents?last=1")).Body);
        one.RootElement.GetProperty("incidents").GetArrayLength().ShouldBe(1);
        foreach (var bad in new[] { "0", "-1", "1001", "x", "", "99999999999999" })
        {
            (await Get($"/api/v1/incidents?last={bad}")).Status.ShouldBe(400);
        }

        using var paths = JsonDocument.Parse((await Get("/api/v1/paths")).Body);
        var path = paths.RootElement.GetProperty("paths")[0];
        path.GetProperty("name").GetString().ShouldBe("orders-db");
        path.GetProperty("path_up").GetBoolean().ShouldBeTrue();
        path.GetProperty("path_round_trip_seconds").GetDouble().ShouldBe(0.0008);
        path.GetProperty("idle_timeout_lower_seconds").GetDouble().ShouldBe(300);
        path.GetProperty("idle_timeout_upper_seconds").GetDouble().ShouldBe(350);
    }

    [Fact]
    public async Task Before_the_first_look_each_path_answers_and_says_so()
    {
        _snapshot = null;
        _health = Samples.Health(firstScan: false);
        _incidents = [];
        (await Get("/")).Status.ShouldBe(200);
        (await Get("/metrics")).Status.ShouldBe(200);
        (await Get("/healthz")).Status.ShouldBe(200);
        foreach (var path in new[] { "/readyz", "/api/v1/connections", "/api/v1/paths", "/check/db", "/check/pool" })
        {
            (await Get(path)).Status.ShouldBe(503, path);
        }

        (await Get("/api/v1/incidents")).ShouldBe((200, "{\"incidents\":[]}"));
        (await Get("/check/host")).ShouldBe((200, Dns.GetHostName() + "\n"));
    }

    [Fact]
    public async Task The_page_shows_what_is_wrong_and_escapes_hostile_names()
    {
        const string hostile = "<script>alert(1)</script>";
        _snapshot = Samples.Snapshot([Samples.Connection(Verdict.Stuck, executable: hostile, why: hostile)], limitations: [hostile]);
        _incidents = [Samples.Incident("a", executable: hostile) with { Why = hostile }];
        var response = await _client.GetAsync("/");
        response.Content.Headers.ContentType!.ToString().ShouldBe("text/html; charset=utf-8");
        response.Headers.GetValues("Content-Security-Policy").Single().ShouldStartWith("default-src 'none'");
        var html = await response.Content.ReadAsStringAsync();
        html.ShouldNotContain("<script");
        html.ShouldContain("&lt;script&gt;");
        html.ShouldContain("orders-db");
    }

    [Fact]
    public async Task The_page_stays_small_however_many_connections_are_stuck()
    {
        _snapshot = Samples.Snapshot([.. Enumerable.Range(0, 10_000).Select(i => Samples.Connection(Verdict.Stuck, port: 10_000 + i))]);
        (await Get("/")).Body.Length.ShouldBeLessThan(60_000);
    }

    [Theory]
    [InlineData("POST")]
    [InlineData("PUT")]
    [InlineData("DELETE")]
    [InlineData("PATCH")]
    [InlineData("OPTIONS")]
    [InlineData("TRACE")]
    [InlineData("PURGE")]
    public async Task Nothing_but_GET_and_HEAD_is_answered(string method)
    {
        foreach (var path in new[] { "/metrics", "/", "/api/v1/connections", "/no/such/path" })
        {
            using var request = new HttpRequestMessage(new HttpMethod(method), path);
            var response = await _client.SendAsync(request);
            ((int)response.StatusCode).ShouldBe(405);
            response.Content.Headers.Allow.ShouldBe(["GET", "HEAD"]);
        }
    }

    [Fact]
    public async Task HEAD_has_the_headers_and_no_body()
    {
        foreach (var path in new[] { "/metrics", "/", "/healthz", "/api/v1/connections", "/check/db" })
        {
            using var request = new HttpRequestMessage(HttpMethod.Head, path);
            var response = await _client.SendAsync(request);
            response.StatusCode.ShouldBe(HttpStatusCode.OK, path);
            (await response.Content.ReadAsByteArrayAsync()).ShouldBeEmpty();
        }
    }

    [Theory]
    [InlineData("127.0.0.1:10042", 200)]
    [InlineData("localhost:1", 200)]
    [InlineData("LOCALHOST", 200)]
    [InlineData("10.9.8.7", 200)]
    [InlineData("[::1]:10042", 200)]
    [InlineData("evil.example", 421)]
    [InlineData("localhost.evil.example", 421)]
    [InlineData("127.0.0.1.evil.example:80", 421)]
    [InlineData("127.0.0.1@evil.example", 400)]
    public async Task A_name_that_is_not_ours_is_refused_so_that_no_web_page_reads_us_by_rebinding(string host, int status)
    {
        var answer = await Raw($"GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        answer.ShouldStartWith($"HTTP/1.1 {status} ");
        if (status != 200)
        {
            answer.ShouldNotContain("conn_sidecar_");
        }
    }

    [Fact]
    public async Task The_machine_s_own_name_and_old_clients_without_a_host_are_served()
    {
        (await Raw($"GET /healthz HTTP/1.1\r\nHost: {Dns.GetHostName()}:10042\r\nConnection: close\r\n\r\n")).ShouldStartWith("HTTP/1.1 200 ");
        (await Raw("GET /healthz HTTP/1.0\r\n\r\n")).ShouldStartWith("HTTP/1.1 200 ");
    }

    [Fact]
    public async Task What_is_too_big_or_has_a_body_is_refused()
    {
        (await Raw($"GET /{new string('a', 5000)} HTTP/1.1\r\nHost: localhost\r\n\r\n")).ShouldStartWith("HTTP/1.1 414 ");
        (await Raw($"GET / HTTP/1.1\r\nHost: localhost\r\nX: {new string('a', 20_000)}\r\n\r\n")).ShouldStartWith("HTTP/1.1 431 ");
        (await Raw($"GET / HTTP/1.1\r\nHost: localhost\r\n{string.Concat(Enumerable.Range(0, 100).Select(i => $"X{i}: a\r\n"))}\r\n")).ShouldStartWith("HTTP/1.1 431 ");
        (await Raw("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc")).ShouldStartWith("HTTP/1.1 413 ");
        (await Raw("GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")).ShouldStartWith("HTTP/1.1 413 ");
        (await Raw("GET / HTTP/1.1\r\n\r\n")).ShouldStartWith("HTTP/1.1 400 ");
        (await Raw("GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).ShouldStartWith("HTTP/1.1 404 ");
    }

    [Fact]
    public async Task A_client_that_dawdles_over_its_request_is_cut_off()
    {
        using var socket = Connect();
        await socket.SendAsync("GET /metrics HTTP/1.1\r\nHost: localh"u8.ToArray());
        var answer = await ReadToEnd(socket, TimeSpan.FromSeconds(15));
        answer.ShouldStartWith("HTTP/1.1 408 ");
    }

    [Fact]
    public async Task Scrapers_are_served_while_many_clients_dawdle()
    {
        var dawdlers = Enumerable.Range(0, 100).Select(_ => Connect()).ToList();
        foreach (var dawdler in dawdlers)
        {
            await dawdler.SendAsync("GET /metrics HTT"u8.ToArray());
        }

        var answers = await Task.WhenAll(Enumerable.Range(0, 100).Select(_ => Get("/metrics")));
        answers.ShouldAllBe(a => a.Status == 200);
        dawdlers.ForEach(d => d.Dispose());
    }

    [Fact]
    public async Task An_address_in_use_does_not_stop_the_agent_and_is_taken_when_it_comes_free()
    {
        using var occupant = new TcpListener(IPAddress.Loopback, 0);
        occupant.Start();
        await using var second = NewEndpoint((IPEndPoint)occupant.LocalEndpoint, retryAfter: TimeSpan.FromMilliseconds(50));
        await second.StartAsync();
        second.Bound.ShouldBeNull();
        second.Problem.ShouldNotBeNull().ShouldContain("cannot listen on 127.0.0.1:");
        occupant.Stop();
        await TestTools.Eventually(() => second.Bound is not null, TimeSpan.FromSeconds(10), "the endpoint is bound");
        second.Problem.ShouldBeNull();
        (await _client.GetStringAsync($"http://{second.Bound}/healthz")).ShouldBe("ok\n");
        _logger.Lines.Count(l => l.Text.Contains("cannot listen", StringComparison.Ordinal)).ShouldBe(1);
    }

    [Fact]
    public async Task An_endpoint_listens_on_IPv6_too()
    {
        await using var second = NewEndpoint(new IPEndPoint(IPAddress.IPv6Loopback, 0));
        await second.StartAsync();
        (await _client.GetStringAsync($"http://{second.Bound}/healthz")).ShouldBe("ok\n");
    }

    [Theory]
    [InlineData("metrics.example.org:10042", 200)]
    [InlineData("Metrics.Example.ORG.", 200)]
    [InlineData("app1", 200)]
    [InlineData("other.example.org", 421)]
    [InlineData("app1.evil.example", 421)]
    public async Task Further_names_are_those_of_the_configuration(string host, int status)
    {
        await using var named = NewEndpoint(new IPEndPoint(IPAddress.Loopback, 0), hostNames: ["metrics.example.org", "app1"]);
        await named.StartAsync();
        using var client = new TcpClient();
        await client.ConnectAsync(named.Bound!);
        await client.GetStream().WriteAsync(Encoding.ASCII.GetBytes($"GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
        (await new StreamReader(client.GetStream()).ReadToEndAsync()).ShouldStartWith($"HTTP/1.1 {status} ");
    }

    private HttpEndpoint NewEndpoint(IPEndPoint listen, TimeSpan? retryAfter = null, IReadOnlyList<string>? hostNames = null) => new(
        listen,
        new HttpSources
        {
            Snapshot = () => _snapshot,
            Health = () => _health,
            Incidents = last => [.. _incidents.TakeLast(last)],
            Metrics = _metrics.Aggregator.Scrape,
            Version = "0.1.0",
        },
        _loggers,
        retryAfter,
        hostNames: hostNames);

    private async Task<(int Status, string Body)> Get(string path)
    {
        var response = await _client.GetAsync(path);
        return ((int)response.StatusCode, await response.Content.ReadAsStringAsync());
    }

    private Socket Connect()
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        socket.Connect(_endpoint.Bound!);
        return socket;
    }

    private async Task<string> Raw(string request)
    {
        using var socket = Connect();
        await socket.SendAsync(Encoding.Latin1.GetBytes(request));
        return await ReadToEnd(socket, TimeSpan.FromSeconds(15));
    }

    private static async Task<string> ReadToEnd(Socket socket, TimeSpan within)
    {
        using var patience = new CancellationTokenSource(within);
        var text = new StringBuilder();
        var buffer = new byte[64 * 1024];
        try
        {
            int read;
            while ((read = await socket.ReceiveAsync(buffer, patience.Token)) > 0)
            {
                text.Append(Encoding.Latin1.GetString(buffer, 0, read));
            }
        }
        catch (SocketException) when (text.Length > 0)
        {
            // The server refused and closed while we were still sending.
        }

        return text.ToString();
    }
}
