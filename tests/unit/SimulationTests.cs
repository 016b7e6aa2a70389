using Shouldly;
using Sidecar.Simulator;
using Xunit;

namespace Sidecar.UnitTests;

/// <summary>A short run of the simulator; tests/simulation does a million connection-hours.</summary>
public sealed class SimulationTests
{
    [Fact]
    public void In_some_thousand_simulated_hours_nothing_wrong_is_done()
    {
        var report = Simulation.Run(seed: 1, hours: 6_000);
        report.Violations.Select(violation => violation.ToString()).ShouldBeEmpty();

        report.TooManyWrongInBursts.ShouldBeFalse($"{report.WrongInBursts} in {report.HoursInBursts:0} hours");

        // Of everything that is to be safe, there has to have been enough.
        report.Recycled.ShouldBeGreaterThan(500);
        report.Expired.ShouldBeGreaterThan(40);
        report.Terminated.ShouldBeGreaterThan(5);
    }

    [Fact]
    public void The_same_seed_is_the_same_world()
    {
        var first = new Report();
        var second = new Report();
        new World(7, first).Run();
        new World(7, second).Run();
        (first.Connections, first.Scans, first.Ticks, first.Recycled, first.ConnectionHours)
            .ShouldBe((second.Connections, second.Scans, second.Ticks, second.Recycled, second.ConnectionHours));
    }
}
