using Sidecar.Agent.Audit.Model;
using Sidecar.Agent.Audit.Programs;
using Sidecar.Agent.Audit.Reading;
using Sidecar.Probes.Files;
using Sidecar.Probes.Processes;

namespace Sidecar.Agent.Audit.Host;

/// <summary>A server that runs: its master, and how it was started.</summary>
/// <param name="Program">Name as in <see cref="ProgramFacts.Program"/>.</param>
/// <param name="Pid">Its master.</param>
/// <param name="Arguments">Command line after the program's name.</param>
/// <param name="Directory">Working directory.</param>
/// <param name="Namespace">Network namespace.</param>
/// <param name="IsTitle">The command line was overwritten with a title, so nothing is known of it.</param>
internal sealed record RunningProgram(string Program, int Pid, IReadOnlyList<string> Arguments, string Directory, ulong Namespace, bool IsTitle)
{
    /// <summary>All programs that are known, with the configuration that Debian gives them.</summary>
    public static readonly IReadOnlyList<(string Program, string Path)> Known =
    [
        ("haproxy", "/etc/haproxy/haproxy.cfg"),
        ("nginx", "/etc/nginx/nginx.conf"),
        ("apache", "/etc/apache2/apache2.conf"),
        ("squid", "/etc/squid/squid.conf"),
        ("uwsgi", "/etc/uwsgi/apps-enabled/*.ini"),
        ("gunicorn", "/etc/gunicorn.conf.py"),
    ];

    /// <summary>What the process is called in places.</summary>
    public string Place => $"pid {Pid} ({Program})";

    /// <summary>The masters of all known programs.</summary>
    /// <param name="reader">Processes.</param>
    /// <param name="isWanted">Whether a network namespace is looked at.</param>
    /// <param name="unseen">A word for each process whose program cannot be seen: the known program that its name says, or an empty one.</param>
    public static IReadOnlyList<RunningProgram> Find(ProcessReader reader, Func<ulong, bool> isWanted, out IReadOnlyList<string> unseen)
    {
        var names = new List<string>();
        unseen = names;
        var programs = new Dictionary<int, (string Program, ProcessStat Stat, IReadOnlyList<string> Arguments, bool IsTitle)>();
        foreach (var pid in reader.ReadPids())
        {
            if (!reader.TryReadStat(pid, out var stat) || stat is { IsKernelThread: true } or { State: 'Z' or 'X' })
            {
                continue;
            }

            if (reader.ReadExecutable(pid) is not { } executable)
            {
                if (reader.IsAlive(stat.Identity))
                {
                    names.Add(stat.Comm == "gunicorn" ? stat.Comm : Recognise(stat.Comm, [stat.Comm], out _, out _) ?? "");
                }
            }
            else if (reader.ReadArguments(pid) is { Count: > 0 } words && Recognise(executable, words, out var arguments, out var isTitle) is { } program)
            {
                programs[pid] = (program, stat, arguments, isTitle);
            }
        }

        var found = new List<RunningProgram>();
        foreach (var (pid, one) in programs)
        {
            var isChild = programs.TryGetValue(one.Stat.ParentPid, out var parent) && parent.Program == one.Program;
            var network = reader.ReadNetworkNamespace(pid);
            if (!isChild && isWanted(network))
            {
                found.Add(new RunningProgram(one.Program, pid, one.Arguments, reader.ReadWorkingDirectory(pid) ?? "/", network, one.IsTitle));
            }
        }

        return [.. found.OrderBy(one => one.Program, StringComparer.Ordinal).ThenBy(one => one.Pid)];
    }

    /// <summary>Which program a process is, by its executable and its command line; null for any other.</summary>
    internal static string? Recognise(string executable, IReadOnlyList<string> words, out IReadOnlyList<string> arguments, out bool isTitle)
    {
        arguments = [.. words.Skip(1)];
        isTitle = false;
        var name = executable[(executable.LastIndexOf('/') + 1)..];
        if (name.StartsWith("python", StringComparison.Ordinal))
        {
            if (words[0].StartsWith("gunicorn: ", StringComparison.Ordinal))
            {
                isTitle = true;
                arguments = [];
                return "gunicorn";
            }

            // python3 /usr/bin/gunicorn …, python3 -m gunicorn …
            for (var i = 1; i < Math.Min(words.Count, 5); i++)
            {
                if (words[i].EndsWith("/gunicorn", StringComparison.Ordinal) || words[i] is "gunicorn" or "gunicorn3")
                {
                    arguments = [.. words.Skip(i + 1)];
                    return "gunicorn";
                }
            }

            return null;
        }

        const string master = "nginx: master process ";
        switch (name)
        {
            case "nginx":
                if (words[0].StartsWith(master, StringComparison.Ordinal))
                {
                    arguments = [.. Words.Split(words[0][master.Length..]).Skip(1)];
                }

                return "nginx";
            case "apache2" or "httpd":
                return "apache";
            case "haproxy" or "squid":
                return name;
            case "uwsgi" or "uwsgi-core":
                isTitle = words is [not ['/', ..], ..] && !words[0].StartsWith("uwsgi", StringComparison.Ordinal);
                return "uwsgi";
            default:
                return null;
        }
    }

    /// <summary>Reads the configuration that it was started with, below its own root.</summary>
    public ProgramFacts Read(ProcessReader reader)
    {
        var files = FilesBelow(reader.RootDirectory(Pid));
        var facts = Program switch
        {
            "haproxy" => HaproxyReader.Read(files, HaproxyPaths()),
            "nginx" => NginxReader.Read(files, ConfigFiles.Absolute(Option("-p") ?? "/usr/share/nginx", Option("-c") ?? "/etc/nginx/nginx.conf")),
            "apache" => Apache(files),
            "squid" => SquidReader.Read(files, Path(Option("-f")) ?? "/etc/squid/squid.conf"),
            "uwsgi" => UwsgiReader.Read(files, UwsgiReader.PathsOf(Arguments, Directory), Arguments, Place),
            _ => GunicornReader.Read(files, GunicornReader.PathOf(Arguments, Directory) ?? (files.List(Directory)?.Contains("gunicorn.conf.py", StringComparer.Ordinal) == true ? ConfigFiles.Absolute(Directory, "gunicorn.conf.py") : null), Arguments, Place),
        };
        return facts with
        {
            Pid = Pid,
            Namespace = Namespace,
            Notes = IsTitle ? [.. facts.Notes, new Note(new Place(Place, 0), "it has overwritten its command line: which files it reads is not known")] : facts.Notes,
        };
    }

    /// <summary>Reads a configuration that is named, or the default one, without a process.</summary>
    public static ProgramFacts? Read(string program, IReadOnlyList<string> paths, ConfigFiles files) => program switch
    {
        "haproxy" => HaproxyReader.Read(files, paths),
        "nginx" => NginxReader.Read(files, paths[0]),
        "apache" => ApacheReader.Read(files, paths[0]),
        "squid" => SquidReader.Read(files, paths[0]),
        "uwsgi" => UwsgiReader.Read(files, paths),
        "gunicorn" => GunicornReader.Read(files, paths[0]),
        _ => null,
    };

    /// <summary>The files below a root, read only.</summary>
    public static ConfigFiles FilesBelow(string root)
    {
        var rooted = new RootedFiles(root);
        return new ConfigFiles(rooted.Read, rooted.List);
    }

    private ProgramFacts Apache(ConfigFiles files)
    {
        var root = Option("-d") ?? (files.List("/etc/apache2") is null && files.List("/etc/httpd") is not null ? "/etc/httpd" : "/etc/apache2");
        var path = Option("-f") is { } named ? ConfigFiles.Absolute(root, named) : root == "/etc/httpd" ? "/etc/httpd/conf/httpd.conf" : ConfigFiles.Absolute(root, "apache2.conf");
        return ApacheReader.Read(files, path, root, Options("-D"));
    }

    private List<string> HaproxyPaths()
    {
        var from = Option("-C") is { } other ? ConfigFiles.Absolute(Directory, other) : Directory;
        var paths = Options("-f").Select(path => ConfigFiles.Absolute(from, path)).ToList();
        var rest = Arguments.ToList().IndexOf("--");
        if (rest >= 0)
        {
            paths.AddRange(Arguments.Skip(rest + 1).Select(path => ConfigFiles.Absolute(from, path)));
        }

        return paths.Count > 0 ? paths : ["/etc/haproxy/haproxy.cfg"];
    }

    private string? Path(string? path) => path is null ? null : ConfigFiles.Absolute(Directory, path);

    private string? Option(string letter) => Options(letter).LastOrDefault();

    /// <summary><c>-f FILE</c> and <c>-fFILE</c>.</summary>
    private IEnumerable<string> Options(string letter)
    {
        for (var i = 0; i < Arguments.Count; i++)
        {
            if (Arguments[i] == letter && i + 1 < Arguments.Count)
            {
                yield return Arguments[++i];
            }
            else if (Arguments[i].StartsWith(letter, StringComparison.Ordinal) && Arguments[i].Length > letter.Length)
            {
                yield return Arguments[i][letter.Length..];
            }
        }
    }
}
