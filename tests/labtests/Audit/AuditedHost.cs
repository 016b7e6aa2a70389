using System.Text.Json;

namespace Sidecar.LabTests.Audit;

/// <summary>One finding of <c>audit --json</c>.</summary>
internal sealed record Found(string Id, string Severity, string File, int? Line, string What, string Consequence, IReadOnlyList<string> Changes);

/// <summary>A host of a lab on which servers from Debian's packages run, and <c>conn-sidecar audit</c> and <c>measure --http</c> are called.</summary>
internal sealed class AuditedHost : IAsyncDisposable
{
    /// <summary>A password that stands in the configurations, and must never be seen.</summary>
    public const string Password = "audit-Geheim-4711";

    private readonly TestLab _lab;
    private readonly string _configuration;

    private AuditedHost(TestLab lab)
    {
        _lab = lab;
        // Servers run as users of their own; what is below is theirs to write to.
        Directory.CreateDirectory(PathOf("run"));
        File.SetUnixFileMode(PathOf("run"), (UnixFileMode)0x1FF /* 0777 */);
        Directory.CreateDirectory(PathOf("sysctl.d"));
        WriteHosts("127.0.0.1 localhost");
        _configuration = Write("conn-sidecar.conf", $"[agent]\nnetwork-namespaces = own\nstate-directory = {PathOf("state")}\nruntime-directory = {PathOf("run")}\n");
    }

    public TestLab Lab => _lab;

    public static async Task<AuditedHost> StartAsync() => new(await TestLab.StartAsync(new LabOptions { Servers = false, Router = RouterBehaviour.Forward }));

    public string PathOf(string name) => Path.Combine(_lab.Directory, name);

    /// <summary>Writes a file, with <c>{dir}</c> for the lab's directory, and returns its path.</summary>
    public string Write(string name, string text)
    {
        File.WriteAllText(PathOf(name), text.Replace("{dir}", _lab.Directory, StringComparison.Ordinal));
        return PathOf(name);
    }

    /// <summary>The line of a file in which a text stands.</summary>
    public int LineOf(string name, string text) => Array.FindIndex(File.ReadAllLines(PathOf(name)), line => line.Contains(text, StringComparison.Ordinal)) + 1;

    /// <summary>Copies a program of the lab beside the configurations.</summary>
    public string Copy(string script)
    {
        File.Copy(Path.Combine(AppContext.BaseDirectory, "app", script), PathOf(script), overwrite: true);
        return PathOf(script);
    }

    /// <summary>The file that <c>/etc/hosts</c> is for the commands of this host.</summary>
    public void WriteHosts(string text) => Write("hosts", text + "\n");

    public ChildProcess Start(string name, string program, params IEnumerable<string> arguments) => _lab.StartProgram(name, _lab.Network.Worker, null, program, arguments);

    public Task ListensAsync(int port) => Wait.UntilAsync($"something listens on port {port}",
        async () => (await _lab.Network.Worker.TryRunAsync(["ss", "-ltnH", $"sport = :{port}"])).Output.Length > 0, Wait.Seconds(20));

    /// <summary>Runs a command of conn-sidecar here, with the hosts and the sysctl.d of the lab.</summary>
    public async Task<CommandResult> RunAsync(params IEnumerable<string> arguments)
    {
        var result = await _lab.Network.Worker.TryRunAsync(
        [
            "unshare", "--mount", "sh", "-c", "mount --bind \"$1\" /etc/hosts && mount --bind \"$2\" /etc/sysctl.d && shift 2 && exec \"$@\"", "sh",
            PathOf("hosts"), PathOf("sysctl.d"), AgentProcess.Binary, .. arguments,
        ]);
        (result.Output + result.Error).ShouldNotContain(Password);
        return result;
    }

    /// <summary>What <c>audit</c> finds; its exit code must fit.</summary>
    public async Task<IReadOnlyList<Found>> AuditAsync(params IEnumerable<string> arguments)
    {
        var result = await RunAsync(["audit", "--json", "--config", _configuration, .. arguments]);
        result.Error.ShouldBeEmpty();
        using var json = JsonDocument.Parse(result.Output);
        var findings = json.RootElement.GetProperty("findings").EnumerateArray().Select(finding => new Found(
            finding.GetProperty("id").GetString()!,
            finding.GetProperty("severity").GetString()!,
            finding.GetProperty("file").GetString()!,
            finding.GetProperty("line") is { ValueKind: JsonValueKind.Number } line ? line.GetInt32() : null,
            finding.GetProperty("what").GetString()!,
            finding.GetProperty("consequence").GetString()!,
            [.. finding.GetProperty("changes").EnumerateArray().Select(change => change.GetProperty("text").GetString()!)])).ToList();
        result.ExitCode.ShouldBe(findings.Count == 0 ? 0 : 1);
        return findings;
    }

    /// <summary>The same for people.</summary>
    public async Task<string> AuditTextAsync(params IEnumerable<string> arguments) => (await RunAsync(["audit", "--config", _configuration, .. arguments])).Output;

    /// <summary>What ended a slow response, and after how many seconds of silence.</summary>
    public async Task<(string EndedBy, double Silent, int? Status, string? Server)> MeasureAsync(string url, string max = "20s")
    {
        var result = await RunAsync("measure", "--http", url, "--max", max, "--json");
        result.ExitCode.ShouldBe(0, result.Error);
        using var json = JsonDocument.Parse(result.Output);
        var root = json.RootElement;
        return (root.GetProperty("ended_by").GetString()!, root.GetProperty("silent_seconds").GetDouble(),
            root.GetProperty("status") is { ValueKind: JsonValueKind.Number } status ? status.GetInt32() : null, root.GetProperty("server").GetString());
    }

    public ValueTask DisposeAsync() => _lab.DisposeAsync();
}
