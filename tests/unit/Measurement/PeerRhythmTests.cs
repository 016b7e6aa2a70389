using Shouldly;
using Sidecar.Agent.Measurement;
using Xunit;

namespace Sidecar.UnitTests.Measurement;

public sealed class PeerRhythmTests
{
    private readonly PeerRhythm _rhythm = new();

    [Fact]
    public void Keepalives_come_at_equal_distances()
    {
        Note(60).ShouldBeNull();
        Note(60.2).ShouldBeNull();
        Note(59.9).ShouldBe(TimeSpan.FromSeconds(59.9));
    }

    [Theory]
    [InlineData(2.4, 4.9, 9.7, 19.5)]
    [InlineData(2.4, 2.6, 7.1, 3.3)]
    public void Retransmissions_do_not(params double[] distances) => distances.ShouldAllBe(distance => Note(distance) == null);

    private TimeSpan? Note(double seconds) => _rhythm.Note(TimeSpan.FromSeconds(seconds));
}
