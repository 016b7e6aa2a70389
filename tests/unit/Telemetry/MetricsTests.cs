using System.Diagnostics.Metrics;
using System.Text;
using FsCheck;
using FsCheck.Fluent;
using Shouldly;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Core.Settings;
using Sidecar.Agent.Telemetry;
using Sidecar.Probes.Processes;
using Sidecar.Probes.Values;
using Xunit;

namespace Sidecar.UnitTests.Telemetry;

public sealed class MetricsTests
{
    [Theory]
    [InlineData("metrics.prometheus.txt", false)]
    [InlineData("metrics.openmetrics.txt", true)]
    public void Names_types_help_labels_and_values_are_those_of_the_golden_file(string file, bool openMetrics)
    {
        using var metrics = Filled();
        var actual = Scrape(metrics, openMetrics);
        var path = Path.Combine(AppContext.BaseDirectory, "Telemetry", "Golden", file);
        // Left beside the golden file in the test's output, to be compared and, where the change is meant, copied.
        File.WriteAllText(path + ".actual", actual);
        actual.ShouldBe(File.ReadAllText(path));
    }

    [Fact]
    public void Promtool_finds_nothing_to_complain_about()
    {
        using var metrics = Filled();
        var (exitCode, output) = TestTools.Run("promtool", Scrape(metrics), "check", "metrics");
        output.ShouldBeEmpty();
        exitCode.ShouldBe(0);
    }

    [Fact]
    public void Every_counter_of_a_declared_upstream_exists_at_zero_before_anything_happens()
    {
        using var metrics = new SidecarMetrics("0.1.0", Samples.Guardrails);
        metrics.Declare(Samples.Configuration("orders-db", "cache"));
        var lines = Scrape(metrics).Split('\n');
        foreach (var upstream in new[] { "orders-db", "cache" })
        {
            foreach (var cause in KnownLabels.Causes)
            {
                lines.ShouldContain($"conn_sidecar_incidents_total{{upstream=\"{upstream}\",cause=\"{cause}\"}} 0");
            }

            foreach (var remedy in KnownLabels.Remedies)
            {
                foreach (var guardrail in Samples.Guardrails)
                {
                    lines.ShouldContain($"conn_sidecar_withheld_remedies_total{{upstream=\"{upstream}\",remedy=\"{remedy}\",guardrail=\"{guardrail}\"}} 0");
                }
            }

            lines.ShouldContain($"conn_sidecar_recycled_connections_total{{upstream=\"{upstream}\",reason=\"stuck\"}} 0");
            lines.ShouldContain($"conn_sidecar_resumed_connections_total{{upstream=\"{upstream}\"}} 0");
            lines.ShouldContain($"conn_sidecar_nudges_total{{upstream=\"{upstream}\",outcome=\"answered\"}} 0");
            lines.ShouldContain($"conn_sidecar_stuck_duration_seconds_count{{upstream=\"{upstream}\"}} 0");
        }

        lines.ShouldContain("conn_sidecar_terminated_workers_total{workers=\"web\",signal=\"KILL\"} 0");
    }

    [Fact]
    public void Declaring_again_after_a_reload_keeps_what_was_counted()
    {
        using var metrics = Filled();
        metrics.Declare(Samples.Configuration("orders-db"));
        Scrape(metrics).ShouldContain("conn_sidecar_recycled_connections_total{upstream=\"orders-db\",reason=\"stuck\"} 2\n");
    }

    [Fact]
    public void What_a_reload_has_removed_has_no_series_any_more()
    {
        using var metrics = Filled();
        metrics.Released("cache", TimeSpan.FromSeconds(1));
        metrics.Declare(Samples.Configuration("orders-db", "cache") with { Haproxies = [new HaproxySection("edge", "/run/haproxy.sock")] });
        Names("cache", "web", "edge").ShouldAllBe(count => count > 0);
        metrics.Declare(Samples.Configuration("orders-db") with { Workers = [] });
        metrics.Publish(Samples.Snapshot([]));
        Names("cache", "web", "edge").ShouldAllBe(count => count == 0);
        Names("orders-db").Single().ShouldBeGreaterThan(0);

        int[] Names(params string[] names)
        {
            var lines = Scrape(metrics).Split('\n');
            return [.. names.Select(name => lines.Count(line => line.Contains($"=\"{name}\"", StringComparison.Ordinal)))];
        }
    }

    [Fact]
    public void A_built_in_upstream_has_series_once_it_is_used_and_keeps_them_across_a_reload()
    {
        using var metrics = new SidecarMetrics("0.1.0", Samples.Guardrails);
        metrics.Declare(ConfigurationLoader.BuiltIn());
        metrics.Publish(Samples.Snapshot([], upstreams: []));
        Scrape(metrics).ShouldNotContain("upstream=");
        metrics.Publish(Samples.Snapshot([Samples.Connection(upstream: "postgresql")], upstreams: [Samples.Upstream("postgresql")]));
        Scrape(metrics).ShouldContain("conn_sidecar_incidents_total{upstream=\"postgresql\",cause=\"stuck\"} 0\n");
        Scrape(metrics).ShouldNotContain("upstream=\"mysql\"");
        metrics.IncidentRecorded("postgresql", "stuck");
        metrics.Declare(ConfigurationLoader.BuiltIn());
        metrics.Publish(Samples.Snapshot([], upstreams: [Samples.Upstream("postgresql")]));
        Scrape(metrics).ShouldContain("conn_sidecar_incidents_total{upstream=\"postgresql\",cause=\"stuck\"} 1\n");
        metrics.Declare(Samples.Configuration("orders-db"));
        metrics.Publish(Samples.Snapshot([]));
        Scrape(metrics).ShouldNotContain("postgresql");
    }

    [Fact]
    public void A_refused_reload_shows_and_the_time_of_the_last_that_was_taken_stays()
    {
        using var metrics = Filled();
        metrics.ConfigurationRefused();
        var taken = Samples.Noon.AddMinutes(-30).ToUnixTimeSeconds();
        Scrape(metrics).ShouldContain("conn_sidecar_config_last_reload_successful 0\n");
        Scrape(metrics).ShouldContain($"conn_sidecar_config_last_reload_success_timestamp_seconds {taken}\n");
        metrics.ConfigurationTaken(Samples.Noon);
        Scrape(metrics).ShouldContain("conn_sidecar_config_last_reload_successful 1\n");
    }

    [Fact]
    public void What_the_agent_itself_uses_is_what_the_kernel_says()
    {
        using var process = System.Diagnostics.Process.GetCurrentProcess();
        using var metrics = new SidecarMetrics("0.1.0", Samples.Guardrails);
        var lines = Scrape(metrics).Split('\n').Where(line => line.StartsWith("process_", StringComparison.Ordinal)).ToDictionary(line => line.Split(' ')[0], line => double.Parse(line.Split(' ')[1], System.Globalization.CultureInfo.InvariantCulture));
        lines["process_start_time_seconds"].ShouldBe(new DateTimeOffset(process.StartTime).ToUnixTimeMilliseconds() / 1000.0, 1.5);
        lines["process_resident_memory_bytes"].ShouldBe(process.WorkingSet64, process.WorkingSet64 * 0.5);
        lines["process_virtual_memory_bytes"].ShouldBeGreaterThan(lines["process_resident_memory_bytes"]);
        lines["process_cpu_seconds_total"].ShouldBe(process.TotalProcessorTime.TotalSeconds, 2);
        lines["process_open_fds"].ShouldBe(Directory.GetFileSystemEntries("/proc/self/fd").Length, 50);
        lines["process_max_fds"].ShouldBeGreaterThan(lines["process_open_fds"]);
    }

    [Fact]
    public void A_gauge_that_is_no_longer_known_disappears()
    {
        using var metrics = Filled();
        Scrape(metrics).ShouldContain("conn_sidecar_path_up{upstream=\"orders-db\"} 1\n");
        metrics.Publish(Samples.Snapshot(upstreams: [Samples.Upstream(up: null, lower: null)]));
        var scrape = Scrape(metrics);
        scrape.ShouldNotContain("conn_sidecar_path_up");
        scrape.ShouldNotContain("bound=\"lower\"");
        scrape.ShouldContain("bound=\"upper\"");
    }

    [Fact]
    public void A_histogram_is_cumulative_and_ends_with_all_observations()
    {
        using var metrics = new SidecarMetrics("0.1.0", Samples.Guardrails);
        foreach (var seconds in new[] { 0.1, 0.25, 0.26, 2.0, 10_000 })
        {
            metrics.Released("orders-db", TimeSpan.FromSeconds(seconds));
        }

        var scrape = Scrape(metrics);
        scrape.ShouldContain("_bucket{upstream=\"orders-db\",le=\"0.25\"} 2\n");
        scrape.ShouldContain("_bucket{upstream=\"orders-db\",le=\"0.5\"} 3\n");
        scrape.ShouldContain("_bucket{upstream=\"orders-db\",le=\"2\"} 4\n");
        scrape.ShouldContain("_bucket{upstream=\"orders-db\",le=\"900\"} 4\n");
        scrape.ShouldContain("_bucket{upstream=\"orders-db\",le=\"+Inf\"} 5\n");
        scrape.ShouldContain("_count{upstream=\"orders-db\"} 5\n");
        scrape.ShouldContain("_sum{upstream=\"orders-db\"} 10002.61\n");
    }

    [Fact]
    public void Waiting_in_vain_adds_up_over_connections_and_looks()
    {
        using var metrics = new SidecarMetrics("0.1.0", Samples.Guardrails);
        metrics.Declare(Samples.Configuration("orders-db"));
        Scan(0, 3, 3);
        Blackout().ShouldBe("0"); // the first scan knows no earlier one: how long it was seen is not known
        Scan(1, 4, 4);
        Blackout().ShouldBe("2");
        Scan(2, 0.25); // one came free, a new stall began
        Blackout().ShouldBe("2.25");
        Scan(3);
        Scan(-3600, 5); // the clock was stepped back
        Blackout().ShouldBe("2.25");
        Scan(3600, 6); // and forward again
        Blackout().ShouldBe("8.25");

        void Scan(double second, params double[] stuck) => metrics.Publish(
            Samples.Snapshot([Samples.Connection(), .. stuck.Select(s => Samples.Connection(Verdict.Stuck, stuck: s))]) with { Time = Samples.Noon.AddSeconds(second) });

        string Blackout() => Scrape(metrics).Split('\n').Single(line => line.StartsWith("conn_sidecar_blackout_seconds_total{", StringComparison.Ordinal)).Split(' ')[1];
    }

    [Fact]
    public void Another_listener_sees_the_same_instruments()
    {
        using var metrics = new SidecarMetrics("0.1.0", Samples.Guardrails);
        var seen = new Dictionary<string, double>(StringComparer.Ordinal);
        using var other = new MeterListener();
        other.InstrumentPublished = (instrument, listener) =>
        {
            if (ReferenceEquals(instrument.Meter, metrics.Meter))
            {
                listener.EnableMeasurementEvents(instrument);
            }
        };
        other.SetMeasurementEventCallback<long>((instrument, value, _, _) => seen[instrument.Name] = value);
        other.SetMeasurementEventCallback<double>((instrument, value, _, _) => seen[instrument.Name] = value);
        other.Start();
        metrics.Publish(Samples.Snapshot());
        metrics.Recycled("orders-db", "stuck");
        other.RecordObservableInstruments();
        seen["conn_sidecar_recycled_connections"].ShouldBe(1);
        seen["conn_sidecar_connection_idle_max_seconds"].ShouldBe(1);
        seen["conn_sidecar_path_up"].ShouldBe(1);
    }

    [Fact]
    public void An_event_that_is_known_already_allocates_nothing()
    {
        using var metrics = new SidecarMetrics("0.1.0", Samples.Guardrails);
        metrics.Declare(Samples.Configuration("orders-db"));
        Events(100);
        var before = GC.GetAllocatedBytesForCurrentThread();
        Events(10_000);
        (GC.GetAllocatedBytesForCurrentThread() - before).ShouldBeLessThan(10_000);

        void Events(int count)
        {
            for (var i = 0; i < count; i++)
            {
                metrics.Withheld("orders-db", "recycle", "path-down");
                metrics.IncidentRecorded("orders-db", "stuck");
                metrics.Released("orders-db", TimeSpan.FromSeconds(1));
            }
        }
    }

    [Fact]
    public void Counts_from_many_threads_are_all_there_while_scrapes_go_on()
    {
        using var metrics = new SidecarMetrics("0.1.0", Samples.Guardrails);
        Parallel.For(0, 8, worker =>
        {
            for (var i = 0; i < 10_000; i++)
            {
                metrics.Recycled("orders-db", "stuck");
                if (i % 1000 == 0)
                {
                    Scrape(metrics, openMetrics: worker % 2 == 0);
                }
            }
        });
        Scrape(metrics).ShouldContain("{upstream=\"orders-db\",reason=\"stuck\"} 80000\n");
    }

    [Fact]
    public void Any_label_value_is_escaped_so_that_it_reads_back_as_it_was_but_for_control_characters()
    {
        Prop.ForAll<NonNull<string>>(value =>
        {
            // Lone surrogates cannot be encoded at all.
            var text = Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(value.Get + "\\\"\n"));
            var rendered = Encoding.UTF8.GetString(ExpositionWriter.Labels([new("upstream", text)]));
            rendered.ShouldNotContain("\n");
            var quoted = rendered["upstream=\"".Length..^1];
            var read = new StringBuilder();
            for (var i = 0; i < quoted.Length; i++)
            {
                quoted[i].ShouldNotBe('"');
                read.Append(quoted[i] != '\\' ? quoted[i] : quoted[++i] == 'n' ? '\n' : quoted[i]);
            }

            rendered.ShouldAllBe(c => !char.IsControl(c));
            return string.Equals(read.ToString(), Printable.Escape(text), StringComparison.Ordinal);
        }).QuickCheckThrowOnFailure();
    }

    [Theory]
    [InlineData(null, false)]
    [InlineData("", false)]
    [InlineData("*/*", false)]
    [InlineData("text/plain", false)]
    [InlineData("application/openmetrics-text", true)]
    [InlineData("application/openmetrics-text; version=1.0.0; charset=utf-8", true)]
    [InlineData("application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", true)]
    [InlineData("application/openmetrics-text;version=0.0.1", false)]
    [InlineData("application/openmetrics-text;q=0.3,text/plain;q=0.9", false)]
    [InlineData("application/openmetrics-text;q=nonsense", false)]
    [InlineData(";;;,,,;q=;", false)]
    public void The_format_is_what_the_scraper_prefers(string? accept, bool openMetrics) =>
        ExpositionWriter.Negotiate(accept).ShouldBe(openMetrics ? ExpositionFormat.OpenMetrics : ExpositionFormat.PrometheusText);

    [Fact]
    public void Labels_are_never_a_process_a_port_or_an_address()
    {
        using var metrics = Filled();
        var names = Scrape(metrics).Split('\n')
            .Where(line => line.Contains('{'))
            .SelectMany(line => line[(line.IndexOf('{') + 1)..line.IndexOf('}')].Split(','))
            .Select(pair => pair[..pair.IndexOf('=')])
            .Distinct(StringComparer.Ordinal);
        names.ShouldBe(["upstream", "verdict", "version", "cause", "outcome", "bound", "reason", "le", "workers", "worker", "listener", "stage", "haproxy", "proxy", "state", "check", "kind", "name", "role", "signal", "remedy", "guardrail"], ignoreOrder: true);
    }

    [Fact]
    public void Ten_thousand_connections_make_no_more_series_than_one()
    {
        using var metrics = new SidecarMetrics("0.1.0", Samples.Guardrails);
        metrics.Publish(Samples.Snapshot());
        var one = Scrape(metrics).Count(c => c == '\n');
        metrics.Publish(Samples.Snapshot([.. Enumerable.Range(0, 10_000).Select(i => Samples.Connection(port: 10_000 + i))]));
        Scrape(metrics).Count(c => c == '\n').ShouldBe(one);
        Scrape(metrics).ShouldContain("conn_sidecar_connections{upstream=\"orders-db\",verdict=\"healthy\"} 10000\n");
    }

    [Fact]
    public void Of_a_thousand_workers_sixty_four_are_shown_and_all_are_counted()
    {
        using var metrics = new SidecarMetrics("0.1.0", Samples.Guardrails);
        metrics.Declare(Samples.Configuration("orders-db"));
        Scrape(metrics).ShouldNotContain("conn_sidecar_worker_processes"); // not known before the first scan
        metrics.Publish(Samples.Snapshot());
        Scrape(metrics).ShouldContain("conn_sidecar_worker_processes{workers=\"web\"} 0\n");
        metrics.Publish(Samples.Snapshot(workers: [.. Enumerable.Range(0, 1000).Select(i => Samples.Worker(i, share: 0.001))]));
        var lines = Scrape(metrics).Split('\n');
        lines.ShouldContain("conn_sidecar_worker_processes{workers=\"web\"} 1000");
        lines.Count(l => l.StartsWith("conn_sidecar_worker_traffic_share{", StringComparison.Ordinal)).ShouldBe(64);
        lines.ShouldContain("conn_sidecar_worker_traffic_share{workers=\"web\",worker=\"63\"} 0.001");
        lines.ShouldNotContain(l => l.Contains("worker=\"64\"", StringComparison.Ordinal));
    }

    [Fact]
    public void Of_a_hundred_listeners_thirty_two_are_shown()
    {
        using var metrics = new SidecarMetrics("0.1.0", Samples.Guardrails);
        metrics.Publish(Samples.Snapshot() with { Listeners = [.. Enumerable.Range(0, 100).Select(i => Samples.Listener(i))] });
        var lines = Scrape(metrics).Split('\n');
        lines.Count(l => l.StartsWith("conn_sidecar_listen_queue_connections{", StringComparison.Ordinal)).ShouldBe(32);
        lines.ShouldContain("conn_sidecar_listen_queue_limit{workers=\"web\",listener=\"31\"} 5");
    }

    [Fact]
    public void Drops_are_counted_once_however_often_the_same_look_is_published_and_again_after_a_reload()
    {
        using var metrics = new SidecarMetrics("0.1.0", Samples.Guardrails);
        metrics.Declare(Samples.Configuration("orders-db"));
        Dropped().ShouldBe("0");
        metrics.Publish(Samples.Snapshot() with { Groups = [Samples.Group()] });
        metrics.Publish(Samples.Snapshot() with { Groups = [Samples.Group()] });
        Dropped().ShouldBe("7");
        metrics.Declare(Samples.Configuration("orders-db"));
        metrics.Publish(Samples.Snapshot() with { Groups = [Samples.Group() with { Drops = 2 }] });
        Dropped().ShouldBe("9");

        string Dropped() => Scrape(metrics).Split('\n').Single(line => line.StartsWith("conn_sidecar_listen_drops_total{", StringComparison.Ordinal)).Split(' ')[1];
    }

    [Fact]
    public void Of_an_HAProxy_that_does_not_answer_only_that_is_told()
    {
        using var metrics = Filled();
        metrics.Publish(Samples.Snapshot() with { Haproxies = [Samples.Haproxy("no answer")] });
        var scrape = Scrape(metrics);
        scrape.ShouldContain("conn_sidecar_haproxy_up{haproxy=\"edge\"} 0\n");
        scrape.ShouldNotContain("conn_sidecar_haproxy_servers{");
        scrape.ShouldContain("conn_sidecar_haproxy_own_errors_total{haproxy=\"edge\",proxy=\"www\"} 12\n");
    }

    internal static SidecarMetrics Filled()
    {
        var metrics = new SidecarMetrics("0.1.0", Samples.Guardrails, () => new OwnProcess(TimeSpan.FromSeconds(12.34), 33_554_432, 9_000_000_000, Samples.Noon.AddHours(-1), 80, 524_288));
        metrics.ConfigurationTaken(Samples.Noon.AddMinutes(-30));
        metrics.Declare(Samples.Configuration("orders-db"));
        metrics.Nudged("orders-db", "answered");
        metrics.Recycled("orders-db", "stuck");
        metrics.Recycled("orders-db", "stuck");
        metrics.Terminated("web", "TERM");
        metrics.Withheld("orders-db", "terminate", "budget");
        metrics.IncidentRecorded("orders-db", "stuck");
        metrics.Released("orders-db", TimeSpan.FromSeconds(2.5));
        metrics.Scanned(TimeSpan.FromMilliseconds(3), 10_000, Samples.Noon);
        metrics.Publish(Samples.Snapshot() with { Time = Samples.Noon.AddSeconds(-1) });
        metrics.Publish(Samples.Snapshot(
            [
                Samples.Connection(),
                Samples.Connection(Verdict.Waiting, idle: 12.5),
                Samples.Connection(Verdict.Stuck, idle: 400, stuck: 2.5, keepalive: false),
                Samples.Connection(Verdict.BlockedByPeer, keepalive: null),
            ],
            limitations: ["no CAP_KILL: nothing is terminated", "workers web match no process: this host has no unit uwsg.service"],
            workers: [Samples.Worker(0, share: 1, cpu: 0.98, growth: 1024.5), Samples.Worker(1, share: 0)]) with
        {
            Listeners = [Samples.Listener(0), Samples.Listener(1, waiting: 0, address: "/run/app.sock")],
            Groups = [Samples.Group()],
            ListenOverflows = 9,
            Haproxies = [Samples.Haproxy()],
            Upstreams = [Samples.Upstream() with { ConnectionLimit = 97, ServerConnections = 44 }],
            Sources = [new(SourceStatus.Haproxy, "edge", null), new(SourceStatus.Workers, "web", "workers web match no process: this host has no unit uwsg.service")],
            Checks = [Samples.Check(), Samples.Check("schema", actual: "7"), Samples.Check("later", actual: null, problem: "not made yet")],
        });
        return metrics;
    }

    internal static string Scrape(SidecarMetrics metrics, bool openMetrics = false) =>
        Encoding.UTF8.GetString(metrics.Aggregator.Scrape(openMetrics ? ExpositionFormat.OpenMetrics : ExpositionFormat.PrometheusText));
}
