using Shouldly;
using Sidecar.Simulator;
using Xunit;
using Xunit.Abstractions;

namespace Sidecar.SimulationTests;

/// <summary>
/// A million connection-hours in all kinds of worlds, always the same ones; built for Release, some minutes on all processors.
/// scripts/simulate.sh goes through others.
/// </summary>
public sealed class MillionHoursTests(ITestOutputHelper output)
{
    [Fact]
    public void In_a_million_simulated_hours_nothing_wrong_is_done()
    {
        var report = Simulation.Run(seed: 1, hours: 1_000_000);
        using var told = new StringWriter();
        report.Write(told);
        output.WriteLine(told.ToString());

        report.Violations.Select(violation => violation.ToString()).ShouldBeEmpty();
        report.TooManyWrongInBursts.ShouldBeFalse($"{report.WrongInBursts} in {report.HoursInBursts:0} hours");
        report.WrongTerminations.ShouldBe(0);
        report.ClosedOnUnknownLeg.ShouldBeLessThan(20);
        report.ClosedAsLegReturned.ShouldBeLessThan(20);

        // Of everything that is to be safe, there has to have been enough.
        report.ConnectionHours.ShouldBeGreaterThan(1_000_000);
        report.Worlds.ShouldBeGreaterThan(500);
        report.Recycled.ShouldBeGreaterThan(100_000);
        report.Expired.ShouldBeGreaterThan(5_000);
        report.Terminated.ShouldBeGreaterThan(300);
    }
}
