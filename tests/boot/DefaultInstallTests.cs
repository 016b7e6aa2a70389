using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using Xunit.Abstractions;

namespace Sidecar.BootTests;

/// <summary>
/// What an operator is shown who has installed the package and configured nothing: HAProxy, nginx and uWSGI as services,
/// PostgreSQL behind a router that forgets nothing, ordinary traffic, and nothing wrong.
/// </summary>
public sealed class DefaultInstallTests(ITestOutputHelper output) : IAsyncLifetime
{
    private const string Front = "http://127.0.0.1:8080";
    private const int Resting = 4;
    private static readonly TimeSpan BetweenRequests = TimeSpan.FromMilliseconds(500);

    private WorkerMachine? _host;

    private TestLab Lab => _host!.Lab;

    private Machine Machine => _host!.Machine;

    private WebService Web => _host!.Web;

    public async Task InitializeAsync()
    {
        var package = await DebianPackage.GetAsync();
        _host = await WorkerMachine.StartAsync(new LabOptions { Router = RouterBehaviour.Forward });
        await Web.RestartAsync(Machine);
        await Machine.WriteAsync("/etc/nginx/conf.d/web.conf", """
            upstream web { server 127.0.0.1:8081; server 127.0.0.1:8082; }
            server { listen 127.0.0.1:8000; location / { proxy_pass http://web; } }

            """);
        await Machine.WriteAsync("/srv/haproxy.cfg", """

            frontend www
              bind 127.0.0.1:8080
              default_backend nginx
            backend nginx
              server nginx 127.0.0.1:8000 check

            """);
        await Machine.ShellAsync("cat /srv/haproxy.cfg >>/etc/haproxy/haproxy.cfg; systemctl enable --now --quiet nginx haproxy");
        await Machine.InstallAsync(package);
    }

    public async Task DisposeAsync()
    {
        if (_host is not null)
        {
            await _host.DisposeAsync();
        }
    }

    [Fact]
    public Task Nothing_that_is_shown_is_false_or_red() => WorksUnseenAsync(TimeSpan.FromSeconds(90));

    [Fact]
    [Trait("Speed", "slow")]
    public Task Nothing_that_is_shown_is_false_or_red_after_ten_minutes() => WorksUnseenAsync(TimeSpan.FromMinutes(10));

    private async Task WorksUnseenAsync(TimeSpan time)
    {
        using var prometheus = await Prometheus.StartAsync(Lab, $"/proc/{Machine.Leader}/root/usr/share/conn-sidecar/alerts/conn-sidecar.rules.yml", interval: 15);
        using var client = Lab.Network.Worker.HttpClient();
        var watch = Stopwatch.StartNew();
        for (var request = 0; watch.Elapsed < time; request++)
        {
            // Two of the workers have requests, one is asked now and then, and one rests all the time.
            var what = (request % 40) switch { 0 => "/sleep?s=2", 10 => "/download?mb=2", 20 => "/upload?mb=2", _ => "/query" };
            using var answer = await client.GetAsync(new Uri(Front + what));
            answer.IsSuccessStatusCode.ShouldBeTrue($"{what}: {answer.StatusCode}");
            if (request % 60 == 30)
            {
                (await Web.AskAsync(3)).Error.ShouldBeNull();
                await StatusIsWellAsync();
            }

            await Task.Delay(BetweenRequests);
        }

        // What is under way ends: from here on all rest.
        await Task.Delay(Wait.Seconds(6));
        await StatusIsWellAsync();
        await ShownIsWellAsync(client);
        MetricsAreWell(await Machine.RunAsync("curl", "-sS", "http://127.0.0.1:10042/metrics"));
        (await Machine.JournalAsync("-u", "conn-sidecar*", "-p", "warning")).ShouldBe("");
        Lab.Database.Server.Output.Split('\n').ShouldNotContain(line => line.Contains("ERROR", StringComparison.Ordinal) || line.Contains("FATAL", StringComparison.Ordinal) || line.Contains("incomplete", StringComparison.Ordinal));

        // None fires or is about to, now or before. Where the test machine is short of CPU, it is true for a moment that scans or scrapes are late.
        const string late = "alertstate='pending', alertname=~'ConnSidecar(Down|StandsStill|ScansSlow)'";
        (await prometheus.RuleHealthAsync()).ShouldAllBe(health => health == "ok");
        (await prometheus.QueryAsync($"count by (alertname, alertstate) (count_over_time(ALERTS[1h]) unless count_over_time(ALERTS{{{late}}}[1h]))")).Select(alert => $"{alert.Labels["alertname"]} {alert.Labels["alertstate"]}").ShouldBeEmpty();
    }

    /// <summary>Every connection rests or is in use; there is nothing that the agent cannot do, and nothing to be advised.</summary>
    private async Task StatusIsWellAsync()
    {
        var text = await Machine.RunAsync("conn-sidecar", "status");
        using var status = JsonDocument.Parse(await Machine.RunAsync("conn-sidecar", "status", "--json"));
        var root = status.RootElement;
        root.GetProperty("limitations").GetArrayLength().ShouldBe(0, text);
        text.Split('\n').ShouldNotContain(line => line.TrimStart().StartsWith('!'), text);
        var upstream = root.GetProperty("upstreams").EnumerateArray().ShouldHaveSingleItem();
        upstream.GetProperty("name").GetString().ShouldBe("postgresql");
        upstream.GetProperty("advice").GetArrayLength().ShouldBe(0, text);
        upstream.GetProperty("idle_timeout_upper_seconds").ValueKind.ShouldBe(JsonValueKind.Null, text);
        var connections = root.GetProperty("connections").EnumerateArray().ToList();
        connections.Count.ShouldBe(Resting, text);
        connections.ShouldAllBe(connection => connection.GetProperty("verdict").GetString() == "healthy", text);
    }

    private async Task ShownIsWellAsync(HttpClient client)
    {
        output.WriteLine(await Machine.RunAsync("conn-sidecar", "status"));
        (await Machine.RunAsync("conn-sidecar", "incidents")).ShouldStartWith("no incidents in ");
        var page = await Machine.RunAsync("curl", "-sS", "http://127.0.0.1:10042/");
        page.ShouldContain("<h2>Last incidents</h2>\n<p>None.</p>");
        page.ShouldNotContain("class=\"bad\"");
        page.ShouldNotContain("neither healthy nor waiting");
        foreach (var path in new[] { "/healthz", "/readyz", "/check/db", "/check/pool", "/check/version", "/check/workers", "/check/host" })
        {
            using var answer = await client.GetAsync(new Uri($"http://127.0.0.1:10042{path}"));
            var line = await answer.Content.ReadAsStringAsync();
            output.WriteLine($"{path}: {(int)answer.StatusCode} {line.Trim()}");
            ((int)answer.StatusCode).ShouldBe(200, line);
            line.ShouldNotStartWith("ServiceKO");
        }

        var doctor = await Machine.RunAsync("conn-sidecar", "doctor");
        output.WriteLine(doctor);
        doctor.Split('\n').Select(line => line.Trim()).ShouldNotContain(line => line.StartsWith("NO ", StringComparison.Ordinal) || line.StartsWith("no ", StringComparison.Ordinal) || line.StartsWith('!'), doctor);
    }

    /// <summary>What is measured is of the one upstream that is used, and of nothing that this host does not have.</summary>
    private void MetricsAreWell(string metrics)
    {
        var samples = metrics.Split('\n', StringSplitOptions.RemoveEmptyEntries).Where(line => line[0] != '#').ToList();
        output.WriteLine($"{samples.Count} samples, {samples.Count(line => line.EndsWith(" 0", StringComparison.Ordinal))} of them 0");
        var labels = samples.Where(line => line.Contains('{')).SelectMany(line => line[(line.IndexOf('{') + 1)..line.LastIndexOf('}')].Split(',')).Distinct(StringComparer.Ordinal).ToList();
        labels.Where(label => label.StartsWith("upstream=", StringComparison.Ordinal)).ShouldBe(["upstream=\"postgresql\""]);
        labels.ShouldNotContain(label => label.StartsWith("workers=", StringComparison.Ordinal) || label.StartsWith("haproxy=", StringComparison.Ordinal) || label.StartsWith("check=", StringComparison.Ordinal) || label.StartsWith("kind=", StringComparison.Ordinal));
        Value("conn_sidecar_limitations").ShouldBe(0);
        Value("conn_sidecar_connections{upstream=\"postgresql\",verdict=\"healthy\"}").ShouldBe(Resting);
        foreach (var counter in new[] { "incidents_total", "recycled_connections_total", "withheld_remedies_total", "blackout_seconds_total" })
        {
            samples.Where(line => line.StartsWith($"conn_sidecar_{counter}{{", StringComparison.Ordinal)).ShouldAllBe(line => line.EndsWith(" 0", StringComparison.Ordinal));
        }

        double Value(string series) => double.Parse(samples.Single(line => line.StartsWith($"{series} ", StringComparison.Ordinal))[(series.Length + 1)..], CultureInfo.InvariantCulture);
    }
}
