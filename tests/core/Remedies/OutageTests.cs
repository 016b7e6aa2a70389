using Shouldly;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.CoreTests.Remedies;

/// <summary>One incident for each path that is away, until every connection that hung on it has moved or gone.</summary>
public sealed class OutageTests
{
    private readonly Bench _bench = new() { Path = ConnectProbeOutcome.TimedOut };

    [Fact]
    public void Connections_that_fall_silent_later_belong_to_the_same_incident()
    {
        var (first, second) = (_bench.Open(idle: 1), _bench.Open(idle: 1));
        _bench.Forget(first, 5);
        _bench.Forget(second, 5);
        Incidents().Count.ShouldBe(1);
        first.Receive(_bench.Now);
        _bench.Run(1);
        Ended().ShouldBeEmpty("the second one still hangs");
        second.Receive(_bench.Now);
        _bench.Run(1);
        Ended().Single().Outcome.ShouldBe("recovered");
    }

    [Fact]
    public void It_ends_when_its_connections_move_and_not_when_connect_probes_succeed()
    {
        var hung = _bench.Open(idle: 1);
        _bench.Forget(hung, 5);
        (hung.Answers, hung.IsTooLarge) = (true, true); // the path is back, and the data does not get through yet
        _bench.Path = ConnectProbeOutcome.Connected;
        _bench.Run(10);
        _bench.Hands.All<OutageReport>().Select(report => report.IsOver).ShouldBe([false, true]);
        Ended().ShouldBeEmpty();
        hung.Receive(_bench.Now);
        _bench.Run(1);
        Ended().Single().ShouldSatisfyAllConditions(
            incident => incident.Outcome.ShouldBe("recovered"), incident => incident.ReleaseSeconds.ShouldNotBeNull().ShouldBeInRange(15, 16));
    }

    [Fact]
    public void One_whose_connections_are_all_gone_while_the_path_is_away_did_not_recover()
    {
        var hung = _bench.Open(idle: 1);
        _bench.Forget(hung, 5);
        hung.IsClosed = true;
        _bench.Run(1);
        Ended().Single().Outcome.ShouldBe("withheld");
        Incidents().Count.ShouldBe(1, "that the connection has gone is no incident of its own");
        _bench.Hands.All<EndedByItselfReport>().Single().Silence.ShouldBeInRange(TimeSpan.FromSeconds(4.5), TimeSpan.FromSeconds(6));
    }

    [Fact]
    public void A_path_that_goes_away_again_before_all_have_moved_is_told_of_again_without_a_second_incident()
    {
        var hung = _bench.Open(idle: 1);
        _bench.Forget(hung, 5);
        _bench.IsLate = true; // so that it is not closed meanwhile
        _bench.Path = ConnectProbeOutcome.Connected;
        _bench.Run(2);
        _bench.Path = ConnectProbeOutcome.TimedOut;
        _bench.Run(10);
        _bench.Hands.All<OutageReport>().Select(report => report.IsOver).ShouldBe([false, true, false]);
        Incidents().Count(incident => incident.Cause == "outage").ShouldBe(1);
    }

    [Fact]
    public void Nothing_is_closed_and_nobody_terminated_however_long_it_lasts()
    {
        var bench = new Bench(with: section => section with { Recycle = false }) { Path = ConnectProbeOutcome.Refused };
        bench.Forget(bench.Open(idle: 1), 200);
        bench.Hands.All<Recycle>().ShouldBeEmpty();
        bench.Hands.All<Terminate>().ShouldBeEmpty();
        bench.Hands.All<InspectWorker>().ShouldBeEmpty();
    }

    [Fact]
    public void A_path_that_is_away_is_asked_five_times_a_second_whether_it_is_back()
    {
        _bench.Forget(_bench.Open(idle: 1), 10);
        _bench.Hands.Log.Clear();
        _bench.Run(30);
        _bench.Hands.All<WindowProbe>().Count().ShouldBeInRange(100, 160);
    }

    private List<Incident> Incidents() => [.. _bench.Hands.All<IncidentReport>().Where(report => report.Stage == IncidentStage.Recorded).Select(report => report.Incident)];

    private List<Incident> Ended() => [.. _bench.Hands.All<IncidentReport>().Where(report => report.Stage == IncidentStage.Ended).Select(report => report.Incident)];
}
