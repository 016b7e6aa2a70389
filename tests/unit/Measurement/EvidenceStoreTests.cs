using FsCheck;
using FsCheck.Fluent;
using Shouldly;
using Sidecar.Agent.Core.Judgement.IdleTimeout;
using Sidecar.Agent.Measurement;
using Sidecar.UnitTests.Telemetry;
using Xunit;

namespace Sidecar.UnitTests.Measurement;

public sealed class EvidenceStoreTests : IDisposable
{
    private static readonly KeptPathKey Key = new("own", "10.0.1.1", "", "10.0.2.2:5432");
    private readonly TemporaryDirectory _state = new();
    private readonly ListLogger _logger = new();

    private EvidenceStore Store => new(_state.Path, _logger);

    private string FilePath => _state.File(EvidenceStore.FileName);

    public void Dispose() => _state.Dispose();

    [Fact]
    public void What_is_saved_is_loaded_again()
    {
        var estimator = new PathEstimator();
        estimator.Add(new GapObservation(TimeSpan.FromSeconds(12), GapOutcome.Survived, Samples.Noon, EvidenceSource.Passive));
        estimator.Add(new GapObservation(TimeSpan.FromSeconds(21), GapOutcome.Lost, Samples.Noon, EvidenceSource.Ladder, 2));
        Store.Save(new Dictionary<KeptPathKey, KeptEvidence> { [Key] = estimator.Keep() });

        var loaded = Store.Load();

        new PathEstimator(loaded[Key]).Estimate(Samples.Noon).ShouldBe(estimator.Estimate(Samples.Noon));
        File.Exists(FilePath + ".new").ShouldBeFalse();
        _logger.Lines.ShouldBeEmpty();
    }

    [Fact]
    public void Without_a_file_nothing_is_known_and_nothing_is_said()
    {
        Store.Load().ShouldBeEmpty();
        _logger.Lines.ShouldBeEmpty();
    }

    [Theory]
    [InlineData("")]
    [InlineData("{")]
    [InlineData("[]")]
    [InlineData("null")]
    [InlineData("{\"version\":99,\"paths\":[]}")]
    [InlineData("{\"version\":1,\"paths\":null}")]
    [InlineData("{\"version\":1,\"paths\":[null]}")]
    [InlineData("{\"version\":1,\"paths\":[{\"path\":null,\"evidence\":{}}]}")]
    [InlineData("{\"version\":1,\"paths\":[{\"path\":{\"namespace\":\"own\"},\"evidence\":{}}]}")]
    [InlineData("{\"version\":1,\"paths\":[{\"path\":{\"namespace\":\"own\",\"source\":\"a\",\"route\":\"\",\"destination\":\"b\"},\"evidence\":{\"observations\":[{\"outcome\":\"Drunk\"}]}}]}")]
    [InlineData("{\"version\":1,\"paths\":[{\"path\":{\"namespace\":\"own\",\"source\":\"a\",\"route\":\"\",\"destination\":\"b\"},\"evidence\":{\"observations\":[null]}}]}")]
    public void A_damaged_file_is_set_aside_with_a_warning(string content)
    {
        File.WriteAllText(FilePath, content);

        Store.Load().ShouldBeEmpty();

        _logger.Lines.ShouldHaveSingleItem().Text.ShouldContain("damaged");
        File.ReadAllText(FilePath + ".damaged").ShouldBe(content);
        File.Exists(FilePath).ShouldBeFalse();
    }

    [Fact]
    public void No_file_however_mangled_stops_the_agent()
    {
        Store.Save(new Dictionary<KeptPathKey, KeptEvidence>
        {
            [Key] = new() { Count = 3, Observations = [new KeptGap { GapSeconds = 5, Weight = 1, At = Samples.Noon }] },
        });
        var good = File.ReadAllBytes(FilePath);

        Prop.ForAll(ArbMap.Default.ArbFor<(int At, byte Value, int Cut)>(), change =>
        {
            var bytes = good[..(good.Length - (Math.Abs(change.Cut % good.Length)))];
            if (bytes.Length > 0)
            {
                bytes[Math.Abs(change.At % bytes.Length)] = change.Value;
            }

            File.WriteAllBytes(FilePath, bytes);

            foreach (var evidence in Store.Load().Values)
            {
                new PathEstimator(evidence).Estimate(Samples.Noon).Lower.ShouldBeGreaterThanOrEqualTo(TimeSpan.Zero);
            }
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(500));
    }

    [Fact]
    public void A_directory_that_cannot_be_written_is_said_once()
    {
        File.WriteAllText(_state.File("file"), "");
        var store = new EvidenceStore(_state.File("file/state"), _logger);

        store.Save(new Dictionary<KeptPathKey, KeptEvidence>());
        store.Save(new Dictionary<KeptPathKey, KeptEvidence>());

        _logger.Lines.ShouldHaveSingleItem().Text.ShouldContain("cannot be written");
    }
}
