using System.Text;
using System.Text.Json;
using Microsoft.Extensions.Logging.Abstractions;
using Shouldly;
using Sidecar.Agent.Commands;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Telemetry;
using Sidecar.CoreTests.Remedies;
using Xunit;

namespace Sidecar.UnitTests.Commands;

public sealed class ReplayCommandTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();
    private readonly StringWriter _output = new();
    private readonly StringWriter _error = new();
    private readonly string _config;

    public ReplayCommandTests() => _config = _directory.Write("a.conf", $"[agent]\nstate-directory = {_directory.Path}\nruntime-directory = {_directory.Path}\n");

    private string Out => _output.ToString();

    private string Error => _error.ToString();

    public void Dispose() => _directory.Dispose();

    [Fact]
    public void The_newest_incident_is_told_step_by_step_and_ends_with_same_decision()
    {
        Store(Recycled());
        Invoke("replay", "--config", _config).ShouldBe(ExitCodes.Ok);
        Error.ShouldBeEmpty();
        var lines = Out.TrimEnd('\n').Split('\n');
        lines.ShouldAllBe(line => line.Length <= 80);
        lines[^1].ShouldBe("same decision: recycle is carried out");
        Out.ShouldContain("suspect, odds ");
        Out.ShouldContain("stuck, odds ");
        Out.ShouldContain("guardrails that withhold: none");
        string.Join(' ', Out.Split([' ', '\n'], StringSplitOptions.RemoveEmptyEntries)).ShouldContain("that let it pass: not-declared, path-down, late-tick, common-mode, observe");
    }

    [Fact]
    public void An_incident_is_found_by_its_id_or_by_how_it_begins_where_no_other_begins_so()
    {
        var incident = Recycled();
        Store(incident with { Id = "20260101T000000.000Z-000001" }, incident with { Id = "20260101T000000.000Z-000002" }, incident with { Id = "20260102T000000.000Z-000001" });
        Invoke("replay", "20260101T000000.000Z-000002", "--config", _config).ShouldBe(ExitCodes.Ok);
        Out.ShouldContain("incident 20260101T000000.000Z-000002\n");
        Invoke("replay", "20260102", "--config", _config).ShouldBe(ExitCodes.Ok);
        Invoke("replay", "20260101", "--config", _config).ShouldBe(ExitCodes.Usage);
        Error.ShouldContain("2 incidents begin with \"20260101\":");
        Error.ShouldContain("  20260101T000000.000Z-000001  ");
    }

    [Fact]
    public void What_there_is_not_is_said()
    {
        Invoke("replay", "--config", _config).ShouldBe(ExitCodes.Usage);
        Error.ShouldBe($"no incidents in {_directory.Path}\n");
        Store(Snapshots.Incident(1));
        Invoke("replay", "x\u001b", "--config", _config).ShouldBe(ExitCodes.Usage);
        Error.ShouldContain("no incident \"x\\x1b\" in ");
        Invoke("replay", "--config", _config).ShouldBe(ExitCodes.Usage);
        Error.ShouldContain($"incident {Snapshots.Incident(1).Id} has no recording\n");
        Out.ShouldBeEmpty();
    }

    [Fact]
    public void A_decision_that_would_be_another_one_is_the_first_difference_and_exit_code_1()
    {
        var incident = Recycled();
        var steps = incident.Recording!.Steps.Select(step => step.Judged is { Verdict: Verdict.Stuck } judged ? step with { Judged = judged with { Verdict = Verdict.Suspect } } : step).ToList();
        Store(incident with { Recording = incident.Recording with { Steps = steps } });
        Invoke("replay", "--config", _config).ShouldBe(ExitCodes.Failure);
        Out.ReplaceLineEndings(" ").ShouldContain("first difference at +");
        Out.ReplaceLineEndings(" ").ShouldContain("recorded suspect (");
    }

    [Fact]
    public void What_json_prints_can_be_sent_to_somebody_else_and_replayed_there()
    {
        Store(Recycled());
        Invoke("replay", "--json", "--config", _config).ShouldBe(ExitCodes.Ok);
        var json = JsonDocument.Parse(Out).RootElement;
        json.GetProperty("result").GetString().ShouldBe("same");
        json.GetProperty("difference").ValueKind.ShouldBe(JsonValueKind.Null);
        var last = json.GetProperty("steps").EnumerateArray().Last();
        last.GetProperty("guardrails").GetProperty("path-down").GetString().ShouldBe("passes");
        last.GetProperty("replayed_decision").GetProperty("remedy").GetString().ShouldBe("recycle");

        var file = _directory.Write("sent.json", Out);
        _output.GetStringBuilder().Clear();
        Invoke("replay", "--file", file, "--config", _directory.File("not-there.conf")).ShouldBe(ExitCodes.Ok);
        Out.ShouldEndWith("same decision: recycle is carried out\n");
    }

    [Fact]
    public void A_line_of_the_incident_file_can_be_sent_as_well()
    {
        var file = _directory.Write("line.json", Encoding.UTF8.GetString(IncidentJson.Line(Recycled())));
        Invoke("replay", "--file", file).ShouldBe(ExitCodes.Ok);
    }

    [Fact]
    public void The_recording_is_written_once_and_belongs_to_the_last_state_of_its_incident()
    {
        var incident = Recycled();
        Store(incident, incident with { Outcome = "released" });
        var lines = File.ReadAllLines(_directory.File(IncidentReader.FileName));
        lines.Select(line => line.Contains("\"recording\":", StringComparison.Ordinal)).ShouldBe([true, false]);
        lines[0].Length.ShouldBeLessThan(24 * 1024);
        Invoke("replay", "--config", _config).ShouldBe(ExitCodes.Ok);
        Out.ShouldContain("recycle released");
    }

    [Fact]
    public void Lists_of_incidents_have_no_recording()
    {
        Store(Recycled());
        Invoke("incidents", "--json", "--config", _config).ShouldBe(ExitCodes.Ok);
        Invoke("incidents", "--config", _config).ShouldBe(ExitCodes.Ok);
        Out.ShouldNotContain("recording");
        using var store = new IncidentStore(_directory.Path, NullLogger.Instance, TimeProvider.System);
        store.Recent(10).ShouldHaveSingleItem().Recording.ShouldBeNull();
    }

    [Fact]
    public void All_incidents_are_replayed_a_line_for_each()
    {
        var incident = Recycled();
        Store(Snapshots.Incident(1) with { Id = "A" }, incident with { Id = "a" }, Snapshots.Incident(1) with { Id = "b" }, incident with { Id = "c" });
        Invoke("replay", "--all", "--config", _config).ShouldBe(ExitCodes.Ok);
        Out.ShouldBe("A  the recording of incident A is no longer kept\na  same decision: recycle is carried out\nb  incident b has no recording\nc  same decision: recycle is carried out\n");
        Store(incident with { Id = "d", Cause = "outage" });
        Invoke("replay", "--all", "--config", _config).ShouldBe(ExitCodes.Failure);
        Out.ShouldContain("d  first difference the incident says that the cause was outage");
    }

    [Fact]
    public void Nothing_is_lost_on_the_way_to_the_file_and_back()
    {
        var incident = Recycled();
        var read = RecordingJson.Read(IncidentJson.Line(incident)).Incident.ShouldNotBeNull().Recording.ShouldNotBeNull();
        read.Start.ShouldBe(incident.Recording!.Start);
        read.Steps.ShouldBe(incident.Recording.Steps);
    }

    [Theory]
    [InlineData("")]
    [InlineData("null")]
    [InlineData("[]")]
    [InlineData("{}")]
    [InlineData("{\"incident\":3}")]
    [InlineData("\u001b[2J")]
    [InlineData("{\"id\":\"a\",\"recording\":{}}")]
    public void A_file_that_is_no_incident_is_one_clear_error(string contents) => ShouldBeOneError(contents);

    [Theory]
    [InlineData("\"version\":1", "\"version\":2")]
    [InlineData("\"odds\":", "\"odds\":NaN,\"x\":")]
    [InlineData("\"odds\":", "\"odds\":1e999,\"x\":")]
    [InlineData("\"odds\":", "\"odds\":-1,\"x\":")]
    [InlineData("\"at\":", "\"at\":-1,\"x\":")]
    [InlineData("\"at\":", "\"at\":1e300,\"x\":")]
    [InlineData("\"at\":", "\"at\":null,\"x\":")]
    [InlineData("\"last_seen\":", "\"last_seen\":99999999999,\"x\":")]
    [InlineData("\"segs_in\":", "\"segs_in\":-3,\"x\":")]
    [InlineData("\"verdict\":\"", "\"verdict\":\"Dead\",\"x\":\"")]
    [InlineData("\"verdict\":\"", "\"verdict\":77,\"x\":\"")]
    [InlineData("\"steps\":[", "\"steps\":[null,")]
    [InlineData("\"steps\":[", "\"steps\":[{\"a\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[")]
    [InlineData("\"failure_rate\":", "\"failure_rate\":5,\"x\":")]
    public void A_recording_with_what_cannot_be_is_one_clear_error(string good, string bad)
    {
        var line = Encoding.UTF8.GetString(IncidentJson.Line(Recycled()));
        line.ShouldContain(good);
        ShouldBeOneError(line.Replace(good, bad, StringComparison.Ordinal));
    }

    [Fact]
    public void A_file_that_is_huge_or_has_no_end_or_is_not_there_is_one_clear_error()
    {
        ShouldBeOneError(new string(' ', 3 << 20));
        Invoke("replay", "--file", "/dev/zero").ShouldBe(ExitCodes.Usage);
        Invoke("replay", "--file", _directory.File("not-there")).ShouldBe(ExitCodes.Usage);
        Out.ShouldBeEmpty();
    }

    [Fact]
    public void Hostile_names_in_a_recording_cannot_move_the_cursor()
    {
        var incident = Recycled();
        var steps = incident.Recording!.Steps.Prepend(incident.Recording.Steps[0] with { Outcome = "\u001b[2J\u202e" }).ToList();
        var hostile = incident with { Id = "a\u001b[2J", Upstream = "\u0007", Recording = incident.Recording with { Agent = "\u009b", Steps = steps } };
        Invoke("replay", "--file", _directory.Write("hostile.json", Encoding.UTF8.GetString(IncidentJson.Line(hostile)))).ShouldBe(ExitCodes.Ok);
        Out.ShouldAllBe(c => c == '\n' || (!char.IsControl(c) && c != '\u202e'));
    }

    [Theory]
    [InlineData("replay", "a", "--file", "b")]
    [InlineData("replay", "a", "b")]
    [InlineData("replay", "a", "--all")]
    [InlineData("replay", "--file")]
    public void A_command_line_that_is_not_understood_is_a_usage_error(params string[] args)
    {
        Invoke(args).ShouldBe(ExitCodes.Usage);
        Error.ShouldContain("Try: conn-sidecar replay --help");
    }

    private static Incident Recycled()
    {
        var bench = new Bench();
        bench.Forget(bench.Open());
        return bench.Hands.All<IncidentReport>().First().Incident;
    }

    private void ShouldBeOneError(string contents)
    {
        Invoke("replay", "--file", _directory.Write("bad.json", contents)).ShouldBe(ExitCodes.Usage);
        Out.ShouldBeEmpty();
        Error.TrimEnd('\n').Split('\n').ShouldHaveSingleItem().ShouldNotBeEmpty();
        Error.ShouldNotContain("System.Text");
        Error.TrimEnd('\n').ShouldAllBe(c => !char.IsControl(c));
    }

    private void Store(params IEnumerable<Incident> incidents)
    {
        using var store = new IncidentStore(_directory.Path, NullLogger.Instance, TimeProvider.System);
        foreach (var incident in incidents)
        {
            store.Record(incident);
        }
    }

    private int Invoke(params string[] args) => CommandTree.Invoke(args, new CommandEnvironment
    {
        Out = _output,
        Error = _error,
        Colors = false,
        Width = 80,
        DefaultConfiguration = _config,
        DefaultRuntimeDirectory = _directory.Path,
    });
}
