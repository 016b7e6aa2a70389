using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using Shouldly;
using Sidecar.Agent.Core.Snapshots;

namespace Sidecar.UnitTests.Telemetry;

/// <summary>
/// A real Prometheus with the shipped rules, over an hour and more of scrapes that were made beforehand: by a job that scrapes every
/// 15 s and one that does every minute, of a host that is well and one that has every trouble there is an alert for.
/// </summary>
public sealed class PrometheusServer : IDisposable
{
    internal const string Well = "app1:10042";
    internal const string Troubled = "app2:10042";
    private const string Gone = "app3:10042";
    private static readonly TimeSpan Length = TimeSpan.FromMinutes(70);
    private static readonly TimeSpan Growing = TimeSpan.FromMinutes(1);

    private readonly TemporaryDirectory _directory = new();
    private readonly Process _process;
    private readonly HttpClient _client = new();

    public PrometheusServer()
    {
        End = DateTimeOffset.FromUnixTimeSeconds(DateTimeOffset.UtcNow.ToUnixTimeSeconds() / 60 * 60);
        using (var scrapes = new StreamWriter(_directory["scrapes.txt"]))
        {
            using var well = Healthy();
            using var troubled = MetricsTests.Filled();
            foreach (var interval in new[] { 15, 60 })
            {
                Write(scrapes, MetricsTests.Scrape(well), Well, interval, static (_, value) => value, grows: static name => name.StartsWith("process_", StringComparison.Ordinal));
                Write(scrapes, MetricsTests.Scrape(troubled), Troubled, interval, Trouble, grows: static _ => true);
                Series(scrapes, "up", "", Gone, interval, at => at < End - Length / 2 ? 1 : 0);
                Series(scrapes, "conn_sidecar_build_info", "version=\"0.1.0\",", Gone, interval, at => at < End - Length / 2 ? 1 : null);
            }

            scrapes.Write("# EOF\n");
        }

        var (exitCode, output) = TestTools.Run("promtool", "", "tsdb", "create-blocks-from", "openmetrics", "--quiet", _directory["scrapes.txt"], _directory["data"]);
        exitCode.ShouldBe(0, output);
        File.WriteAllText(_directory["prometheus.yml"], $"""
            global:
              evaluation_interval: 1s
            rule_files:
              - {TestTools.RepositoryFile("packaging", "deb", "alerts", "conn-sidecar.rules.yml")}

            """);
        using var free = new TcpListener(IPAddress.Loopback, 0);
        free.Start();
        var address = free.LocalEndpoint.ToString()!;
        free.Stop();
        _process = Process.Start(new ProcessStartInfo("prometheus", [$"--config.file={_directory["prometheus.yml"]}", $"--storage.tsdb.path={_directory["data"]}", $"--web.listen-address={address}", "--log.level=error"])
        {
            UseShellExecute = false,
        })!;
        _client.BaseAddress = new Uri($"http://{address}/api/v1/");
    }

    /// <summary>When the last scrape was made.</summary>
    internal DateTimeOffset End { get; }

    /// <summary>Waits until it answers and has evaluated all rules.</summary>
    internal async Task ReadyAsync()
    {
        for (var started = Stopwatch.GetTimestamp(); ; await Task.Delay(100))
        {
            try
            {
                if ((await RulesAsync()).All(static rule => rule.Health != "unknown"))
                {
                    return;
                }
            }
            catch (HttpRequestException) when (Stopwatch.GetElapsedTime(started) < TimeSpan.FromSeconds(60))
            {
                // not yet
            }

            Stopwatch.GetElapsedTime(started).ShouldBeLessThan(TimeSpan.FromSeconds(60), "rules are evaluated");
        }
    }

    /// <summary>The rules as Prometheus has read them.</summary>
    internal async Task<IReadOnlyList<(string Type, string Name, string Query, string Health)>> RulesAsync() =>
        [.. (await GetAsync("rules")).GetProperty("groups").EnumerateArray().SelectMany(group => group.GetProperty("rules").EnumerateArray())
            .Select(rule => (rule.GetProperty("type").GetString()!, rule.GetProperty("name").GetString()!, rule.GetProperty("query").GetString()!,
                rule.GetProperty("health").GetString() + (rule.TryGetProperty("lastError", out var error) ? $" {error}" : "")))];

    /// <summary>What a query gives up to the last scrape: for each series its labels and how many points it has.</summary>
    internal async Task<IReadOnlyList<(IReadOnlyDictionary<string, string> Labels, int Points)>> RangeAsync(string query, TimeSpan range, int step)
    {
        var data = await GetAsync(FormattableString.Invariant(
            $"query_range?query={Uri.EscapeDataString(query)}&start={(End - range).ToUnixTimeSeconds()}&end={End.ToUnixTimeSeconds()}&step={step}"));
        return [.. data.GetProperty("result").EnumerateArray().Select(series => (
            (IReadOnlyDictionary<string, string>)series.GetProperty("metric").EnumerateObject().ToDictionary(label => label.Name, label => label.Value.GetString()!),
            series.GetProperty("values").EnumerateArray().Count(point => point[1].GetString() != "NaN")))];
    }

    public void Dispose()
    {
        _process.Kill();
        _process.WaitForExit();
        _process.Dispose();
        _client.Dispose();
        _directory.Dispose();
    }

    /// <summary>A host on which everything is as it should be.</summary>
    private static Sidecar.Agent.Telemetry.SidecarMetrics Healthy()
    {
        var metrics = new Sidecar.Agent.Telemetry.SidecarMetrics("0.1.0", Samples.Guardrails);
        metrics.ConfigurationTaken(Samples.Noon);
        metrics.Declare(Samples.Configuration("orders-db"));
        metrics.Scanned(TimeSpan.FromMilliseconds(3), 10_000, Samples.Noon);
        metrics.Publish(Samples.Snapshot(upstreams: [Samples.Upstream() with { ConnectionLimit = 97, ServerConnections = 44 }], workers: [Samples.Worker(0, share: 1)]) with
        {
            Listeners = [Samples.Listener(0, waiting: 0) with { Peak = 0, Limit = 128 }],
            Groups = [Samples.Group(imbalance: 0.1) with { Zombies = 0, GonePeersServed = 0, Drops = 0, ParentResidentGrowth = 0 }],
            Haproxies = [Samples.Haproxy() with { Backends = [.. Samples.Haproxy().Backends.Select(backend => backend with { ServersDown = 0, Queue = 0, Downs = 0, OwnErrors = 0 })] }],
            Checks = [Samples.Check()],
            Sources = [new(SourceStatus.Haproxy, "edge", null)],
        });
        return metrics;
    }

    private static double Trouble(string name, double value) => name switch
    {
        "conn_sidecar_connections" => 1,
        "conn_sidecar_worker_resident_growth_bytes_per_second" or "conn_sidecar_parent_resident_growth_bytes_per_second" => 1e6,
        "conn_sidecar_zombie_children" => 20,
        "conn_sidecar_server_connections" => 95,
        "conn_sidecar_server_replication_lag_seconds" => 100,
        "conn_sidecar_server_oldest_transaction_seconds" => 4000,
        "conn_sidecar_server_role_as_declared" or "conn_sidecar_source_up" or "conn_sidecar_config_last_reload_successful" => 0,
        _ => value,
    };

    /// <summary>Writes what scrapes that go on would find: counters grow where they do, scans go on but where there is trouble.</summary>
    private void Write(StreamWriter to, string scrape, string instance, int interval, Func<string, double, double> change, Func<string, bool> grows)
    {
        Series(to, "up", "", instance, interval, static _ => 1);
        var counters = scrape.Split('\n').Where(line => line.StartsWith("# TYPE ", StringComparison.Ordinal) && !line.EndsWith(" gauge", StringComparison.Ordinal)).Select(line => line.Split(' ')[2]).ToList();
        foreach (var line in scrape.Split('\n').Where(line => line.Length > 0 && line[0] != '#'))
        {
            var name = line.Split('{', ' ')[0];
            var labels = line.Contains('{') ? line[(line.IndexOf('{') + 1)..line.LastIndexOf('}')] + "," : "";
            var value = change(name, double.Parse(line[(line.LastIndexOf(' ') + 1)..], CultureInfo.InvariantCulture));

            // Of a histogram: every observation of a scan is a slow one, where there is trouble.
            var isCounter = counters.Exists(counter => name == counter || (name.StartsWith(counter, StringComparison.Ordinal) && name[counter.Length..] is "_bucket" or "_sum" or "_count"));
            var isGrowing = isCounter && grows(name)
                && !(name == "conn_sidecar_scan_duration_seconds_bucket" && double.TryParse(labels.Split('"')[1], CultureInfo.InvariantCulture, out var bound) && bound < 1)
                && !(name == "conn_sidecar_stuck_duration_seconds_bucket" && value == 0);
            Series(to, name, labels, instance, interval, name == "conn_sidecar_last_scan_timestamp_seconds" && instance == Well
                ? at => at.ToUnixTimeSeconds() - (at.Minute % 6)
                : at => isGrowing ? value + ((at - (End - Length)) / Growing) : value);
        }
    }

    private void Series(StreamWriter to, string name, string labels, string instance, int interval, Func<DateTimeOffset, double?> value)
    {
        var text = new StringBuilder();
        // No query falls on a scrape.
        for (var at = End - Length - TimeSpan.FromSeconds(7); at <= End; at += TimeSpan.FromSeconds(interval))
        {
            if (value(at) is { } number)
            {
                text.Append(CultureInfo.InvariantCulture, $"{name}{{{labels}job=\"every-{interval}\",instance=\"{instance}\"}} {number:R} {at.ToUnixTimeSeconds()}\n");
            }
        }

        to.Write(text);
    }

    private async Task<JsonElement> GetAsync(string what)
    {
        using var answer = await _client.GetAsync(new Uri(what, UriKind.Relative));
        if (answer.StatusCode == HttpStatusCode.ServiceUnavailable)
        {
            throw new HttpRequestException("it starts");
        }

        var text = await answer.Content.ReadAsStringAsync();
        answer.IsSuccessStatusCode.ShouldBeTrue($"{what}: {text}");
        using var json = JsonDocument.Parse(text);
        return json.RootElement.GetProperty("data").Clone();
    }
}
