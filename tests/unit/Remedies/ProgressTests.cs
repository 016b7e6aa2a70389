using Shouldly;
using Sidecar.Agent.Action;
using Sidecar.Simulator;
using Sidecar.UnitTests.Tracking;
using Xunit;

namespace Sidecar.UnitTests.Remedies;

/// <summary>Guardrail 5: what shows that a process is not hung.</summary>
public sealed class ProgressTests
{
    private static readonly TimeSpan Silence = TimeSpan.FromSeconds(10);
    private readonly ClientSocket _other = TrackedConnectionTests.Socket(TimeSpan.Zero);

    [Fact]
    public void A_connection_that_rested_shows_no_progress()
    {
        _other.Send(At(-30));
        _other.Receive(At(-29));
        Shows().ShouldBeFalse();
    }

    [Fact]
    public void A_write_during_the_silence_is_progress()
    {
        _other.Send(At(5));
        Shows().ShouldBeTrue();
    }

    [Fact]
    public void So_is_a_read()
    {
        _other.Send(At(-3));
        _other.Receive(At(5));
        Shows().ShouldBeTrue();
    }

    [Fact]
    public void The_request_that_led_to_the_silence_is_none()
    {
        _other.Send(At(-3));
        _other.Receive(At(0.1));
        Shows().ShouldBeFalse();
    }

    [Fact]
    public void Retransmissions_of_a_hung_connection_are_none()
    {
        _other.Send(At(-5));
        _other.RetransmissionTimeout(At(4));
        Shows().ShouldBeFalse();
    }

    [Fact]
    public void What_the_kernel_received_and_nobody_read_is_none()
    {
        _other.Send(At(-5));
        _other.Receive(At(5));
        _other.ReceiveQueue = 100;
        Shows().ShouldBeFalse();
    }

    private static TimeSpan At(double seconds) => TimeSpan.FromSeconds(1000 + seconds);

    private bool Shows() => ProgressProbe.Shows(_other.Observe(At(10)), Silence);
}
