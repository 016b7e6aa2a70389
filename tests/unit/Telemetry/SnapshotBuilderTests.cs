using Shouldly;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Core.Judgement.IdleTimeout;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Agent.Telemetry;
using Sidecar.CoreTests.Remedies;
using Sidecar.Probes.Values;
using Sidecar.UnitTests.Tracking;
using Xunit;
using ClientSocket = Sidecar.Simulator.ClientSocket;

namespace Sidecar.UnitTests.Telemetry;

/// <summary>What is told of the world: nothing that nobody uses, and no limit that nobody has found.</summary>
public sealed class SnapshotBuilderTests
{
    private static readonly ServerSettings LateKeepalives = new()
    {
        KeepalivesIdle = TimeSpan.FromHours(2),
        KeepalivesInterval = TimeSpan.FromSeconds(10),
        KeepalivesCount = 6,
        UserTimeout = TimeSpan.FromMinutes(2),
        ConnectionCheckInterval = TimeSpan.FromSeconds(10),
        IdleInTransactionTimeout = TimeSpan.FromMinutes(5),
    };

    private readonly ClientSocket _socket = TrackedConnectionTests.Socket(At(0));

    [Fact]
    public void A_built_in_upstream_is_told_of_once_it_is_used_and_from_then_on_across_a_reload()
    {
        var world = New(ConfigurationLoader.BuiltIn());
        Scan(world, 1, isThere: false);
        Describe(world, 1).Upstreams.ShouldBeEmpty();
        Scan(world, 2);
        Describe(world, 2).Upstreams.Select(upstream => upstream.Name).ShouldBe(["postgresql"]);
        for (var i = 3; i < 6; i++)
        {
            Scan(world, i, isThere: false);
        }

        world.Connections.All.ShouldBeEmpty();
        var next = New(ConfigurationLoader.BuiltIn());
        next.TakeOver(world);
        Describe(next, 6).Upstreams.Select(upstream => upstream.Name).ShouldBe(["postgresql"]);
    }

    [Fact]
    public void A_declared_upstream_is_told_of_whether_it_is_used_or_not()
    {
        var world = New(Samples.Configuration("orders-db"));
        Scan(world, 1, isThere: false);
        Describe(world, 1).Upstreams.Select(upstream => upstream.Name).ShouldBe(["orders-db"]);
    }

    /// <summary>An answer after half a minute of rest, on a path that forgets nothing.</summary>
    [Fact]
    public void What_was_survived_is_no_limit_and_there_is_no_advice_on_it()
    {
        var world = New(ConfigurationLoader.BuiltIn());
        Scan(world, 1);
        var path = world.Paths.All.Single();
        path.Note(new GapObservation(TimeSpan.FromSeconds(30.2), GapOutcome.Survived, DateTimeOffset.UnixEpoch, EvidenceSource.Passive));
        var status = Describe(world, 2).Upstreams.Single();
        status.IdleTimeoutLower.ShouldBe(TimeSpan.FromSeconds(30.2));
        status.IdleTimeoutUpper.ShouldBeNull();
        status.Advice.ShouldBeEmpty();

        path.Note(new GapObservation(TimeSpan.FromSeconds(60), GapOutcome.Lost, DateTimeOffset.UnixEpoch, EvidenceSource.Passive));
        Describe(world, 3).Upstreams.Single().Advice.ShouldContain(line => line.StartsWith("server: tcp_keepalives_idle = 7200 s, the path forgets after 30.2 s", StringComparison.Ordinal));
    }

    [Fact]
    public void Why_a_measurement_has_no_result_is_told()
    {
        var world = New(ConfigurationLoader.BuiltIn());
        Scan(world, 1);
        Describe(world, 2).Upstreams.Single().NotMeasured.ShouldBeNull();
        world.Paths.All.Single().NotMeasured = "the server refuses further connections";
        Describe(world, 2).Upstreams.Single().NotMeasured.ShouldBe("the server refuses further connections");
    }

    /// <summary>Who has been done and is heard afterwards would have sent its answer again.</summary>
    [Fact]
    public void An_answer_is_said_to_be_missing_only_where_nothing_was_heard_since_the_server_was_done()
    {
        var world = New(ConfigurationLoader.BuiltIn());
        _socket.Send(At(1));
        _socket.Acknowledge(At(1.04));
        Scan(world, 2);
        var session = TestServer.Session(0) with { StateAge = TimeSpan.FromSeconds(10) };
        world.Server("postgresql", TestServer.View(At(14), session));
        Why(15).ShouldEndWith("back-end 1000 has been done for 11 s: its answer has not arrived");

        _socket.WindowProbeAnswered(At(9));
        Scan(world, 10);
        Why(15).ShouldEndWith("back-end 1000 has been done for 11 s, and is heard: no answer of it is missing");

        string Why(double at) => Describe(world, at).Connections.ShouldHaveSingleItem().Why;
    }

    private static TimeSpan At(double seconds) => TimeSpan.FromSeconds(1000 + seconds);

    private static World New(SidecarConfiguration configuration) => new(configuration, 1, 1, static _ => false);

    private void Scan(World world, double at, bool isThere = true)
    {
        world.BeginTick(full: true, DateTimeOffset.UnixEpoch);
        if (isThere)
        {
            world.Saw(1, _socket.Observe(At(at)), At(at));
        }

        world.EndScan();
        world.Judge();
    }

    private AgentSnapshot Describe(World world, double at) => new SnapshotBuilder(world, _ => LateKeepalives).Describe(At(at), TimeSpan.Zero, inWords: true);
}
