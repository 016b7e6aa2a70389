using System.Runtime.Versioning;
using System.Text;
using FsCheck;
using FsCheck.Fluent;
using Microsoft.Extensions.Logging;
using Shouldly;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Telemetry;
using Xunit;

namespace Sidecar.UnitTests.Telemetry;

public sealed class IncidentStoreTests : IDisposable
{
    private readonly TemporaryDirectory _state = new();
    private readonly ListLogger _logger = new();
    private readonly ManualClock _clock = new(Samples.Noon);

    private string CurrentFile => _state[IncidentReader.FileName];

    public void Dispose() => _state.Dispose();

    [Fact]
    public void An_incident_is_on_disk_before_its_action_and_again_with_its_outcome()
    {
        using var store = NewStore();
        var id = store.NextId();
        store.Record(Samples.Incident(id));
        Read().ShouldHaveSingleItem().Outcome.ShouldBe("pending");
        store.Record(Samples.Incident(id, "released") with { ReleaseSeconds = 2.4 });
        var read = Read().ShouldHaveSingleItem();
        read.Outcome.ShouldBe("released");
        read.ReleaseSeconds.ShouldBe(2.4);
        read.Evidence["retransmits"].ShouldBe("3");
        File.ReadAllLines(CurrentFile).Length.ShouldBe(2);
    }

    [Fact]
    public void Each_line_carries_the_promised_fields_and_null_where_nothing_was_withheld()
    {
        using var store = NewStore();
        store.Record(Samples.Incident("a"));
        using var json = System.Text.Json.JsonDocument.Parse(File.ReadAllLines(CurrentFile)[0]);
        foreach (var field in new[] { "time", "upstream", "cause", "remedy", "outcome", "pid", "withheld_by" })
        {
            json.RootElement.TryGetProperty(field, out _).ShouldBeTrue(field);
        }

        json.RootElement.GetProperty("withheld_by").ValueKind.ShouldBe(System.Text.Json.JsonValueKind.Null);
    }

    [Fact]
    public void Ids_are_unique_and_sort_by_time()
    {
        using var store = NewStore();
        var ids = Enumerable.Range(0, 100).Select(_ =>
        {
            _clock.Advance(TimeSpan.FromMilliseconds(1));
            return store.NextId();
        }).ToList();
        ids.ShouldBeUnique();
        ids.ShouldBe(ids.Order(StringComparer.Ordinal));
        ids[0].ShouldBe("20260101T120000.001Z-000001");
    }

    [Fact]
    public void A_line_torn_by_a_crash_is_set_apart_and_the_next_record_is_whole()
    {
        using (var store = NewStore())
        {
            store.Record(Samples.Incident("a", "released"));
            store.Record(Samples.Incident("b", "released"));
        }

        var bytes = File.ReadAllBytes(CurrentFile);
        File.WriteAllBytes(CurrentFile, bytes[..^40]);
        using (var store = NewStore())
        {
            store.Record(Samples.Incident("c", "released"));
        }

        var read = IncidentReader.Read(_state.Path, null);
        read.Incidents.Select(i => i.Id).ShouldBe(["a", "c"]);
        read.DamagedLines.ShouldBe(1);
    }

    [Fact]
    public void A_file_cut_at_any_byte_loses_only_the_line_that_was_cut()
    {
        using (var store = NewStore())
        {
            store.Record(Samples.Incident("a", "released"));
            store.Record(Samples.Incident("b", "released"));
        }

        var bytes = File.ReadAllBytes(CurrentFile);
        var firstEnd = Array.IndexOf(bytes, (byte)'\n');
        for (var cut = 0; cut < bytes.Length; cut++)
        {
            File.WriteAllBytes(CurrentFile, bytes[..cut]);
            using (var store = NewStore())
            {
                store.Record(Samples.Incident("c", "released"));
            }

            var ids = IncidentReader.Read(_state.Path, null).Incidents.Select(i => i.Id).ToList();
            ids.ShouldContain("c");
            ids.Contains("a", StringComparer.Ordinal).ShouldBe(cut >= firstEnd);
        }
    }

    [Fact]
    public void Damage_of_any_kind_is_counted_and_never_thrown()
    {
        var line = IncidentJson.Line(Samples.Incident("a", "released"));
        Prop.ForAll<byte[], int>((noise, seed) =>
        {
            var random = new Random(seed);
            var damaged = line.ToArray();
            for (var i = 0; i < 3; i++)
            {
                damaged[random.Next(damaged.Length)] = (byte)random.Next(256);
            }

            File.WriteAllBytes(CurrentFile, [.. damaged, .. noise, (byte)'\n', .. line, .. "null\n{}\n[1]\n{\"id\":\"\"}\n"u8]);
            var read = IncidentReader.Read(_state.Path, null);
            read.Incidents.ShouldContain(i => i.Id == "a");
            return read.DamagedLines >= 3;
        }).QuickCheckThrowOnFailure();
    }

    [Fact]
    public void The_files_stay_bounded_and_an_outcome_is_found_across_a_rotation()
    {
        const int limit = 64 * 1024;
        using var store = NewStore(rotateAt: limit);
        for (var i = 0; i < 1000; i++)
        {
            store.Record(Samples.Incident($"n{i:D4}", "released"));
        }

        new FileInfo(CurrentFile).Length.ShouldBeLessThanOrEqualTo(limit);
        new FileInfo(_state[IncidentReader.RotatedFileName]).Length.ShouldBeLessThanOrEqualTo(limit);
        Directory.GetFiles(_state.Path).Length.ShouldBe(2);

        store.Record(Samples.Incident("last"));
        var before = new FileInfo(CurrentFile).Length;
        for (var i = 0; new FileInfo(CurrentFile).Length >= before; i++)
        {
            store.Record(Samples.Incident($"m{i:D4}", "released"));
        }

        store.Record(Samples.Incident("last", "released"));
        IncidentReader.Read(_state.Path, null).Incidents.Single(i => i.Id == "last").Outcome.ShouldBe("released");
        Read(last: 2).Count.ShouldBe(2);
    }

    [Fact]
    public void Writers_on_many_threads_never_mix_their_lines()
    {
        using var store = NewStore();
        Parallel.For(0, 500, i => store.Record(Samples.Incident($"t{i}", "released")));
        var read = IncidentReader.Read(_state.Path, null);
        read.Incidents.Count.ShouldBe(500);
        read.DamagedLines.ShouldBe(0);
    }

    [Fact]
    public void Another_writer_s_lines_are_appended_to_and_not_overwritten()
    {
        using var store = NewStore();
        store.Record(Samples.Incident("a"));
        File.AppendAllText(CurrentFile, Encoding.UTF8.GetString(IncidentJson.Line(Samples.Incident("other"))));
        store.Record(Samples.Incident("b"));
        Read().Select(i => i.Id).ShouldBe(["a", "other", "b"]);
    }

    [Fact]
    public void A_state_directory_that_cannot_be_written_is_reported_once_and_records_wait_until_it_can()
    {
        var blocked = _state["not-a-directory"];
        File.WriteAllText(blocked, "");
        var directory = Path.Combine(blocked, "state");
        using var store = new IncidentStore(directory, _logger, _clock);
        for (var i = 0; i < 10; i++)
        {
            store.Record(Samples.Incident($"w{i}", "released"));
            store.Retry();
            _clock.Advance(TimeSpan.FromSeconds(10));
        }

        store.Problem.ShouldNotBeNull().ShouldContain(directory);
        _logger.Lines.Count(l => l.Level == LogLevel.Error).ShouldBe(1);
        store.Recent(100).Count.ShouldBe(10);

        File.Delete(blocked);
        store.Retry();
        store.Problem.ShouldBeNull();
        IncidentReader.Read(directory, null).Incidents.Count.ShouldBe(10);
        _logger.Lines.Count(l => l.Level == LogLevel.Information).ShouldBe(1);
    }

    [Fact]
    public void What_waits_in_memory_is_bounded_and_the_newest_is_kept()
    {
        var blocked = _state["not-a-directory"];
        File.WriteAllText(blocked, "");
        var directory = Path.Combine(blocked, "state");
        using var store = new IncidentStore(directory, _logger, _clock);
        for (var i = 0; i < 3000; i++)
        {
            store.Record(Samples.Incident($"w{i:D4}", "released"));
        }

        File.Delete(blocked);
        _clock.Advance(TimeSpan.FromMinutes(1));
        store.Retry();
        var read = IncidentReader.Read(directory, null).Incidents;
        read.Count.ShouldBe(1024);
        read[^1].Id.ShouldBe("w2999");
        _logger.Lines.ShouldContain(l => l.Text.Contains("1976 were lost"));
    }

    [Fact]
    public void A_full_disk_leaves_no_half_line_and_what_waited_is_written_when_there_is_room() => TestTools.WithOwnMounts(() =>
    {
        var disk = _state["disk"];
        Directory.CreateDirectory(disk);
        TestTools.Mount("tmpfs", disk, "tmpfs", 0, "size=64k");
        using var store = new IncidentStore(disk, _logger, _clock);
        var count = 0;
        while (store.Problem is null && count < 1000)
        {
            store.Record(Samples.Incident($"d{count++:D4}", "released"));
        }

        store.Problem.ShouldNotBeNull().ShouldContain("space");
        var full = IncidentReader.Read(disk, null);
        full.DamagedLines.ShouldBe(0);
        full.Incidents.Count.ShouldBe(count - 1);

        TestTools.Mount("tmpfs", disk, "tmpfs", 32 /* MS_REMOUNT */, "size=1m");
        _clock.Advance(TimeSpan.FromSeconds(10));
        store.Retry();
        store.Problem.ShouldBeNull();
        IncidentReader.Read(disk, null).Incidents.Count.ShouldBe(count);
    });

    [Fact]
    public void A_directory_removed_under_the_agent_is_made_again()
    {
        var directory = _state["state"];
        using var store = new IncidentStore(directory, _logger, _clock);
        store.Record(Samples.Incident("a"));
        Directory.Delete(directory, recursive: true);
        store.Record(Samples.Incident("b"));
        IncidentReader.Read(directory, null).Incidents.ShouldHaveSingleItem().Id.ShouldBe("b");
        store.Problem.ShouldBeNull();
    }

    [Fact]
    public void After_a_restart_the_newest_are_in_memory_again()
    {
        using (var store = NewStore())
        {
            store.Record(Samples.Incident("a"));
            store.Record(Samples.Incident("b"));
            store.Record(Samples.Incident("a", "released"));
        }

        using var again = NewStore();
        again.Recent(10).Select(i => (i.Id, i.Outcome)).ShouldBe([("a", "released"), ("b", "pending")]);
        again.Recent(1).ShouldHaveSingleItem().Id.ShouldBe("b");
    }

    [Fact]
    public void A_hostile_process_name_stays_within_its_line()
    {
        using var store = NewStore();
        const string hostile = "/tmp/x\n{\"id\":\"forged\"}\u001b[2J\"";
        store.Record(Samples.Incident("a", executable: hostile));
        File.ReadAllLines(CurrentFile).Length.ShouldBe(1);
        Read().ShouldHaveSingleItem().Executable.ShouldBe(hostile);
    }

    [Fact]
    public void Evidence_without_measure_is_cut()
    {
        using var store = NewStore();
        store.Record(Samples.Incident("a") with { Evidence = new Dictionary<string, string>(StringComparer.Ordinal) { ["x"] = new('x', 1_000_000) } });
        new FileInfo(CurrentFile).Length.ShouldBeLessThan(64 * 1024);
        Read().ShouldHaveSingleItem().Evidence.Keys.ShouldBe(["evidence_dropped"]);
    }

    [Fact]
    public void A_line_without_evidence_and_chain_is_an_incident_that_can_be_written_again()
    {
        File.WriteAllText(CurrentFile, """
            {"id":"a","time":"2026-01-01T12:00:00+00:00","upstream":"orders-db","cause":"stuck","remedy":"recycle","outcome":"released","pid":null,"withheld_by":null,"why":"x"}

            """);

        var incident = Read().ShouldHaveSingleItem();

        incident.Chain.ShouldBeEmpty();
        incident.Evidence.ShouldBeEmpty();
        Encoding.UTF8.GetString(IncidentJson.Line(incident)).ShouldContain("\"chain\":[]");
    }

    [Fact]
    public void A_state_directory_that_is_not_there_reads_as_empty() =>
        IncidentReader.Read(_state["nowhere"], 10).ShouldBe(new IncidentReadResult([], 0), new SameContents());

    [Fact]
    [SupportedOSPlatform("linux")]
    public void Others_cannot_read_the_file()
    {
        using var store = NewStore();
        store.Record(Samples.Incident("a"));
        (File.GetUnixFileMode(CurrentFile) & (UnixFileMode.OtherRead | UnixFileMode.OtherWrite | UnixFileMode.GroupWrite)).ShouldBe(UnixFileMode.None);
    }

    private IncidentStore NewStore(long rotateAt = 4 * 1024 * 1024) => new(_state.Path, _logger, _clock, rotateAt);

    private IReadOnlyList<Incident> Read(int? last = null) => IncidentReader.Read(_state.Path, last).Incidents;

    private sealed class SameContents : IEqualityComparer<IncidentReadResult>
    {
        public bool Equals(IncidentReadResult? x, IncidentReadResult? y) =>
            x is not null && y is not null && x.DamagedLines == y.DamagedLines && x.Incidents.SequenceEqual(y.Incidents);

        public int GetHashCode(IncidentReadResult obj) => obj.DamagedLines;
    }
}
