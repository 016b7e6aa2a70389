using FsCheck;
using FsCheck.Fluent;
using Shouldly;
using Sidecar.Agent.Core.Judgement;
using Xunit;

namespace Sidecar.CoreTests.Judgement;

/// <summary>Every row of the verdict table, and the order of its questions.</summary>
public sealed class JudgeTests
{
    private static readonly TimeSpan Timeout = TimeSpan.FromSeconds(350);

    private static readonly ConnectionEvidence Resting = new()
    {
        HasTcpInfo = true,
        Idle = TimeSpan.FromSeconds(10),
        WithoutData = TimeSpan.FromSeconds(10),
        Unacknowledged = 0,
        ZeroWindow = false,
        Timeouts = 0,
        AnswerAwaited = false,
        KeepaliveAt = null,
        ProbesAnswered = 0,
        OutOfOrder = false,
        Stall = null,
        Probing = null,
    };

    /// <summary>Forgotten beyond doubt, were the path up.</summary>
    private static readonly ConnectionEvidence Silent = Resting with
    {
        Unacknowledged = 1,
        Timeouts = 4,
        Stall = new StallEvidence { Silence = TimeSpan.FromSeconds(5), IdleBefore = TimeSpan.FromSeconds(400), FailedTransmissions = 6, ConfirmedFailures = 3, CleanConnections = 4, FoundLate = false },
    };

    private static readonly PathEvidence Up = new()
    {
        State = PathState.Up,
        WasDownDuringStall = false,
        SynRetransmissions = 0,
        TransmissionFailureRate = LossEstimate.Floor,
        BlipRate = LossEstimate.LeastBlips,
        CountsDataOnly = false,
        IdleTimeoutLower = Timeout,
        IdleTimeoutUpper = Timeout,
    };

    private static readonly PathEvidence TimeoutUnknown = Up with { IdleTimeoutLower = null, IdleTimeoutUpper = null };

    [Fact]
    public void A_connection_without_tcp_info_is_healthy_whatever_else_is_said() =>
        Decide(Silent with { HasTcpInfo = false }, Up).ShouldBe((Verdict.Healthy, Reason.NoTcpInfo));

    [Fact]
    public void A_connection_in_use_is_healthy() =>
        Decide(Resting with { Idle = TimeSpan.FromSeconds(1) }, Up).ShouldBe((Verdict.Healthy, Reason.YoungerThanHalfTheTimeout));

    [Fact]
    public void Data_in_flight_without_a_timeout_is_healthy() =>
        Decide(Silent with { Timeouts = 0 }, Up).ShouldBe((Verdict.Healthy, Reason.InFlight));

    [Fact]
    public void A_timeout_whose_stall_is_not_known_is_healthy() =>
        Decide(Silent with { Stall = null }, Up).ShouldBe((Verdict.Healthy, Reason.InFlight));

    [Fact]
    public void An_idle_connection_of_a_path_whose_timeout_nobody_knows_is_healthy() =>
        Decide(Resting with { Idle = TimeSpan.FromDays(2) }, TimeoutUnknown).ShouldBe((Verdict.Healthy, Reason.NoTimeoutKnown));

    [Fact]
    public void A_keepalive_counts_as_protection_where_the_timeout_is_not_known() =>
        Decide(Resting with { KeepaliveAt = TimeSpan.FromHours(2) }, TimeoutUnknown).ShouldBe((Verdict.Healthy, Reason.ProtectedByKeepalive));

    [Fact]
    public void A_keepalive_in_time_protects() =>
        Decide(Resting with { Idle = TimeSpan.FromSeconds(170), KeepaliveAt = TimeSpan.FromSeconds(175) }, Up)
            .ShouldBe((Verdict.Healthy, Reason.ProtectedByKeepalive));

    [Fact]
    public void A_keepalive_that_comes_after_the_path_forgets_protects_nothing() =>
        Decide(Resting with { Idle = TimeSpan.FromSeconds(200), KeepaliveAt = TimeSpan.FromHours(2) }, Up)
            .ShouldBe((Verdict.Aging, Reason.PastHalfTheTimeout));

    [Theory]
    [InlineData(174.999, Verdict.Healthy)]
    [InlineData(175, Verdict.Aging)]
    [InlineData(349.999, Verdict.Aging)]
    [InlineData(350, Verdict.Expired)]
    [InlineData(86400, Verdict.Expired)]
    public void Idle_connections_age_at_half_the_timeout_and_expire_at_the_whole(double idle, Verdict verdict) =>
        Judge.Decide(Resting with { Idle = TimeSpan.FromSeconds(idle) }, Up).Verdict.ShouldBe(verdict);

    [Fact]
    public void Between_the_bounds_of_the_timeout_nothing_is_expired() =>
        Decide(Resting with { Idle = TimeSpan.FromSeconds(500) }, Up with { IdleTimeoutUpper = TimeSpan.FromSeconds(600) })
            .ShouldBe((Verdict.Aging, Reason.PastHalfTheTimeout));

    [Theory]
    [InlineData(174.999, Verdict.Healthy, Reason.YoungerThanHalfTheTimeout)]
    [InlineData(175, Verdict.Aging, Reason.PastHalfTheTimeout)]
    [InlineData(262.5, Verdict.Aging, Reason.NearTheTimeout)]
    [InlineData(349.999, Verdict.Aging, Reason.NearTheTimeout)]
    [InlineData(350, Verdict.Expired, Reason.PastTheTimeout)]
    public void Where_only_data_counts_keepalives_make_nothing_younger(double withoutData, Verdict verdict, Reason reason) =>
        Decide(
            Resting with { Idle = TimeSpan.FromSeconds(1), WithoutData = TimeSpan.FromSeconds(withoutData), KeepaliveAt = TimeSpan.FromSeconds(20) },
            Up with { CountsDataOnly = true })
            .ShouldBe((verdict, reason));

    [Theory]
    [InlineData(PathState.Up)]
    [InlineData(PathState.Down)]
    [InlineData(PathState.Unknown)]
    public void A_slow_query_waits_however_long_and_whatever_the_path_does(PathState path) =>
        Decide(Resting with { AnswerAwaited = true, Idle = TimeSpan.FromDays(3) }, Up with { State = path })
            .ShouldBe((Verdict.Waiting, Reason.AnswerAwaited));

    [Fact]
    public void A_closed_window_is_the_peers_doing_even_when_everything_else_looks_stuck() =>
        Decide(Silent with { ZeroWindow = true }, Up).ShouldBe((Verdict.BlockedByPeer, Reason.PeerWindowClosed));

    [Fact]
    public void Silence_before_any_fresh_connection_is_suspect() =>
        Decide(Silent, Up with { State = PathState.Unknown }).ShouldBe((Verdict.Suspect, Reason.RetransmittingPathUnknown));

    [Fact]
    public void Silence_where_no_fresh_connection_can_be_made_stays_suspect() =>
        Decide(Silent, Up with { State = PathState.Unprovable }).ShouldBe((Verdict.Suspect, Reason.RetransmittingUnprovable));

    [Fact]
    public void Silence_while_fresh_connections_succeed_is_stuck() =>
        Decide(Silent, Up).ShouldBe((Verdict.Stuck, Reason.SilentWhilePathUp));

    [Fact]
    public void Silence_while_fresh_connections_fail_is_an_outage() =>
        Decide(Silent, Up with { State = PathState.Down }).ShouldBe((Verdict.Outage, Reason.SilentAndPathDown));

    [Fact]
    public void One_timeout_of_a_busy_connection_is_suspect_and_no_more() =>
        Decide(
            Silent with { Timeouts = 1, Stall = new StallEvidence { Silence = TimeSpan.FromSeconds(0.5), IdleBefore = TimeSpan.Zero, FailedTransmissions = 3, ConfirmedFailures = 0, CleanConnections = 1, FoundLate = false } },
            Up)
            .ShouldBe((Verdict.Suspect, Reason.RetransmittingPathUp));

    [Theory]
    [InlineData(0, 9, Verdict.Suspect, Reason.RetransmittingPathUp)]
    [InlineData(1, 9, Verdict.Healthy, Reason.PeerAnswersProbes)]
    [InlineData(2, 9, Verdict.Healthy, Reason.PeerAnswersProbes)]
    [InlineData(3, 3, Verdict.Healthy, Reason.PeerAnswersProbes)]
    [InlineData(3, 4, Verdict.BlackHole, Reason.LargeSegmentsLost)]
    public void A_peer_that_answers_probes_lives_and_a_third_answer_without_the_data_is_a_black_hole(int answers, int timeouts, Verdict verdict, Reason reason) =>
        Decide(Silent with { ProbesAnswered = answers, Timeouts = timeouts, Stall = Silent.Stall!.Value with { FailedTransmissions = 1, ConfirmedFailures = 0 } }, Up)
            .ShouldBe((verdict, reason));

    [Fact]
    public void Every_verdict_of_the_table_has_a_row_here_and_a_name()
    {
        Verdict[] rows =
        [
            Decide(Resting, Up).Verdict,
            Decide(Resting with { Idle = TimeSpan.FromSeconds(200) }, Up).Verdict,
            Decide(Resting with { Idle = TimeSpan.FromSeconds(400) }, Up).Verdict,
            Decide(Resting with { AnswerAwaited = true }, Up).Verdict,
            Decide(Silent, Up with { State = PathState.Unknown }).Verdict,
            Decide(Silent, Up).Verdict,
            Decide(Silent, Up with { State = PathState.Down }).Verdict,
            Decide(Silent with { ZeroWindow = true }, Up).Verdict,
            Decide(Silent, Up with { State = PathState.Partly }).Verdict,
            Decide(Resting with { OutOfOrder = true }, Up).Verdict,
        ];
        rows.ShouldBe(VerdictNames.All);
        VerdictNames.All.Select(verdict => verdict.ToName()).Distinct().Count().ShouldBe(rows.Length);
    }

    private static (Verdict Verdict, Reason Reason) Decide(ConnectionEvidence connection, PathEvidence path)
    {
        var judged = Judge.Decide(connection, path);
        return (judged.Verdict, judged.Reason);
    }

    [Fact]
    public void A_connection_that_has_answered_a_window_probe_since_it_fell_silent_is_never_closed_whatever_the_odds_were()
    {
        var cases =
            from answered in Gen.Choose(1, 20)
            from failed in Gen.Choose(0, 1)
            from confirmed in Gen.Choose(0, 30)
            from clean in Gen.Choose(0, 30)
            from silence in Gen.Choose(0, 4000)
            from idle in Gen.Choose(0, 4000)
            from timeouts in Gen.Choose(1, 15)
            from state in Gen.Elements(Enum.GetValues<PathState>())
            from down in Gen.Elements(true, false)
            select Judge.Decide(
                Silent with
                {
                    ProbesAnswered = answered,
                    Timeouts = timeouts,
                    Stall = new StallEvidence
                    {
                        Silence = TimeSpan.FromSeconds(silence), IdleBefore = TimeSpan.FromSeconds(idle), FailedTransmissions = failed, ConfirmedFailures = confirmed, CleanConnections = clean, FoundLate = false,
                    },
                },
                Up with { State = state, WasDownDuringStall = down });
        Prop.ForAll(cases.ToArbitrary(), judged => judged.Verdict is Verdict.Healthy or Verdict.BlackHole).Check(Config.QuickThrowOnFailure.WithMaxTest(5000));
    }
}
