using System.Net;
using FsCheck;
using FsCheck.Fluent;
using Shouldly;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Core.Tracking;
using Sidecar.CoreTests.Tracking;
using Sidecar.Probes.Values;
using Sidecar.Simulator;
using Xunit;

namespace Sidecar.UnitTests.Tracking;

/// <summary>What is concluded from a series of scans. The sockets behave as the kernel's do (see the simulator's).</summary>
public sealed class TrackedConnectionTests
{
    private static readonly TimeSpan RoundTrip = TimeSpan.FromMilliseconds(10);

    private readonly Upstream _upstream = TestUpstream.Of("10.2.0.2:5432");
    private readonly ClientSocket _socket = Socket(At(0));
    private readonly TrackedConnection _connection;

    public TrackedConnectionTests() => _connection = new PathTable().Track(_socket.Key, _upstream, 1, 33, At(0));

    [Fact]
    public void A_stall_starts_with_the_send_that_is_not_answered()
    {
        Scan(1);
        _socket.Send(At(10.3));
        Scan(11);
        _connection.StallStart.ShouldNotBeNull().ShouldBe(At(10.3), TimeSpan.FromMilliseconds(4));
        Stall(11).IdleBefore.ShouldNotBeNull().ShouldBe(TimeSpan.FromSeconds(10.3), TimeSpan.FromMilliseconds(8));
        Stall(11).FailedTransmissions.ShouldBe(1);
    }

    [Fact]
    public void An_answer_by_itself_is_movement()
    {
        Scan(1);
        Scan(5);
        var socket = _socket.Observe(At(20));
        _connection.Update(socket with { Info = socket.Info with { SegmentsIn = socket.Info.SegmentsIn + 1, LastAckReceivedMilliseconds = 0 } }, At(20));
        _connection.LastMoved.ShouldBe(At(20));
    }

    [Fact]
    public void It_still_does_when_the_look_comes_after_retransmissions()
    {
        Scan(9);
        StallUntilSecondTimeout();
        Scan(11);
        _connection.StallStart.ShouldNotBeNull().ShouldBe(At(10), TimeSpan.FromMilliseconds(4));
        Stall(11).FailedTransmissions.ShouldBe(4);
        Stall(11).IdleBefore.ShouldNotBeNull().ShouldBe(TimeSpan.FromSeconds(10), TimeSpan.FromMilliseconds(8));
    }

    [Fact]
    public void A_stall_that_had_lasted_when_it_was_first_seen_was_found_late()
    {
        StallUntilSecondTimeout();
        Scan(11);
        Stall(11).FoundLate.ShouldBeFalse();

        var other = new PathTable().Track(_socket.Key, _upstream, 1, 33, At(0));
        _socket.RetransmissionTimeout(At(11.7));
        _socket.RetransmissionTimeout(At(13.4));
        other.Update(_socket.Observe(At(13.5)), At(13.5));
        other.Evidence(At(13.5)).Stall.ShouldNotBeNull().FoundLate.ShouldBeTrue();
        Scan(13.5);
        Stall(13.5).FoundLate.ShouldBeFalse();
    }

    [Fact]
    public void Its_start_stays_while_retransmissions_move_the_kernels_own_clock()
    {
        Scan(9);
        _socket.Send(At(10));
        Scan(10.1);
        var start = _connection.StallStart;
        _socket.TailLossProbe(At(10.22));
        Scan(10.3);
        _socket.RetransmissionTimeout(At(10.43));
        Scan(10.5);
        _connection.StallStart.ShouldBe(start);
        _connection.LastRetransmission.ShouldNotBeNull().ShouldBe(At(10.43), TimeSpan.FromMilliseconds(4));
        Stall(10.5).FailedTransmissions.ShouldBe(3);
    }

    [Fact]
    public void A_stall_seen_for_the_first_time_is_dated_by_its_back_off()
    {
        StallUntilSecondTimeout();
        Scan(11);

        // Tail-loss probes leave no trace of their own, so the estimate may be late by one; never early.
        _connection.StallStart.ShouldNotBeNull().ShouldBeInRange(At(10) - TimeSpan.FromMilliseconds(4), At(10.3));
    }

    [Fact]
    public void The_gap_before_a_stall_is_not_longer_than_the_truth()
    {
        _socket.Send(At(3));
        _socket.Receive(At(3.02));
        Scan(4);
        StallUntilSecondTimeout();
        Scan(11);
        Stall(11).IdleBefore.ShouldNotBeNull().ShouldBe(TimeSpan.FromSeconds(6.98), TimeSpan.FromMilliseconds(8));
    }

    [Fact]
    public void The_peers_keepalives_count_as_movement()
    {
        Scan(1);
        Scan(59);
        Idle(59).ShouldBeGreaterThan(TimeSpan.FromSeconds(58));
        _socket.PeerKeepalive();
        Scan(60);
        Idle(60).ShouldBe(TimeSpan.Zero);
        Scan(90);
        Idle(90).ShouldBe(TimeSpan.FromSeconds(30));
    }

    [Fact]
    public void A_gap_ends_with_the_peers_keepalive()
    {
        Scan(1);
        _socket.PeerKeepalive();
        Scan(60);
        _socket.Send(At(70));
        Scan(70.5);
        Stall(70.5).IdleBefore.ShouldNotBeNull().ShouldBe(TimeSpan.FromSeconds(10), TimeSpan.FromMilliseconds(8));
    }

    [Fact]
    public void An_answer_ends_a_stall()
    {
        Scan(9);
        StallUntilSecondTimeout();
        Scan(11);
        _socket.Receive(At(11.5));
        Scan(12);
        _connection.StallStart.ShouldBeNull();
        _connection.Evidence(At(12)).Stall.ShouldBeNull();
    }

    [Fact]
    public void A_send_after_an_answer_is_a_new_stall()
    {
        Scan(9);
        StallUntilSecondTimeout();
        Scan(11);
        _socket.Receive(At(11.5));
        _socket.Send(At(11.6));
        Scan(12);
        _connection.StallStart.ShouldNotBeNull().ShouldBe(At(11.6), TimeSpan.FromMilliseconds(4));
        Stall(12).FailedTransmissions.ShouldBe(1);
    }

    [Fact]
    public void An_answer_is_awaited_once_all_is_acknowledged()
    {
        _socket.Send(At(5));
        _socket.Acknowledge(At(5.04));
        Scan(6);
        _connection.Evidence(At(6)).AnswerAwaited.ShouldBeTrue();
        _socket.Receive(At(20));
        Scan(21);
        _connection.Evidence(At(21)).AnswerAwaited.ShouldBeFalse();
    }

    [Fact]
    public void A_closed_window_is_seen()
    {
        _socket.Send(At(5));
        _socket.CloseWindow(At(5.01));
        Scan(6);
        _connection.Evidence(At(6)).ZeroWindow.ShouldBeTrue();
        _socket.OpenWindow();
        Scan(7);
        _connection.Evidence(At(7)).ZeroWindow.ShouldBeFalse();
    }

    [Fact]
    public void Retransmissions_count_as_confirmed_between_two_clean_fresh_connections_only()
    {
        Scan(9);
        _socket.Send(At(10));
        Scan(10.1);
        _socket.TailLossProbe(At(10.22));
        Scan(10.3);
        Fresh(clean: true, 10.3, 10.31);
        Stall(10.4).ConfirmedFailures.ShouldBe(0);
        _socket.RetransmissionTimeout(At(10.43));
        Scan(10.5);
        Stall(10.5).ConfirmedFailures.ShouldBe(0);
        Fresh(clean: true, 10.5, 10.51);
        Stall(10.5).ConfirmedFailures.ShouldBe(1);
        Stall(10.5).CleanConnections.ShouldBe(2);
        Fresh(clean: true, 10.6, 10.61);
        Stall(10.6).ConfirmedFailures.ShouldBe(1);
        Stall(10.6).CleanConnections.ShouldBe(3);
    }

    [Fact]
    public void A_fresh_connection_that_failed_takes_all_confirmation_back()
    {
        Scan(9);
        _socket.Send(At(10));
        Scan(10.1);
        Fresh(clean: true, 10.2, 10.21);
        _socket.RetransmissionTimeout(At(10.43));
        Scan(10.5);
        Fresh(clean: true, 10.5, 10.51);
        Stall(10.5).ConfirmedFailures.ShouldBe(1);
        Fresh(clean: false, 10.6, 14.2);
        Stall(14.2).ConfirmedFailures.ShouldBe(0);
        Stall(14.2).CleanConnections.ShouldBe(0);
    }

    [Fact]
    public void A_fresh_connection_of_before_the_stall_confirms_nothing()
    {
        Scan(9);
        _socket.Send(At(10));
        Scan(10.1);
        Fresh(clean: true, 9.9, 10.2);
        _socket.RetransmissionTimeout(At(10.43));
        Scan(10.5);
        Fresh(clean: true, 10.5, 10.51);
        Stall(10.5).ConfirmedFailures.ShouldBe(0);
        Stall(10.5).CleanConnections.ShouldBe(1);
    }

    [Fact]
    public void A_silence_that_was_answered_after_all_is_a_blip_of_its_path()
    {
        Take(9);
        StallUntilSecondTimeout();
        Take(11);
        _socket.Receive(At(11.5));
        Take(12);
        _connection.User.Loss.BlipRateAt(At(12)).ShouldBeGreaterThan(1e-3);
        _connection.User.Loss.RateAt(At(12)).ShouldBeGreaterThan(0.1);
    }

    [Fact]
    public void What_was_lost_in_an_outage_is_no_loss_of_the_path()
    {
        var path = _connection.Path;
        Take(9);
        StallUntilSecondTimeout();
        Take(11);
        path.ProbeBegan(At(11));
        path.ProbeEnded(new ConnectProbeResult(ConnectProbeOutcome.TimedOut, 0, 0, 0, null), At(14.6)).ShouldNotBeNull().Up.ShouldBe(false);
        _socket.Receive(At(20));
        Take(21);
        _connection.User.Loss.BlipRateAt(At(21)).ShouldBe(LossEstimate.LeastBlips);
        _connection.User.Loss.RateAt(At(21)).ShouldBe(0.05, 0.001);
    }

    /// <summary>Whatever a kernel may send, in whatever order: a scan never fails, and evidence is always within reason.</summary>
    [Fact]
    public void No_observation_is_too_strange()
    {
        var observations =
            from numbers in Gen.OneOf(Gen.Choose(0, 3), Gen.Choose(0, int.MaxValue), Gen.Choose(int.MinValue, -1)).ArrayOf(16)
            from state in Gen.Choose(0, 12)
            from timer in Gen.Choose(0, 5)
            select (numbers, state, timer);
        Check.One(Config.QuickThrowOnFailure.WithMaxTest(3000), Prop.ForAll(observations.ArrayOf(8).ToArbitrary(), series =>
        {
            var connection = new PathTable().Track(_socket.Key, _upstream, 1, 33, At(0));
            var now = At(0);
            foreach (var (n, state, timer) in series)
            {
                now += TimeSpan.FromMilliseconds(Math.Abs((long)n[0]) % 100_000);
                var socket = _socket.Observe(now) with
                {
                    State = (TcpState)state,
                    Timer = (SocketTimer)timer,
                    TimerRetransmissions = (byte)n[1],
                    TimerExpiresMilliseconds = (uint)n[2],
                    Info = new TcpInfo
                    {
                        Length = Math.Abs(n[3] % 300),
                        Retransmits = (byte)n[4],
                        Backoff = (byte)n[5],
                        RtoMicroseconds = (uint)n[6],
                        Unacked = (uint)n[7],
                        LastDataSentMilliseconds = (uint)n[8],
                        LastDataReceivedMilliseconds = (uint)n[9],
                        LastAckReceivedMilliseconds = (uint)n[10],
                        TotalRetransmissions = (uint)n[11],
                        BytesAcked = (ulong)n[12],
                        SegmentsIn = (uint)n[13],
                        SegmentsOut = (uint)n[14],
                        DataSegmentsOut = (uint)n[15],
                        BusyMicroseconds = (ulong)n[12] * (ulong)Math.Abs((long)n[13]),
                    },
                };
                connection.User.Take(connection.Update(socket, now), TimeSpan.Zero, now, DateTimeOffset.UnixEpoch + now);
                connection.Assess(DateTimeOffset.UnixEpoch + now);
                var evidence = connection.Evidence(now);
                if (evidence.Idle < TimeSpan.Zero || evidence.Stall?.Silence < TimeSpan.Zero || evidence.Stall?.IdleBefore < TimeSpan.Zero
                    || connection.Judged.Verdict == Verdict.Stuck || Explanation.Of(connection, now).Length == 0)
                {
                    return false; // stuck, and no fresh connection was ever made
                }
            }

            return true;
        }));
    }

    [Fact]
    public void After_a_retransmission_a_fresh_connection_is_wanted_that_begins_when_a_delayed_acknowledgement_would_have_come()
    {
        var path = _connection.Path;
        Scan(9);
        StallUntilSecondTimeout();
        Scan(10.86);
        _connection.Assess(DateTimeOffset.UnixEpoch).ShouldBeTrue();

        path.ProbeBegan(At(10.86));
        path.ProbeEnded(new ConnectProbeResult(ConnectProbeOutcome.Connected, 0, 0, 0, null), At(10.87));
        Scan(10.96);
        _connection.Assess(DateTimeOffset.UnixEpoch).ShouldBeTrue("the acknowledgement could still be on its way");

        path.ProbeBegan(At(10.96));
        path.ProbeEnded(new ConnectProbeResult(ConnectProbeOutcome.Connected, 0, 0, 0, null), At(10.97));
        Scan(11.06);
        _connection.Assess(DateTimeOffset.UnixEpoch).ShouldBeFalse("nothing was sent since");
    }

    [Fact]
    public void A_server_that_has_answered_awaits_nothing()
    {
        var served = new PathTable().Track(_socket.Key, TestUpstream.Of("10.1.0.2:40000", UpstreamDirection.Inbound), 1, 33, At(0));
        _socket.Receive(At(1));
        _socket.Send(At(1.01));
        _socket.Acknowledge(At(1.06));
        served.Update(_socket.Observe(At(2)), At(2));
        Scan(2);
        served.Evidence(At(2)).AnswerAwaited.ShouldBeFalse();
        _connection.Evidence(At(2)).AnswerAwaited.ShouldBeTrue();
    }

    [Fact]
    public void Keepalives_of_either_end_are_no_data()
    {
        _socket.Send(At(1));
        _socket.Acknowledge(At(1.01));
        _socket.Receive(At(1.02));
        Scan(2);
        _socket.PeerKeepalive();
        Scan(6);
        _socket.SendKeepalive();
        _socket.ProbeAnswered(At(8));
        Scan(9);
        var evidence = _connection.Evidence(At(9));
        evidence.Idle.ShouldBeLessThan(TimeSpan.FromSeconds(2));
        evidence.WithoutData.ShouldBe(TimeSpan.FromSeconds(9 - 1.02), TimeSpan.FromMilliseconds(8));
    }

    internal static ClientSocket Socket(TimeSpan established) => new(
        new SocketKey(2, TcpEndPoint.From(IPAddress.Parse("10.1.0.2"), 40000), TcpEndPoint.From(IPAddress.Parse("10.2.0.2"), 5432), 0, new SocketCookie(7)),
        77,
        established,
        RoundTrip);

    private static TimeSpan At(double seconds) => TimeSpan.FromSeconds(1000 + seconds);

    private void StallUntilSecondTimeout()
    {
        _socket.Send(At(10));
        _socket.TailLossProbe(At(10.22));
        _socket.RetransmissionTimeout(At(10.43));
        _socket.RetransmissionTimeout(At(10.85));
    }

    private void Scan(double at) => _connection.Update(_socket.Observe(At(at)), At(at));

    private void Take(double at) => _connection.User.Take(_connection.Update(_socket.Observe(At(at)), At(at)), TimeSpan.Zero, At(at), DateTimeOffset.UnixEpoch);

    private void Fresh(bool clean, double started, double ended) => _connection.NoteConnectProbe(clean, At(started), At(ended));

    private StallEvidence Stall(double at) => _connection.Evidence(At(at)).Stall.ShouldNotBeNull();

    private TimeSpan Idle(double at) => _connection.Evidence(At(at)).Idle;
}
