using Sidecar.Agent.Audit.Model;
using Sidecar.Agent.Audit.Reading;

namespace Sidecar.Agent.Audit.Programs;

/// <summary>
/// Reads gunicorn's settings from its configuration file, which is a Python program, and from its command line, which goes
/// before it. Only assignments of plain numbers and texts at the start of a line are understood; others are named.
/// </summary>
internal sealed class GunicornReader
{
    /// <summary>The settings that are used, with their letters on the command line.</summary>
    private static readonly Dictionary<string, string> Settings = new(StringComparer.Ordinal)
    {
        ["bind"] = "-b",
        ["workers"] = "-w",
        ["threads"] = "",
        ["timeout"] = "-t",
        ["backlog"] = "",
        ["worker_class"] = "-k",
        ["keepalive"] = "",
        ["worker_connections"] = "",
    };

    private readonly List<Note> _notes = [];
    private readonly Dictionary<string, Directive> _set = new(StringComparer.Ordinal);

    /// <summary>What the configuration says; what cannot be read is among the notes.</summary>
    /// <param name="files">The files as gunicorn sees them.</param>
    /// <param name="path">Its configuration file, or null.</param>
    /// <param name="arguments">Its command line after the program's name.</param>
    /// <param name="process">What the command line is called in places.</param>
    public static ProgramFacts Read(ConfigFiles files, string? path, IReadOnlyList<string>? arguments = null, string process = "command line")
    {
        var reader = new GunicornReader();
        if (path is not null)
        {
            reader.ReadFile(files, path);
        }

        reader.ReadArguments(arguments ?? [], new Place(process, 0));
        return new ProgramFacts
        {
            Program = "gunicorn",
            Hops = [reader.Interpret(new Place(path ?? process, 0))],
            Files = files.Read,
            Notes = [.. files.Notes, .. reader._notes],
        };
    }

    /// <summary>The configuration file that a command line names, or null.</summary>
    public static string? PathOf(IReadOnlyList<string> arguments, string directory)
    {
        for (var i = 0; i < arguments.Count; i++)
        {
            var value = arguments[i] is "-c" or "--config" && i + 1 < arguments.Count ? arguments[i + 1]
                : arguments[i].StartsWith("--config=", StringComparison.Ordinal) ? arguments[i]["--config=".Length..] : null;
            if (value is not null)
            {
                return value.StartsWith("python:", StringComparison.Ordinal) ? null : ConfigFiles.Absolute(directory, value.StartsWith("file:", StringComparison.Ordinal) ? value[5..] : value);
            }
        }

        return null;
    }

    private void ReadFile(ConfigFiles files, string path)
    {
        var lines = files.Lines(path, null) ?? [];
        for (var i = 0; i < lines.Length; i++)
        {
            var line = lines[i];
            var equals = line.IndexOf('=', StringComparison.Ordinal);
            if (equals <= 0 || char.IsWhiteSpace(line[0]) || (equals + 1 < line.Length && line[equals + 1] == '='))
            {
                continue;
            }

            var name = line[..equals].Trim();
            if (!Settings.ContainsKey(name))
            {
                continue;
            }

            var place = new Place(path, i + 1);
            if (Literals(line[(equals + 1)..]) is { Count: > 0 } values)
            {
                _set[name] = new Directive(name, values, place);
            }
            else
            {
                _set.Remove(name);
                _notes.Add(new Note(place, $"{name}: an expression, not understood; its default is taken"));
            }
        }
    }

    private void ReadArguments(IReadOnlyList<string> arguments, Place place)
    {
        for (var i = 0; i < arguments.Count; i++)
        {
            var word = arguments[i];
            foreach (var (name, letter) in Settings)
            {
                var option = "--" + name.Replace('_', '-');
                var value = (word == option || (letter.Length > 0 && word == letter)) && i + 1 < arguments.Count ? arguments[i + 1]
                    : word.StartsWith(option + "=", StringComparison.Ordinal) ? word[(option.Length + 1)..]
                    : letter.Length > 0 && word.StartsWith(letter, StringComparison.Ordinal) && !word.StartsWith("--", StringComparison.Ordinal) && word.Length > 2 ? word[2..]
                    : null;
                if (value is not null)
                {
                    _set[name] = name == "bind" && _set.TryGetValue(name, out var before) && before.Place == place
                        ? new Directive(name, [.. before.Arguments, value], place)
                        : new Directive(name, [value], place);
                }
            }
        }
    }

    /// <summary>A number, a text, or a list of texts; null for any other expression.</summary>
    private static List<string>? Literals(string expression)
    {
        var values = new List<string>();
        var text = expression.AsSpan().Trim();
        var isList = !text.IsEmpty && text[0] is '[' or '(';
        if (isList)
        {
            text = text[1..];
        }

        while (true)
        {
            text = text.TrimStart();
            if (text.IsEmpty || text[0] == '#')
            {
                return isList ? null : values;
            }

            if (isList && text[0] is ']' or ')')
            {
                return IsRest(text[1..]) ? values : null;
            }

            if (text[0] is '"' or '\'')
            {
                var end = text[1..].IndexOf(text[0]);
                if (end < 0)
                {
                    return null;
                }

                values.Add(text.Slice(1, end).ToString());
                text = text[(end + 2)..];
            }
            else
            {
                var end = text.IndexOfAnyExceptInRange('0', '9');
                if (end == 0)
                {
                    return null;
                }

                values.Add((end < 0 ? text : text[..end]).ToString());
                text = end < 0 ? [] : text[end..];
            }

            if (!isList)
            {
                return IsRest(text) ? values : null;
            }

            text = text.TrimStart();
            if (!text.IsEmpty && text[0] == ',')
            {
                text = text[1..];
            }
        }
    }

    private static bool IsRest(ReadOnlySpan<char> text)
    {
        text = text.Trim();
        return text.IsEmpty || text[0] == '#';
    }

    private Hop Interpret(Place place)
    {
        int? Number(string name) => Words.Number(_set.GetValueOrDefault(name)?.First);
        var backlog = _set.GetValueOrDefault("backlog");
        var bind = _set.GetValueOrDefault("bind");
        var kind = _set.GetValueOrDefault("worker_class")?.First ?? "sync";
        var threads = Math.Max(1, Number("threads") ?? 1);

        // Only the sync worker's heart stops while it works; the others' goes on, and their requests have no limit.
        var isSync = kind is "sync" && threads == 1;
        var timeout = _set.GetValueOrDefault("timeout");
        var seconds = Words.Number(timeout?.First) ?? 30;
        var perProcess = kind switch
        {
            "gevent" or "eventlet" => Number("worker_connections") ?? 1000,
            "tornado" => 1000,
            _ => threads,
        };
        return new Hop
        {
            Program = "gunicorn",
            Name = "",
            Place = bind?.Place ?? place,
            Listens =
            [
                .. (bind?.Arguments ?? ["127.0.0.1:8000"]).SelectMany(text => text.Split(',')).Select(text => Address.Parse(text.Trim(), 8000)).OfType<Address>()
                    .Select(address => new Listener(address, Words.Number(backlog?.First) ?? 2048, backlog?.Place, "backlog = {0}")),
            ],
            Limits =
            [
                new Limit
                {
                    Kind = LimitKind.Work,
                    Setting = isSync ? "timeout" : "request timeout",
                    Value = isSync && seconds > 0 ? TimeSpan.FromSeconds(seconds) : null,
                    Place = isSync ? timeout?.Place : null,
                    Form = isSync ? "timeout = {0}" : "",
                    Ending = Ending.Close,
                },
            ],
            KeepAlive = isSync ? null : new Limit
            {
                Kind = LimitKind.Wait,
                Setting = "keepalive",
                Value = TimeSpan.FromSeconds(Number("keepalive") ?? 2),
                Place = _set.GetValueOrDefault("keepalive")?.Place,
                Form = "keepalive = {0}",
                Ending = Ending.Close,
            },
            Slots = (int)Math.Min(int.MaxValue, (long)(Number("workers") ?? 1) * perProcess),
            IsWorker = true,
            AnswersItself = _ => false,
        };
    }
}
