using System.Text.Json;
using Shouldly;
using Sidecar.Agent.Commands;
using Sidecar.Agent.Measurement;
using Xunit;

namespace Sidecar.UnitTests.Measurement;

public sealed class MeasureOutputTests
{
    private static readonly MeasurementReport Report = BackgroundMeasurementTests.Report(TimeSpan.FromSeconds(20.3));

    [Fact]
    public void Json_has_the_promised_fields()
    {
        using var json = JsonDocument.Parse(JsonSerializer.Serialize(MeasurementDocument.From(Report), MeasurementJson.Default.MeasurementDocument));

        var root = json.RootElement;
        root.GetProperty("endpoint").GetString().ShouldBe("10.0.2.2:7000");
        root.GetProperty("lower_seconds").GetDouble().ShouldBe(19.5);
        root.GetProperty("upper_seconds").GetDouble().ShouldBe(20.3);
        root.GetProperty("class").GetString().ShouldBe("silent-drop");
        root.GetProperty("elapsed_seconds").GetDouble().ShouldBe(30);
        root.GetProperty("connections_used").GetInt32().ShouldBe(17);
        root.GetProperty("hop").ValueKind.ShouldBe(JsonValueKind.Null);
    }

    [Fact]
    public void What_was_not_found_is_null()
    {
        var document = MeasurementDocument.From(Report with { Upper = null, Class = PathClass.NoneSeen });

        document.UpperSeconds.ShouldBeNull();
        document.Class.ShouldBe("none-seen");
    }

    [Theory]
    [InlineData(PathClass.SilentDrop, "idle-timeout = 19s")]
    [InlineData(PathClass.Reset, "idle-timeout = 19s")]
    [InlineData(PathClass.PayloadOnly, "refreshed-by = data")]
    [InlineData(PathClass.PeerCloses, "idle-timeout = 19s")]
    internal void The_configuration_follows_from_the_class(PathClass kind, string line) =>
        Advice.ConfigurationLines(Report with { Class = kind }).ShouldContain(line);

    [Fact]
    public void None_is_only_advised_when_longer_timeouts_are_out_of_the_question()
    {
        var none = Report with { Upper = null, Class = PathClass.NoneSeen };

        Advice.ConfigurationLines(none with { Lower = TimeSpan.FromSeconds(30) }).ShouldContain("idle-timeout = measure");
        Advice.ConfigurationLines(none with { Lower = TimeSpan.FromSeconds(7800) }).ShouldBe(["idle-timeout = none"]);
    }

    [Fact]
    public void The_picture_shows_survived_and_lost_gaps_in_their_places()
    {
        var picture = GapPicture.Draw(Report.Gaps, 60);

        picture.Count.ShouldBe(4);
        picture.ShouldAllBe(l => l.Length <= 60);
        picture[0].Count(c => c == '●').ShouldBe(2);
        picture[1].IndexOf('×').ShouldBeGreaterThan(picture[0].LastIndexOf('●'));
        picture[3].ShouldContain("10s");
    }

    [Fact]
    public void Jitter_is_told_with_its_safe_end_and_what_does_not_count_has_a_question_mark()
    {
        var varying = Report with
        {
            Varies = true,
            Gaps = [.. Report.Gaps, new TriedGap(TimeSpan.FromSeconds(18), false), new TriedGap(TimeSpan.FromSeconds(5), false, Counts: false)],
        };

        Advice.ConfigurationLines(varying).ShouldBe(["# the path forgets at varying times: this is the safe end", "idle-timeout = 19s"]);
        GapPicture.Draw(varying.Gaps, 60)[1].Count(c => c == '×').ShouldBe(2);
        GapPicture.Draw(varying.Gaps, 60)[1].ShouldContain("?");
    }

    [Fact]
    public void Nothing_tried_draws_nothing() => GapPicture.Draw([], 60).ShouldBeEmpty();
}
