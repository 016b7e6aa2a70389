using System.Diagnostics;
using System.Text.Json;

namespace Sidecar.Lab;

/// <summary>How the agent is configured and started in a lab.</summary>
public sealed record AgentOptions
{
    /// <summary><c>observe</c> or <c>protect</c>.</summary>
    public string Mode { get; init; } = "protect";

    public bool Keepalive { get; init; }

    public bool Recycle { get; init; } = true;

    /// <summary>Whether workers may be terminated.</summary>
    public bool Terminate { get; init; }

    /// <summary>The executable that the <c>[workers:web]</c> section names; null: there is no such section.</summary>
    public string? WorkersExecutable { get; init; } = "uwsgi-core";

    /// <summary>The <c>idle-timeout</c> key.</summary>
    public string IdleTimeout { get; init; } = "350s";

    /// <summary>The <c>dead-after</c> key; null: not in the file, so that the agent's own default holds.</summary>
    public string? DeadAfter { get; init; } = "120s";

    /// <summary>Whether it has a DSN for the database, with the two grants and no more.</summary>
    public bool Sessions { get; init; }

    /// <summary>The <c>refreshed-by</c> key.</summary>
    public string RefreshedBy { get; init; } = "segments";

    /// <summary>It runs on the database host, and the database's own connections are inbound; otherwise on the worker host.</summary>
    public bool OnDatabaseHost { get; init; }

    /// <summary>The <c>network-namespaces</c> key. With <c>all</c> workers of labs beside this one belong to the group too.</summary>
    public string NetworkNamespaces { get; init; } = "all";

    /// <summary>The <c>listen</c> key; null: its usual port.</summary>
    public string? Listen { get; init; }

    /// <summary>Further lines for the end of the file.</summary>
    public IReadOnlyList<string> FurtherLines { get; init; } = [];

    /// <summary>The whole file instead of one made from the above; <c>{run}</c> and <c>{state}</c> become its directories.</summary>
    public string? Configuration { get; init; }

    /// <summary>Capabilities taken away from the agent, by name without <c>cap_</c>.</summary>
    public IReadOnlyList<string> WithoutCapabilities { get; init; } = [];

    /// <summary>User it runs as; null: root.</summary>
    public string? User { get; init; }

    /// <summary>The state directory; null: one below the lab's own.</summary>
    public string? StateDirectory { get; init; }

    /// <summary>Program and arguments that start the agent's own command line; <c>{state}</c> becomes its directory.</summary>
    public IReadOnlyList<string> Starter { get; init; } = [];
}

/// <summary>A row of <c>status --json</c>.</summary>
public sealed record AgentConnection(
    string Local, string Peer, int? Pid, string? Executable, string? Upstream, double IdleSeconds, string Verdict, string Why)
{
    /// <summary>The server's side, where the agent knows it.</summary>
    public AgentSession? Session { get; init; }
}

/// <summary>The server's side of a row of <c>status --json</c>.</summary>
public sealed record AgentSession(string State, double? QuerySeconds, double? TransactionSeconds, int BackendPid);

/// <summary>A line of <c>incidents --json</c>.</summary>
public sealed record AgentIncident(
    DateTimeOffset Time, string Upstream, string Cause, string Remedy, string Outcome, int? Pid, string? WithheldBy, string Raw);

/// <summary>The published <c>conn-sidecar</c>, run on the worker host of a lab as an operator would.</summary>
public sealed class AgentProcess
{
    private static int _count;
    private readonly string _configurationFile;
    private readonly string _runtimeDirectory;
    private readonly string _binary;
    private readonly NetworkNamespace _stage;

    private AgentProcess(TestLab lab, NetworkNamespace host, ChildProcess process, string binary, string configuration, string runtimeDirectory)
    {
        _stage = host;
        _binary = binary;
        Process = process;
        _configurationFile = configuration;
        _runtimeDirectory = runtimeDirectory;
    }

    /// <summary>The running agent; its output is the agent's log.</summary>
    public ChildProcess Process { get; }

    /// <summary>Where it keeps its state.</summary>
    public required string StateDirectory { get; init; }

    /// <summary>Process id of the agent itself, also where another program has started it.</summary>
    /// <exception cref="InvalidOperationException">It does not run.</exception>
    public int Pid => FindPid(Process.Pid) ?? throw new InvalidOperationException($"the agent does not run:\n{Process.Output}");

    /// <summary>The published file: <c>SIDECAR_BINARY</c>, else <c>out/conn-sidecar</c> of this repository.</summary>
    /// <exception cref="FileNotFoundException">It was not built.</exception>
    public static string Binary { get; } = FindBinary();

    /// <summary>
    /// Copies it to where somebody else may run it, whose reach the source tree may be out of. A child that is started while
    /// this process has the copy open for writing would have it open too, and it could not be run: so another process makes it.
    /// </summary>
    public static Task CopyBinaryAsync(string path) => Command.RunAsync("cp", [Binary, path]);

    /// <summary>Waits until the agent answers on its control socket.</summary>
    /// <exception cref="TimeoutException">It does not, or it ended; the message has its output.</exception>
    public async Task WaitUntilReadyAsync()
    {
        var waited = Stopwatch.StartNew();
        while (!Directory.Exists(_runtimeDirectory) || Directory.GetFiles(_runtimeDirectory, "*.sock").Length == 0
            || (await RunAsync("status", "--json")).ExitCode != 0)
        {
            if (Process.HasExited || waited.Elapsed > Patience.For(TimeSpan.FromSeconds(30)))
            {
                throw new TimeoutException($"the agent does not answer (exit code {Process.ExitCode?.ToString() ?? "none, it runs"}):\n{Process.Output}");
            }

            await Task.Delay(50);
        }
    }

    /// <summary>Runs another command of the agent with the same configuration, on the same host.</summary>
    public Task<CommandResult> RunAsync(params IEnumerable<string> arguments) => RunUnderAsync([], arguments);

    /// <summary>The same, started by another program, such as one that takes rights away.</summary>
    public Task<CommandResult> RunUnderAsync(IEnumerable<string> starter, params IEnumerable<string> arguments) =>
        _stage.TryRunAsync([.. starter, _binary, .. arguments, "--config", _configurationFile]);

    /// <summary>What the running agent sees.</summary>
    public async Task<IReadOnlyList<AgentConnection>> StatusAsync()
    {
        using var json = JsonDocument.Parse(await RunCheckedAsync("status", "--json"));
        return [.. json.RootElement.GetProperty("connections").EnumerateArray().Select(c => new AgentConnection(
            c.GetProperty("local").GetString()!,
            c.GetProperty("peer").GetString()!,
            Number(c, "pid"),
            c.GetProperty("executable").GetString(),
            c.GetProperty("upstream").GetString(),
            c.GetProperty("idle_seconds").GetDouble(),
            c.GetProperty("verdict").GetString()!,
            c.GetProperty("why").GetString()!)
        {
            Session = c.TryGetProperty("session", out var s) && s.ValueKind == JsonValueKind.Object
                ? new AgentSession(s.GetProperty("state").GetString()!, Real(s, "query_seconds"), Real(s, "transaction_seconds"), s.GetProperty("backend_pid").GetInt32())
                : null,
        })];
    }

    /// <summary>Waits until it sees the connection of a back-end.</summary>
    public async Task<AgentConnection> WaitForSessionAsync(int backend)
    {
        var waited = Stopwatch.StartNew();
        while (true)
        {
            if ((await StatusAsync()).FirstOrDefault(c => c.Session?.BackendPid == backend) is { } found)
            {
                return found;
            }

            if (waited.Elapsed > Patience.For(TimeSpan.FromSeconds(15)))
            {
                throw new TimeoutException($"the agent does not see the session of back-end {backend}:\n{Process.Output}");
            }

            await Task.Delay(200);
        }
    }

    /// <summary>What the agent has recorded, oldest first.</summary>
    public async Task<IReadOnlyList<AgentIncident>> IncidentsAsync()
    {
        var output = await RunCheckedAsync("incidents", "--json");
        return [.. output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(ParseIncident).OrderBy(i => i.Time)];
    }

    /// <summary>Waits for an incident.</summary>
    /// <exception cref="TimeoutException">None such came; the message has those that did, and the agent's log.</exception>
    public async Task<AgentIncident> WaitForIncidentAsync(Func<AgentIncident, bool> wanted, TimeSpan timeout)
    {
        var waited = Stopwatch.StartNew();
        while (true)
        {
            var incidents = await IncidentsAsync();
            if (incidents.FirstOrDefault(wanted) is { } found)
            {
                return found;
            }

            if (waited.Elapsed > Patience.For(timeout))
            {
                throw new TimeoutException(
                    $"no such incident within {timeout.TotalSeconds} s, but:\n{string.Join('\n', incidents.Select(i => i.Raw))}\nlog:\n{Process.Output}");
            }

            await Task.Delay(200);
        }
    }

    /// <summary>Replays each incident in its state directory with the built program.</summary>
    /// <param name="isForeign">Incidents that no agent has recorded, by id.</param>
    /// <returns>Those that would be decided otherwise or cannot be replayed, with what the program says of them.</returns>
    public async Task<IReadOnlyList<string>> ReplayAsync(Func<string, bool> isForeign)
    {
        if (!File.Exists(Path.Combine(StateDirectory, "incidents.jsonl")))
        {
            return [];
        }

        // Tests put errors into the agent's own configuration.
        var configuration = Path.Combine(Path.GetDirectoryName(_configurationFile)!, "replay.conf");
        await File.WriteAllTextAsync(configuration, $"[agent]\nstate-directory = {StateDirectory}\n");
        var result = await Command.TryRunAsync(Binary, ["replay", "--all", "--config", configuration]);
        var lines = result.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        List<string> wrong = [.. lines.Where(line => !line.Contains("  same decision: ", StringComparison.Ordinal) && !line.EndsWith(" is no longer kept", StringComparison.Ordinal) && !isForeign(line.Split(' ')[0]))];
        if (wrong.Count == 0 && (result.ExitCode != 0 || result.Error.Contains("not permitted", StringComparison.Ordinal)))
        {
            wrong.Add($"replay ended with {result.ExitCode}: {result.Error}");
        }

        return wrong;
    }

    /// <summary>The metrics page of the agent.</summary>
    public Task<string> MetricsAsync() => GetAsync("/metrics");

    /// <summary>The body that its endpoint answers with, whatever the status.</summary>
    public async Task<string> GetAsync(string path)
    {
        using var client = _stage.HttpClient();
        using var response = await client.GetAsync(new Uri($"http://127.0.0.1:{Port}{path}"));
        return await response.Content.ReadAsStringAsync();
    }

    /// <summary>Port of its endpoint, on the loopback address of the worker host.</summary>
    public const int Port = 10042;

    internal static AgentProcess Start(TestLab lab, AgentOptions options)
    {
        var name = $"agent-{Interlocked.Increment(ref _count)}";
        var directory = Path.Combine(lab.Directory, name);
        var state = options.StateDirectory ?? Path.Combine(directory, "state");
        var run = Path.Combine(directory, "run");
        foreach (var path in new[] { directory, state, run }.Where(p => p != options.StateDirectory))
        {
            Directory.CreateDirectory(path);
            if (options.User is not null)
            {
                Command.RunAsync("chown", [$"{options.User}:", path]).GetAwaiter().GetResult();
            }
        }

        var program = Binary;
        if (options.User is not null)
        {
            program = Path.Combine(directory, "conn-sidecar");
            CopyBinaryAsync(program).GetAwaiter().GetResult();
        }

        var configuration = Path.Combine(directory, "conn-sidecar.conf");
        File.WriteAllText(configuration, options.Configuration?.Replace("{run}", run, StringComparison.Ordinal).Replace("{state}", state, StringComparison.Ordinal)
            ?? ConfigurationText(lab, options, state, run));
        var host = options.OnDatabaseHost ? lab.Network.Database : lab.Network.Worker;
        var process = ChildProcess.Start(new ChildOptions
        {
            Name = name,
            // As in the unit file.
            CommandLine = [.. options.User is null && options.WithoutCapabilities.Count == 0 ? ["nice", "-n", "-10"] : Array.Empty<string>(), .. options.Starter.Select(word => word.Replace("{state}", state, StringComparison.Ordinal)), program, "run", "--config", configuration],
            Namespace = host.Name,
            User = options.User,
            WithoutCapabilities = options.WithoutCapabilities,
            Directory = directory,
        });
        return new AgentProcess(lab, host, process, program, configuration, run) { StateDirectory = state };
    }

    private static string ConfigurationText(TestLab lab, AgentOptions options, string state, string run)
    {
        var lines = new List<string>
        {
            "[agent]",
            $"mode = {options.Mode}",
            $"listen = {options.Listen ?? $"127.0.0.1:{Port}"}",
            $"state-directory = {state}",
            $"runtime-directory = {run}",
            $"network-namespaces = {options.NetworkNamespaces}",
            "",
            "[upstream:orders-db]",
            $"endpoint = {lab.Database.EndPoint}",
            $"direction = {(options.OnDatabaseHost ? "inbound" : "outbound")}",
            "protocol = postgresql",
            $"idle-timeout = {options.IdleTimeout}",
            $"refreshed-by = {options.RefreshedBy}",
            $"keepalive = {(options.Keepalive ? "on" : "off")}",
            $"recycle = {(options.Recycle ? "on" : "off")}",
        };
        if (options.DeadAfter is { } deadAfter)
        {
            lines.Add($"dead-after = {deadAfter}");
        }

        if (options.Sessions)
        {
            lines.Add($"dsn-file = {WriteDsn(lab, state)}");
        }

        if (options.WorkersExecutable is not null)
        {
            lines.AddRange(
                ["", "[workers:web]", $"user = {WebApplication.User}", $"executable = {options.WorkersExecutable}", $"terminate = {(options.Terminate ? "on" : "off")}", "grace = 5s"]);
        }

        return string.Join('\n', [.. lines, .. options.FurtherLines]) + "\n";
    }

    /// <summary>The password in the agent's DSN; the lab's server trusts everybody, but nobody else shall ever see it.</summary>
    public const string Password = "sidecar-Geheim-4711";

    private static string WriteDsn(TestLab lab, string state)
    {
        var path = Path.Combine(Path.GetDirectoryName(state)!, "orders-db.dsn");
        File.WriteAllText(path, $"{lab.Database.Dsn("sidecar")} password={Password}\n");
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        return path;
    }

    private int? FindPid(int pid)
    {
        try
        {
            return File.ResolveLinkTarget($"/proc/{pid}/exe", returnFinalTarget: false)?.Name == Path.GetFileName(_binary) ? pid
                : File.ReadAllText($"/proc/{pid}/task/{pid}/children").Split(' ', StringSplitOptions.RemoveEmptyEntries)
                    .Select(child => FindPid(int.Parse(child, System.Globalization.CultureInfo.InvariantCulture))).FirstOrDefault(found => found is not null);
        }
        catch (IOException)
        {
            return null;
        }
    }

    private static AgentIncident ParseIncident(string line)
    {
        using var json = JsonDocument.Parse(line);
        var i = json.RootElement;
        return new AgentIncident(
            i.GetProperty("time").GetDateTimeOffset(),
            i.GetProperty("upstream").GetString()!,
            i.GetProperty("cause").GetString()!,
            i.GetProperty("remedy").GetString()!,
            i.GetProperty("outcome").GetString()!,
            Number(i, "pid"),
            i.GetProperty("withheld_by").GetString(),
            line);
    }

    private static int? Number(JsonElement element, string name) =>
        element.GetProperty(name) is { ValueKind: JsonValueKind.Number } number ? number.GetInt32() : null;

    private static double? Real(JsonElement element, string name) =>
        element.GetProperty(name) is { ValueKind: JsonValueKind.Number } number ? number.GetDouble() : null;

    private async Task<string> RunCheckedAsync(params IReadOnlyList<string> arguments)
    {
        var result = await RunAsync(arguments);
        return result.ExitCode == 0
            ? result.Output
            : throw new CommandFailedException($"conn-sidecar {string.Join(' ', arguments)} ended with {result.ExitCode}: {result.Error}");
    }

    private static string FindBinary()
    {
        var path = Environment.GetEnvironmentVariable("SIDECAR_BINARY") ?? Path.Combine(Repository.Root, "out", "conn-sidecar");
        return File.Exists(path) ? path : throw new FileNotFoundException($"{path} is missing: run make build");
    }
}
