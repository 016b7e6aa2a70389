using Sidecar.Agent.Audit.Model;
using Sidecar.Agent.Audit.Reading;

namespace Sidecar.Agent.Audit.Programs;

/// <summary>
/// Reads HAProxy's configuration: sections that begin at known words, keywords below them, values that sections without
/// their own take from <c>defaults</c> (HAProxy's configuration manual, 2.1 to 4). A hop for each way from a frontend to a backend.
/// </summary>
internal sealed class HaproxyReader
{
    private const int DefaultMaxConnections = 2000;
    private const int MostSections = 5000;
    private const int MostHops = 1000;

    private static readonly HashSet<string> SectionWords = new(StringComparer.Ordinal)
    {
        "global", "defaults", "frontend", "backend", "listen", "userlist", "peers", "resolvers", "mailers", "program", "cache", "ring", "http-errors", "fcgi-app", "log-forward", "crt-store", "traces",
    };

    private readonly ConfigFiles _files;
    private readonly List<Note> _notes = [];
    private readonly List<Section> _sections = [];

    private HaproxyReader(ConfigFiles files) => _files = files;

    /// <summary>What the configuration says; what cannot be read is among the notes.</summary>
    /// <param name="files">The files as HAProxy sees them.</param>
    /// <param name="paths">What <c>-f</c> names, in order: files, and directories of <c>*.cfg</c>.</param>
    public static ProgramFacts Read(ConfigFiles files, IReadOnlyList<string> paths)
    {
        var reader = new HaproxyReader(files);
        foreach (var path in paths)
        {
            foreach (var file in files.List(path)?.Where(name => name.EndsWith(".cfg", StringComparison.Ordinal)).Select(name => ConfigFiles.Absolute(path, name)) ?? [path])
            {
                reader.ReadFile(file);
            }
        }

        var (hops, backends) = reader.Interpret();
        return new ProgramFacts { Program = "haproxy", Hops = hops, Backends = backends, Files = files.Read, Notes = [.. files.Notes, .. reader._notes] };
    }

    private void ReadFile(string path)
    {
        if (_files.Lines(path, null) is not { } lines)
        {
            return;
        }

        for (var i = 0; i < lines.Length; i++)
        {
            var words = Words.Split(lines[i]);
            if (words.Count == 0 || words[0].StartsWith('.'))
            {
                continue; // .if, .else: every branch is read
            }

            var place = new Place(path, i + 1);
            if (SectionWords.Contains(words[0]))
            {
                if (_sections.Count == MostSections)
                {
                    _notes.Add(new Note(place, "too many sections; the rest is left out"));
                    return;
                }

                var directive = new Directive(words[0], words.GetRange(1, words.Count - 1), place) { IsBlock = true };
                _sections.Add(new Section(directive, DefaultsFor(directive) is { Depth: < ConfigFiles.MostDepth } defaults ? defaults : null));
            }
            else if (_sections.Count > 0)
            {
                _sections[^1].Self.Children.Add(new Directive(words[0], words.GetRange(1, words.Count - 1), place));
            }
            else
            {
                _notes.Add(new Note(place, "a line before the first section"));
            }
        }
    }

    /// <summary><c>from NAME</c>, else the defaults section that comes last before it.</summary>
    private Section? DefaultsFor(Directive section)
    {
        if (section.Name is "global")
        {
            return null;
        }

        var from = section.Arguments.ToList().IndexOf("from");
        if (from >= 0 && from + 1 < section.Arguments.Count)
        {
            return _sections.FindLast(candidate => candidate.Self.Name == "defaults" && candidate.Self.First == section.Arguments[from + 1]);
        }

        return section.Name == "defaults" ? null : _sections.FindLast(candidate => candidate.Self.Name == "defaults");
    }

    private (List<Hop> Hops, List<HaproxyBackend> Backends) Interpret()
    {
        var globalMax = _sections.Where(section => section.Self.Name == "global").Select(section => section.Find("maxconn")).LastOrDefault(found => found is not null);
        var backends = new List<HaproxyBackend>();
        var byName = new Dictionary<string, (Section Section, HaproxyBackend Facts)>(StringComparer.Ordinal);
        foreach (var section in _sections.Where(section => section.Self.Name is "backend" or "listen"))
        {
            var facts = Backend(section);
            byName.TryAdd(section.Self.First, (section, facts));
            if (facts.Servers.Count > 0)
            {
                backends.Add(facts);
            }
        }

        var hops = new List<Hop>();
        foreach (var front in _sections.Where(section => section.Self.Name is "frontend" or "listen"))
        {
            if (front.Self.Name == "frontend")
            {
                backends.Add(Backend(front) with { ConnectTimeout = null, QueueTimeout = null }); // its servers stand elsewhere
            }

            var backlog = front.Find("backlog") ?? front.Find("maxconn") ?? globalMax;
            var listens = front.Self.All("bind").SelectMany(bind => Bind(bind, Words.Number(backlog?.First) ?? DefaultMaxConnections, front.Find("backlog")?.Place, front.Self.Place)).ToList();
            var names = front.Self.All("use_backend").Concat(front.Find("default_backend") is { } standard ? [standard] : []).Select(use => use.First).ToList();
            if (front.Self.Name == "listen" && byName.TryGetValue(front.Self.First, out var own) && own.Facts.Servers.Count > 0)
            {
                names.Insert(0, front.Self.First);
            }

            foreach (var name in names.Distinct(StringComparer.Ordinal).Take(MostHops - Math.Min(MostHops, hops.Count)))
            {
                if (byName.TryGetValue(name, out var backend))
                {
                    hops.Add(Way(front, backend.Section, backend.Facts, listens));
                }
                else
                {
                    _notes.Add(new Note(front.Self.Place, "a backend that is named by a variable or is not there; not followed"));
                }
            }
        }

        return (hops, backends);
    }

    private Hop Way(Section front, Section back, HaproxyBackend facts, List<Listener> listens)
    {
        // In HTTP mode the client's clock stands still while the server works.
        var ending = facts.IsHttp ? Ending.GatewayTimeout : Ending.Close;
        var server = Limit(back, "server", ending);
        var client = Limit(front, "client", ending);
        var wait = facts.IsHttp ? server
            : client.Value is { } time && (server.Value is not { } other || time < other) ? client with { Beside = server }
            : server with { Beside = client };
        var same = ReferenceEquals(front, back);
        return new Hop
        {
            Program = "haproxy",
            Name = same ? $"listen {Shown.Name(front.Self.First)}" : $"frontend {Shown.Name(front.Self.First)}, backend {Shown.Name(back.Self.First)}",
            Place = back.Self.Place,
            Listens = listens,
            Targets = [.. facts.Servers.Where(one => one.Address is not null).Select(one => new Target(one.Address!, one.Place))],
            Limits = [wait],
            AnswersForOthers = facts.IsHttp,
        };
    }

    private HaproxyBackend Backend(Section section)
    {
        string[] clocks = section.Self.Name switch
        {
            "frontend" => ["client"],
            "backend" => ["connect", "server"],
            _ => ["connect", "server", "client"],
        };
        return new HaproxyBackend
        {
            Name = Shown.Name(section.Self.First),
            Place = section.Self.Place,
            IsHttp = section.Find("mode")?.First == "http",
            Servers = Servers(section),
            AllBackups = HasOption(section, "allbackups"),
            NoAllBackups = section.Self.Children.FindLast(line => line.Is("no") && line.Arguments is ["option", "allbackups", ..])?.Place,
            HttpCheck = HttpCheck(section),
            ConnectTimeout = Time(section, "timeout", "connect"),
            QueueTimeout = Time(section, "timeout", "queue"),
            MissingTimeouts = [.. clocks.Select(which => Limit(section, which, Ending.Close)).Where(limit => limit.Value is null)],
        };
    }

    /// <summary>A timeout that HAProxy asks for; 0 is none.</summary>
    private Limit Limit(Section section, string which, Ending ending)
    {
        var set = Time(section, "timeout", which);
        var setting = "timeout " + which;
        var form = setting + " {0}s";
        return new Limit
        {
            Kind = LimitKind.Wait,
            Setting = setting,
            Value = set is { Value: var value } && value > TimeSpan.Zero ? value : null,
            Place = set?.Place,
            Form = form,
            Ending = ending,
            Own = set is { Place: var place } && section.Self.Children.Exists(line => line.Place == place) ? null : new OwnLine(section.Self.Place, setting, form, IsOption: false),
            IsAskedFor = true,
        };
    }

    private List<HaproxyServer> Servers(Section section)
    {
        var servers = new List<HaproxyServer>();
        var standards = new List<string>();
        foreach (var line in (section.Defaults?.Self.Children ?? []).Where(line => line.Is("default-server")).Concat(section.Self.Children))
        {
            if (line.Is("default-server"))
            {
                standards.AddRange(line.Arguments);
                continue;
            }

            if (!(line.Is("server") && line.Arguments.Count >= 2) && !(line.Is("server-template") && line.Arguments.Count >= 3))
            {
                continue;
            }

            var isTemplate = line.Is("server-template");
            List<string> words = [.. standards, .. line.Arguments.Skip(isTemplate ? 3 : 2)];
            string? After(string word) => words.LastIndexOf(word) is >= 0 and var at && at + 1 < words.Count ? words[at + 1] : null;
            var checks = Math.Max(words.LastIndexOf("check"), -1) > words.LastIndexOf("no-check");
            var address = Address.Parse(line.Arguments[isTemplate ? 2 : 1], 80);
            if (address is null)
            {
                _notes.Add(new Note(line.Place, "a server whose address cannot be read (a variable?)"));
            }

            servers.Add(new HaproxyServer
            {
                Name = Shown.Name(line.First),
                Place = line.Place,
                Keyword = isTemplate ? "server-template" : "server",
                Count = isTemplate ? Instances(line.Arguments[1]) : 1,
                Address = address,
                MaxConnections = Words.Number(After("maxconn")) is > 0 and var most ? most : null,
                IsBackup = words.Contains("backup", StringComparer.Ordinal),
                IsCheckedInPlace = checks && After("port") is null && After("addr") is null,
                CheckInterval = Words.TryTime(After("inter") ?? "", TimeSpan.FromMilliseconds(1), out var every) && every > TimeSpan.Zero ? every : TimeSpan.FromSeconds(2),
            });
        }

        return servers;
    }

    /// <summary><c>server-template NAME 5</c> or <c>1-5</c>.</summary>
    private static int Instances(string range)
    {
        var dash = range.IndexOf('-', StringComparison.Ordinal);
        var first = dash < 0 ? 1 : Words.Number(range[..dash]) ?? 1;
        return Words.Number(range[(dash + 1)..]) is { } last && last >= first ? (int)Math.Min(MostSections, (long)last - first + 1) : 1;
    }

    private static (string Path, Place Place)? HttpCheck(Section section)
    {
        if (section.Lines("option").LastOrDefault(line => line.First == "httpchk") is not { } check || !HasOption(section, "httpchk"))
        {
            return null;
        }

        // option httpchk [METHOD] URI [VERSION]; http-check send … uri URI
        var path = check.Arguments.FirstOrDefault(word => word.StartsWith('/')) ?? "/";
        foreach (var send in section.Lines("http-check").Where(line => line.First == "send"))
        {
            var at = send.Arguments.ToList().IndexOf("uri");
            path = at >= 0 && at + 1 < send.Arguments.Count ? send.Arguments[at + 1] : path;
        }

        var query = path.AsSpan().IndexOfAny('?', '#');
        return (query < 0 ? path : path[..query], check.Place);
    }

    private static bool HasOption(Section section, string option)
    {
        // the section's own word, yes or no, goes before that of its defaults
        foreach (var scope in new[] { section.Self, section.Defaults?.Self })
        {
            var last = scope?.Children.FindLast(line => (line.Is("option") && line.First == option) || (line.Is("no") && line.Arguments.Count >= 2 && line.Arguments[0] == "option" && line.Arguments[1] == option));
            if (last is not null)
            {
                return last.Is("option");
            }
        }

        return false;
    }

    private (TimeSpan Value, Place Place)? Time(Section section, string keyword, string which)
    {
        // "clitimeout", "srvtimeout" and "contimeout" are long gone.
        if (section.Lines(keyword).LastOrDefault(line => line.First == which) is not { Arguments.Count: >= 2 } line)
        {
            return null;
        }

        if (Words.TryTime(line.Arguments[1], TimeSpan.FromMilliseconds(1), out var value))
        {
            return (value, line.Place);
        }

        var note = new Note(line.Place, $"{keyword} {which}: a time that cannot be read");
        if (!_notes.Contains(note))
        {
            _notes.Add(note);
        }

        return null;
    }

    private static IEnumerable<Listener> Bind(Directive bind, int standard, Place? standardPlace, Place section)
    {
        var words = bind.Arguments.ToList();
        var at = words.IndexOf("backlog");
        var own = at >= 0 && at + 1 < words.Count ? Words.Number(words[at + 1]) : null;
        foreach (var one in bind.First.Split(','))
        {
            if (Address.Parse(one) is { } address)
            {
                yield return new Listener(address, own ?? standard, own is null ? standardPlace : bind.Place, own is null ? "backlog {0}" : "bind … backlog {0}", section);
            }
        }
    }

    /// <summary>A section and the defaults that it takes values from.</summary>
    private sealed class Section(Directive self, Section? defaults)
    {
        public Directive Self => self;

        public Section? Defaults => defaults;

        /// <summary>How many defaults stand behind it.</summary>
        public int Depth { get; } = defaults is null ? 0 : defaults.Depth + 1;

        /// <summary>The line in force, its own before that of the defaults.</summary>
        public Directive? Find(string name) => self.Last(name) ?? defaults?.Find(name);

        /// <summary>All lines of a name, those of the defaults first.</summary>
        public IEnumerable<Directive> Lines(string name) => (defaults?.Lines(name) ?? []).Concat(self.All(name));
    }
}
