using System.Globalization;
using System.Text;

namespace Sidecar.Probes.Values;

/// <summary>
/// Makes foreign text (process names, paths, configuration values) safe to show on a terminal or in a log: process
/// names and paths may hold any byte, so escape sequences could otherwise rewrite what an operator sees.
/// </summary>
public static class Printable
{
    /// <summary>
    /// Control and invisible formatting characters (C0, DEL, C1, line separators, bidirectional overrides, lone
    /// surrogates) written as <c>\xHH</c> or <c>\uHHHH</c>; everything else as it is.
    /// </summary>
    public static string Escape(string text)
    {
        var first = FirstUnsafe(text);
        if (first < 0)
        {
            return text;
        }

        var result = new StringBuilder(text, 0, first, text.Length + 16);
        for (var i = first; i < text.Length; i++)
        {
            if (char.IsHighSurrogate(text[i]) && i + 1 < text.Length && char.IsLowSurrogate(text[i + 1]) && !IsUnsafe(text, i))
            {
                result.Append(text[i]).Append(text[++i]);
            }
            else if (!IsUnsafe(text, i))
            {
                result.Append(text[i]);
            }
            else if (text[i] < 0x100)
            {
                result.Append(CultureInfo.InvariantCulture, $"\\x{(int)text[i]:x2}");
            }
            else
            {
                result.Append(CultureInfo.InvariantCulture, $"\\u{(int)text[i]:x4}");
            }
        }

        return result.ToString();
    }

    /// <summary>Like <see cref="Escape"/>, in quotes and at most about 80 characters: for values in error messages.</summary>
    public static string Quote(string text)
    {
        const int limit = 80;
        return text.Length <= limit ? $"\"{Escape(text)}\"" : $"\"{Escape(text[..limit])}…\" ({text.Length} characters)";
    }

    private static int FirstUnsafe(string text)
    {
        for (var i = 0; i < text.Length; i++)
        {
            if (IsUnsafe(text, i))
            {
                return i;
            }

            if (char.IsHighSurrogate(text[i]))
            {
                i++;
            }
        }

        return -1;
    }

    private static bool IsUnsafe(string text, int index) => CharUnicodeInfo.GetUnicodeCategory(text, index) switch
    {
        UnicodeCategory.Control or UnicodeCategory.Format or UnicodeCategory.LineSeparator
            or UnicodeCategory.ParagraphSeparator or UnicodeCategory.Surrogate => true,
        _ => false,
    };
}
