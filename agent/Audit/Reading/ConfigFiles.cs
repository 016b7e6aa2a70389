using System.Text;

namespace Sidecar.Agent.Audit.Reading;

/// <summary>
/// The files that a program would read, with a bound on all of them together: includes may go round in circles or grow
/// without end, and a configuration is never as large as that.
/// </summary>
/// <param name="read">Content of a file, or null and why there is none.</param>
/// <param name="list">Names in a directory, sorted; null where there is none.</param>
internal sealed class ConfigFiles(ConfigFiles.Reader read, Func<string, IReadOnlyList<string>?> list)
{
    /// <summary>Reads a file.</summary>
    public delegate byte[]? Reader(string path, out string problem);

    /// <summary>Includes deeper than this are not followed.</summary>
    public const int MostDepth = 16;

    private const int MostFiles = 2000;
    private const int MostCharacters = 16 * 1024 * 1024;

    private readonly List<string> _readFiles = [];
    private long _characters;

    /// <summary>What was read, in order.</summary>
    public IReadOnlyList<string> Read => _readFiles;

    public List<Note> Notes { get; } = [];

    /// <summary>The lines of a file without their ends; null where it cannot be read, which is noted.</summary>
    /// <param name="path">Absolute path.</param>
    /// <param name="from">The line that asked for it; null: it was named by a command line.</param>
    /// <param name="optional">Nothing is noted where it is not there.</param>
    public string[]? Lines(string path, Place? from, bool optional = false)
    {
        var place = from ?? new Place(path, 0);
        if (_readFiles.Count >= MostFiles || _characters >= MostCharacters)
        {
            if (!Notes.Exists(note => note.Text.StartsWith("too much", StringComparison.Ordinal)))
            {
                Notes.Add(new Note(place, "too much to read; this and what follows is left out"));
            }

            return null;
        }

        if (read(path, out var problem) is not { } bytes)
        {
            if (!optional)
            {
                Notes.Add(new Note(place, from is null ? $"not read: {problem}" : $"includes {path}, not read: {problem}"));
            }

            return null;
        }

        var text = Encoding.UTF8.GetString(bytes);
        if (text.Contains('\0'))
        {
            Notes.Add(new Note(place, from is null ? "not read: it is no text" : $"includes {path}, not read: it is no text"));
            return null;
        }

        _readFiles.Add(path);
        _characters += text.Length + 100;
        return text.TrimStart('\uFEFF').Split('\n').Select(line => line.TrimEnd('\r')).ToArray();
    }

    /// <summary>The files that a pattern with <c>* ? [ ]</c> in any part of the path names, sorted; the path itself where it is no pattern.</summary>
    public IReadOnlyList<string> Expand(string pattern)
    {
        if (pattern.AsSpan().IndexOfAny("*?[") < 0)
        {
            return [pattern];
        }

        List<string> found = ["/"];
        foreach (var part in pattern.Split('/', StringSplitOptions.RemoveEmptyEntries))
        {
            found = part.AsSpan().IndexOfAny("*?[") < 0
                ? [.. found.Select(directory => Join(directory, part))]
                : [.. found.SelectMany(directory => (list(directory) ?? [])
                    .Where(name => (name[0] != '.' || part[0] == '.') && Matches(part, name))
                    .Select(name => Join(directory, name)))];
            if (found.Count > MostFiles)
            {
                found.RemoveRange(MostFiles, found.Count - MostFiles);
            }
        }

        return found;
    }

    /// <summary>The names in a directory, or null where there is none.</summary>
    public IReadOnlyList<string>? List(string directory) => list(directory);

    /// <summary>A path that may be relative, made absolute and without "." and "..".</summary>
    public static string Absolute(string directory, string path)
    {
        var parts = new List<string>();
        foreach (var part in (path.StartsWith('/') ? path : directory + "/" + path).Split('/', StringSplitOptions.RemoveEmptyEntries))
        {
            if (part == "..")
            {
                if (parts.Count > 0)
                {
                    parts.RemoveAt(parts.Count - 1);
                }
            }
            else if (part != ".")
            {
                parts.Add(part);
            }
        }

        return "/" + string.Join('/', parts);
    }

    public static string DirectoryOf(string path) => path.LastIndexOf('/') is > 0 and var slash ? path[..slash] : "/";

    private static string Join(string directory, string name) => directory == "/" ? "/" + name : directory + "/" + name;

    /// <summary>glob(7) for one part of a path, in time that grows with the product of both lengths and no faster.</summary>
    internal static bool Matches(string pattern, string name)
    {
        int p = 0, n = 0, star = -1, mark = 0;
        while (n < name.Length)
        {
            if (p < pattern.Length && pattern[p] == '*')
            {
                star = p++;
                mark = n;
            }
            else if (p < pattern.Length && MatchesOne(pattern, p, name[n], out var next))
            {
                p = next;
                n++;
            }
            else if (star >= 0)
            {
                p = star + 1;
                n = ++mark;
            }
            else
            {
                return false;
            }
        }

        while (p < pattern.Length && pattern[p] == '*')
        {
            p++;
        }

        return p == pattern.Length;
    }

    private static bool MatchesOne(string pattern, int at, char c, out int next)
    {
        next = at + 1;
        if (pattern[at] == '?')
        {
            return true;
        }

        var close = pattern[at] == '[' && at + 2 < pattern.Length ? pattern.IndexOf(']', at + 2) : -1;
        if (close < 0)
        {
            return pattern[at] == c;
        }

        next = close + 1;
        var set = pattern.AsSpan(at + 1, close - at - 1);
        var negated = set[0] is '!' or '^';
        if (negated)
        {
            set = set[1..];
        }

        var found = false;
        for (var i = 0; i < set.Length; i++)
        {
            if (i + 2 < set.Length && set[i + 1] == '-')
            {
                found |= c >= set[i] && c <= set[i + 2];
                i += 2;
            }
            else
            {
                found |= set[i] == c;
            }
        }

        return found != negated;
    }
}
