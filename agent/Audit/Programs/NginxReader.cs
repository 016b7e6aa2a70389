using System.Text;
using Sidecar.Agent.Audit.Model;
using Sidecar.Agent.Audit.Reading;

namespace Sidecar.Agent.Audit.Programs;

/// <summary>
/// Reads nginx.conf and what it includes: words end at blanks, <c>;</c>, <c>{</c> and <c>}</c>, quotes hold them together,
/// <c>#</c> starts a comment (nginx.org: "Configuration file's structure"). One hop for each location that hands requests on.
/// </summary>
internal sealed class NginxReader
{
    private const int DefaultBacklog = 511; // NGX_LISTEN_BACKLOG on Linux
    private const int MostDirectives = 50_000;
    private const int MostHops = 1000;

    /// <summary>Each directive that hands requests on, with its own names of the timeouts.</summary>
    private static readonly (string Pass, string Prefix)[] Passes =
        [("proxy_pass", "proxy"), ("uwsgi_pass", "uwsgi"), ("fastcgi_pass", "fastcgi"), ("scgi_pass", "scgi"), ("grpc_pass", "grpc")];

    private readonly ConfigFiles _files;
    private readonly string _prefix;
    private readonly List<Note> _notes = [];
    private readonly List<Hop> _hops = [];
    private int _directives;

    private NginxReader(ConfigFiles files, string prefix) => (_files, _prefix) = (files, prefix);

    /// <summary>What the configuration says; what cannot be read is among the notes.</summary>
    /// <param name="files">The files as nginx sees them.</param>
    /// <param name="path">Its main configuration.</param>
    public static ProgramFacts Read(ConfigFiles files, string path)
    {
        var reader = new NginxReader(files, ConfigFiles.DirectoryOf(path));
        var root = new Directive("main", [], new Place(path, 0));
        reader.ReadFile(path, null, root, 0);
        reader.Interpret(root);
        return new ProgramFacts { Program = "nginx", Hops = reader._hops, Files = files.Read, Notes = [.. files.Notes, .. reader._notes] };
    }

    private void ReadFile(string path, Place? from, Directive into, int depth)
    {
        if (depth > ConfigFiles.MostDepth)
        {
            _notes.Add(new Note(from!, "includes go too deep; not followed"));
            return;
        }

        if (_files.Lines(path, from) is not { } lines)
        {
            return;
        }

        var open = new Stack<Directive>();
        open.Push(into);
        var words = new List<string>();
        var word = new StringBuilder();
        var inWord = false;
        var inVariable = false;
        var start = 0;
        var quote = '\0';
        for (var number = 1; number <= lines.Length; number++)
        {
            var line = lines[number - 1];
            for (var i = 0; i <= line.Length; i++)
            {
                var c = i < line.Length ? line[i] : '\n';
                if (quote != '\0')
                {
                    if (c == '\\' && i + 1 < line.Length)
                    {
                        word.Append(line[++i]);
                    }
                    else if (c == quote)
                    {
                        quote = '\0';
                    }
                    else
                    {
                        word.Append(c);
                    }

                    continue;
                }

                if (c == '#' && !inWord)
                {
                    break;
                }

                // ${name} belongs to its word
                if (inWord && (inVariable ? c == '}' : c == '{' && word.Length > 0 && word[^1] == '$'))
                {
                    inVariable = !inVariable;
                    word.Append(c);
                    continue;
                }

                if (char.IsWhiteSpace(c) || c is ';' or '{' or '}')
                {
                    if (inWord)
                    {
                        if (words.Count == 0)
                        {
                            start = number;
                        }

                        words.Add(word.ToString());
                        word.Clear();
                        (inWord, inVariable) = (false, false);
                    }

                    if (c is ';' or '{' && words.Count > 0)
                    {
                        Add(open, words, new Place(path, start), c == '{', depth);
                        words.Clear();
                    }
                    else if (c == '}')
                    {
                        words.Clear();
                        if (open.Count > 1)
                        {
                            open.Pop();
                        }
                        else
                        {
                            _notes.Add(new Note(new Place(path, number), "a } that closes nothing"));
                        }
                    }
                }
                else if (c is '"' or '\'' && !inWord)
                {
                    quote = c;
                    inWord = true;
                }
                else if (c == '\\' && i + 1 < line.Length)
                {
                    word.Append(c).Append(line[++i]);
                    inWord = true;
                }
                else
                {
                    word.Append(c);
                    inWord = true;
                }
            }

            if (quote != '\0')
            {
                word.Append('\n');
            }
        }

        if (open.Count > 1 || quote != '\0' || words.Count > 0)
        {
            _notes.Add(new Note(new Place(path, lines.Length), "it ends within a block, a directive or quotes"));
        }
    }

    private void Add(Stack<Directive> open, List<string> words, Place place, bool isBlock, int depth)
    {
        if (++_directives > MostDirectives)
        {
            if (_directives == MostDirectives + 1)
            {
                _notes.Add(new Note(place, "too many directives; the rest is left out"));
            }

            if (isBlock)
            {
                open.Push(new Directive("", [], place));
            }

            return;
        }

        var directive = new Directive(words[0], words.GetRange(1, words.Count - 1), place) { IsBlock = isBlock };
        if (!isBlock && directive.Name == "include" && directive.Arguments.Count == 1)
        {
            var pattern = ConfigFiles.Absolute(_prefix, directive.First);
            foreach (var included in _files.Expand(pattern))
            {
                ReadFile(included, place, open.Peek(), depth + 1);
            }

            return;
        }

        open.Peek().Children.Add(directive);
        if (isBlock)
        {
            open.Push(directive);
        }
    }

    private void Interpret(Directive root)
    {
        foreach (var http in root.All("http"))
        {
            var upstreams = Upstreams(http);
            foreach (var server in http.All("server"))
            {
                var listens = server.All("listen").Select(Listen).OfType<Listener>().ToList();
                if (!server.All("listen").Any())
                {
                    listens.Add(new Listener(new Address("", 80, null), DefaultBacklog, null, "listen 80 backlog={0};"));
                }

                var name = server.Last("server_name") is { } named && named.First.Length > 0 && IsPlain(named.First) ? named.First : "";
                Locations(server, [root, http, server], name, listens, upstreams, 0);
            }
        }

        foreach (var stream in root.All("stream"))
        {
            var upstreams = Upstreams(stream);
            foreach (var server in stream.All("server").Where(server => server.Last("proxy_pass") is not null))
            {
                Directive[] scopes = [root, stream, server];
                _hops.Add(new Hop
                {
                    Program = "nginx",
                    Name = "stream",
                    Place = server.Place,
                    Listens = [.. server.All("listen").Select(Listen).OfType<Listener>()],
                    Targets = Targets(server.Last("proxy_pass")!, upstreams),
                    Limits = [Time(scopes, "proxy_timeout", TimeSpan.FromMinutes(10), Ending.Close)],
                });
            }
        }
    }

    private void Locations(Directive block, IReadOnlyList<Directive> scopes, string server, IReadOnlyList<Listener> listens, Dictionary<string, List<Target>> upstreams, int depth)
    {
        if (depth > 32 || _hops.Count >= MostHops)
        {
            return;
        }

        foreach (var child in block.Children.Where(child => child.IsBlock && child.Name is "location" or "if" or "limit_except"))
        {
            Locations(child, [.. scopes, child], server, listens, upstreams, depth + 1);
        }

        foreach (var (pass, prefix) in Passes)
        {
            if (block.Last(pass) is not { } handsOn)
            {
                continue;
            }

            var path = scopes.LastOrDefault(scope => scope.Name == "location")?.Arguments is { Count: > 0 } words && IsPlain(words[^1]) ? words[^1] : "";
            _hops.Add(new Hop
            {
                Program = "nginx",
                Name = $"{(server.Length > 0 ? $"server {server}, " : "")}{(path.Length > 0 ? $"location {path}" : block.Name)}",
                Place = block.Place,
                Listens = listens,
                Targets = Targets(handsOn, upstreams),
                Limits = [Time(scopes, prefix + "_read_timeout", TimeSpan.FromSeconds(60), Ending.GatewayTimeout)],
                KeepAlive = Time(scopes, "keepalive_timeout", TimeSpan.FromSeconds(75), Ending.Close),
                AnswersForOthers = true,
                AnswersItself = asked => AnswersItself(scopes[2], asked),
            });
        }
    }

    /// <summary>A path of a server that no location hands on: a constant answer or a file.</summary>
    private static bool AnswersItself(Directive server, string asked)
    {
        Directive? best = null;
        foreach (var location in server.All("location"))
        {
            var path = location.Arguments.Count > 0 ? location.Arguments[^1] : "";
            var exact = location.First == "=";
            if (exact && path == asked)
            {
                best = location;
                break;
            }

            if (!exact && location.First is not ("~" or "~*") && asked.StartsWith(path, StringComparison.Ordinal)
                && (best is null || path.Length > best.Arguments[^1].Length))
            {
                best = location;
            }
        }

        return best is not null && best.Children.Exists(child => child.Name is "return" or "stub_status" or "empty_gif")
            && !best.Children.Exists(child => child.Name.EndsWith("_pass", StringComparison.Ordinal));
    }

    private static Dictionary<string, List<Target>> Upstreams(Directive block)
    {
        var found = new Dictionary<string, List<Target>>(StringComparer.Ordinal);
        foreach (var upstream in block.All("upstream"))
        {
            found[upstream.First] = [.. upstream.All("server").Select(server => Address.Parse(server.First, 80) is { } address ? new Target(address, server.Place) : null).OfType<Target>()];
        }

        return found;
    }

    private List<Target> Targets(Directive pass, Dictionary<string, List<Target>> upstreams)
    {
        var text = pass.First;
        var scheme = text.IndexOf("://", StringComparison.Ordinal);
        var name = scheme < 0 ? text : text[(scheme + 3)..];
        var slash = name.IndexOf('/', StringComparison.Ordinal);
        if (!name.StartsWith("unix:", StringComparison.Ordinal) && upstreams.TryGetValue(slash < 0 ? name : name[..slash], out var servers))
        {
            return servers;
        }

        if (text.Contains('$'))
        {
            _notes.Add(new Note(pass.Place, $"{pass.Name} to a variable: where it leads is not known"));
            return [];
        }

        if (Address.Parse(text) is { } address)
        {
            return [new Target(address, pass.Place)];
        }

        _notes.Add(new Note(pass.Place, $"{pass.Name}: where it leads cannot be read"));
        return [];
    }

    private static Listener? Listen(Directive listen)
    {
        // "listen 8080", "listen 127.0.0.1" (port 80), "listen [::]:80 ssl backlog=1024"
        var address = listen.First.StartsWith("unix:", StringComparison.Ordinal) || Words.Number(listen.First) is not null ? Address.Parse(listen.First) : Address.Parse(listen.First, 80);
        if (address is null)
        {
            return null;
        }

        var backlog = listen.Arguments.Where(word => word.StartsWith("backlog=", StringComparison.Ordinal)).Select(word => Words.Number(word["backlog=".Length..])).LastOrDefault();
        return new Listener(address, backlog ?? DefaultBacklog, backlog is null ? null : listen.Place, "listen … backlog={0};", listen.Place);
    }

    /// <summary>A time that is inherited from block to block.</summary>
    private Limit Time(IReadOnlyList<Directive> scopes, string setting, TimeSpan standard, Ending ending)
    {
        var set = scopes.Reverse().Select(scope => scope.Last(setting)).FirstOrDefault(found => found is not null);
        var value = standard;
        var place = set?.Place;
        if (set is not null && !Words.TryTime(set.First, TimeSpan.FromSeconds(1), out value))
        {
            _notes.Add(new Note(set.Place, $"{setting}: a time that cannot be read; its default is taken"));
            (value, place) = (standard, null);
        }

        // What stands in the outermost location holds for those within it too; an "if" takes no timeout.
        var form = setting + " {0}s;";
        var block = scopes.FirstOrDefault(scope => scope.Name == "location") ?? scopes.Last(scope => scope.Name is "server");
        var isOwn = set is not null && scopes.SkipWhile(scope => scope != block).Any(scope => scope.Children.Contains(set));
        return new Limit { Kind = LimitKind.Wait, Setting = setting, Value = value, Place = place, Form = form, Ending = ending, Own = isOwn ? null : new OwnLine(block.Place, setting, form, IsOption: false) };
    }

    /// <summary>A word that may be shown: a name or a path, without anything that could be a credential.</summary>
    private static bool IsPlain(string text) => Shown.IsPlain(text);
}
