using Shouldly;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Telemetry;
using Sidecar.UnitTests.Telemetry;
using Xunit;

namespace Sidecar.UnitTests.Hostile;

/// <summary>More incidents than anybody reads.</summary>
public sealed class IncidentFloodTests
{
    private readonly IncidentFold _fold = new();

    [Fact]
    public void A_flood_of_withheld_incidents_is_told_in_one_and_leaves_other_owners_alone()
    {
        var flood = Enumerable.Range(0, 500).Select(i => Withheld($"f{i:D4}", "hoard.service")).ToList();
        flood.Count(incident => !_fold.Folds(incident, isNew: true)).ShouldBe(IncidentFold.MostAMinute);
        _fold.Folds(Withheld("w", "uwsgi.service"), isNew: true).ShouldBeFalse();

        _fold.TakeDue(Samples.Noon.AddSeconds(59)).ShouldBeEmpty();
        var told = _fold.TakeDue(Samples.Noon.AddSeconds(61)).ShouldHaveSingleItem();
        told.Why.ShouldStartWith($"{500 - IncidentFold.MostAMinute} further incidents like this");
        told.Evidence["folded"].ShouldBe($"{500 - IncidentFold.MostAMinute}");
        told.Unit.ShouldBe("hoard.service");
        told.Id.ShouldBe(flood[IncidentFold.MostAMinute].Id);
        _fold.TakeDue(Samples.Noon.AddSeconds(200)).ShouldBeEmpty("it is told once");

        // What became of one that was folded is folded, of one that was told it is told.
        _fold.Folds(flood[^1] with { Outcome = "recovered" }, isNew: false).ShouldBeTrue();
        _fold.Folds(flood[0] with { Outcome = "recovered" }, isNew: false).ShouldBeFalse();
    }

    [Fact]
    public void What_was_done_is_never_folded()
    {
        for (var i = 0; i < 500; i++)
        {
            _fold.Folds(Samples.Incident($"r{i}", "released") with { WithheldBy = null, Remedy = "recycle", Time = Samples.Noon }, isNew: true).ShouldBeFalse();
        }
    }

    private static Incident Withheld(string id, string unit) => Samples.Incident(id) with { Outcome = "withheld", WithheldBy = "common-mode", Unit = unit, Time = Samples.Noon };
}
