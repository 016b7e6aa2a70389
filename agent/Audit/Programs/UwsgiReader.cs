using Sidecar.Agent.Audit.Model;
using Sidecar.Agent.Audit.Reading;

namespace Sidecar.Agent.Audit.Programs;

/// <summary>
/// Reads uWSGI's options from INI files and the command line. Options may be repeated; the last one holds, lists excepted.
/// <c>ini =</c> includes a file, <c>%d</c> and its like are the file's own directory and name (uWSGI: "Configuration logic").
/// </summary>
internal sealed class UwsgiReader
{
    private const int DefaultBacklog = 100;
    private const int MostOptions = 20_000;

    private readonly ConfigFiles _files;
    private readonly List<Note> _notes = [];
    private readonly List<Directive> _options = [];

    private UwsgiReader(ConfigFiles files) => _files = files;

    /// <summary>What the configuration says; what cannot be read is among the notes.</summary>
    /// <param name="files">The files as uWSGI sees them.</param>
    /// <param name="paths">Configuration files, in order.</param>
    /// <param name="arguments">Its command line after the program's name; options with two dashes count, those with one as far as they are used often.</param>
    /// <param name="process">What the command line is called in places.</param>
    public static ProgramFacts Read(ConfigFiles files, IReadOnlyList<string> paths, IReadOnlyList<string>? arguments = null, string process = "command line")
    {
        var reader = new UwsgiReader(files);
        foreach (var path in paths)
        {
            reader.ReadFile(path, null, 0);
        }

        reader.ReadArguments(arguments ?? [], new Place(process, 0));
        var place = reader._options.Count > 0 ? reader._options[0].Place : new Place(paths.Count > 0 ? paths[0] : process, 0);
        return new ProgramFacts { Program = "uwsgi", Hops = reader.Interpret(place), Files = files.Read, Notes = [.. files.Notes, .. reader._notes] };
    }

    /// <summary>The configuration files that a command line names.</summary>
    public static IReadOnlyList<string> PathsOf(IReadOnlyList<string> arguments, string directory)
    {
        var found = new List<string>();
        for (var i = 0; i < arguments.Count; i++)
        {
            var word = arguments[i];
            if (word is "--ini" or "-i" or "--xml" or "-x" or "--yaml" or "-y" or "--json" or "-j" or "--config" or "--ini-paste")
            {
                if (i + 1 < arguments.Count)
                {
                    found.Add(ConfigFiles.Absolute(directory, arguments[++i]));
                }
            }
            else if (word.StartsWith("--ini=", StringComparison.Ordinal) || word.StartsWith("--xml=", StringComparison.Ordinal) || word.StartsWith("--yaml=", StringComparison.Ordinal))
            {
                found.Add(ConfigFiles.Absolute(directory, word[(word.IndexOf('=', StringComparison.Ordinal) + 1)..]));
            }
            else if (!word.StartsWith('-') && (i == 0 || !arguments[i - 1].StartsWith('-') || arguments[i - 1].Contains('='))
                && (word.EndsWith(".ini", StringComparison.Ordinal) || word.EndsWith(".xml", StringComparison.Ordinal) || word.EndsWith(".yaml", StringComparison.Ordinal) || word.EndsWith(".yml", StringComparison.Ordinal)))
            {
                found.Add(ConfigFiles.Absolute(directory, word));
            }
        }

        return found;
    }

    private void ReadFile(string path, Place? from, int depth)
    {
        if (depth > ConfigFiles.MostDepth)
        {
            _notes.Add(new Note(from!, "includes go too deep; not followed"));
            return;
        }

        // file:section
        var wanted = "uwsgi";
        if (path.LastIndexOf(':') is > 0 and var colon)
        {
            (path, wanted) = (path[..colon], path[(colon + 1)..]);
        }

        if (path.EndsWith(".xml", StringComparison.OrdinalIgnoreCase) || path.EndsWith(".yaml", StringComparison.OrdinalIgnoreCase)
            || path.EndsWith(".yml", StringComparison.OrdinalIgnoreCase) || path.EndsWith(".json", StringComparison.OrdinalIgnoreCase))
        {
            _notes.Add(new Note(from ?? new Place(path, 0), "XML, YAML and JSON are not read, only INI"));
            return;
        }

        if (_files.Lines(path, from) is not { } lines)
        {
            return;
        }

        var section = "";
        for (var i = 0; i < lines.Length; i++)
        {
            var line = lines[i].Trim();
            if (line.Length == 0 || line[0] is '#' or ';')
            {
                continue;
            }

            if (line[0] == '[')
            {
                section = line.TrimEnd(']')[1..];
                continue;
            }

            var equals = line.IndexOf('=', StringComparison.Ordinal);
            if (section != wanted)
            {
                continue;
            }

            var name = (equals < 0 ? line : line[..equals]).Trim();
            var value = equals < 0 ? "true" : line[(equals + 1)..].Trim();
            Add(name, Expand(value, path), new Place(path, i + 1), ConfigFiles.DirectoryOf(path), depth);
        }
    }

    private void ReadArguments(IReadOnlyList<string> arguments, Place place)
    {
        for (var i = 0; i < arguments.Count; i++)
        {
            var word = arguments[i];
            var name = word switch
            {
                "-s" => "socket",
                "-p" => "processes",
                "-t" => "harakiri",
                "-l" => "listen",
                _ when word.StartsWith("--", StringComparison.Ordinal) => word[2..],
                _ => null,
            };
            if (name is null)
            {
                continue;
            }

            var equals = name.IndexOf('=', StringComparison.Ordinal);
            var value = equals >= 0 ? name[(equals + 1)..] : i + 1 < arguments.Count && !arguments[i + 1].StartsWith('-') ? arguments[i + 1] : "true";
            name = equals >= 0 ? name[..equals] : name;
            if (name is not ("ini" or "xml" or "yaml"))
            {
                Add(name, value, place, "/", 0);
            }
        }
    }

    private void Add(string name, string value, Place place, string directory, int depth)
    {
        name = name.Replace('_', '-');
        if (name is "ini" or "include" or "inherit")
        {
            ReadFile(ConfigFiles.Absolute(directory, value), place, depth + 1);
        }
        else if (name is "xml" or "yaml" or "json" or "emperor" or "for" or "for-glob" or "if-env" or "if-exists" or "if-file" or "if-dir")
        {
            _notes.Add(new Note(place, name is "emperor" ? "an emperor: its vassals are read where they run" : $"{name}: not followed"));
        }
        else if (_options.Count < MostOptions)
        {
            _options.Add(new Directive(name, [value], place));
        }
    }

    /// <summary>%d directory, %p path, %s name of the file, %n name without its end, %% a percent sign.</summary>
    private static string Expand(string value, string path)
    {
        if (!value.Contains('%'))
        {
            return value;
        }

        var file = path[(path.LastIndexOf('/') + 1)..];
        var dot = file.LastIndexOf('.');
        return value
            .Replace("%d", ConfigFiles.DirectoryOf(path).TrimEnd('/') + "/", StringComparison.Ordinal)
            .Replace("%p", path, StringComparison.Ordinal)
            .Replace("%s", file, StringComparison.Ordinal)
            .Replace("%n", dot > 0 ? file[..dot] : file, StringComparison.Ordinal);
    }

    private List<Hop> Interpret(Place place)
    {
        if (_options.Count == 0)
        {
            return [];
        }

        Directive? Find(params ReadOnlySpan<string> names)
        {
            Directive? found = null;
            foreach (var option in _options)
            {
                found = names.Contains(option.Name) ? option : found;
            }

            return found;
        }

        var backlog = Find("listen", "listen-backlog");
        Listener? Listen(Directive option)
        {
            // "http = :8080", "http-socket = /run/x.sock", "https = :443,cert,key"
            var text = option.First.Split(',')[0];
            return Address.Parse(text.StartsWith('=') ? "" : text) is { } address
                ? new Listener(address, Words.Number(backlog?.First) ?? DefaultBacklog, backlog?.Place, "listen = {0}")
                : null;
        }

        List<Listener> Listens(params ReadOnlySpan<string> names)
        {
            var found = new List<Listener>();
            foreach (var option in _options)
            {
                if (names.Contains(option.Name) && Listen(option) is { } listener)
                {
                    found.Add(listener);
                }
            }

            return found;
        }

        var processes = Words.Number(Find("processes", "workers", "p")?.First) ?? 1;
        var threads = Words.Number(Find("threads")?.First) ?? 1;
        var async = Words.Number((Find("gevent") ?? Find("async") ?? Find("asyncio"))?.First);
        var inner = Listens("socket", "uwsgi-socket", "http-socket", "https-socket", "fastcgi-socket", "scgi-socket", "suwsgi-socket");
        var outer = Listens("http", "https", "http-to-https");
        var hops = new List<Hop>();
        if (outer.Count > 0)
        {
            // The HTTP router is a process of its own in front of the workers' socket.
            var between = Address.Unix($"@uwsgi{place}".Replace(':', '/').Replace(' ', '_'));
            inner.Add(new Listener(between, null, null, "listen = {0}"));
            hops.Add(new Hop
            {
                Program = "uwsgi",
                Name = "http router",
                Place = place,
                Listens = outer,
                Targets = [new Target(between, place)],
                Limits = [Time(Find("http-timeout"), "http-timeout", TimeSpan.FromSeconds(60), LimitKind.Wait, Ending.Close)],
            });
        }

        hops.Add(new Hop
        {
            Program = "uwsgi",
            Name = "workers",
            Place = place,
            Listens = inner,
            Limits = [Time(Find("harakiri"), "harakiri", null, LimitKind.Work, Ending.Close)],
            Slots = (int)Math.Min(int.MaxValue, (long)processes * (async is > 1 ? async.Value : Math.Max(1, threads))),
            IsWorker = true,
            AnswersItself = _ => false,
        });
        return hops;
    }

    private Limit Time(Directive? set, string setting, TimeSpan? standard, LimitKind kind, Ending ending)
    {
        var value = standard;
        var place = set?.Place;
        if (set is not null)
        {
            if (Words.Number(set.First) is { } seconds)
            {
                value = seconds == 0 ? null : TimeSpan.FromSeconds(seconds);
            }
            else
            {
                _notes.Add(new Note(set.Place, $"{setting}: a time that cannot be read; its default is taken"));
                place = null;
            }
        }

        return new Limit { Kind = kind, Setting = setting, Value = value, Place = place, Form = setting + " = {0}", Ending = ending };
    }
}
