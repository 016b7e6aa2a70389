using System.Net;
using System.Net.Sockets;
using System.Text;
using Microsoft.Extensions.Logging;
using Shouldly;
using Sidecar.Agent.Endpoints;
using Xunit;

namespace Sidecar.UnitTests.Telemetry;

/// <summary>Hostile input by the hundred thousand: the endpoint goes on answering, logs no error, keeps no memory.</summary>
[Collection(nameof(AloneCollection))]
public sealed class HttpFuzzTests
{
    // An input that breaks the framing ends its connection, so more are sent than are counted: those that were answered.
    private const int Sent = 200_000;
    private const int Answered = 100_000;
    private const int PerConnection = 10;

    private static readonly string[] Methods = ["GET", "HEAD", "POST", "get", "G\0T", "OPTIONS", "CONNECT", "TRACE", "PRI", "", "ÄÖÜ", new('M', 300)];

    private static readonly string[] Targets =
    [
        "/metrics", "/healthz", "/readyz", "/", "/api/v1/connections", "/api/v1/connections?verdict=stuck&upstream=%00", "/api/v1/incidents?last=10",
        "/api/v1/incidents?last=-1&last=2", "/api/v1/paths", "/check/db?upstream=%0d%0aX:y", "/check/pool", "/check/host", "*", "http://localhost/metrics",
        "http://evil.example/metrics", "//", "/%", "/%zz", "/%00", "/..%2f..%2fetc/passwd", "/metrics/", "/METRICS", "/?" + new string('&', 1500), "/" + new string('x', 3000), "", "metrics",
    ];

    private static readonly string[] Headers =
    [
        "Host: localhost", "Host: 127.0.0.1:1", "Host: evil.example", "Host: ", "Host: a\0b", "Host: localhost\r\nHost: localhost", "Content-Length: 5", "Content-Length: -1",
        "Content-Length: 99999999999999999999", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 4", "Expect: 100-continue", "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings",
        "Connection: close", "Connection: keep-alive", "Accept: application/openmetrics-text", "Accept: ;;;q=,,,", "Range: bytes=0-1", "NoColon", ": empty", "X: " + new string('y', 9000), " folded",
        "Cookie: \u00ff\u00fe", "Accept: application/openmetrics-text;version=\"1.0.0\";q=1e999",
    ];

    private static readonly string[] Versions = ["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.1 x", "", "ICY/1"];

    [Fact]
    public async Task A_hundred_thousand_hostile_requests_change_nothing()
    {
        using var metrics = MetricsTests.Filled();
        var logger = new ListLogger();
        using var loggers = new LoggerFactory([logger], new LoggerFilterOptions { MinLevel = LogLevel.Warning });
        await using var endpoint = new HttpEndpoint(
            new IPEndPoint(IPAddress.Loopback, 0),
            new HttpSources
            {
                Snapshot = () => Samples.Snapshot(),
                Health = () => Samples.Health(),
                Incidents = _ => [Samples.Incident("a")],
                Metrics = metrics.Aggregator.Scrape,
                Version = "0.1.0",
            },
            loggers);
        await endpoint.StartAsync();
        using var client = new HttpClient();

        _ = await Attack(endpoint.Bound!, Sent / 10, seed: 1);
        var before = await Settled();

        // How many of a batch are answered before its framing breaks depends on how the bytes arrive, so it goes on until
        // enough were; a server that stopped answering would end it below.
        var answered = 0L;
        for (var round = 1; answered < Answered && round <= 10; round++)
        {
            answered += await Attack(endpoint.Bound!, Sent / 2, seed: round * 1_000_000);
        }

        var after = await Settled();

        answered.ShouldBeGreaterThanOrEqualTo(Answered, "requests that were answered or refused");
        (await client.GetStringAsync($"http://{endpoint.Bound}/healthz")).ShouldBe("ok\n");
        logger.Lines.ShouldBeEmpty();
        (after - before).ShouldBeLessThan(4 * 1024 * 1024, $"memory in use grew from {before} to {after} bytes");

        static async Task<long> Settled()
        {
            // Connections that the last requests left behind end on the server's side a moment later.
            await Task.Delay(200);
            GC.Collect();
            GC.WaitForPendingFinalizers();
            return GC.GetTotalMemory(forceFullCollection: true);
        }
    }

    private static async Task<long> Attack(IPEndPoint target, int requests, int seed)
    {
        var answered = 0L;
        await Parallel.ForAsync(0, requests / PerConnection, new ParallelOptions { MaxDegreeOfParallelism = 8 }, async (i, _) =>
        {
            var random = new Random(seed + i);
            using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { LingerState = new LingerOption(enable: true, seconds: 0) };
            try
            {
                await socket.ConnectAsync(target);
                await socket.SendAsync(Batch(random));
                socket.Shutdown(SocketShutdown.Send);
                Interlocked.Add(ref answered, await CountAnswers(socket));
            }
            catch (SocketException)
            {
                // Refused in the middle of it: as it should be.
            }
        });
        return answered;
    }

    /// <summary>Several requests at once. One that breaks the framing ends the connection and the rest are noise after it.</summary>
    private static byte[] Batch(Random random)
    {
        var bytes = new List<byte>(4096);
        for (var i = 0; i < PerConnection; i++)
        {
            // What breaks the framing ends the connection, so it comes late more often than early.
            var mild = random.Next(100) < (i < PerConnection - 3 ? 97 : 10);
            var request = Request(random, mild);
            if (!mild && random.Next(4) == 0)
            {
                for (var flips = random.Next(1, 8); flips > 0; flips--)
                {
                    request[random.Next(request.Length)] = (byte)random.Next(256);
                }
            }
            else if (!mild && random.Next(8) == 0)
            {
                random.NextBytes(request);
            }

            bytes.AddRange(request);
        }

        return [.. bytes];
    }

    private static byte[] Request(Random random, bool mild)
    {
        var text = new StringBuilder();
        text.Append(mild ? Methods[random.Next(2)] : Pick(Methods)).Append(' ').Append(mild ? Targets[random.Next(12)] : Pick(Targets)).Append(' ')
            .Append(mild ? "HTTP/1.1" : Pick(Versions)).Append("\r\n");
        if (mild)
        {
            text.Append("Host: localhost\r\n");
        }

        for (var headers = mild ? 0 : random.Next(6); headers > 0; headers--)
        {
            text.Append(Pick(Headers)).Append("\r\n");
        }

        if (mild || random.Next(20) > 0)
        {
            text.Append("\r\n");
        }

        return Encoding.Latin1.GetBytes(text.ToString());

        string Pick(string[] from) => from[random.Next(from.Length)];
    }

    private static async Task<int> CountAnswers(Socket socket)
    {
        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(10));
        var buffer = new byte[64 * 1024];
        var answers = 0;
        int read;
        while ((read = await socket.ReceiveAsync(buffer, patience.Token)) > 0)
        {
            answers += buffer.AsSpan(0, read).Count("HTTP/1.1 "u8);
        }

        return answers;
    }
}

/// <summary>Tests that measure the process and so run while no other test does.</summary>
[CollectionDefinition(nameof(AloneCollection), DisableParallelization = true)]
public sealed class AloneCollection;
