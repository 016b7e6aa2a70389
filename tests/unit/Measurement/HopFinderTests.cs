using System.Net;
using FsCheck;
using FsCheck.Fluent;
using Shouldly;
using Sidecar.Probes.Ladder;
using Xunit;

namespace Sidecar.UnitTests.Measurement;

public sealed class HopFinderTests
{
    private static readonly IPAddress One = IPAddress.Parse("10.0.1.1");
    private static readonly IPAddress Two = IPAddress.Parse("10.0.2.1");
    private static readonly IPAddress Three = IPAddress.Parse("10.0.3.1");
    private static readonly IPEndPoint Remote = new(IPAddress.Parse("10.0.9.2"), 5432);

    // "Time exceeded" from 10.0.1.1 about a keepalive from 10.0.0.2:40000 to 10.0.9.2:5432, as captured.
    private static readonly byte[] Message = Convert.FromHexString(
        "45C00050A1B2000040010000" + "0A000101" + "0A000002" + "0B00F4FF00000000"
        + "4500003412344000010600000A0000020A000902" + "9C401538AABBCCDD11223344");

    [Fact]
    public void The_last_hop_that_answers_a_forgotten_connection_is_the_one() =>
        HopFinder.Compare([One, Two, Three], [One, Two]).Hop.ShouldBe(Two);

    [Fact]
    public void The_hop_before_the_endpoint_can_be_the_one() =>
        HopFinder.Compare([One, Two], [One, Two, null]).Hop.ShouldBe(Two);

    [Fact]
    public void A_late_answer_is_not_taken_for_the_next_hops() =>
        HopFinder.Compare([One, Two, Three], [null, One]).Hop.ShouldBe(One);

    [Fact]
    public void Where_no_hop_answers_nothing_is_claimed()
    {
        var finding = HopFinder.Compare([null, null], []);

        finding.Hop.ShouldBeNull();
        finding.Why.ShouldContain("cannot be known");
    }

    [Fact]
    public void Where_the_next_hop_never_answers_nothing_is_claimed() =>
        HopFinder.Compare([One, null, Three], [One]).Hop.ShouldBeNull();

    [Fact]
    public void Where_the_first_hop_drops_on_arrival_nothing_is_claimed() =>
        HopFinder.Compare([One, Two], [null, null, null]).Hop.ShouldBeNull();

    [Fact]
    public void Only_messages_about_our_own_segment_count()
    {
        HopFinder.IsAbout(Message, Remote, 40000).ShouldBeTrue();
        HopFinder.IsAbout(Message, Remote, 40001).ShouldBeFalse();
        HopFinder.IsAbout(Message, new IPEndPoint(Remote.Address, 5433), 40000).ShouldBeFalse();
        HopFinder.IsAbout(Message, new IPEndPoint(IPAddress.Parse("10.0.9.3"), 5432), 40000).ShouldBeFalse();
    }

    [Fact]
    public void No_message_however_mangled_breaks_the_reading() =>
        Prop.ForAll(ArbMap.Default.ArbFor<byte[]>(), ArbMap.Default.ArbFor<int>(), (noise, cut) =>
        {
            var message = Message[..Math.Abs(cut % (Message.Length + 1))];
            for (var i = 0; i < noise.Length && message.Length > 0; i++)
            {
                message[(noise[i] * 7) % message.Length] ^= noise[i];
            }

            HopFinder.IsAbout(message, Remote, 40000);
            HopFinder.IsAbout(noise, new IPEndPoint(IPAddress.IPv6Loopback, 1), 2);
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(2000));
}
