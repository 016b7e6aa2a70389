using System.Globalization;

namespace Sidecar.Probes.Haproxy;

/// <summary>What a row of <c>show stat</c> is about (column <c>type</c>).</summary>
public enum HaproxyRowKind
{
    Frontend = 0,
    Backend = 1,
    Server = 2,
}

/// <summary>One frontend, backend or server. What HAProxy left empty is null.</summary>
public sealed record HaproxyRow
{
    public required HaproxyRowKind Kind { get; init; }

    public required string Proxy { get; init; }

    /// <summary>Name of the server; FRONTEND or BACKEND for the others.</summary>
    public required string Name { get; init; }

    /// <summary><c>UP</c>, <c>UP 1/3</c>, <c>DOWN</c>, <c>MAINT</c>, <c>DRAIN</c>, <c>no check</c>, <c>OPEN</c> …</summary>
    public required string Status { get; init; }

    public required long Sessions { get; init; }

    /// <summary>maxconn; null where there is none.</summary>
    public required long? SessionLimit { get; init; }

    /// <summary>Requests that wait for a slot; null for a frontend, which has no queue.</summary>
    public required long? Queue { get; init; }

    /// <summary>Times that it went down.</summary>
    public required long Downs { get; init; }

    /// <summary>Connections that could not be made.</summary>
    public required long ConnectErrors { get; init; }

    /// <summary>Answers with status 500 to 599; null where HTTP is not spoken.</summary>
    public required long? ServerErrors { get; init; }

    /// <summary>Taken out of service on purpose is neither up nor down.</summary>
    public bool IsDown => Status.StartsWith("DOWN", StringComparison.Ordinal) || Status.StartsWith("NOLB", StringComparison.Ordinal);

    /// <summary>In use; a server without checks counts as such.</summary>
    public bool IsUp => Status.StartsWith("UP", StringComparison.Ordinal) || Status is "no check" or "OPEN";
}

/// <summary>What one scan of HAProxy saw: <c>show info</c> and <c>show stat</c> of its stats socket (management.txt, 9.1 and 9.3).</summary>
public sealed record HaproxyStats
{
    public required string Version { get; init; }

    /// <summary>Connections of the whole process.</summary>
    public required long Sessions { get; init; }

    /// <summary>Maxconn of the whole process.</summary>
    public required long SessionLimit { get; init; }

    public required IReadOnlyList<HaproxyRow> Rows { get; init; }

    /// <summary>Rows that were left out: more than are read, or with a name that HAProxy does not give.</summary>
    public int LeftOut { get; init; }

    /// <summary>More rows than this are not read.</summary>
    public const int MostRows = 4096;

    /// <summary>Longer names are nobody's.</summary>
    private const int LongestName = 128;

    private const int MostColumns = 256;

    private const int MostFacts = 256;

    /// <summary>Reads the answer to <c>show info;show stat</c>; null where it is something else.</summary>
    internal static HaproxyStats? Parse(string answer)
    {
        var info = new Dictionary<string, string>(StringComparer.Ordinal);
        var rows = new List<HaproxyRow>();
        Dictionary<string, int>? columns = null;
        var leftOut = 0;
        foreach (var range in answer.AsSpan().Split('\n'))
        {
            var line = answer.AsSpan(range);
            if (line.StartsWith("# ", StringComparison.Ordinal))
            {
                columns = Columns(line[2..]);
            }
            else if (columns is null)
            {
                var colon = line.IndexOf(": ", StringComparison.Ordinal);
                if (colon > 0 && info.Count < MostFacts)
                {
                    info.TryAdd(line[..colon].ToString(), line[(colon + 2)..].ToString());
                }
            }
            else if (line.Length > 0)
            {
                if (rows.Count == MostRows)
                {
                    leftOut++;
                }
                else if (Row(line, columns, ref leftOut) is { } row)
                {
                    rows.Add(row);
                }
            }
        }

        return columns is not null && info.TryGetValue("Version", out var version)
            && Number(info.GetValueOrDefault("CurrConns")) is { } sessions && Number(info.GetValueOrDefault("Maxconn")) is { } limit
            ? new HaproxyStats { Version = IsName(version) ? version : "not known", Sessions = sessions, SessionLimit = limit, Rows = rows, LeftOut = leftOut }
            : null;
    }

    private static Dictionary<string, int> Columns(ReadOnlySpan<char> header)
    {
        var columns = new Dictionary<string, int>(StringComparer.Ordinal);
        var at = 0;
        foreach (var name in header.Split(','))
        {
            columns.TryAdd(header[name].ToString(), at);
            if (++at == MostColumns)
            {
                break;
            }
        }

        return columns;
    }

    private static HaproxyRow? Row(ReadOnlySpan<char> line, Dictionary<string, int> columns, ref int leftOut)
    {
        var fields = new string[Math.Min(MostColumns, line.Count(',') + 1)];
        var next = 0;
        foreach (var range in line.Split(','))
        {
            if (next == fields.Length)
            {
                break;
            }

            fields[next++] = line[range].ToString();
        }

        string? Field(string name) => columns.TryGetValue(name, out var at) && at < fields.Length ? fields[at] : null;
        if (Field("pxname") is not { Length: > 0 } proxy || Field("svname") is not { Length: > 0 } name || Number(Field("type")) is not (>= 0 and <= 2 and var kind))
        {
            return null; // a listening socket of a frontend (type 3), or nothing that is known
        }

        if (!IsName(proxy) || !IsName(name))
        {
            leftOut++;
            return null;
        }

        return new HaproxyRow
        {
            Kind = (HaproxyRowKind)kind,
            Proxy = proxy,
            Name = name,
            Status = Field("status") ?? "",
            Sessions = Number(Field("scur")) ?? 0,
            SessionLimit = Number(Field("slim")),
            Queue = Number(Field("qcur")),
            Downs = Number(Field("chkdown")) ?? 0,
            ConnectErrors = Number(Field("econ")) ?? 0,
            ServerErrors = Number(Field("hrsp_5xx")),
        };
    }

    /// <summary>HAProxy itself takes letters, digits and <c>-_.:</c> in names; other characters that can be printed do no harm.</summary>
    private static bool IsName(string text) => text.Length <= LongestName && text.AsSpan().IndexOfAnyExceptInRange('!', '~') < 0;

    private static long? Number(string? text) => long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var number) ? number : null;
}
