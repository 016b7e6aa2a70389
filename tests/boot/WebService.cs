using System.Globalization;
using System.Text.Json;

namespace Sidecar.BootTests;

/// <summary>
/// The lab's application as a service of the machine's systemd: <c>uwsgi.service</c> with workers that each listen on a
/// port of their own, so that a test can choose the worker.
/// </summary>
internal sealed class WebService : IDisposable
{
    public const string Unit = "uwsgi.service";
    private const int Workers = 4;
    private const int FirstPort = 8081;
    private readonly HttpClient _client;

    private WebService(HttpClient http) => _client = http;

    public static async Task<WebService> StartAsync(Machine machine, TestLab lab)
    {
        var numbers = Enumerable.Range(1, Workers).ToList();
        await machine.WriteAsync("/srv/web/app.py", await File.ReadAllTextAsync(Path.Combine(AppContext.BaseDirectory, "app", "app.py")));
        await machine.WriteAsync("/srv/web/uwsgi.ini", string.Join('\n',
        [
            "[uwsgi]",
            "plugin = python3",
            "master = true",
            $"processes = {Workers}",
            "wsgi-file = /srv/web/app.py",
            "need-app = true",
            "die-on-term = true",
            "disable-logging = true",
            $"env = DATABASE_DSN=host={lab.Database.Address} port={Database.Port} user=postgres dbname=postgres sslmode=disable",
            "env = LIBRARY_LOCK=/run/uwsgi/library.lock",
            .. numbers.Select(n => $"http-socket = 127.0.0.1:{FirstPort + n - 1}"),
            .. numbers.Select(n => $"map-socket = {n - 1}:{n}"),
        ]) + "\n");
        await machine.WriteAsync($"/etc/systemd/system/{Unit}", """
            [Unit]
            Description=uWSGI with the application

            [Service]
            Type=notify
            User=www-data
            RuntimeDirectory=uwsgi
            ExecStart=/usr/bin/uwsgi-core --ini /srv/web/uwsgi.ini
            Restart=on-failure

            [Install]
            WantedBy=multi-user.target

            """);
        await machine.ShellAsync($"systemctl daemon-reload; systemctl enable --now --quiet {Unit}");
        var http = lab.Network.Worker.HttpClient();
        http.Timeout = Timeout.InfiniteTimeSpan;
        return new WebService(http);
    }

    /// <summary>Asks one worker (numbered from 1), for as long as it takes.</summary>
    /// <returns>The worker's process by its number inside the machine, and its database error or null.</returns>
    /// <exception cref="HttpRequestException">The connection broke without an answer, as when the worker is killed.</exception>
    public async Task<(int Pid, string? Error)> AskAsync(int worker)
    {
        var url = new Uri(string.Create(CultureInfo.InvariantCulture, $"http://127.0.0.1:{FirstPort + worker - 1}/query"));
        using var response = await _client.GetAsync(url);
        using var json = JsonDocument.Parse(await response.Content.ReadAsStringAsync());
        return (json.RootElement.GetProperty("pid").GetInt32(), json.RootElement.TryGetProperty("error", out var error) ? error.GetString() : null);
    }

    /// <summary>Makes every worker open its connection anew and returns the processes, in order of the workers' numbers.</summary>
    public async Task<IReadOnlyList<int>> RestartAsync(Machine machine)
    {
        await machine.RunAsync("systemctl", "restart", Unit);
        var pids = new List<int>();
        for (var worker = 1; worker <= Workers; worker++)
        {
            var (pid, error) = await AskAsync(worker);
            error.ShouldBeNull();
            pids.Add(pid);
        }

        return pids;
    }

    public void Dispose() => _client.Dispose();
}
