using System.Net;
using Shouldly;
using Sidecar.Agent.Core;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.CoreTests.Remedies;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.CoreTests;

/// <summary>The tick: what came late gathers evidence and does nothing; what is silent is looked up before the next scan.</summary>
public sealed class AgentCoreTests
{
    private readonly TestEyes _eyes = new();
    private readonly TestHands _hands;
    private static readonly UpstreamSection Section = new()
    {
        Name = "db",
        Endpoints = [new EndpointPattern("10.2.0.2:5432", null, new IPNetwork(IPAddress.Parse("10.2.0.2"), 32), 5432)],
        IdleTimeout = new IdleTimeoutSetting(IdleTimeoutSource.Declared, TimeSpan.FromSeconds(60)),
        Keepalive = false,
    };

    private AgentCore _core;

    public AgentCoreTests()
    {
        _hands = new TestHands(_eyes);
        _core = Core(Section);
        _eyes.Socket = new FakeSocket(1, _eyes.Now - TimeSpan.FromSeconds(100));
    }

    [Fact]
    public void A_tick_that_began_late_does_nothing_and_the_next_one_in_time_does_it()
    {
        Hang();
        var closable = _core.NextTick;
        _eyes.Now = closable + TimeSpan.FromSeconds(30); // the agent was stopped
        _core.Tick(closable, _eyes, _hands);
        _core.WasLate.ShouldBeTrue();
        _hands.Closed.ShouldBeEmpty();
        Until(() => _hands.Closed.Count > 0);
        _core.WasLate.ShouldBeFalse();
    }

    /// <summary>The connect probe was under way meanwhile, and its answer is as good as any.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_late_tick_does_nothing_even_where_the_path_is_proven_up(bool isLate)
    {
        Hang();
        _hands.Holds = true;
        var connection = _core.World.Connections.All.Single();
        var sent = connection.LastRetransmission;
        Until(() => connection.LastRetransmission != sent);
        _eyes.ProbesEnd = false;
        Until(() => _eyes.Probes.Count > 0);
        _hands.Holds = false;
        _hands.Closed.Clear();
        _eyes.ProbesEnd = true;
        var planned = _core.NextTick;
        _eyes.Now = planned + TimeSpan.FromSeconds(isLate ? 0.6 : 0.4);
        _core.Tick(planned, _eyes, _hands);
        _core.WasLate.ShouldBe(isLate);
        connection.Path.Last!.IsCleanSuccess.ShouldBeTrue();
        _hands.Closed.Count.ShouldBe(isLate ? 0 : 1);
    }

    [Fact]
    public void A_tick_whose_observing_took_long_does_nothing()
    {
        Hang();
        _eyes.ScanTakes = TimeSpan.FromSeconds(3);
        for (var i = 0; i < 20; i++)
        {
            Tick();
            _core.WasLate.ShouldBe(_eyes.ScanTakes > TimeSpan.Zero);
        }

        _hands.Closed.ShouldBeEmpty();
        _eyes.ScanTakes = TimeSpan.Zero;
        Until(() => _hands.Closed.Count > 0);
    }

    [Fact]
    public void What_connect_probes_said_before_the_agent_slept_is_not_believed()
    {
        Hang();
        var path = _core.World.Paths.All.Single();
        path.Last.ShouldNotBeNull();
        var planned = _core.NextTick;
        _eyes.Now = planned + TimeSpan.FromSeconds(30);
        _eyes.ProbesEnd = false;
        _core.Tick(planned, _eyes, _hands);
        path.Last.ShouldBeNull();
    }

    [Fact]
    public void Without_hands_all_is_observed_and_nothing_done()
    {
        _eyes.Socket!.Send(_eyes.Now);
        for (var i = 0; i < 50; i++)
        {
            _core.Tick(_core.NextTick, _eyes, hands: null);
            _eyes.Now = _core.NextTick;
        }

        _core.World.Connections.All.Single().SilenceStart.ShouldNotBeNull();
    }

    [Fact]
    public void What_is_silent_is_looked_up_within_a_tenth_of_a_second_and_what_rests_waits_for_the_scan()
    {
        _eyes.Socket = new FakeSocket(1, _eyes.Now - TimeSpan.FromSeconds(1));
        var scanned = _eyes.Now;
        Tick();
        (_core.NextTick - scanned).ShouldBeGreaterThan(TimeSpan.FromMilliseconds(500));
        _eyes.Socket.Send(_eyes.Now);
        Until(() => _core.World.Connections.All.Single().IsOfInterest);
        var rechecks = _eyes.Rechecks;
        for (var i = 0; i < 5; i++)
        {
            var before = _eyes.Now;
            Tick();
            (_eyes.Now - before).ShouldBeLessThanOrEqualTo(TimeSpan.FromMilliseconds(101));
        }

        _eyes.Rechecks.ShouldBeGreaterThan(rechecks);
    }

    [Fact]
    public void What_rests_is_scanned_ever_more_rarely_until_data_moves()
    {
        _eyes.Socket = new FakeSocket(1, _eyes.Now - TimeSpan.FromSeconds(1));
        _eyes.Counters = new TcpCounters(1, 1, 0);
        TimeSpan Sleep()
        {
            Tick();
            return _core.NextTick - _core.Began;
        }

        for (var i = 0; i < 5; i++)
        {
            Sleep();
        }

        Sleep().ShouldBeGreaterThan(TimeSpan.FromSeconds(2));
        for (var i = 0; i < 5; i++)
        {
            _eyes.Socket.Send(_eyes.Now);
            _eyes.Socket.Receive(_eyes.Now);
            Sleep().ShouldBeLessThanOrEqualTo(TimeSpan.FromSeconds(1));
        }
    }

    [Fact]
    public void What_waits_for_a_connect_probe_is_rechecked_while_that_holds()
    {
        _core = Core(Section with { Protocol = UpstreamProtocol.PostgreSql, DsnFile = "/etc/conn-sidecar/db.dsn", RefreshedBy = IdleClock.Data }, scanInterval: 2);
        _eyes.Socket = new FakeSocket(1, _eyes.Now - TimeSpan.FromSeconds(46));
        _core.World.Server("db", TestServer.View(_eyes.Now, TestServer.Session(1)));
        var start = _eyes.Now;
        Until(() => _eyes.Socket.IsClosed);
        (_eyes.Now - start).ShouldBeLessThan(TimeSpan.FromSeconds(3));
    }

    [Fact]
    public void No_tick_follows_another_within_ten_milliseconds()
    {
        _eyes.Socket!.Send(_eyes.Now);
        for (var i = 0; i < 100; i++)
        {
            _core.Tick(_core.NextTick, _eyes, hands: null);
            (_core.NextTick - _eyes.Now).ShouldBeGreaterThanOrEqualTo(TimeSpan.FromMilliseconds(10));
            _eyes.Now = _core.NextTick;
        }
    }

    private AgentCore Core(UpstreamSection section, double scanInterval = 1) =>
        new(new World(new SidecarConfiguration { Agent = new AgentSection { ScanInterval = TimeSpan.FromSeconds(scanInterval) }, Upstreams = [section], Workers = [], Files = [] }, 1, 4242, _ => false), _eyes.Now);

    /// <summary>The worker's query goes unanswered, and it is nearly proven.</summary>
    private void Hang()
    {
        _hands.Holds = true;
        Tick();
        _eyes.Socket!.Send(_eyes.Now);
        Until(() => _hands.Wanted > 0);
        _hands.Holds = false;
        _hands.Closed.Clear();
    }

    private void Tick()
    {
        _core.Tick(_core.NextTick, _eyes, _hands);
        _eyes.Now = _core.NextTick > _eyes.Now ? _core.NextTick : _eyes.Now;
    }

    private void Until(Func<bool> condition)
    {
        for (var i = 0; i < 1000 && !condition(); i++)
        {
            Tick();
        }

        condition().ShouldBeTrue();
    }

    private sealed class TestEyes : IEyes
    {
        public TimeSpan Now { get; set; } = TimeSpan.FromSeconds(10_000);

        public DateTimeOffset UtcNow => DateTimeOffset.UnixEpoch + Now;

        internal FakeSocket? Socket { get; set; }

        internal TimeSpan ScanTakes { get; set; }

        internal int Rechecks { get; private set; }

        internal bool ProbesEnd { get; set; } = true;

        internal List<PathTracker> Probes { get; } = [];

        internal TcpCounters? Counters { get; set; }

        public TcpCounters? ReadCounters() => Counters;

        public void Scan(World world)
        {
            if (Socket is { IsClosed: false } socket)
            {
                world.Saw(1, socket.Observe(Now), Now);
            }

            world.EndScan();
            Now += ScanTakes;
        }

        public void Recheck(World world, IReadOnlyList<TrackedConnection> connections)
        {
            Rechecks++;
            foreach (var connection in connections)
            {
                world.Saw(connection, Socket!.Observe(Now), Now);
            }

            Now += ScanTakes;
        }

        public void Collect(World world, RemedyEngine engine)
        {
            if (ProbesEnd)
            {
                foreach (var path in Probes)
                {
                    world.ConnectProbeEnded(path, new ConnectProbeResult(ConnectProbeOutcome.Connected, 0, System.Diagnostics.Stopwatch.Frequency / 1000, 0, null), Now);
                    engine.ConnectProbeEnded(path, Now);
                }

                Probes.Clear();
            }
        }
    }

    private sealed class TestHands(TestEyes eyes) : IHands
    {
        /// <summary>Closing is refused as if the connection had moved, so that it is asked for again.</summary>
        internal bool Holds { get; set; }

        internal int Wanted { get; private set; }

        internal List<Recycle> Closed { get; } = [];

        public void Carry(Command command)
        {
            switch (command)
            {
                case ConnectProbe probe:
                    eyes.Probes.Add(probe.Path);
                    break;
                case Recycle recycle:
                    Wanted++;
                    Closed.Add(recycle);
                    if (!Holds)
                    {
                        eyes.Socket!.IsClosed = true;
                    }

                    recycle.Connection.Case = Holds ? null : recycle.Connection.Case;
                    recycle.Done(new RecycleOutcome(Holds ? RecycleResult.Recovered : RecycleResult.Released, null, null), eyes.Now);
                    if (Holds)
                    {
                        recycle.Connection.Case = null;
                    }

                    break;
            }
        }
    }
}
