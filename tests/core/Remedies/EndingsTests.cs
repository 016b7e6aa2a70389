using Shouldly;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Settings;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.CoreTests.Remedies;

/// <summary>Silences that end without a remedy of that moment: each is an incident, with the time that it lasted.</summary>
public sealed class EndingsTests
{
    [Fact]
    public void A_connection_that_the_agents_keepalive_has_ended_is_an_incident_with_its_true_duration()
    {
        var bench = new Bench(with: section => section with { Keepalive = true, Recycle = false });
        var socket = Awaiting(bench);
        bench.Run(5);
        bench.Hands.Options.Enabled.ShouldBeTrue();
        var began = bench.Now;
        var count = bench.Hands.Options.Count;
        for (socket.KeepaliveProbes = 1; socket.KeepaliveProbes < count; socket.KeepaliveProbes++)
        {
            bench.Run(1);
        }

        socket.IsClosed = true;
        var ended = bench.Now;
        bench.Run(1);
        var incident = Incidents(bench).Single(incident => incident.Remedy == "keepalive");
        incident.Outcome.ShouldBe("released");
        incident.ReleaseSeconds.ShouldNotBeNull().ShouldBe((ended - began).TotalSeconds, 0.5);
        bench.Hands.All<ReleasedReport>().Count().ShouldBe(1);
    }

    [Fact]
    public void One_that_ends_before_the_agents_keepalive_could_have_ended_it_is_not_the_keepalives_doing()
    {
        var bench = new Bench(with: section => section with { Keepalive = true, Recycle = false });
        var socket = Awaiting(bench);
        bench.Run(5);
        socket.KeepaliveProbes = 1;
        bench.Run(5);
        socket.IsClosed = true;
        bench.Run(1);
        Incidents(bench).ShouldNotContain(incident => incident.Remedy == "keepalive");
    }

    [Fact]
    public void A_hang_that_ends_by_itself_is_an_incident_with_its_true_duration()
    {
        var bench = new Bench { Path = null };
        var socket = bench.Open(idle: 1);
        socket.Send(bench.Now);
        bench.Run(60);
        socket.IsClosed = true;
        bench.Run(1);
        Incidents(bench).Single().ShouldSatisfyAllConditions(
            incident => incident.Remedy.ShouldBe("none"),
            incident => incident.Outcome.ShouldBe("vanished"),
            incident => incident.ReleaseSeconds.ShouldNotBeNull().ShouldBe(60, 0.5));
    }

    [Fact]
    public void Who_stops_waiting_after_a_moment_is_no_incident()
    {
        var bench = new Bench { Path = null };
        var socket = bench.Open(idle: 1);
        socket.Send(bench.Now);
        bench.Run(1);
        socket.IsClosed = true;
        bench.Run(1);
        Incidents(bench).ShouldBeEmpty();
    }

    [Fact]
    public void What_was_withheld_tells_in_the_end_how_long_the_connection_hung()
    {
        var bench = new Bench(AgentMode.Observe);
        var socket = bench.Open();
        socket.Send(bench.Now);
        bench.Run(100);
        socket.IsClosed = true;
        bench.Run(1);
        var told = bench.Hands.All<IncidentReport>().ToList();
        told.Select(report => report.Incident.Id).Distinct().Count().ShouldBe(1);
        told[^1].Incident.ReleaseSeconds.ShouldNotBeNull().ShouldBe(100, 0.5);
        told[^1].Incident.Outcome.ShouldBe("withheld");
    }

    [Fact]
    public void The_incident_of_an_outage_ends_when_data_moves_and_not_when_a_probe_is_answered()
    {
        var bench = new Bench { Path = ConnectProbeOutcome.TimedOut };
        bench.Hands.Resumed = ResumeOutcome.NotPermitted;
        var socket = bench.Open(idle: 1);
        socket.Send(bench.Now);
        bench.Run(20);
        (bench.Path, socket.Answers) = (ConnectProbeOutcome.Connected, true);
        bench.Run(33);
        Outages(bench).ShouldAllBe(report => report.Stage == IncidentStage.Recorded);
        socket.Acknowledge(bench.Now);
        bench.Run(1);
        Outages(bench).Single(report => report.Stage == IncidentStage.Ended).Incident.ShouldSatisfyAllConditions(
            incident => incident.Outcome.ShouldBe("recovered"),
            incident => incident.ReleaseSeconds.ShouldNotBeNull().ShouldBe(53, 0.5));
    }

    [Fact]
    public void The_incident_of_an_outage_lasts_until_the_last_of_its_connections_has_moved_or_gone()
    {
        var bench = new Bench { Path = ConnectProbeOutcome.TimedOut };
        var (first, second) = (bench.Open(idle: 1), bench.Open(idle: 1));
        first.Send(bench.Now);
        second.Send(bench.Now);
        bench.Run(20);
        first.Receive(bench.Now);
        bench.Run(20);
        Outages(bench).ShouldAllBe(report => report.Stage == IncidentStage.Recorded);
        second.IsClosed = true;
        bench.Run(1);
        Outages(bench).Single(report => report.Stage == IncidentStage.Ended).Incident.ReleaseSeconds.ShouldNotBeNull().ShouldBe(40, 0.5);
    }

    private static FakeSocket Awaiting(Bench bench)
    {
        bench.Hands.Blocked = BlockedOn.Other; // nobody is to be terminated for it
        var socket = bench.Open(idle: 1);
        socket.Send(bench.Now);
        socket.Acknowledge(bench.Now);
        return socket;
    }

    private static IEnumerable<Incident> Incidents(Bench bench) => bench.Hands.All<IncidentReport>().Select(report => report.Incident);

    private static IEnumerable<IncidentReport> Outages(Bench bench) => bench.Hands.All<IncidentReport>().Where(report => report.Incident.Cause == "outage");
}
