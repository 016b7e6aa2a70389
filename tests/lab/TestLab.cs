namespace Sidecar.Lab;

/// <summary>
/// A worker host, a forgetful router and a database host with real servers on them. Several stand side by side, in one
/// process or in many; nothing of a lab stays behind when it is disposed of or its process ends.
/// </summary>
public sealed class TestLab : IAsyncDisposable
{
    private readonly LabSlot slot;
    private readonly List<ChildProcess> children = [];
    private Database? database;
    private WebApplication? web;
    private int disposed;

    private TestLab(LabSlot place, LabOptions options, LabNetwork network, Router router)
    {
        slot = place;
        Options = options;
        Network = network;
        Router = router;
    }

    /// <summary>The number in the names of its namespaces (<c>sidecar-ID-worker</c>) and in its subnets.</summary>
    public string Id => slot.Id;

    public LabOptions Options { get; }

    public LabNetwork Network { get; }

    public Router Router { get; }

    /// <summary>The database host's server.</summary>
    /// <exception cref="InvalidOperationException">The lab was built without servers.</exception>
    public Database Database => database ?? throw new InvalidOperationException("this lab has no servers");

    /// <summary>The workers.</summary>
    /// <exception cref="InvalidOperationException">The lab was built without servers.</exception>
    public WebApplication Web => web ?? throw new InvalidOperationException("this lab has no servers");

    /// <summary>Everything the lab writes is below this directory.</summary>
    public string Directory => slot.Directory;

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
                lab.database = await Database.StartAsync(lab.Network, options, lab.Directory, lab.children);
                lab.web = options.Workers == 0 ? null : await WebApplication.StartAsync(lab.Network, options, lab.database, lab.Directory, lab.children);
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

    /// <summary>Starts the published agent on the worker host and waits until it has taken its first look.</summary>
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
        children.Add(agent.Process);
        return agent;
    }

    /// <summary>Starts a further program beside the workers, as their user, from the lab's own directory of programs.</summary>
    /// <param name="script">File name of the Python script.</param>
    /// <param name="arguments">What it is started with.</param>
    public ChildProcess StartScript(string script, params IEnumerable<string> arguments)
    {
        var path = Path.Combine(Directory, script);
        File.Copy(Path.Combine(AppContext.BaseDirectory, "app", script), path, overwrite: true);
        return StartProgram(script, Network.Application, WebApplication.User, "/usr/bin/python3", ["-u", path, .. arguments]);
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
        children.Add(child);
        return child;
    }

    /// <summary>The sockets between the application's namespace and the database, as the kernel has them now.</summary>
    public Task<IReadOnlyList<SocketState>> DatabaseSocketsAsync() => SocketState.ListAsync(Network.Application, Database.EndPoint);

    /// <summary>Ends everything that runs in the lab and removes it. A second call does nothing.</summary>
    public ValueTask DisposeAsync() => Interlocked.Exchange(ref disposed, 1) != 0
        ? ValueTask.CompletedTask
        : new ValueTask(Task.Run(() =>
        {
            Remove(slot);
            children.ForEach(c => c.Dispose());
        }));

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
