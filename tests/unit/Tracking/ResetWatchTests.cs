using Shouldly;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.UnitTests.Tracking;

/// <summary>What a connection died of, as the numbers of its end tell. The cases are as Linux 6.18 reports them.</summary>
public sealed class ResetWatchTests
{
    /// <summary>TCP_INFO's length from 4.19 on, with tcpi_bytes_sent.</summary>
    private const int Length = 280;

    /// <summary>Five bytes were sent and acknowledged, seven came back.</summary>
    private static readonly TcpInfo Resting = new()
    {
        Length = Length,
        BytesSent = 5,
        BytesAcked = 6,
        BytesReceived = 7,
        DataSegmentsOut = 1,
        LastDataSentMilliseconds = 15_000,
        LastAckReceivedMilliseconds = 15_000,
    };

    /// <summary>Used after 14.5 s, answered by RST, and closed half a second later.</summary>
    private static readonly TcpInfo Reset = Resting with { BytesSent = 10, DataSegmentsOut = 2, LastDataSentMilliseconds = 500, LastAckReceivedMilliseconds = 15_000 };

    [Fact]
    public void A_send_that_was_never_acknowledged_repeated_or_answered_met_a_RST() => Gap(Reset).ShouldBe(TimeSpan.FromSeconds(14.5));

    [Fact]
    public void A_close_in_good_order_acknowledges_everything_and_the_FIN() =>
        Gap(Resting with { BytesAcked = 7 }).ShouldBeNull();

    [Fact]
    public void A_query_that_was_answered_is_no_loss() =>
        Gap(Reset with { BytesReceived = 14, BytesAcked = 11 }).ShouldBeNull();

    [Fact]
    public void A_process_that_leaves_in_the_middle_of_an_answer_is_no_loss() =>
        Gap(Reset with { BytesReceived = 14 }).ShouldBeNull();

    [Fact]
    public void What_was_repeated_died_of_silence() =>
        Gap(Reset with { TotalRetransmissions = 3, BytesSent = 25, BytesRetransmitted = 15 }).ShouldBeNull();

    [Fact]
    public void An_aborted_connection_has_no_numbers_left() => Gap(new TcpInfo { Length = Length }).ShouldBeNull();

    [Fact]
    public void A_connection_with_something_in_flight_at_the_last_look_says_nothing() =>
        ResetEvidence.GapBeforeReset(new KeptInfo(Resting with { Unacked = 1 }), Reset).ShouldBeNull();

    [Fact]
    public void An_older_kernel_says_too_little() => Gap(Reset with { Length = 168 }).ShouldBeNull();

    private static TimeSpan? Gap(in TcpInfo end) => ResetEvidence.GapBeforeReset(new KeptInfo(Resting), end);
}
