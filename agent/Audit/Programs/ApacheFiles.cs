using System.Text;
using Sidecar.Agent.Audit.Reading;

namespace Sidecar.Agent.Audit.Programs;

/// <summary>
/// Reads Apache's files into one tree: a directive a line, a backslash at the end continues it, <c>${NAME}</c> is what
/// <c>Define</c> and envvars say (httpd: "Configuration Files"). Sections for modules that are not loaded are left out.
/// </summary>
internal sealed class ApacheFiles
{
    private const int MostDirectives = 50_000;
    private const int MostVariable = 4096;

    private readonly ConfigFiles _files;
    private readonly List<Note> _notes;
    private readonly HashSet<string> _modules = new(StringComparer.OrdinalIgnoreCase);
    private readonly Dictionary<string, string> _variables = new(StringComparer.Ordinal);
    private string _serverRoot;
    private int _directives;

    private ApacheFiles(ConfigFiles files, List<Note> notes, string serverRoot) => (_files, _notes, _serverRoot) = (files, notes, serverRoot);

    /// <summary>All directives of the main configuration and of what it includes, below one root.</summary>
    /// <param name="files">The files as Apache sees them.</param>
    /// <param name="notes">Takes what cannot be read or followed.</param>
    /// <param name="path">The main configuration.</param>
    /// <param name="serverRoot">ServerRoot until the configuration sets it; null: the directory of the main configuration.</param>
    /// <param name="defines">What <c>-D</c> defines.</param>
    public static Directive Read(ConfigFiles files, List<Note> notes, string path, string? serverRoot, IEnumerable<string>? defines)
    {
        var directory = ConfigFiles.DirectoryOf(path);
        var reader = new ApacheFiles(files, notes, serverRoot ?? directory);
        foreach (var define in defines ?? [])
        {
            reader._variables[define] = "";
        }

        reader.ReadEnvironment(ConfigFiles.Absolute(directory, "envvars"));
        var root = new Directive("main", [], new Place(path, 0));
        reader.ReadFile(path, null, root, 0);
        return root;
    }

    /// <summary>Debian's envvars: <c>export NAME=value</c>.</summary>
    private void ReadEnvironment(string path)
    {
        foreach (var line in _files.Lines(path, null, optional: true) ?? [])
        {
            var text = line.TrimStart();
            var equals = text.IndexOf('=', StringComparison.Ordinal);
            if (text.StartsWith("export ", StringComparison.Ordinal) && equals > 7 && !text.Contains('`'))
            {
                _variables[text[7..equals].Trim()] = text[(equals + 1)..].Trim().Trim('"', '\'').Replace("$SUFFIX", "", StringComparison.Ordinal);
            }
        }
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

        var open = new Stack<(Directive Block, bool InForce)>();
        open.Push((into, true));
        for (var i = 0; i < lines.Length; i++)
        {
            var place = new Place(path, i + 1);
            var line = lines[i].TrimStart();
            if (line.Length == 0 || line[0] == '#')
            {
                continue;
            }

            if (line[^1] == '\\')
            {
                var whole = new StringBuilder();
                while (line.Length > 0 && line[^1] == '\\' && i + 1 < lines.Length)
                {
                    whole.Append(line, 0, line.Length - 1);
                    line = lines[++i];
                }

                line = whole.Append(line).ToString().TrimStart();
                if (line.Length == 0)
                {
                    continue;
                }
            }

            if (line.StartsWith("</", StringComparison.Ordinal))
            {
                if (open.Count > 1)
                {
                    open.Pop();
                }
                else
                {
                    _notes.Add(new Note(place, "an end that closes nothing"));
                }

                continue;
            }

            var isBlock = line[0] == '<';
            var words = Words.Split(isBlock ? line[1..].TrimEnd().TrimEnd('>') : line, comments: false).ConvertAll(Substitute);
            if (words.Count == 0)
            {
                continue;
            }

            if (++_directives > MostDirectives)
            {
                _notes.Add(new Note(place, "too many directives; the rest is left out"));
                return;
            }

            var directive = new Directive(words[0], words.GetRange(1, words.Count - 1), place) { IsBlock = isBlock };
            var (block, inForce) = open.Peek();
            if (isBlock)
            {
                if (Condition(directive) is { } holds)
                {
                    open.Push((block, inForce && holds)); // what it holds belongs to what is around it
                }
                else
                {
                    if (inForce)
                    {
                        block.Children.Add(directive);
                    }

                    open.Push((directive, inForce));
                }
            }
            else if (inForce)
            {
                Take(directive, block, depth);
            }
        }

        if (open.Count > 1)
        {
            _notes.Add(new Note(new Place(path, lines.Length), "it ends within a section"));
        }
    }

    private void Take(Directive directive, Directive block, int depth)
    {
        if (directive.Is("Include") || directive.Is("IncludeOptional"))
        {
            var pattern = ConfigFiles.Absolute(_serverRoot, directive.First);
            foreach (var found in _files.Expand(pattern))
            {
                foreach (var file in _files.List(found)?.Select(name => ConfigFiles.Absolute(found, name)) ?? [found])
                {
                    ReadFile(file, directive.Place, block, depth + 1);
                }
            }
        }
        else if (directive.Is("ServerRoot"))
        {
            _serverRoot = directive.First;
        }
        else if (directive.Is("LoadModule"))
        {
            _modules.Add(directive.First);
        }
        else if (directive.Is("Define"))
        {
            // Values of values grow without end; no real one is long.
            _variables[directive.First] = directive.Arguments is [_, { Length: <= MostVariable } value, ..] ? value : "";
        }
        else if (directive.Is("Use"))
        {
            _notes.Add(new Note(directive.Place, "a macro; not followed"));
        }
        else
        {
            block.Children.Add(directive);
        }
    }

    /// <summary>Whether a conditional section holds; null for any other section.</summary>
    private bool? Condition(Directive section)
    {
        var wanted = section.First;
        var negated = wanted.StartsWith('!');
        wanted = negated ? wanted[1..] : wanted;
        if (section.Is("IfModule"))
        {
            // mod_wsgi.c and wsgi_module are the same module
            var name = wanted.EndsWith(".c", StringComparison.Ordinal) ? wanted[..^2].Replace("mod_", "", StringComparison.Ordinal) + "_module" : wanted;
            return _modules.Contains(name) != negated;
        }

        if (section.Is("IfDefine"))
        {
            return _variables.ContainsKey(wanted) != negated;
        }

        return section.Is("IfVersion") || section.Is("IfFile") || section.Is("IfDirective") || section.Is("IfSection") ? true : null;
    }

    /// <summary>${NAME}, once: a value is not looked at again.</summary>
    private string Substitute(string word)
    {
        var at = word.IndexOf("${", StringComparison.Ordinal);
        if (at < 0)
        {
            return word;
        }

        var result = new StringBuilder();
        var from = 0;
        while (at >= 0)
        {
            var end = word.IndexOf('}', at);
            if (end < 0)
            {
                break;
            }

            result.Append(word, from, at - from);
            result.Append(_variables.TryGetValue(word[(at + 2)..end], out var value) ? value : word.AsSpan(at, end + 1 - at));
            from = end + 1;
            at = word.IndexOf("${", from, StringComparison.Ordinal);
        }

        return result.Append(word, from, word.Length - from).ToString();
    }
}
