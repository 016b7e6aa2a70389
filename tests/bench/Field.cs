using System.Globalization;
using Sidecar.Agent.Core.Tracking;
using Sidecar.Lab;
using Sidecar.Probes.SockDiag;

namespace Sidecar.Benchmarks;

/// <summary>
/// Many established connections between the hosts of a lab: the client ends in the worker's namespace, in as many
/// processes as their number needs, the server ends across the router. Gone with the lab.
/// </summary>
internal sealed class Field : IAsyncDisposable
{
    /// <summary>One process may hold 20,000 descriptors here; some are kept for other things.</summary>
    private const int PerProcess = 19_000;

    public const int WatchedPort = 5432;
    public const int OtherPort = 5433;

    private readonly TestLab _lab;
    private readonly List<ChildProcess> _children = [];
    private readonly Dictionary<ChildProcess, string> _serverOf = [];
    private readonly List<string> _directories = [];
    private int _servers;

    private Field(TestLab lab) => _lab = lab;

    public TestLab Lab => _lab;

    public Sidecar.Lab.NetworkNamespace Worker => _lab.Network.Worker;

    /// <summary>All servers, as an upstream's endpoint names them.</summary>
    public string ServerNetwork => string.Join('.', _lab.Network.DatabaseAddress4.ToString().Split('.')[..3]) + ".64/26";

    /// <summary>The kernel's filter for the watched ones, in hexadecimal.</summary>
    public string Filter => Convert.ToHexString(SocketFilter.Compile([.. ScanChild.Configuration(ServerNetwork, WatchedPort, _lab.Directory).Upstreams.SelectMany(section => new Upstream(section).Conditions)]));

    public static async Task<Field> CreateAsync(LabOptions? options = null) =>
        new(await TestLab.StartAsync((options ?? new LabOptions { Router = RouterBehaviour.Forward }) with { Servers = false }));

    /// <summary>Opens connections that the agent watches (or does not), each used once.</summary>
    public Task OpenAsync(int count, bool watched = true) => StartClientsAsync("hold", count, watched ? WatchedPort : OtherPort);

    /// <summary>Opens connections that the agent watches and goes on using them.</summary>
    /// <param name="count">Connections.</param>
    /// <param name="every">How often each is used, in whole seconds.</param>
    public Task UseAsync(int count, TimeSpan every) => StartClientsAsync("use", count, WatchedPort, every.TotalSeconds.ToString("0", CultureInfo.InvariantCulture));

    /// <summary>Starts a server with a process of clients for it.</summary>
    /// <param name="mode">hold, use, churn or ask.</param>
    /// <param name="count">Connections.</param>
    /// <param name="port">The server's port.</param>
    /// <param name="further">What the mode wants besides.</param>
    public async Task<ChildProcess> StartClientAsync(string mode, int count, int port, params IEnumerable<string> further)
    {
        var server = await StartServerAsync();
        var client = await StartAsync(_lab.Network.Worker, $"{count} clients", [mode, server, Text(port), Text(count), .. further]);
        _serverOf[client] = server;
        return client;
    }

    /// <summary>Starts processes with one connection each.</summary>
    public async Task<ChildProcess> StartProcessesAsync(int count)
    {
        var server = await StartServerAsync();
        return await StartAsync(_lab.Network.Worker, $"{count} processes", ["fork", Text(count), server, Text(WatchedPort)]);
    }

    /// <summary>Runs a shell command in the worker's namespace and returns how long it took.</summary>
    public async Task<TimeSpan> TimeAsync(string command)
    {
        var began = System.Diagnostics.Stopwatch.GetTimestamp();
        await _lab.Network.Worker.RunAsync(["sh", "-c", command]);
        return System.Diagnostics.Stopwatch.GetElapsedTime(began);
    }

    /// <summary>The router forgets the connections of these clients, and no others.</summary>
    public Task ForgetAsync(ChildProcess clients) => _lab.Network.Router.RunAsync(["conntrack", "-D", "-p", "tcp", "--orig-dst", _serverOf[clients]]);

    /// <summary>Removes a directory with the field.</summary>
    public void KeepUntilDisposed(string directory) => _directories.Add(directory);

    public async ValueTask DisposeAsync()
    {
        foreach (var child in _children)
        {
            child.Dispose();
        }

        await _lab.DisposeAsync();
        _directories.ForEach(directory => Directory.Delete(directory, recursive: true));
    }

    private async Task StartClientsAsync(string mode, int count, int port, params IEnumerable<string> further)
    {
        for (var left = count; left > 0; left -= PerProcess)
        {
            await StartClientAsync(mode, Math.Min(left, PerProcess), port, further);
        }
    }

    private async Task<string> StartServerAsync()
    {
        // Each server has an address of its own, so that its clients have all ports to themselves.
        var address = $"{string.Join('.', _lab.Network.DatabaseAddress4.ToString().Split('.')[..3])}.{67 + _servers++}";
        await _lab.Network.Database.IpAsync($"addr add {address}/26 dev to-router");
        await _lab.Network.Worker.SysctlAsync("net.ipv4.ip_local_port_range=2000 65000");
        await StartAsync(_lab.Network.Database, $"server {address}", ["serve", address, Text(WatchedPort), Text(OtherPort)]);
        return address;
    }

    private async Task<ChildProcess> StartAsync(Sidecar.Lab.NetworkNamespace host, string name, IEnumerable<string> arguments)
    {
        var child = ChildProcess.Start(new ChildOptions
        {
            Name = name,
            CommandLine = [await Programs.PathAsync("sockets"), .. arguments],
            Namespace = host.Name,
            Directory = _lab.Directory,
        });
        _children.Add(child);
        await child.WaitForLineAsync(line => string.Equals(line, "ready", StringComparison.Ordinal), TimeSpan.FromMinutes(2));
        return child;
    }

    private static string Text(int number) => number.ToString(CultureInfo.InvariantCulture);
}
