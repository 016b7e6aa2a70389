using System.Globalization;
using System.Text.Json;

namespace Sidecar.Lab;

/// <summary>An alert as Prometheus has it.</summary>
internal sealed record PrometheusAlert(string Name, string State, IReadOnlyDictionary<string, string> Labels, IReadOnlyDictionary<string, string> Annotations);

/// <summary>A real Prometheus on the worker host of a lab, with the rules that the package ships.</summary>
internal sealed class Prometheus : IDisposable
{
    private const string Address = "127.0.0.1:9090";
    private readonly ChildProcess _process;
    private readonly HttpClient _client;

    private Prometheus(ChildProcess process, HttpClient client)
    {
        _process = process;
        _client = client;
    }

    /// <summary>Everything it logged.</summary>
    public string Log => _process.Output;

    /// <summary>Starts it and waits until the first scrape of the agent has succeeded.</summary>
    /// <param name="lab">Where.</param>
    /// <param name="rules">File of the rules; null: the repository's.</param>
    /// <param name="interval">Seconds from scrape to scrape.</param>
    public static async Task<Prometheus> StartAsync(TestLab lab, string? rules = null, int interval = 2)
    {
        var directory = Path.Combine(lab.Directory, "prometheus");
        Directory.CreateDirectory(directory);
        var configuration = Path.Combine(directory, "prometheus.yml");
        await File.WriteAllTextAsync(configuration, $"""
            global:
              scrape_interval: {interval}s
              evaluation_interval: 2s
            rule_files:
              - {rules ?? Path.Combine(Repository.Root, "packaging", "deb", "alerts", "conn-sidecar.rules.yml")}
            scrape_configs:
              - job_name: conn-sidecar
                static_configs:
                  - targets: ['127.0.0.1:{AgentProcess.Port}']

            """);
        var server = ChildProcess.Start(new ChildOptions
        {
            Name = "prometheus",
            CommandLine = ["/usr/bin/prometheus", $"--config.file={configuration}", $"--storage.tsdb.path={directory}/data", $"--web.listen-address={Address}"],
            Namespace = lab.Network.Worker.Name,
            Directory = directory,
        });
        var prometheus = new Prometheus(server, lab.Network.Worker.HttpClient());
        try
        {
            await server.WaitForLineAsync(l => l.Contains("Server is ready to receive web requests"), Wait.Seconds(30));
            await Wait.UntilAsync("the first scrape succeeds", async () => await prometheus.ValueAsync("up{job='conn-sidecar'}") == 1, Wait.Seconds(20 + interval));
            return prometheus;
        }
        catch
        {
            prometheus.Dispose();
            throw;
        }
    }

    /// <summary>The values that a query gives now, with the labels of each.</summary>
    public async Task<IReadOnlyList<(IReadOnlyDictionary<string, string> Labels, double Value)>> QueryAsync(string query)
    {
        var data = await GetAsync($"query?query={Uri.EscapeDataString(query)}");
        return [.. data.GetProperty("result").EnumerateArray().Select(r =>
            (Texts(r.GetProperty("metric")), double.Parse(r.GetProperty("value")[1].GetString()!, CultureInfo.InvariantCulture)))];
    }

    /// <summary>The one value that a query gives now; null where it gives none.</summary>
    public async Task<double?> ValueAsync(string query) => await QueryAsync(query) is [var (_, value)] ? value : null;

    /// <summary>Alerts that are pending or firing.</summary>
    public async Task<IReadOnlyList<PrometheusAlert>> AlertsAsync() =>
        [.. (await GetAsync("alerts")).GetProperty("alerts").EnumerateArray().Select(a =>
        {
            var labels = Texts(a.GetProperty("labels"));
            return new PrometheusAlert(labels["alertname"], a.GetProperty("state").GetString()!, labels, Texts(a.GetProperty("annotations")));
        })];

    /// <summary>Names of the alerts that fire.</summary>
    public async Task<IReadOnlyList<string>> FiringAsync() => [.. (await AlertsAsync()).Where(a => a.State == "firing").Select(a => a.Name)];

    /// <summary>Waits until this alert, and no other, fires.</summary>
    /// <exception cref="InvalidOperationException">Others do.</exception>
    public async Task<PrometheusAlert> FiresAloneAsync(string name, TimeSpan within)
    {
        await Wait.UntilAsync($"{name} fires", async () => (await FiringAsync()).Contains(name), within);
        var firing = (await AlertsAsync()).Where(a => a.State == "firing").ToList();
        return firing is [var alone] ? alone : throw new InvalidOperationException($"others fire, too: {string.Join(", ", firing.Select(a => a.Name))}");
    }

    /// <summary>State of the rules: <c>ok</c>, or why one cannot be evaluated.</summary>
    public async Task<IReadOnlyList<string>> RuleHealthAsync() =>
        [.. (await GetAsync("rules")).GetProperty("groups").EnumerateArray().SelectMany(g => g.GetProperty("rules").EnumerateArray())
            .Select(r => r.GetProperty("health").GetString() + (r.TryGetProperty("lastError", out var error) ? $" {error}" : ""))];

    public void Dispose()
    {
        _client.Dispose();
        _process.Dispose();
    }

    private static Dictionary<string, string> Texts(JsonElement element) =>
        element.EnumerateObject().ToDictionary(p => p.Name, p => p.Value.GetString()!, StringComparer.Ordinal);

    private async Task<JsonElement> GetAsync(string what)
    {
        using var json = JsonDocument.Parse(await _client.GetStringAsync(new Uri($"http://{Address}/api/v1/{what}")));
        return json.RootElement.GetProperty("data").Clone();
    }
}
