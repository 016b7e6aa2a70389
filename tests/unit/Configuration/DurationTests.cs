using FsCheck;
using FsCheck.Fluent;
using Shouldly;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.UnitTests.Configuration;

public sealed class DurationTests
{
    [Theory]
    [InlineData("500ms", 500)]
    [InlineData("30s", 30_000)]
    [InlineData("5m", 300_000)]
    [InlineData("2h4m", 7_440_000)]
    [InlineData("1d", 86_400_000)]
    [InlineData("1d2h3m4s5ms", 93_784_005)]
    [InlineData("0s", 0)]
    [InlineData("90m", 5_400_000)]
    public void A_duration_reads_as_it_is_written(string text, long milliseconds)
    {
        Duration.TryParse(text, out var value).ShouldBeTrue();
        value.ShouldBe(TimeSpan.FromMilliseconds(milliseconds));
    }

    [Theory]
    [InlineData("")]
    [InlineData("5")]
    [InlineData("s")]
    [InlineData("-5s")]
    [InlineData("+5s")]
    [InlineData("5 s")]
    [InlineData("5.5s")]
    [InlineData("5S")]
    [InlineData("5w")]
    [InlineData("5s5s")]
    [InlineData("4m2h")]
    [InlineData("5m5")]
    [InlineData("٥s")]
    [InlineData("99999999999d")]
    [InlineData("9223372036854775807ms1ms")]
    [InlineData("99999999999999999999s")]
    public void Anything_else_is_not_a_duration(string text) => Duration.TryParse(text, out _).ShouldBeFalse();

    [Fact]
    public void What_is_formatted_reads_back_to_the_same_duration() => Check.QuickThrowOnFailure(Prop.ForAll(
        ArbMap.Default.ArbFor<uint>().Generator.Zip(Gen.Elements(1L, 1000, 60_000, 3_600_000, 86_400_000)).ToArbitrary(),
        pair =>
        {
            var value = TimeSpan.FromMilliseconds((double)(pair.Item1 % 1_000_000) * pair.Item2);
            return Duration.TryParse(Duration.Format(value), out var back) && back == value;
        }));

    [Fact]
    public void The_longest_time_span_reads_back() =>
        Duration.TryParse(Duration.Format(TimeSpan.MaxValue), out _).ShouldBeTrue();

    [Theory]
    [InlineData(-3, "0s")]
    [InlineData(0, "0s")]
    [InlineData(0.6, "0.6ms")]
    [InlineData(12.34, "12.3ms")]
    [InlineData(250, "0.3s")]
    [InlineData(3210, "3.2s")]
    [InlineData(42_700, "42s")]
    [InlineData(312_900, "5m12s")]
    [InlineData(7_441_000, "2h4m")]
    [InlineData(266_500_000, "3d2h")]
    public void People_read_two_units_at_most(double milliseconds, string text) =>
        Duration.ForPeople(TimeSpan.FromMilliseconds(milliseconds)).ShouldBe(text);
}
