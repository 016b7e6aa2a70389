using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;
using Xunit.Abstractions;

namespace Sidecar.LabTests.Telemetry;

/// <summary>Alone on the machine: what is compared here are times.</summary>
[CollectionDefinition("alone", DisableParallelization = true)]
public sealed class AloneCollection;

/// <summary>Whoever asks the endpoint, however often and however badly, does not delay a rescue.</summary>
[Collection("alone")]
public sealed class ScrapersTests(ITestOutputHelper output)
{
    private const int Rescues = 3;
    private const int Scrapers = 200;

    [Fact]
    public async Task Two_hundred_scrapers_and_a_slow_loris_do_not_delay_a_rescue()
    {
        await using var blackout = await Blackout.PrepareAsync(new LabOptions { IdleTimeout = Wait.Seconds(5) }, new AgentOptions { Keepalive = false, Recycle = true, Terminate = false });
        List<TimeSpan> quiet = [], crowded = [];
        var scrapes = 0L;
        for (var i = 0; i < Rescues; i++)
        {
            quiet.Add(await RescueAsync(blackout));
            await using var crowd = await Crowd.GatherAsync(blackout.Lab.Network.Worker);
            await Wait.UntilAsync("every scraper has had an answer", () => crowd.ScrapersServed == Scrapers, Wait.Seconds(30));
            var before = crowd.Scrapes;
            crowded.Add(await RescueAsync(blackout));
            scrapes += crowd.Scrapes - before;
            crowd.Refused.ShouldBe(0);
            crowd.LorisHolding.ShouldBeGreaterThan(0);
        }

        output.WriteLine($"first unanswered send to release       alone   with {Scrapers} scrapers and a slow loris");
        for (var i = 0; i < Rescues; i++)
        {
            output.WriteLine($"rescue {i + 1}                               {Seconds(quiet[i])}   {Seconds(crowded[i])}");
        }

        output.WriteLine($"median                                 {Seconds(Median(quiet))}   {Seconds(Median(crowded))}");
        output.WriteLine($"scrapes served meanwhile: {scrapes}");
        scrapes.ShouldBeGreaterThan(Scrapers * Rescues);

        // A rescue comes with the first or the second timeout that is conclusive, 0.85 s apart, by chance and not by load.
        Median(crowded).ShouldBeLessThan(Median(quiet) + Wait.Seconds(1));
        crowded.ShouldAllBe(time => time < Wait.Seconds(3.5));
        blackout.NoWorkerDied();
    }

    /// <summary>Waits until the router has forgotten the sleeper, wakes it, and measures until its worker is free.</summary>
    private static async Task<TimeSpan> RescueAsync(Blackout blackout)
    {
        await Blackout.WaitUntilForgottenAsync(blackout.Lab, blackout.SleeperPid);
        var sleeper = blackout.Client.WakeSleeper();
        (await SteadyClient.EndsWithinAsync(sleeper, Wait.Seconds(30))).ShouldBeTrue(blackout.RequireAgent().Process.Output);
        sleeper.Error.ShouldBe("OperationalError: could not receive data from server: Software caused connection abort");

        // The rescue left it without a connection: its next request makes one, for the next rescue.
        (await blackout.Lab.Web.GetAsync(blackout.Lab.Web.WorkerCount).WaitAsync(Wait.Seconds(20))).Error.ShouldBeNull();
        return sleeper.Latency!.Value;
    }

    private static TimeSpan Median(IEnumerable<TimeSpan> times) => times.Order().ElementAt(Rescues / 2);

    private static string Seconds(TimeSpan time) => string.Create(CultureInfo.InvariantCulture, $"{time.TotalSeconds,5:0.00} s");

    /// <summary>Scrapers that keep their connections and ask twice a second, and clients that never finish their request.</summary>
    private sealed class Crowd : IAsyncDisposable
    {
        public const int LorisCount = 20;
        private static readonly IPEndPoint Agent = new(IPAddress.Loopback, AgentProcess.Port);
        private readonly CancellationTokenSource _stopping = new();
        private readonly NetworkNamespace _host;
        private readonly List<Task> _members = [];
        private long _scrapes;
        private int _served;
        private int _refused;
        private int _holding;

        private Crowd(NetworkNamespace host) => _host = host;

        public long Scrapes => Interlocked.Read(ref _scrapes);

        public int ScrapersServed => Volatile.Read(ref _served);

        public int Refused => Volatile.Read(ref _refused);

        /// <summary>Unfinished requests at this moment.</summary>
        public int LorisHolding => Volatile.Read(ref _holding);

        public static async Task<Crowd> GatherAsync(NetworkNamespace host)
        {
            var crowd = new Crowd(host);
            var sockets = host.Inside(() => Enumerable.Range(0, Scrapers).Select(_ => NewSocket()).ToList());
            crowd._members.AddRange(sockets.Select((socket, i) => crowd.ScrapeAsync(socket, TimeSpan.FromMilliseconds(i * 500.0 / Scrapers))));
            crowd._members.AddRange(Enumerable.Range(0, LorisCount).Select(_ => Task.Run(crowd.DawdleAsync)));
            await Wait.UntilAsync("the slow clients hold on", () => crowd.LorisHolding == LorisCount, Wait.Seconds(20));
            return crowd;
        }

        public async ValueTask DisposeAsync()
        {
            await _stopping.CancelAsync();
            await Task.WhenAll(_members);
            _stopping.Dispose();
        }

        private static Socket NewSocket() => new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);

        private async Task ScrapeAsync(Socket socket, TimeSpan offset)
        {
            var request = Encoding.ASCII.GetBytes($"GET /metrics HTTP/1.1\r\nHost: {Agent}\r\n\r\n");
            var buffer = new byte[256 * 1024];
            var first = true;
            try
            {
                using (socket)
                {
                    await Task.Delay(offset, _stopping.Token);
                    await socket.ConnectAsync(Agent, _stopping.Token);
                    using var timer = new PeriodicTimer(TimeSpan.FromMilliseconds(500));
                    do
                    {
                        await socket.SendAsync(request, _stopping.Token);
                        await ReadAnswerAsync(socket, buffer);
                        Interlocked.Increment(ref _scrapes);
                        if (first)
                        {
                            Interlocked.Increment(ref _served);
                            first = false;
                        }
                    }
                    while (await timer.WaitForNextTickAsync(_stopping.Token));
                }
            }
            catch (OperationCanceledException)
            {
                // The crowd goes home.
            }
            catch (Exception e) when (e is IOException or SocketException)
            {
                Interlocked.Increment(ref _refused);
            }
        }

        private async Task ReadAnswerAsync(Socket socket, byte[] buffer)
        {
            var length = 0;
            var wanted = int.MaxValue;
            while (length < wanted)
            {
                var read = await socket.ReceiveAsync(buffer.AsMemory(length), _stopping.Token);
                if (read == 0)
                {
                    throw new IOException("the agent closed the connection");
                }

                length += read;
                if (wanted == int.MaxValue && buffer.AsSpan(0, length).IndexOf("\r\n\r\n"u8) is var end and > 0)
                {
                    var head = Encoding.ASCII.GetString(buffer, 0, end);
                    head.ShouldStartWith("HTTP/1.1 200 ");
                    wanted = end + 4 + int.Parse(head.Split("Content-Length: ")[1].Split('\r')[0], CultureInfo.InvariantCulture);
                }
            }
        }

        /// <summary>A header line each second, without an end; whoever is thrown out comes again.</summary>
        private async Task DawdleAsync()
        {
            while (!_stopping.IsCancellationRequested)
            {
                try
                {
                    using var socket = _host.Inside(NewSocket);
                    await socket.ConnectAsync(Agent, _stopping.Token);
                    await socket.SendAsync("GET /metrics HTTP/1.1\r\n"u8.ToArray(), _stopping.Token);
                    Interlocked.Increment(ref _holding);
                    try
                    {
                        while (!socket.Poll(0, SelectMode.SelectRead))
                        {
                            await socket.SendAsync("X-Slow: loris\r\n"u8.ToArray(), _stopping.Token);
                            await Task.Delay(1000, _stopping.Token);
                        }
                    }
                    finally
                    {
                        Interlocked.Decrement(ref _holding);
                    }
                }
                catch (Exception e) when (e is OperationCanceledException or SocketException)
                {
                    // Thrown out, or the crowd goes home.
                }
            }
        }
    }
}
