using System.Net;
using System.Net.Sockets;
using Microsoft.Extensions.Logging.Abstractions;
using Shouldly;
using Sidecar.Agent.Endpoints;
using Sidecar.Agent.Telemetry;
using Sidecar.UnitTests.Telemetry;
using Xunit;

namespace Sidecar.UnitTests.Hostile;

/// <summary>The endpoint, and users of the host whom it does not concern.</summary>
public sealed class HttpCrowdTests : IAsyncLifetime
{
    private readonly SidecarMetrics _metrics = MetricsTests.Filled();
    private readonly HttpEndpoint _endpoint;

    public HttpCrowdTests() => _endpoint = new HttpEndpoint(
        new IPEndPoint(IPAddress.Loopback, 0),
        new HttpSources
        {
            Snapshot = () => Samples.Snapshot(),
            Health = () => Samples.Health(),
            Incidents = _ => [Samples.Incident("a", "released")],
            Metrics = format => _metrics.Aggregator.Scrape(format),
            Version = "0.1.0",
        },
        NullLoggerFactory.Instance);

    public Task InitializeAsync() => _endpoint.StartAsync();

    public async Task DisposeAsync()
    {
        await _endpoint.DisposeAsync();
        _metrics.Dispose();
    }

    [Theory]
    [InlineData("")]
    [InlineData("s.sendall(b'GET /healthz HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n'); s.recv(4096)")]
    [InlineData("s.sendall(b'GET /hea')")]
    public async Task Connections_of_one_user_do_not_keep_a_scrape_out(string use)
    {
        using var client = new HttpClient { BaseAddress = new Uri($"http://{_endpoint.Bound}") };
        (await client.GetAsync("/metrics")).StatusCode.ShouldBe(HttpStatusCode.OK);
        using var crowd = new Stranger("resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))", $"""
            kept = []
            for i in range(600):
                s = socket.create_connection(('127.0.0.1', {_endpoint.Bound!.Port}))
                kept.append(s)
                {use}
            """);

        using var scraper = new HttpClient { BaseAddress = client.BaseAddress };
        for (var scrape = 0; scrape < 3; scrape++)
        {
            (await scraper.GetAsync("/metrics")).StatusCode.ShouldBe(HttpStatusCode.OK);
        }

        (await client.GetAsync("/metrics")).StatusCode.ShouldBe(HttpStatusCode.OK, "a connection of before is still served");
    }

    [Fact]
    public async Task Who_has_most_connections_loses_those_that_rest_longest_when_there_are_no_more_places()
    {
        var sockets = new List<Socket>();
        try
        {
            for (var i = 0; i < HttpPeers.Most + 3; i++)
            {
                var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { ReceiveTimeout = 20_000 };
                sockets.Add(socket);
                await socket.ConnectAsync(_endpoint.Bound!);
                await Ask(socket);
            }

            foreach (var dropped in sockets.Take(3))
            {
                ReadsEnd(dropped).ShouldBeTrue();
            }

            await Ask(sockets[3]);
            await Ask(sockets[^1]);
        }
        finally
        {
            sockets.ForEach(socket => socket.Dispose());
        }

        static async Task Ask(Socket socket)
        {
            await socket.SendAsync("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"u8.ToArray());
            var answer = new byte[4096];
            (await socket.ReceiveAsync(answer)).ShouldBeGreaterThan(0);
        }
    }

    [Fact]
    public async Task Connections_and_incidents_are_for_root_and_the_agents_group_and_sums_for_all()
    {
        using var root = new HttpClient { BaseAddress = new Uri($"http://{_endpoint.Bound}") };
        (await root.GetStringAsync("/api/v1/connections")).ShouldContain("10.0.1.2:40000");
        (await root.GetStringAsync("/")).ShouldContain("Last incidents");

        using var stranger = new Stranger("import urllib.request, urllib.error", $"""
            def ask(path):
                try: return urllib.request.urlopen('http://127.0.0.1:{_endpoint.Bound!.Port}' + path).read().decode()
                except urllib.error.HTTPError as e: return str(e.code)
            for path in ['/api/v1/connections', '/api/v1/incidents', '/', '/metrics', '/api/v1/paths', '/check/db', '/readyz']:
                print(ask(path).replace('\n', ' '))
            """);
        stranger.Lines[0].ShouldBe("403");
        stranger.Lines[1].ShouldBe("403");
        stranger.Lines[2].ShouldContain("Upstreams");
        stranger.Lines[2].ShouldNotContain("Last incidents");
        stranger.Lines[2].ShouldNotContain("10.0.1.2:40000");
        stranger.Lines[3].ShouldContain("conn_sidecar_connections");
        stranger.Lines[4].ShouldContain("orders-db");
        stranger.Lines[5].ShouldContain("Service");
        stranger.Lines[6].ShouldContain("ready");
    }

    private static bool ReadsEnd(Socket socket)
    {
        try
        {
            return socket.Receive(new byte[1]) == 0;
        }
        catch (SocketException e) when (e.SocketErrorCode == SocketError.ConnectionReset)
        {
            return true;
        }
    }
}
