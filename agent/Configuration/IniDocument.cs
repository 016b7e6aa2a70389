using System.Text;
using Sidecar.Probes.Values;

namespace Sidecar.Agent.Configuration;

/// <summary>One <c>key = value</c> line.</summary>
internal sealed record IniEntry(string Key, string Value, string File, int Line);

/// <summary>One section with its entries in the order of the file. Duplicate keys are reported and left out.</summary>
internal sealed record IniSection(string Name, string File, int Line, List<IniEntry> Entries);

/// <summary>
/// One INI file, read strictly. The framework's INI provider is not used: it knows no line numbers, lets a later
/// duplicate win silently, and folds the names of sections and keys into paths, so an error could not say where it is.
/// </summary>
internal sealed class IniDocument
{
    /// <summary>Larger files are refused: a configuration of this size is a mistake (a log, a dump), and memory is bounded.</summary>
    public const int MaxFileBytes = 1024 * 1024;

    /// <summary>Longer lines are refused.</summary>
    public const int MaxLineBytes = 4096;

    private static readonly UTF8Encoding StrictUtf8 = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    private IniDocument(List<IniSection> sections, List<ConfigurationError> errors)
    {
        Sections = sections;
        Errors = errors;
    }

    /// <summary>Sections in the order of the file; a name may occur twice (whether that is allowed the reader of the document decides).</summary>
    public IReadOnlyList<IniSection> Sections { get; }

    /// <summary>What was not INI, and duplicate keys.</summary>
    public IReadOnlyList<ConfigurationError> Errors { get; }

    /// <summary>Reads the bytes of a file; never throws on content, everything odd ends up in <see cref="Errors"/>.</summary>
    /// <param name="file">The name that errors give.</param>
    /// <param name="content">The whole file; UTF-8, with or without a byte order mark, lines ended by LF or CR LF.</param>
    public static IniDocument Parse(string file, ReadOnlySpan<byte> content)
    {
        var sections = new List<IniSection>();
        var errors = new List<ConfigurationError>();
        if (content.Length > MaxFileBytes)
        {
            errors.Add(new ConfigurationError(file, 1, null, null, $"expected at most {MaxFileBytes} bytes in a configuration file"));
            return new IniDocument(sections, errors);
        }

        if (content.StartsWith(Encoding.UTF8.Preamble))
        {
            content = content[Encoding.UTF8.Preamble.Length..];
        }

        var number = 0;
        while (!content.IsEmpty)
        {
            number++;
            var end = content.IndexOf((byte)'\n');
            var line = end < 0 ? content : content[..end];
            content = end < 0 ? [] : content[(end + 1)..];
            if (line.EndsWith("\r"u8))
            {
                line = line[..^1];
            }

            var current = sections.Count == 0 ? null : sections[^1];
            if (Decode(line, out var text) is { } complaint)
            {
                errors.Add(new ConfigurationError(file, number, current?.Name, null, complaint));
            }
            else
            {
                ReadLine(new Place(file, number), text.Trim(), current, sections, errors);
            }
        }

        return new IniDocument(sections, errors);
    }

    /// <summary>The line as text, or what is wrong with its bytes.</summary>
    private static string? Decode(ReadOnlySpan<byte> line, out string text)
    {
        text = "";
        if (line.Length > MaxLineBytes)
        {
            return $"expected at most {MaxLineBytes} bytes on a line, got {line.Length}";
        }

        try
        {
            text = StrictUtf8.GetString(line);
        }
        catch (DecoderFallbackException e)
        {
            return $"expected UTF-8 text, got an invalid byte at position {e.Index + 1} of the line";
        }

        foreach (var c in text)
        {
            if (char.IsControl(c) && c != '\t')
            {
                return c == '\0' ? "expected text, got a NUL byte" : $"expected text, got the control character \\x{(int)c:x2}";
            }
        }

        return null;
    }

    private static void ReadLine(Place place, string text, IniSection? current, List<IniSection> sections, List<ConfigurationError> errors)
    {
        if (text.Length == 0 || text[0] is '#' or ';')
        {
            return;
        }

        if (text[0] == '[')
        {
            var closed = text[^1] == ']';
            var name = closed ? text[1..^1].Trim() : text[1..].Trim();
            if (!closed)
            {
                errors.Add(new ConfigurationError(place.File, place.Line, null, null,
                    $"expected a section header such as [agent] alone on its line, got {Printable.Quote(text)}"));
            }

            // Opened all the same, so that the keys below are judged where they were meant to stand.
            sections.Add(new IniSection(name, place.File, place.Line, []));
            return;
        }

        var equals = text.IndexOf('=', StringComparison.Ordinal);
        if (equals <= 0)
        {
            errors.Add(new ConfigurationError(place.File, place.Line, current?.Name, null,
                $"expected \"key = value\", a [section] or a comment, got {Printable.Quote(text)}"));
            return;
        }

        var key = text[..equals].TrimEnd();
        if (current is null)
        {
            errors.Add(new ConfigurationError(place.File, place.Line, null, key, "expected a [section] header before the first key"));
            return;
        }

        var first = current.Entries.Find(e => string.Equals(e.Key, key, StringComparison.Ordinal));
        if (first is not null)
        {
            errors.Add(new ConfigurationError(place.File, place.Line, current.Name, key,
                $"expected each key once in a section, got it again (first at {first.File}:{first.Line})"));
            return;
        }

        current.Entries.Add(new IniEntry(key, text[(equals + 1)..].Trim(), place.File, place.Line));
    }

    private readonly record struct Place(string File, int Line);
}
