using System.Buffers;
using System.Globalization;
using System.Text;

namespace Sidecar.Agent.Audit.Reading;

/// <summary>Splitting lines into words, and reading the times and numbers in them, as the programs do.</summary>
internal static class Words
{
    private static readonly SearchValues<char> Digits = SearchValues.Create("0123456789.");

    /// <summary>A time beyond this is as good as none.</summary>
    private const double MostSeconds = 10 * 366 * 86400.0;

    /// <summary>
    /// Words of a line between blanks. Single and double quotes hold a word together, a backslash takes the next character
    /// as it is, and <c>#</c> at the start of a word starts a comment.
    /// </summary>
    public static List<string> Split(string line, bool comments = true)
    {
        var words = new List<string>();
        var word = new StringBuilder();
        var inWord = false;
        var quote = '\0';
        for (var i = 0; i < line.Length; i++)
        {
            var c = line[i];
            if (c == '\\' && quote != '\'' && i + 1 < line.Length)
            {
                word.Append(line[++i]);
                inWord = true;
            }
            else if (quote != '\0')
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
                inWord = true;
            }
            else if (char.IsWhiteSpace(c))
            {
                Flush();
            }
            else if (c == '#' && comments && !inWord)
            {
                break;
            }
            else
            {
                word.Append(c);
                inWord = true;
            }
        }

        Flush();
        return words;

        void Flush()
        {
            if (inWord)
            {
                words.Add(word.ToString());
                word.Clear();
                inWord = false;
            }
        }
    }

    /// <summary>
    /// A time with units <c>ms s m min h d w</c> and, where there is none, that of the program. Several may follow each
    /// other (nginx: <c>1m30s</c>). False for anything else.
    /// </summary>
    /// <param name="text">The word.</param>
    /// <param name="unit">The unit of a bare number.</param>
    /// <param name="value">The time.</param>
    public static bool TryTime(string text, TimeSpan unit, out TimeSpan value)
    {
        value = TimeSpan.Zero;
        var rest = text.AsSpan().Trim();
        if (rest.IsEmpty)
        {
            return false;
        }

        double seconds = 0;
        while (!rest.IsEmpty)
        {
            var digits = rest.IndexOfAnyExcept(Digits);
            var number = digits < 0 ? rest : rest[..digits];
            if (!double.TryParse(number, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var count))
            {
                return false;
            }

            rest = digits < 0 ? [] : rest[digits..].TrimStart();
            var letters = rest.IndexOfAnyExceptInRange('a', 'z');
            var suffix = letters < 0 ? rest : rest[..letters];
            if (UnitOf(suffix, unit) is not { } one)
            {
                return false;
            }

            seconds += count * one;
            rest = rest[suffix.Length..].TrimStart();
            if (suffix.IsEmpty && !rest.IsEmpty)
            {
                return false;
            }
        }

        if (!(seconds <= MostSeconds))
        {
            seconds = MostSeconds;
        }

        value = TimeSpan.FromSeconds(seconds);
        return true;
    }

    /// <summary>A whole number of 0 or more that fits.</summary>
    public static int? Number(string? text) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var value) ? value : null;

    private static double? UnitOf(ReadOnlySpan<char> suffix, TimeSpan unit) => suffix switch
    {
        "" => unit.TotalSeconds,
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" or "sec" or "second" or "seconds" => 1,
        "m" or "mi" or "min" or "minute" or "minutes" => 60,
        "h" or "hour" or "hours" => 3600,
        "d" or "day" or "days" => 86400,
        "w" or "week" or "weeks" => 7 * 86400,
        _ => null,
    };
}
