using Sidecar.Agent.Audit.Model;
using Sidecar.Agent.Audit.Reading;

namespace Sidecar.Agent.Audit.Programs;

/// <summary>What Apache's configuration says of the way of a request: virtual hosts, proxies, balancers and mod_wsgi's daemons.</summary>
internal sealed class ApacheReader
{
    private const int DefaultBacklog = 511;
    private const int MostHops = 1000;

    private readonly List<Note> _notes = [];
    private readonly List<Hop> _hops = [];

    private ApacheReader()
    {
    }

    /// <summary>What the configuration says; what cannot be read is among the notes.</summary>
    /// <param name="files">The files as Apache sees them.</param>
    /// <param name="path">Its main configuration.</param>
    /// <param name="serverRoot">ServerRoot until the configuration sets it; null: the directory of the main configuration.</param>
    /// <param name="defines">What <c>-D</c> defines.</param>
    public static ProgramFacts Read(ConfigFiles files, string path, string? serverRoot = null, IEnumerable<string>? defines = null)
    {
        var reader = new ApacheReader();
        reader.Interpret(ApacheFiles.Read(files, reader._notes, path, serverRoot, defines));
        return new ProgramFacts { Program = "apache", Hops = reader._hops, Files = files.Read, Notes = [.. files.Notes, .. reader._notes] };
    }

    private void Interpret(Directive root)
    {
        var backlog = root.Last("ListenBacklog");
        var listens = root.All("Listen").Select(listen => Address.Parse(listen.First)).OfType<Address>()
            .Select(address => new Listener(address, Words.Number(backlog?.First) ?? DefaultBacklog, backlog?.Place, "ListenBacklog {0}", root.Place)).ToList();
        var balancers = new Dictionary<string, List<Directive>>(StringComparer.OrdinalIgnoreCase);
        foreach (var scope in new[] { root }.Concat(root.All("VirtualHost")))
        {
            foreach (var proxy in scope.All("Proxy").Where(proxy => proxy.First.StartsWith("balancer://", StringComparison.OrdinalIgnoreCase)))
            {
                balancers[proxy.First.TrimEnd('/')] = [.. proxy.All("BalancerMember")];
            }
        }

        var processes = DaemonProcesses(root);
        Scope(root, root, listens, balancers, processes);
        foreach (var host in root.All("VirtualHost"))
        {
            var own = host.Arguments.Select(word => Address.Parse(word, 80)).OfType<Address>().Select(address => address.Port).ToHashSet();
            Scope(root, host, [.. listens.Where(listener => own.Count == 0 || own.Contains(listener.Address.Port))], balancers, processes);
        }
    }

    private void Scope(Directive root, Directive scope, IReadOnlyList<Listener> listens, Dictionary<string, List<Directive>> balancers, Dictionary<string, (Hop Hop, Limit? Socket)> processes)
    {
        var name = scope.Last("ServerName") is { } named && Shown.IsPlain(named.First) ? named.First : scope == root ? "" : "VirtualHost";
        var keepAlive = Time(root, scope, "KeepAliveTimeout", TimeSpan.FromSeconds(5), LimitKind.Wait, Ending.Close);
        foreach (var (pass, location) in Passes(scope, 0))
        {
            if (_hops.Count >= MostHops)
            {
                return;
            }

            var words = location is null ? pass.Arguments.Skip(1).ToList() : [.. pass.Arguments];
            if (words.Count == 0 || words[0] == "!")
            {
                continue;
            }

            var members = words[0].StartsWith("balancer://", StringComparison.OrdinalIgnoreCase)
                ? balancers.GetValueOrDefault(BalancerName(words[0])) ?? []
                : [new Directive("BalancerMember", words, pass.Place)];
            if (!members.Exists(member => Address.Parse(member.First) is not null))
            {
                _notes.Add(new Note(pass.Place, "where it leads cannot be read"));
            }

            // Each member of a balancer has a limit of its own.
            foreach (var member in members.Take(MostHops - _hops.Count))
            {
                var target = Address.Parse(member.First);
                _hops.Add(new Hop
                {
                    Program = "apache",
                    Name = Title(name, location ?? pass.First) + (members.Count > 1 && target is not null ? $" to {target}" : ""),
                    Place = member.Place,
                    Listens = listens,
                    Targets = target is null ? [] : [new Target(target, member.Place)],
                    Limits = [ProxyTime(root, scope, member, member.Place == pass.Place ? pass.Name : member.Name)],
                    KeepAlive = keepAlive,
                    AnswersForOthers = true,
                });
            }
        }

        foreach (var alias in Aliases(scope, 0).Take(MostHops - Math.Min(MostHops, _hops.Count)))
        {
            var group = Option(alias.Arguments, "process-group") ?? (scope.Last("WSGIProcessGroup") ?? Inner(scope, "WSGIProcessGroup", 0) ?? root.Last("WSGIProcessGroup"))?.First ?? "";
            var path = alias.Arguments.Count > 0 && alias.First.StartsWith('/') ? alias.First : "/";
            var timeout = Time(root, scope, "Timeout", TimeSpan.FromSeconds(60), LimitKind.Wait, Ending.GatewayTimeout);
            if (group.Length == 0 || !processes.TryGetValue(group, out var process))
            {
                if (group.Contains('%') || group.Length > 0)
                {
                    _notes.Add(new Note(alias.Place, "a process group that is not there, or is chosen for each request; not followed"));
                    continue;
                }

                // Embedded: Apache's own processes do the work, without a limit of their own.
                _hops.Add(new Hop
                {
                    Program = "mod_wsgi",
                    Name = Title(name, path) + ", embedded",
                    Place = alias.Place,
                    Listens = listens,
                    Slots = Words.Number((root.Last("MaxRequestWorkers") ?? root.Last("MaxClients"))?.First),
                    IsWorker = true,
                    AnswersItself = asked => !IsBelow(asked, path),
                });
                continue;
            }

            if (!_hops.Exists(hop => ReferenceEquals(hop, process.Hop)))
            {
                _hops.Add(process.Hop);
            }

            _hops.Add(new Hop
            {
                Program = "apache",
                Name = Title(name, path),
                Place = alias.Place,
                Listens = listens,
                Targets = [new Target(process.Hop.Listens[0].Address, alias.Place)],
                Limits = [process.Socket ?? timeout with { Own = new OwnLine(process.Hop.Place, "socket-timeout", "WSGIDaemonProcess … socket-timeout={0}", IsOption: true) }],
                KeepAlive = keepAlive,
                AnswersForOthers = true,
                AnswersItself = asked => !IsBelow(asked, path),
            });
        }
    }

    /// <summary>mod_wsgi's daemon processes by the name of their group.</summary>
    private Dictionary<string, (Hop Hop, Limit? Socket)> DaemonProcesses(Directive root)
    {
        var found = new Dictionary<string, (Hop, Limit?)>(StringComparer.Ordinal);
        foreach (var daemon in root.All("WSGIDaemonProcess").Concat(root.All("VirtualHost").SelectMany(host => host.All("WSGIDaemonProcess"))))
        {
            var words = daemon.Arguments;
            var threads = Words.Number(Option(words, "threads")) ?? 15;
            var socket = DaemonTime(daemon, "socket-timeout") is { } wait && wait > TimeSpan.Zero ? Limit("socket-timeout", LimitKind.Wait, wait, Ending.GatewayTimeout) : null;
            var request = DaemonTime(daemon, "request-timeout") is { } set && set > TimeSpan.Zero ? set : (TimeSpan?)null;
            var backlog = Words.Number(Option(words, "listen-backlog"));
            var hop = new Hop
            {
                Program = "mod_wsgi",
                Name = $"group {Shown.Name(daemon.First)}",
                Place = daemon.Place,
                Listens = [new Listener(Address.Unix($"@mod_wsgi/{(Shown.IsPlain(daemon.First) ? daemon.First : "")}"), backlog ?? 100, backlog is null ? null : daemon.Place, "WSGIDaemonProcess … listen-backlog={0}")],
                Limits = [Limit("request-timeout", LimitKind.Work, request, Ending.ServerError)],
                Slots = (int)Math.Min(int.MaxValue, (long)threads * (Words.Number(Option(words, "processes")) ?? 1)),
                IsWorker = true,
            };
            found.TryAdd(daemon.First, (hop, socket));
            continue;

            Limit Limit(string setting, LimitKind kind, TimeSpan? value, Ending ending) => new()
            {
                Kind = kind,
                Setting = setting,
                Value = value,
                Place = value is null ? null : daemon.Place,
                Form = $"WSGIDaemonProcess … {setting}={{0}}",
                Ending = ending,
                Own = value is null ? new OwnLine(daemon.Place, setting, $"WSGIDaemonProcess … {setting}={{0}}", IsOption: true) : null,
            };
        }

        return found;
    }

    private TimeSpan? DaemonTime(Directive daemon, string option)
    {
        if (Option(daemon.Arguments, option) is not { } text)
        {
            return null;
        }

        if (Words.TryTime(text, TimeSpan.FromSeconds(1), out var value))
        {
            return value;
        }

        _notes.Add(new Note(daemon.Place, $"{option}: a time that cannot be read"));
        return null;
    }

    /// <summary><c>timeout=</c> of a ProxyPass or a balancer's member, else ProxyTimeout, else Timeout.</summary>
    private Limit ProxyTime(Directive root, Directive scope, Directive member, string name)
    {
        var own = new OwnLine(member.Place, name + " timeout", name + " … timeout={0}", IsOption: true);
        if (Option(member.Arguments, "timeout") is { } text && Words.TryTime(text, TimeSpan.FromSeconds(1), out var time))
        {
            return new Limit { Kind = LimitKind.Wait, Setting = own.Setting, Value = time, Place = own.Place, Form = own.Form, Ending = Ending.BadGateway };
        }

        var setting = scope.Last("ProxyTimeout") is not null || root.Last("ProxyTimeout") is not null ? "ProxyTimeout" : "Timeout";
        return Time(root, scope, setting, TimeSpan.FromSeconds(60), LimitKind.Wait, Ending.BadGateway) with { Own = own };
    }

    private Limit Time(Directive root, Directive scope, string setting, TimeSpan standard, LimitKind kind, Ending ending)
    {
        var set = scope.Last(setting) ?? root.Last(setting);
        var value = standard;
        var place = set?.Place;
        if (set is not null && !Words.TryTime(set.First, TimeSpan.FromSeconds(1), out value))
        {
            _notes.Add(new Note(set.Place, $"{setting}: a time that cannot be read; its default is taken"));
            (value, place) = (standard, null);
        }

        return new Limit { Kind = kind, Setting = setting, Value = value, Place = place, Form = setting + " {0}", Ending = ending, Own = set is null ? new OwnLine(scope.Place, setting, setting + " {0}", IsOption: false) : null };
    }

    /// <summary>ProxyPass and ProxyPassMatch of a scope, those in Location sections with the section's path.</summary>
    private static IEnumerable<(Directive Pass, string? Location)> Passes(Directive scope, int depth)
    {
        foreach (var child in scope.Children)
        {
            if (child.Is("ProxyPass") || child.Is("ProxyPassMatch"))
            {
                yield return (child, scope.Is("Location") || scope.Is("LocationMatch") ? scope.First : null);
            }
            else if (child.IsBlock && depth < 8 && !child.Is("VirtualHost"))
            {
                foreach (var inner in Passes(child, depth + 1))
                {
                    yield return inner;
                }
            }
        }
    }

    private static IEnumerable<Directive> Aliases(Directive scope, int depth) =>
        scope.Children.SelectMany(child => child.Is("WSGIScriptAlias") || child.Is("WSGIScriptAliasMatch") ? [child]
            : child.IsBlock && depth < 8 && !child.Is("VirtualHost") ? Aliases(child, depth + 1) : []);

    private static Directive? Inner(Directive scope, string name, int depth) =>
        scope.Children.Where(child => child.IsBlock && !child.Is("VirtualHost")).Select(child => child.Last(name) ?? (depth < 8 ? Inner(child, name, depth + 1) : null)).FirstOrDefault(found => found is not null);

    private static string? Option(IReadOnlyList<string> words, string name) =>
        words.LastOrDefault(word => word.StartsWith(name + "=", StringComparison.OrdinalIgnoreCase))?[(name.Length + 1)..];

    private static string BalancerName(string url)
    {
        var slash = url.IndexOf('/', "balancer://".Length);
        return slash < 0 ? url : url[..slash];
    }

    private static bool IsBelow(string asked, string path) => asked.StartsWith(path, StringComparison.Ordinal);

    private static string Title(string server, string path) => $"{(server.Length > 0 ? $"{server}, " : "")}{Shown.Name(path)}";
}
