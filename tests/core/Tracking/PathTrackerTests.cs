using System.Diagnostics;
using Shouldly;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Judgement.IdleTimeout;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.CoreTests.Tracking;

/// <summary>What fresh connections say, and for how long.</summary>
public sealed class PathTrackerTests
{
    private readonly PathTracker _path = new(new PathKey(1, 1, new TcpEndPoint(2, 5432)), TestUpstream.Of("10.2.0.2:5432"));

    [Fact]
    public void Nothing_is_known_before_the_first_fresh_connection() => State(stall: 10, at: 11).ShouldBe(PathState.Unknown);

    [Fact]
    public void A_fresh_connection_that_succeeded_says_the_path_is_up()
    {
        Probe(ConnectProbeOutcome.Connected, 10, 10.01);
        State(stall: 9, at: 11).ShouldBe(PathState.Up);
    }

    [Fact]
    public void One_of_before_the_stall_says_nothing_about_it()
    {
        Probe(ConnectProbeOutcome.Connected, 8, 8.01);
        State(stall: 9, at: 11).ShouldBe(PathState.Unknown);
    }

    [Theory]
    [InlineData(ConnectProbeOutcome.TimedOut)]
    [InlineData(ConnectProbeOutcome.Refused)]
    [InlineData(ConnectProbeOutcome.Unreachable)]
    public void One_that_failed_says_the_path_is_down_and_is_remembered(ConnectProbeOutcome outcome)
    {
        Probe(outcome, 10, 13.6);
        State(stall: 9, at: 14).ShouldBe(PathState.Down);
        Probe(ConnectProbeOutcome.Connected, 20, 20.01);
        State(stall: 9, at: 21).ShouldBe(PathState.Up);
        _path.User(0).Evidence(At(9), At(21)).WasDownDuringStall.ShouldBeTrue();
        _path.User(0).Evidence(At(19), At(21)).WasDownDuringStall.ShouldBeFalse();
    }

    [Theory]
    [InlineData(7, 0)] // had ended
    [InlineData(9, 2)] // was under way
    [InlineData(11.9, 2)] // began soon afterwards
    [InlineData(12.1, 0)] // what is lost later only resets what is confirmed
    public void One_that_had_to_repeat_its_SYN_about_when_the_stall_began_tells_how_the_path_was_then(double started, int counted)
    {
        Probe(ConnectProbeOutcome.Connected, started, started + 3.01, synRetransmissions: 2);
        Probe(ConnectProbeOutcome.Connected, 20, 20.01);
        _path.User(0).Evidence(At(10.02), At(21)).SynRetransmissions.ShouldBe(counted);
    }

    [Fact]
    public void One_that_could_not_be_tried_proves_nothing()
    {
        Probe(ConnectProbeOutcome.NotTried, 10, 10.01);
        State(stall: 9, at: 11).ShouldBe(PathState.Unprovable);
    }

    [Fact]
    public void A_fresh_connection_that_is_overdue_takes_back_what_an_earlier_one_said()
    {
        Probe(ConnectProbeOutcome.Connected, 10, 10.01);
        _path.ProbeBegan(At(11));
        State(stall: 9, at: 11.2).ShouldBe(PathState.Up);
        _path.IsUpSince(At(9), At(11.2)).ShouldBeTrue();
        State(stall: 9, at: 11.3).ShouldBe(PathState.Unknown);
        _path.IsUpSince(At(9), At(11.3)).ShouldBeFalse();
    }

    [Fact]
    public void An_action_needs_a_fresh_connection_that_succeeded_just_now_and_after_the_latest_retransmission()
    {
        _path.IsUpNow(null, At(10)).ShouldBeFalse();
        Probe(ConnectProbeOutcome.Connected, 10, 10.01);
        _path.IsUpNow(At(9.9), At(10.1)).ShouldBeTrue();
        _path.IsUpNow(At(10.05), At(10.1)).ShouldBeFalse();
        _path.IsUpNow(At(9.9), At(11.1)).ShouldBeFalse();
        Probe(ConnectProbeOutcome.TimedOut, 12, 15.6);
        _path.IsUpNow(At(9.9), At(15.7)).ShouldBeFalse();
    }

    [Fact]
    public void An_agent_that_slept_distrusts_what_it_knew()
    {
        Probe(ConnectProbeOutcome.Connected, 10, 10.01);
        _path.Distrust();
        State(stall: 9, at: 11).ShouldBe(PathState.Unknown);
        _path.IsUpNow(At(9), At(10.1)).ShouldBeFalse();
    }

    [Fact]
    public void A_RST_teaches_a_gap_once_a_fresh_connection_shows_that_the_server_is_up()
    {
        var at = new DateTimeOffset(2026, 1, 1, 0, 0, 0, TimeSpan.Zero);
        _path.NoteReset(TimeSpan.FromSeconds(20), at, At(10));
        Probe(ConnectProbeOutcome.Refused, 10, 10.01);
        _path.Estimate.ShouldBeNull();
        Probe(ConnectProbeOutcome.Connected, 12, 12.01);
        _path.Estimate.ShouldBeNull();

        _path.NoteReset(TimeSpan.FromSeconds(20), at, At(20));
        Probe(ConnectProbeOutcome.Connected, 20.1, 20.2);
        _path.Estimate.ShouldNotBeNull().Upper.ShouldBe(TimeSpan.FromSeconds(20));
    }

    [Fact]
    public void Where_only_data_counts_gaps_between_segments_teach_nothing()
    {
        var at = new DateTimeOffset(2026, 1, 1, 0, 0, 0, TimeSpan.Zero);
        _path.NoteClock(IdleClock.Data);
        _path.Note(new GapObservation(TimeSpan.FromSeconds(5), GapOutcome.Lost, at, EvidenceSource.Passive));
        _path.Estimate.ShouldBeNull();
        _path.Note(new GapObservation(TimeSpan.FromSeconds(20), GapOutcome.Lost, at, EvidenceSource.Ladder));
        _path.Estimate.ShouldNotBeNull().Upper.ShouldBe(TimeSpan.FromSeconds(20));
        _path.TakeEvidence().ShouldNotBeNull().CountsDataOnly.ShouldBeTrue();

        _path.NoteClock(IdleClock.Segments);
        _path.User(0).Evidence(null, At(1)).CountsDataOnly.ShouldBeFalse();
    }

    /// <summary>The simulator closed a live connection after a gap that others had long survived, as the router's timeout had been raised.</summary>
    [Fact]
    public void A_declared_timeout_condemns_no_gap_that_was_seen_survived()
    {
        var at = new DateTimeOffset(2026, 1, 1, 0, 0, 0, TimeSpan.Zero);
        var path = new PathTracker(new PathKey(1, 1, new TcpEndPoint(2, 5432)), TestUpstream.Of("10.2.0.2:5432", idleTimeout: TimeSpan.FromSeconds(60)));
        void Note(double gap, GapOutcome outcome) => path.Note(new GapObservation(TimeSpan.FromSeconds(gap), outcome, at, EvidenceSource.Passive));

        Note(50, GapOutcome.Survived);
        path.IdleTimeout.ShouldBe((TimeSpan.FromSeconds(60), TimeSpan.FromSeconds(60)));
        Note(300, GapOutcome.Survived);
        Note(90, GapOutcome.Survived);
        path.IdleTimeout.ShouldBe((TimeSpan.FromSeconds(60), TimeSpan.FromSeconds(300)));
        Note(90, GapOutcome.Lost);
        path.IdleTimeout.ShouldBe((TimeSpan.FromSeconds(60), TimeSpan.FromSeconds(90)));
        Note(20, GapOutcome.Lost);
        path.IdleTimeout.ShouldBe((TimeSpan.FromSeconds(60), TimeSpan.FromSeconds(60)));
        path.TakeEvidence().ShouldBeNull();
    }

    /// <summary>MySQL and MariaDB count broken handshakes for the host, from whichever of its addresses and containers they come.</summary>
    [Fact]
    public void All_paths_to_a_server_that_counts_broken_handshakes_share_one_budget()
    {
        var upstream = new Upstream(new UpstreamSection { Name = "db", Endpoints = [], Protocol = UpstreamProtocol.MySql });
        var table = new PathTable();
        for (ulong i = 1; i <= 3; i++)
        {
            table.Track(new SocketKey(2, new TcpEndPoint(i, 40_000), new TcpEndPoint(2, 3306), 0, new SocketCookie(i)), upstream, i, 33, TimeSpan.Zero);
        }

        var paths = table.All.ToList();
        var (spent, now) = (0, TimeSpan.Zero);
        while (paths.Any(path => path.IsDue(now)) && spent < 100)
        {
            foreach (var path in paths.Where(path => path.IsDue(now)))
            {
                path.ProbeBegan(now);
                path.ProbeEnded(null, now);
                spent++;
            }

            now += TimeSpan.FromSeconds(1);
        }

        spent.ShouldBe(20);
    }

    [Fact]
    public void One_fresh_connection_at_a_time_and_fewer_while_the_path_is_down()
    {
        _path.IsDue(At(10)).ShouldBeTrue();
        _path.ProbeBegan(At(10));
        _path.IsDue(At(20)).ShouldBeFalse();
        Probe(ConnectProbeOutcome.Connected, 20, 20.01);
        _path.IsDue(At(20.05)).ShouldBeFalse();
        _path.IsDue(At(20.2)).ShouldBeTrue();
        Probe(ConnectProbeOutcome.TimedOut, 21, 24.6);
        _path.IsDue(At(24.75)).ShouldBeFalse();
        _path.IsDue(At(24.85)).ShouldBeTrue();
    }

    /// <summary>The simulator closed live connections in the moment in which the dead leg of their bundle came back.</summary>
    [Fact]
    public void A_success_from_a_port_that_had_failed_shows_that_something_has_come_back_and_confirms_nothing()
    {
        Probe(ConnectProbeOutcome.TimedOut, 10, 13.6, port: 7);
        _path.NextPort.ShouldBe(7);
        Probe(ConnectProbeOutcome.Connected, 14, 14.01, port: 7);
        _path.Last!.IsCleanSuccess.ShouldBeFalse();
        Probe(ConnectProbeOutcome.Connected, 15, 15.01, port: 8);
        _path.Last!.IsCleanSuccess.ShouldBeTrue();
    }

    [Fact]
    public void A_path_whose_ports_contradicted_one_another_is_reckoned_to_have_several_legs_for_a_day()
    {
        _path.User(0).Evidence(At(9), At(9)).DeadLeg.ShouldBe(0);
        Probe(ConnectProbeOutcome.TimedOut, 10, 13.6, port: 7);
        Probe(ConnectProbeOutcome.TimedOut, 14, 17.6, port: 7);
        _path.User(0).Evidence(At(9), At(18)).DeadLeg.ShouldBe(0); // an outage
        Probe(ConnectProbeOutcome.Connected, 18, 18.01, port: 8);
        Probe(ConnectProbeOutcome.TimedOut, 19, 22.6, port: 7);
        State(stall: 9, at: 23).ShouldBe(PathState.Partly);
        _path.User(0).Evidence(At(9), At(23)).DeadLeg.ShouldBeGreaterThan(0);
        _path.User(0).Evidence(At(9), At(23 + 86_400)).DeadLeg.ShouldBe(0);
    }

    /// <summary>Anybody may have connections acknowledged while a server accepts nobody.</summary>
    [Fact]
    public void What_one_users_connections_contradict_says_nothing_of_legs_to_another()
    {
        var (stranger, victim) = (_path.User(1), _path.User(2));
        stranger.Take(new PathLesson { Proven = true }, TimeSpan.FromMinutes(2), At(12), DateTimeOffset.UnixEpoch);
        Probe(ConnectProbeOutcome.TimedOut, 10, 13.6);
        stranger.Evidence(At(9), At(14)).DeadLeg.ShouldBeGreaterThan(0);
        victim.Evidence(At(9), At(14)).DeadLeg.ShouldBe(0);
    }

    private static TimeSpan At(double seconds) => TimeSpan.FromSeconds(1000 + seconds);

    private PathState State(double stall, double at) => _path.User(0).Evidence(At(stall), At(at)).State;

    private void Probe(ConnectProbeOutcome outcome, double started, double ended, int synRetransmissions = 0, int port = 0)
    {
        _path.ProbeBegan(At(started));
        _path.ProbeEnded(new ConnectProbeResult(outcome, 0, (long)((ended - started) * Stopwatch.Frequency), synRetransmissions, null) { LocalPort = port }, At(ended));
    }
}
