using System.Net;
using System.Net.NetworkInformation;
using Sidecar.Agent.Audit.Model;
using Sidecar.Agent.Audit.Reading;
using Sidecar.Probes;
using Sidecar.Probes.Namespaces;
using Sidecar.Probes.Processes;

namespace Sidecar.Agent.Audit.Host;

/// <summary>Gathers the facts about a stack: from files, processes, the kernel, servers and names. Reads only.</summary>
internal sealed class StackScan(AuditOptions options)
{
    private readonly ProcessReader _reader = new();
    private readonly List<Note> _notes = [];
    private readonly List<Note> _unread = [];
    private readonly List<NetworkNamespace> _networks = [];

    /// <summary>All that findings are drawn from.</summary>
    /// <param name="progress">Told what is being done.</param>
    /// <param name="cancellation">Ends the checking of names.</param>
    public AuditedStack Take(Action<string>? progress, CancellationToken cancellation)
    {
        try
        {
            return options.IsLive ? Live(progress, cancellation) : FromFiles(progress, cancellation);
        }
        finally
        {
            _networks.ForEach(network => network.Dispose());
        }
    }

    private AuditedStack FromFiles(Action<string>? progress, CancellationToken cancellation)
    {
        var root = options.Root ?? "/";
        var programs = new List<ProgramFacts>();
        foreach (var group in options.Files.GroupBy(file => file.Program, StringComparer.Ordinal))
        {
            // HAProxy and uWSGI read several files as one configuration; of the others each file is an instance.
            var paths = group.Select(file => ConfigFiles.Absolute(Environment.CurrentDirectory, file.Path)).ToList();
            foreach (var set in group.Key is "haproxy" ? [paths] : paths.ConvertAll(path => new List<string> { path }))
            {
                Add(programs, group.Key, set, root);
            }
        }

        var sysctls = new List<Sysctls>();
        if (options.Files.Count == 0)
        {
            Defaults(programs, root, _ => true);
            sysctls.Add(SysctlReader.Combine(0, null, SysctlReader.Files(RunningProgram.FilesBelow(root))));
        }

        if (options.Files.Count == 0 && programs.Count == 0 && sysctls.All(kernel => kernel.Values.Values.All(one => one.Value is null)))
        {
            _unread.Add(new Note(new Place(root, 0), "there is no configuration of a known program below it"));
        }

        return new AuditedStack
        {
            Programs = programs,
            Unread = _unread,
            Front = Front(),
            Sysctls = sysctls,
            Names = Names([], progress, cancellation),
            LongestRequest = options.LongestRequest,
            Notes = _notes,
        };
    }

    private AuditedStack Live(Action<string>? progress, CancellationToken cancellation)
    {
        progress?.Invoke("processes and their configurations");
        var own = _reader.ReadNetworkNamespace(Environment.ProcessId);
        bool IsWanted(ulong network) => options.AllNetworkNamespaces || network == own;
        var running = RunningProgram.Find(_reader, IsWanted, out var unseen);
        if (unseen.Count > 0)
        {
            _notes.Add(new Note(new Place("/proc", 0), $"{unseen.Count} of all processes cannot be looked at, and servers may be among them; as root it sees the most"));
        }

        // What does not run is no part of any way. Only where it cannot be told is the default configuration taken for it.
        var programs = running.Select(program => program.Read(_reader)).DistinctBy(Identity).ToList();
        Defaults(programs, "/", program => unseen.Contains(program, StringComparer.Ordinal) && !running.Any(one => one.Program == program));

        _networks.Add(NetworkNamespace.OpenOwn(own));
        foreach (var other in running.Where(program => program.Namespace != own && program.Namespace != 0).DistinctBy(program => program.Namespace))
        {
            try
            {
                _networks.Add(NetworkNamespace.Open(other.Namespace, _reader.NetworkNamespacePath(other.Pid)));
            }
            catch (KernelException e)
            {
                _notes.Add(new Note(new Place(other.Place, 0), $"its network namespace cannot be looked into: {e.Message}"));
            }
        }

        progress?.Invoke("kernel settings and listening sockets");
        var files = SysctlReader.Files(RunningProgram.FilesBelow("/"));
        var scan = new ListenerScan(_reader, options.IsWorker, running.Select(program => program.Pid).ToHashSet());
        IReadOnlyList<LiveListener> listeners = [];
        try
        {
            listeners = scan.Listeners(_networks);
        }
        catch (KernelException e)
        {
            _notes.Add(new Note(new Place("sock_diag", 0), $"listening sockets cannot be read: {e.Message}"));
        }

        var unreaped = scan.Unreaped(pid => IsWanted(_reader.ReadNetworkNamespace(pid)));
        progress?.Invoke("databases");
        var upstreams = options.ReadUpstreams();
        _notes.AddRange(upstreams.Notes);
        return new AuditedStack
        {
            Programs = programs,
            Front = Front(),
            Databases = upstreams.Databases,
            Sysctls = [.. _networks.Select(network => SysctlReader.Combine(network.Inode, network.Run(SysctlReader.InForce), network.IsOwn ? files : []))],
            Listeners = listeners,
            Unreaped = unreaped,
            Names = Names(options.Names, progress, cancellation),
            Upstreams = upstreams.Upstreams,
            LocalAddresses = LocalAddresses(),
            LongestRequest = options.LongestRequest,
            Notes = _notes,
        };
    }

    /// <summary>What Debian's default paths hold, for programs that do not run.</summary>
    private static void Defaults(List<ProgramFacts> programs, string root, Func<string, bool> isWanted)
    {
        foreach (var (program, pattern) in RunningProgram.Known)
        {
            foreach (var path in isWanted(program) ? RunningProgram.FilesBelow(root).Expand(pattern) : [])
            {
                if (RunningProgram.Read(program, [path], RunningProgram.FilesBelow(root)) is { Files.Count: > 0 } facts && facts.Files.Contains(path, StringComparer.Ordinal))
                {
                    programs.Add(facts);
                }
            }
        }
    }

    /// <summary>While a server is reloaded, two masters run for a while with one configuration.</summary>
    private static object Identity(ProgramFacts facts) => facts.Program is "uwsgi" or "gunicorn" || facts.Files.Count == 0 || facts.Pid is not { } pid
        ? facts
        : (facts.Program, facts.Namespace, File.ResolveLinkTarget($"/proc/{pid}/ns/mnt", returnFinalTarget: false)?.Name, string.Join('\n', facts.Files));

    private void Add(List<ProgramFacts> programs, string program, List<string> paths, string root)
    {
        if (RunningProgram.Read(program, paths, RunningProgram.FilesBelow(root)) is not { } facts)
        {
            _notes.Add(new Note(new Place(paths[0], 0), "a program that is not known"));
            return;
        }

        programs.Add(facts);

        // HAProxy also takes a directory, uWSGI a section: FILE:SECTION.
        foreach (var path in paths.Where(path => !facts.Files.Any(file => file == path || path.StartsWith(file + ":", StringComparison.Ordinal) || ConfigFiles.DirectoryOf(file) == path)))
        {
            _unread.Add(facts.Notes.FirstOrDefault(note => note.Place.File == path || path.StartsWith(note.Place.File + ":", StringComparison.Ordinal)) ?? new Note(new Place(path, 0), "not read: it holds no configuration"));
        }

        if (facts is { Hops.Count: 0, Backends.Count: 0, Files.Count: > 0 })
        {
            _notes.Add(new Note(new Place(paths[0], 0), $"nothing in it passes requests on or answers them: is it a configuration of {program}?"));
        }
    }

    private IReadOnlyList<Hop> Front()
    {
        if (options.BalancerTimeout is not { } timeout)
        {
            return [];
        }

        var place = new Place("--balancer-timeout", 0);
        return
        [
            new Hop
            {
                Program = "balancer",
                Name = options.BalancerName,
                Place = place,
                Limits = [new Limit { Kind = LimitKind.Wait, Setting = "idle timeout", Value = timeout, Place = place, Form = "idle timeout {0}s", Ending = Ending.Close, IsElsewhere = true }],
            },
        ];
    }

    private IReadOnlyList<CheckedName> Names(IReadOnlyList<NameToCheck> further, Action<string>? progress, CancellationToken cancellation)
    {
        var names = options.Balancers.Concat(further).DistinctBy(name => (name.Host, name.Port)).ToList();
        if (names.Count == 0)
        {
            return [];
        }

        var network = _networks.Count > 0 ? _networks[0] : NetworkNamespace.OpenOwn(_reader.ReadNetworkNamespace(Environment.ProcessId));
        if (_networks.Count == 0)
        {
            _networks.Add(network);
        }

        return NameCheck.RunAsync(network, names, address => progress?.Invoke($"connecting to {address}"), cancellation).GetAwaiter().GetResult();
    }

    private HashSet<IPAddress> LocalAddresses()
    {
        var found = new HashSet<IPAddress>();
        foreach (var network in _networks)
        {
            try
            {
                found.UnionWith(network.Run(() => NetworkInterface.GetAllNetworkInterfaces().SelectMany(one => one.GetIPProperties().UnicastAddresses).Select(one => one.Address).ToList()));
            }
            catch (Exception e) when (e is NetworkInformationException or KernelException)
            {
                _notes.Add(new Note(new Place(network.Name, 0), "its addresses cannot be read"));
            }
        }

        return found;
    }
}
