using Shouldly;
using Sidecar.Agent.Remedies;
using Sidecar.Agent.Tracking;
using Sidecar.Probes.Processes;
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

    [Fact]
    public void Progress_on_a_connection_that_was_closed_since_is_remembered()
    {
        var process = new ProcessIdentity(123, 456);
        var memory = new ProgressMemory();
        _other.Send(At(5));
        var tracked = new PathTable().Track(_other.Key, TestUpstream.Of("10.2.0.2:5432"), 1, At(0));
        tracked.Update(_other.Observe(At(6)), At(6));
        memory.NoteGone(process, tracked);
        memory.MovedSince(process, At(0)).ShouldBeTrue();
        memory.MovedSince(process, At(4.9)).ShouldBeFalse();
        memory.MovedSince(new ProcessIdentity(123, 457), At(0)).ShouldBeFalse();
        memory.Prune(At(4000));
        memory.MovedSince(process, At(0)).ShouldBeFalse();
    }

    private static TimeSpan At(double seconds) => TimeSpan.FromSeconds(1000 + seconds);

    private bool Shows() => ProgressProbe.Shows(_other.Observe(At(10)), Silence);
}
