using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;

namespace Sidecar.Lab;

/// <summary>A uWSGI worker process.</summary>
/// <param name="Pid">Process id.</param>
/// <param name="StartTime">Start time in clock ticks since boot; with the pid it names a process for good.</param>
public sealed record WorkerProcess(int Pid, ulong StartTime)
{
    /// <summary>The process with this pid, or null where none lives; a zombie does not.</summary>
    public static WorkerProcess? TryFind(int pid)
    {
        try
        {
            // The name in parentheses may hold anything, so fields are counted from the last ')': state is the third.
            var stat = File.ReadAllText($"/proc/{pid}/stat");
            var fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
            const string zombie = "Z";
            return fields[0] == zombie ? null : new WorkerProcess(pid, ulong.Parse(fields[19], CultureInfo.InvariantCulture));
        }
        catch (IOException)
        {
            return null;
        }
    }
}

/// <summary>What the application answered.</summary>
/// <param name="Status">HTTP status.</param>
/// <param name="Pid">Process id of the worker that answered.</param>
/// <param name="Error">Class and text of the database exception, or null.</param>
/// <param name="Backend">Process id of the PostgreSQL backend, or null.</param>
/// <param name="Value">The query's result, or null.</param>
public sealed record ApplicationAnswer(HttpStatusCode Status, int Pid, string? Error, int? Backend, string? Value);

/// <summary>
/// uWSGI with a master and workers that run <c>app.py</c>. Each worker listens on a Unix socket of its own, so that a
/// test can choose the worker; otherwise chance would decide which worker sleeps.
/// </summary>
public sealed class WebApplication
{
    internal const string User = "www-data";
    private readonly string _sockets;

    private WebApplication(ChildProcess master, string directory, int workers)
    {
        Master = master;
        _sockets = directory;
        WorkerCount = workers;
    }

    /// <summary>The uWSGI master; its output has the application's log.</summary>
    public ChildProcess Master { get; }

    public int WorkerCount { get; }

    /// <summary>What the application wrote to its log.</summary>
    public string Log => Master.Output;

    /// <summary>The path of <c>/proc/PID/exe</c> of master and workers.</summary>
    public static string Executable => "/usr/bin/uwsgi-core";

    internal static async Task<WebApplication> StartAsync(LabNetwork network, LabOptions options, Database database, string labDirectory, IList<ChildProcess> children)
    {
        var directory = Path.Combine(labDirectory, "web");
        Directory.CreateDirectory(directory);
        File.Copy(Path.Combine(AppContext.BaseDirectory, "app", "app.py"), Path.Combine(directory, "app.py"));
        var workers = Enumerable.Range(1, options.Workers).ToList();
        var settings = new List<string>
        {
            "[uwsgi]",
            "plugin = python3",
            "master = true",
            $"processes = {options.Workers}",
            $"wsgi-file = {directory}/app.py",
            "need-app = true",
            "die-on-term = true",
            "disable-logging = true",
            // Workers end with the master even when that is killed.
            "no-orphans = true",
            $"env = DATABASE_DSN={database.Dsn(options.ApplicationRole)}",
            $"env = LIBRARY_LOCK={directory}/library.lock",
            $"env = KEEPALIVES_IDLE={(options.DriversKeepalive ? "default" : options.ApplicationKeepalive is { } idle ? ((int)idle.TotalSeconds).ToString(CultureInfo.InvariantCulture) : "")}",
        };
        if (options.Backlog is { } backlog)
        {
            settings.Add($"listen = {backlog}");
        }

        settings.AddRange(workers.Select(w => $"http-socket = {SocketOf(directory, w)}"));
        settings.AddRange(workers.Select(w => $"map-socket = {w - 1}:{w}"));
        var configuration = Path.Combine(directory, "uwsgi.ini");
        await File.WriteAllLinesAsync(configuration, settings);
        await Command.RunAsync("chown", ["-R", $"{User}:", directory]);
        var master = ChildProcess.Start(new ChildOptions
        {
            Name = "uwsgi",
            CommandLine = [Executable, "--ini", configuration],
            Namespace = network.Application.Name,
            User = User,
            Directory = directory,
        });
        children.Add(master);
        foreach (var worker in workers)
        {
            await master.WaitForLineAsync(l => l.StartsWith($"spawned uWSGI worker {worker} ", StringComparison.Ordinal), TimeSpan.FromSeconds(30));
        }

        return new WebApplication(master, directory, options.Workers);
    }

    /// <summary>The worker processes that live now, in order of their pids.</summary>
    public IReadOnlyList<WorkerProcess> Workers()
    {
        var children = File.ReadAllText($"/proc/{Master.Pid}/task/{Master.Pid}/children");
        return [.. children.Split(' ', StringSplitOptions.RemoveEmptyEntries)
            .Select(pid => WorkerProcess.TryFind(int.Parse(pid, CultureInfo.InvariantCulture))).OfType<WorkerProcess>().OrderBy(w => w.Pid)];
    }

    /// <summary>Asks one worker (numbered from 1) for a path, once, for as long as it takes.</summary>
    /// <exception cref="IOException">The connection broke without an answer, as when the worker is killed.</exception>
    /// <exception cref="SocketException">The same.</exception>
    public Task<ApplicationAnswer> GetAsync(int worker, string pathAndQuery = "/query", CancellationToken cancellation = default) =>
        AskAsync(SocketOf(_sockets, worker), pathAndQuery, cancellation);

    /// <summary>Asks whatever serves the application on this Unix socket.</summary>
    /// <exception cref="IOException">The connection broke without an answer.</exception>
    /// <exception cref="SocketException">The same.</exception>
    public static async Task<ApplicationAnswer> AskAsync(string path, string pathAndQuery, CancellationToken cancellation = default)
    {
        // By hand, because HttpClient silently asks again when a connection breaks: a killed worker would not show.
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await socket.ConnectAsync(new UnixDomainSocketEndPoint(path), cancellation);
        await using var stream = new NetworkStream(socket);
        await stream.WriteAsync(Encoding.ASCII.GetBytes($"GET {pathAndQuery} HTTP/1.0\r\nHost: lab\r\n\r\n"), cancellation);
        using var reader = new StreamReader(stream, Encoding.UTF8);
        var response = await reader.ReadToEndAsync(cancellation);
        var end = response.IndexOf("\r\n\r\n", StringComparison.Ordinal);
        if (end < 0)
        {
            throw new IOException("the worker closed the connection without an answer");
        }

        using var json = JsonDocument.Parse(response[end..]);
        var root = json.RootElement;
        var status = (HttpStatusCode)int.Parse(response.Split(' ', 3)[1], CultureInfo.InvariantCulture);
        return new ApplicationAnswer(status, root.GetProperty("pid").GetInt32(), Text(root, "error"),
            root.TryGetProperty("backend", out var backend) ? backend.GetInt32() : null, Text(root, "value"));
    }

    /// <summary>Makes every worker open its connection and returns the pid of each, in order of their numbers.</summary>
    /// <exception cref="InvalidOperationException">A worker could not query the database.</exception>
    public async Task<IReadOnlyList<int>> WarmUpAsync()
    {
        var pids = new List<int>();
        for (var worker = 1; worker <= WorkerCount; worker++)
        {
            var answer = await GetAsync(worker);
            pids.Add(answer.Status == HttpStatusCode.OK ? answer.Pid : throw new InvalidOperationException($"worker {worker}: {answer.Error}\n{Log}"));
        }

        return pids;
    }

    private static string? Text(JsonElement root, string name) => root.TryGetProperty(name, out var value) ? value.GetString() : null;

    private static string SocketOf(string directory, int worker) => Path.Combine(directory, $"worker-{worker}.sock");
}
