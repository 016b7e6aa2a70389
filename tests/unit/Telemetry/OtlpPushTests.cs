using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text;
using Shouldly;
using Sidecar.Agent.Telemetry;
using Xunit;

namespace Sidecar.UnitTests.Telemetry;

public sealed class OtlpPushTests
{
    [Fact]
    public async Task A_collector_gets_the_instruments_and_their_labels()
    {
        await using var collector = new Collector();
        using var push = new OtlpPush(collector.Endpoint, TimeSpan.FromMilliseconds(100));
        using var metrics = MetricsTests.Filled();
        // One may be under way; the next has everything.
        var before = collector.Requests.Count;
        await TestTools.Eventually(() => collector.Requests.Count >= before + 2, TimeSpan.FromSeconds(20), "two pushes");
        var (line, type, body) = collector.Requests.Last();
        line.ShouldBe("POST /v1/metrics HTTP/1.1");
        type.ShouldBe("application/x-protobuf");
        foreach (var name in GoldenMetrics.Families.Select(f => f.EndsWith("_total", StringComparison.Ordinal) ? f[..^"_total".Length] : f))
        {
            body.ShouldContain(name);
        }

        foreach (var text in new[] { "service.name", "conn-sidecar", "orders-db", "blocked-by-peer", "terminate", "budget", "web" })
        {
            body.ShouldContain(text);
        }
    }

    [Fact]
    public void A_collector_that_is_not_there_delays_nothing()
    {
        using var taken = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        taken.Bind(new IPEndPoint(IPAddress.Loopback, 0)); // bound and not listening: refused
        EndsInTime(new Uri($"http://{taken.LocalEndPoint}/v1/metrics"));
    }

    [Fact]
    public void A_collector_that_does_not_answer_delays_the_end_by_seconds_at_most()
    {
        using var silent = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        silent.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        silent.Listen(16);
        EndsInTime(new Uri($"http://{silent.LocalEndPoint}/v1/metrics"));
    }

    private static void EndsInTime(Uri endpoint)
    {
        var push = new OtlpPush(endpoint, TimeSpan.FromMilliseconds(50));
        using var metrics = MetricsTests.Filled();
        MetricsTests.Scrape(metrics).ShouldContain("conn_sidecar_connections{");
        var started = Stopwatch.StartNew();
        push.Dispose();
        started.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(10));
    }

    /// <summary>Takes what is pushed: HTTP by hand, just enough.</summary>
    private sealed class Collector : IAsyncDisposable
    {
        private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
        private readonly CancellationTokenSource _stopping = new();
        private readonly Task _serving;

        public Collector()
        {
            _listener.Start();
            _serving = ServeAsync();
        }

        public Uri Endpoint => new($"http://{_listener.LocalEndpoint}/v1/metrics");

        public ConcurrentQueue<(string Line, string Type, string Body)> Requests { get; } = [];

        public async ValueTask DisposeAsync()
        {
            await _stopping.CancelAsync();
            _listener.Stop();
            await _serving;
            _stopping.Dispose();
        }

        private async Task ServeAsync()
        {
            try
            {
                while (true)
                {
                    using var client = await _listener.AcceptTcpClientAsync(_stopping.Token);
                    await ReadAsync(client.GetStream());
                }
            }
            catch (Exception e) when (e is OperationCanceledException or IOException)
            {
                // The test is over.
            }
        }

        private async Task ReadAsync(NetworkStream stream)
        {
            var bytes = new List<byte>();
            var buffer = new byte[65536];
            while (true)
            {
                var read = await stream.ReadAsync(buffer, _stopping.Token);
                if (read == 0)
                {
                    return;
                }

                bytes.AddRange(buffer.AsSpan(0, read));

                // Latin-1 keeps every byte of the protobuf, and its texts readable.
                var text = Encoding.Latin1.GetString([.. bytes]);
                var end = text.IndexOf("\r\n\r\n", StringComparison.Ordinal);
                if (end < 0)
                {
                    continue;
                }

                var head = text[..end].Split("\r\n");
                var length = int.Parse(Header(head, "Content-Length"), System.Globalization.CultureInfo.InvariantCulture);
                if (bytes.Count < end + 4 + length)
                {
                    continue;
                }

                Requests.Enqueue((head[0], Header(head, "Content-Type"), text[(end + 4)..]));
                bytes.Clear();
                await stream.WriteAsync("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"u8.ToArray(), _stopping.Token);
            }
        }

        private static string Header(string[] head, string name) =>
            head.First(h => h.StartsWith(name + ":", StringComparison.OrdinalIgnoreCase))[(name.Length + 1)..].Trim();
    }
}
