using Shouldly;
using Sidecar.Agent.Measurement;
using Sidecar.UnitTests.Measurement.Simulated;
using Xunit;
using Xunit.Abstractions;

namespace Sidecar.UnitTests.Measurement;

/// <summary>
/// The ladder as it is, over simulated paths of every kind, in virtual time: loss, jitter, routers that forget everything, outages,
/// servers' own limits, limits of connections, one direction alone counted, data alone counted, two routers, proxies.
/// </summary>
public sealed class PathWorldTests(ITestOutputHelper output)
{
    /// <summary>How many, and from which seed on; more of them, and others, by CONN_SIDECAR_WORLDS=FIRST,COUNT.</summary>
    private static readonly int[] Worlds = [.. (Environment.GetEnvironmentVariable("CONN_SIDECAR_WORLDS") ?? "1,3000").Split(',').Select(int.Parse)];

    [Fact]
    public void Of_paths_of_every_kind_nothing_is_said_that_is_not_so_and_nobody_is_harmed()
    {
        var harms = new List<string>();
        var errors = new List<string>();
        var known = 0;
        var simulated = TimeSpan.Zero;
        for (var seed = Worlds[0]; seed < Worlds[0] + Worlds[1]; seed++)
        {
            var model = PathWorld.Make(seed);
            var (report, failure, network) = SimulatedNetwork.Measure(model);
            known += report is { Interrupted: false } ? 1 : 0;
            simulated += TimeSpan.FromSeconds(network.Seconds);
            harms.AddRange(PathWorld.Harms(model, report, network).Select(h => $"{seed}: {h} ({failure})"));
            var wrong = string.Join("; ", PathWorld.Errors(model, report));
            if (wrong.Length > 0)
            {
                errors.Add($"{seed}: {wrong} {model}");
            }
        }

        output.WriteLine($"{known} of {Worlds[1]} are known, {errors.Count} wrong, {simulated.TotalHours:0} hours");
        harms.ShouldBeEmpty();
        errors.Count.ShouldBeLessThanOrEqualTo(Worlds[1] / 1000, string.Join('\n', errors));
        errors.Count(e => e.Contains("class ")).ShouldBeLessThanOrEqualTo(Worlds[1] / 5000, string.Join('\n', errors));
        known.ShouldBeGreaterThan(Worlds[1] * 3 / 4);
    }

    /// <summary>A router that forgets after 1 to 1.5 times T: two runs may differ, but not both be certain.</summary>
    [Theory]
    [InlineData(true, false)]
    [InlineData(false, false)]
    [InlineData(true, true)]
    [InlineData(false, true)]
    public void Jitter_is_shown_as_jitter(bool hasPayload, bool isGuest)
    {
        const int runs = 100;
        var (varying, parted, excluding) = (0, 0, 0);
        for (var i = 0; i < runs; i++)
        {
            var shortest = 8 * Math.Pow(10, (double)i / runs);
            var (one, two) = (Measure(i), Measure(i + runs));
            varying += one.Varies ? 1 : 0;
            var areParted = one.Lower > two.Upper || two.Lower > one.Upper;
            parted += areParted ? 1 : 0;
            excluding += areParted && !one.Varies && !two.Varies ? 1 : 0;
            (one.Lower.TotalSeconds / 2).ShouldBeLessThan(shortest, "the keepalive comes in time");
            one.Gaps.Where(g => !g.Survived).ShouldAllBe(g => g.Gap >= one.Lower || !g.Counts);

            MeasurementReport Measure(int seed) => SimulatedNetwork.Measure(
                new PathModel { Seed = seed, Routers = [new Router(shortest, shortest * 1.5)], HasPayload = hasPayload, IsGuest = isGuest }).Report!;
        }

        varying.ShouldBeGreaterThan(runs * 9 / 10);
        parted.ShouldBeLessThanOrEqualTo(isGuest ? runs * 15 / 100 : runs * 6 / 100, "gaps all over the range are tried");
        excluding.ShouldBe(0);
    }

    /// <summary>A router that forgets silently and a server that closes a little later: which of them a connection meets is chance.</summary>
    [Theory]
    [InlineData(20.0, 60.0, nameof(PathClass.SilentDrop))]
    [InlineData(20.0, 20.5, nameof(PathClass.NotKnown))]
    [InlineData(60.0, 20.0, nameof(PathClass.PeerCloses))]
    public void What_is_lost_now_this_way_and_now_that_has_no_class(double router, double server, string expected) =>
        SimulatedNetwork.Measure(new PathModel { Seed = 3, Routers = [new Router(router, router * 1.06)], ServerLimit = server, ServerEnding = Ending.Fin })
            .Report!.Class.ToString().ShouldBe(expected);

    [Theory]
    [InlineData(60)]
    [InlineData(350)]
    [InlineData(3600)]
    public void Seeing_the_bounds_again_takes_little_time_on_a_path_with_a_common_timeout(double seconds)
    {
        var report = SimulatedNetwork.Measure(new PathModel { Seed = 1, Routers = [new Router(seconds, seconds)], HasPayload = true }).Report!;

        report.Confirmed.ShouldBeTrue();
        report.Varies.ShouldBeFalse();
        report.Lower.TotalSeconds.ShouldBeLessThanOrEqualTo(seconds);
        report.Upper!.Value.TotalSeconds.ShouldBeInRange(seconds, seconds * 1.05);
        report.Elapsed.TotalSeconds.ShouldBeLessThan((seconds * 1.5) + 10);
        report.ConnectionsUsed.ShouldBeLessThanOrEqualTo(32);
    }
}
