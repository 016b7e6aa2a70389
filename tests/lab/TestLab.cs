namespace Sidecar.Lab;

/// <summary>
/// A worker host, a forgetful router and a database host with real servers on them. Several stand side by side, in one
/// process or in many; nothing of a lab stays behind when it is disposed of or its process ends.
/// </summary>
public sealed class TestLab : IAsyncDisposable
{
    private readonly LabSlot _slot;
    private readonly List<ChildProcess> _children = [];
    private readonly List<AgentProcess> _agents = [];
    private Database? _database;
    private WebApplication? _web;
    private int _disposed;

    private TestLab(LabSlot place, LabOptions options, LabNetwork network, Router router)
    {
        _slot = place;
        Options = options;
        Network = network;
        Router = router;
    }

    /// <summary>The number in the names of its namespaces (<c>sidecar-ID-worker</c>) and in its subnets.</summary>
    public string Id => _slot.Id;

    public LabOptions Options { get; }

    public LabNetwork Network { get; }

    public Router Router { get; }

    /// <summary>The database host's server.</summary>
    /// <exception cref="InvalidOperationException">The lab was built without servers.</exception>
    public Database Database => _database ?? throw new InvalidOperationException("this lab has no servers");

    /// <summary>The workers.</summary>
    /// <exception cref="InvalidOperationException">The lab was built without servers.</exception>
    public WebApplication Web => _web ?? throw new InvalidOperationException("this lab has no servers");

    /// <summary>Ids of incidents that a test has written by hand: there is nothing to replay in them.</summary>
    public ICollection<string> IncidentsByHand { get; } = new HashSet<string>(StringComparer.Ordinal);

    /// <summary>Everything the lab writes is below this directory.</summary>
    public string Directory => _slot.Directory;

    /// <summary>Builds a lab. All workers are up; they connect to the database with their first query.</summary>
    /// <exception cref="InvalidOperationException">Not root, or something of Debian's packages is missing.</exception>
    /// <exception cref="CommandFailedException">A step failed; nothing is left behind.</exception>
    public static async Task<TestLab> StartAsync(LabOptions? options = null)
    {
        RequirePrerequisites();
        options ??= new LabOptions();
        Database.Template.Acquire();
        LabSlot? place = null;
        try
        {
            place = LabCleanup.Keep(await Task.Run(LabSlot.TakeNumber));
            var network = await LabNetwork.CreateAsync(place, options.Container);
            var lab = new TestLab(place, options, network, await Router.ConfigureAsync(network.Router, options));
            if (options.Servers)
            {
                lab._database = await Database.StartAsync(lab.Network, options, lab.Directory, lab._children);
                lab._web = options.Workers == 0 ? null : await WebApplication.StartAsync(lab.Network, options, lab._database, lab.Directory, lab._children);
            }

            return lab;
        }
        catch
        {
            await Task.Run(() => Remove(place));
            throw;
        }
    }

    /// <summary>Removes what labs of dead processes left behind; returns their ids.</summary>
    public static IReadOnlyList<string> Reap()
    {
        RequirePrerequisites();
        return LabSlot.Reap();
    }

    /// <summary>Starts the published agent on the worker host and waits until it has taken its first scan.</summary>
    public async Task<AgentProcess> StartAgentAsync(AgentOptions? options = null)
    {
        var agent = await LaunchAgentAsync(options ?? new AgentOptions());
        await agent.WaitUntilReadyAsync();
        return agent;
    }

    /// <summary>Starts the agent without waiting for anything, for configurations that it refuses.</summary>
    public async Task<AgentProcess> LaunchAgentAsync(AgentOptions options)
    {
        var agent = await Task.Run(() => AgentProcess.Start(this, options));
        _children.Add(agent.Process);
        _agents.Add(agent);
        return agent;
    }

    /// <summary>Starts a further program beside the workers, as their user, from the lab's own directory of programs.</summary>
    /// <param name="script">File name of the Python script.</param>
    /// <param name="arguments">What it is started with.</param>
    public ChildProcess StartScript(string script, params IEnumerable<string> arguments) => StartScriptWith("/usr/bin/python3", script, arguments);

    /// <inheritdoc cref="StartScript"/>
    /// <param name="interpreter">Path of the Python that runs it.</param>
    public ChildProcess StartScriptWith(string interpreter, string script, params IEnumerable<string> arguments) =>
        StartProgram(script, Network.Application, WebApplication.User, interpreter, ["-u", CopyOf(script), .. arguments]);

    /// <summary>Starts a server of the lab's on the database host.</summary>
    public ChildProcess StartServer(string script, params IEnumerable<string> arguments) =>
        StartProgram(script, Network.Database, user: null, "/usr/bin/python3", ["-u", CopyOf(script), .. arguments]);

    /// <summary>A copy of Python for this lab alone: a group of workers that is known by its executable counts those of the whole host.</summary>
    /// <returns>Its path.</returns>
    public string CopyPython()
    {
        var copy = Path.Combine(Directory, "python3");
        File.Copy("/usr/bin/python3", copy, overwrite: true);
        return copy;
    }

    /// <summary>Starts a further program on a host of the lab.</summary>
    /// <param name="name">Name in messages.</param>
    /// <param name="host">Where.</param>
    /// <param name="user">User to run as; null: root.</param>
    /// <param name="program">Path of the program.</param>
    /// <param name="arguments">What it is started with.</param>
    public ChildProcess StartProgram(string name, NetworkNamespace host, string? user, string program, params IEnumerable<string> arguments)
    {
        var child = ChildProcess.Start(new ChildOptions
        {
            Name = name,
            CommandLine = [program, .. arguments],
            Namespace = host.Name,
            User = user,
            Directory = Directory,
        });
        _children.Add(child);
        return child;
    }

    private string CopyOf(string script)
    {
        var path = Path.Combine(Directory, script);
        File.Copy(Path.Combine(AppContext.BaseDirectory, "app", script), path, overwrite: true);
        return path;
    }

    /// <summary>The sockets between the application's namespace and the database, as the kernel has them now.</summary>
    public Task<IReadOnlyList<SocketState>> DatabaseSocketsAsync() => SocketState.ListAsync(Network.Application, Database.EndPoint);

    /// <summary>
    /// Ends everything that runs in the lab and removes it. A second call does nothing. Whatever a test was about, each incident that
    /// its agents have recorded is replayed before.
    /// </summary>
    /// <exception cref="InvalidOperationException">The core would decide one of them otherwise, or has not recorded why it did.</exception>
    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _disposed, 1) != 0)
        {
            return;
        }

        var different = new List<string>();
        try
        {
            foreach (var agent in _agents.DistinctBy(agent => agent.StateDirectory))
            {
                different.AddRange(await agent.ReplayAsync(IncidentsByHand.Contains));
            }
        }
        finally
        {
            await Task.Run(() =>
            {
                Remove(_slot);
                _children.ForEach(c => c.Dispose());
            });
        }

        if (different.Count > 0)
        {
            throw new InvalidOperationException($"not the same decision:\n{string.Join('\n', different)}");
        }
    }

    private static void Remove(LabSlot? place)
    {
        if (place is not null)
        {
            LabCleanup.Remove(place);
        }

        Database.Template.Release();
    }

    private static void RequirePrerequisites()
    {
        if (!Environment.IsPrivilegedProcess)
        {
            throw new InvalidOperationException("the lab needs root for its network namespaces: run it as root or with sudo");
        }

        string[] programs = ["/usr/sbin/ip:/usr/bin/ip:/sbin/ip", "/usr/sbin/nft", "/usr/sbin/conntrack", "/usr/bin/setpriv", "/usr/lib/postgresql/15/bin/postgres", WebApplication.Executable];
        var missing = programs.Where(p => !p.Split(':').Any(File.Exists)).Select(p => Path.GetFileName(p.Split(':')[0])).ToList();
        if (missing.Count > 0)
        {
            throw new InvalidOperationException($"the lab misses {string.Join(", ", missing)}: run scripts/prerequisites.sh lab");
        }
    }
}
