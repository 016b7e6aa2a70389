using System.Net;
using Microsoft.Extensions.Logging;
using Shouldly;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Observation;
using Sidecar.Agent.Service;
using Sidecar.Agent.Telemetry;
using Xunit;

namespace Sidecar.UnitTests.Service;

/// <summary>The loop on the real kernel, by a clock that can jump as it does for an agent that was stopped.</summary>
public sealed class AgentLoopTests : IDisposable
{
    private static readonly TimeSpan Enough = TimeSpan.FromSeconds(60);
    private static readonly TimeSpan Stopped = TimeSpan.FromSeconds(30);

    private readonly JumpingClock _clock = new();
    private readonly JournalLog _log = new(LogLevel.None);
    private readonly SidecarMetrics _metrics = new("test", []);
    private readonly AgentRooms _rooms;
    private readonly AgentLoop _loop;
    private readonly CancellationTokenSource _stopping = new();

    public AgentLoopTests()
    {
        var configuration = new SidecarConfiguration
        {
            Agent = new AgentSection { AllNetworkNamespaces = false, ScanInterval = TimeSpan.FromSeconds(1) },
            Upstreams = [new UpstreamSection { Name = "db", Endpoints = [new EndpointPattern("192.0.2.1", null, new IPNetwork(IPAddress.Parse("192.0.2.1"), 32), 5432)] }],
            Workers = [],
            Files = [],
        };
        _rooms = new AgentRooms(configuration, _metrics, null, _log, SelfCheck.Run(configuration), new Clock(_clock));
        _loop = new AgentLoop(_rooms);
    }

    public void Dispose()
    {
        _rooms.Dispose();
        _metrics.Dispose();
        _log.Dispose();
        _stopping.Dispose();
    }

    /// <summary>Guardrail 4: the tick after a wait that lasted half a minute too long is late, also where a wake-up ended that wait.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_tick_after_a_wait_in_which_the_agent_was_stopped_is_late(bool isWoken)
    {
        bool? wasLate = null;
        var began = TimeSpan.Zero;
        using var waits = new ManualResetEventSlim();
        using var ended = new ManualResetEventSlim();
        var thread = new Thread(() => _loop.Run(
            () =>
            {
                if (began != TimeSpan.Zero && _rooms.Core.Began - began >= Stopped)
                {
                    wasLate ??= _rooms.Core.WasLate;
                    ended.Set();
                }

                began = _rooms.Core.Began;
                waits.Set();
            },
            _stopping.Token));
        thread.Start();
        waits.Wait(Enough).ShouldBeTrue();
        _clock.Jump(Stopped);
        if (isWoken)
        {
            _rooms.Inbox.Wake();
        }

        ended.Wait(Enough).ShouldBeTrue();
        _stopping.Cancel();
        thread.Join(Enough).ShouldBeTrue();
        wasLate.ShouldBe(true);
    }

    [Fact]
    public void A_loop_whose_every_tick_fails_goes_on_and_feeds_no_watchdog()
    {
        _clock.IsBroken = true;
        var fed = 0;
        var thread = new Thread(() => _loop.Run(() => fed++, _stopping.Token));
        thread.Start();
        SpinWait.SpinUntil(() => _clock.Failures >= 3, Enough).ShouldBeTrue();
        _stopping.Cancel();
        thread.Join(Enough).ShouldBeTrue();
        (fed, _loop.HasScanned).ShouldBe((0, false));
    }

    [Fact]
    public void A_tick_that_does_not_fail_has_scanned()
    {
        _loop.Tick(_rooms.Eyes.Now).ShouldBeTrue();
        (_loop.HasScanned, _loop.Watched, _loop.IsFollowing).ShouldBe((true, 0, false));
    }

    private sealed class JumpingClock : TimeProvider
    {
        private long _ahead;
        private int _failures;

        internal bool IsBroken { get; set; }

        internal int Failures => Volatile.Read(ref _failures);

        internal void Jump(TimeSpan by) => Interlocked.Add(ref _ahead, (long)(by.TotalSeconds * TimestampFrequency));

        public override long GetTimestamp() => System.GetTimestamp() + Volatile.Read(ref _ahead);

        public override DateTimeOffset GetUtcNow()
        {
            if (IsBroken)
            {
                Interlocked.Increment(ref _failures);
                throw new IOException("the wall clock cannot be read");
            }

            return System.GetUtcNow();
        }
    }
}
