using System.Diagnostics;
using Shouldly;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Judgement;
using Sidecar.Agent.Judgement.IdleTimeout;
using Sidecar.Agent.Tracking;
using Sidecar.Probes.Paths;
using Sidecar.Probes.SockDiag;
using Xunit;

namespace Sidecar.UnitTests.Tracking;

/// <summary>What fresh connections say, and for how long.</summary>
public sealed class PathTrackerTests
{
    private readonly PathTracker _path = new(new PathKey(1, 1, new TcpEndPoint(2, 5432)), TestUpstream.Of("10.2.0.2:5432"));

    [Fact]
    public void Nothing_is_known_before_the_first_fresh_connection() => State(stall: 10, at: 11).ShouldBe(PathState.Unknown);

    [Fact]
    public void A_fresh_connection_that_succeeded_says_the_path_is_up()
    {
        Probe(FreshConnectOutcome.Connected, 10, 10.01);
        State(stall: 9, at: 11).ShouldBe(PathState.Up);
    }

    [Fact]
    public void One_of_before_the_stall_says_nothing_about_it()
    {
        Probe(FreshConnectOutcome.Connected, 8, 8.01);
        State(stall: 9, at: 11).ShouldBe(PathState.Unknown);
    }

    [Theory]
    [InlineData(FreshConnectOutcome.TimedOut)]
    [InlineData(FreshConnectOutcome.Refused)]
    [InlineData(FreshConnectOutcome.Unreachable)]
    public void One_that_failed_says_the_path_is_down_and_is_remembered(FreshConnectOutcome outcome)
    {
        Probe(outcome, 10, 13.6);
        State(stall: 9, at: 14).ShouldBe(PathState.Down);
        Probe(FreshConnectOutcome.Connected, 20, 20.01);
        State(stall: 9, at: 21).ShouldBe(PathState.Up);
        _path.Evidence(At(9), At(21)).WasDownDuringStall.ShouldBeTrue();
        _path.Evidence(At(19), At(21)).WasDownDuringStall.ShouldBeFalse();
    }

    [Theory]
    [InlineData(7, 0)] // had ended
    [InlineData(9, 2)] // was under way
    [InlineData(11.9, 2)] // began soon afterwards
    [InlineData(12.1, 0)] // what is lost later only resets what is confirmed
    public void One_that_had_to_repeat_its_SYN_about_when_the_stall_began_tells_how_the_path_was_then(double started, int counted)
    {
        Probe(FreshConnectOutcome.Connected, started, started + 3.01, synRetransmissions: 2);
        Probe(FreshConnectOutcome.Connected, 20, 20.01);
        _path.Evidence(At(10.02), At(21)).SynRetransmissions.ShouldBe(counted);
    }

    [Fact]
    public void One_that_could_not_be_tried_proves_nothing()
    {
        Probe(FreshConnectOutcome.NotTried, 10, 10.01);
        State(stall: 9, at: 11).ShouldBe(PathState.Unprovable);
    }

    [Fact]
    public void A_fresh_connection_that_is_overdue_takes_back_what_an_earlier_one_said()
    {
        Probe(FreshConnectOutcome.Connected, 10, 10.01);
        var running = new TaskCompletionSource<FreshConnectResult>();
        _path.Begin(running.Task, At(11));
        State(stall: 9, at: 11.2).ShouldBe(PathState.Up);
        _path.IsUpSince(At(9), At(11.2)).ShouldBeTrue();
        State(stall: 9, at: 11.3).ShouldBe(PathState.Unknown);
        _path.IsUpSince(At(9), At(11.3)).ShouldBeFalse();
    }

    [Fact]
    public void An_action_needs_a_fresh_connection_that_succeeded_just_now_and_after_the_latest_retransmission()
    {
        _path.IsUpNow(null, At(10)).ShouldBeFalse();
        Probe(FreshConnectOutcome.Connected, 10, 10.01);
        _path.IsUpNow(At(9.9), At(10.1)).ShouldBeTrue();
        _path.IsUpNow(At(10.05), At(10.1)).ShouldBeFalse();
        _path.IsUpNow(At(9.9), At(11.1)).ShouldBeFalse();
        Probe(FreshConnectOutcome.TimedOut, 12, 15.6);
        _path.IsUpNow(At(9.9), At(15.7)).ShouldBeFalse();
    }

    [Fact]
    public void An_agent_that_slept_distrusts_what_it_knew()
    {
        Probe(FreshConnectOutcome.Connected, 10, 10.01);
        _path.Distrust();
        State(stall: 9, at: 11).ShouldBe(PathState.Unknown);
        _path.IsUpNow(At(9), At(10.1)).ShouldBeFalse();
    }

    [Fact]
    public void A_RST_teaches_a_gap_once_a_fresh_connection_shows_that_the_server_is_up()
    {
        var at = new DateTimeOffset(2026, 1, 1, 0, 0, 0, TimeSpan.Zero);
        _path.NoteReset(TimeSpan.FromSeconds(20), at, At(10));
        Probe(FreshConnectOutcome.Refused, 10, 10.01);
        _path.Estimate.ShouldBeNull();
        Probe(FreshConnectOutcome.Connected, 12, 12.01);
        _path.Estimate.ShouldBeNull();

        _path.NoteReset(TimeSpan.FromSeconds(20), at, At(20));
        Probe(FreshConnectOutcome.Connected, 20.1, 20.2);
        _path.Estimate.ShouldNotBeNull().Upper.ShouldBe(TimeSpan.FromSeconds(20));
    }

    [Fact]
    public void Where_only_data_counts_gaps_between_segments_teach_nothing()
    {
        var at = new DateTimeOffset(2026, 1, 1, 0, 0, 0, TimeSpan.Zero);
        _path.NoteClock(IdleClock.Data);
        _path.Note(new Observation(TimeSpan.FromSeconds(5), GapOutcome.Lost, at, EvidenceSource.Passive));
        _path.Estimate.ShouldBeNull();
        _path.Note(new Observation(TimeSpan.FromSeconds(20), GapOutcome.Lost, at, EvidenceSource.Ladder));
        _path.Estimate.ShouldNotBeNull().Upper.ShouldBe(TimeSpan.FromSeconds(20));
        _path.TakeEvidence().ShouldNotBeNull().CountsDataOnly.ShouldBeTrue();

        _path.NoteClock(IdleClock.Segments);
        _path.Evidence(null, At(1)).CountsDataOnly.ShouldBeFalse();
    }

    /// <summary>The simulator closed a live connection after a gap that others had long survived, as the router's timeout had been raised.</summary>
    [Fact]
    public void A_declared_timeout_condemns_no_gap_that_was_seen_survived()
    {
        var at = new DateTimeOffset(2026, 1, 1, 0, 0, 0, TimeSpan.Zero);
        var path = new PathTracker(new PathKey(1, 1, new TcpEndPoint(2, 5432)), TestUpstream.Of("10.2.0.2:5432", idleTimeout: TimeSpan.FromSeconds(60)));
        void Note(double gap, GapOutcome outcome) => path.Note(new Observation(TimeSpan.FromSeconds(gap), outcome, at, EvidenceSource.Passive));

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

    [Fact]
    public void One_fresh_connection_at_a_time_and_fewer_while_the_path_is_down()
    {
        _path.IsDue(At(10)).ShouldBeTrue();
        _path.Begin(new TaskCompletionSource<FreshConnectResult>().Task, At(10));
        _path.IsDue(At(20)).ShouldBeFalse();
        Probe(FreshConnectOutcome.Connected, 20, 20.01);
        _path.IsDue(At(20.05)).ShouldBeFalse();
        _path.IsDue(At(20.2)).ShouldBeTrue();
        Probe(FreshConnectOutcome.TimedOut, 21, 24.6);
        _path.IsDue(At(25)).ShouldBeFalse();
        _path.IsDue(At(25.7)).ShouldBeTrue();
    }

    private static TimeSpan At(double seconds) => TimeSpan.FromSeconds(1000 + seconds);

    private PathState State(double stall, double at) => _path.Evidence(At(stall), At(at)).State;

    private void Probe(FreshConnectOutcome outcome, double started, double ended, int synRetransmissions = 0)
    {
        _path.Begin(Task.FromResult(new FreshConnectResult(outcome, 0, (long)((ended - started) * Stopwatch.Frequency), synRetransmissions, null)), At(started));
        _path.Collect(At(ended));
    }
}
