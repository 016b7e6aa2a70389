using System.Diagnostics.CodeAnalysis;
using System.Text;

namespace Sidecar.Agent.Configuration;

/// <summary>A command in a configuration file: words separated by blanks, quotation marks around a word that has blanks. No shell.</summary>
internal static class CommandLine
{
    /// <summary>Splits it; false where a quotation mark is not closed or the first word is no absolute path.</summary>
    public static bool TrySplit(string text, [NotNullWhen(true)] out IReadOnlyList<string>? words)
    {
        var found = new List<string>();
        var word = new StringBuilder();
        var isWord = false;
        var quote = '\0';
        words = null;
        foreach (var c in text)
        {
            if (quote != '\0')
            {
                if (c == quote)
                {
                    quote = '\0';
                }
                else
                {
                    word.Append(c);
                }
            }
            else if (c is '"' or '\'')
            {
                quote = c;
                isWord = true;
            }
            else if (!char.IsWhiteSpace(c))
            {
                word.Append(c);
                isWord = true;
            }
            else if (isWord)
            {
                found.Add(word.ToString());
                word.Clear();
                isWord = false;
            }
        }

        if (isWord)
        {
            found.Add(word.ToString());
        }

        if (quote != '\0' || found.Count == 0 || found[0] is not ['/', _, ..])
        {
            return false;
        }

        words = found;
        return true;
    }

    /// <summary>Written so that it is split into the same words again.</summary>
    public static string Join(IReadOnlyList<string> words) => string.Join(' ', words.Select(word =>
        word.Length > 0 && !word.Any(c => char.IsWhiteSpace(c) || c is '"' or '\'') ? word : word.Contains('"', StringComparison.Ordinal) ? Pieces(word) : $"\"{word}\""));

    /// <summary>With both kinds of quotation marks in it, a word is put together from pieces.</summary>
    private static string Pieces(string word) => string.Join("'\"'", word.Split('"').Select(piece => $"\"{piece}\""));
}
