using System.Globalization;
using System.Text;
using Npgsql;
using Sidecar.Probes.Files;

namespace Sidecar.Probes.PostgreSql;

/// <summary>A DSN file cannot be used. The message names the file and the key at fault, never a value.</summary>
public sealed class DsnFileException(string message) : Exception(message);

/// <summary>
/// Reads a file with a PostgreSQL connection string: Npgsql's <c>Host=…;Username=…</c>, libpq's <c>host=… user=…</c>
/// or a <c>postgresql://</c> URI. Lines that start with # are comments. Who may get
/// at the file is told by <see cref="SecretFile"/>.
/// </summary>
public static class DsnFile
{
    // libpq's keywords in Npgsql's words; null: has no meaning for a session of ours, or is set by us.
    private static readonly Dictionary<string, string?> LibpqKeywords = new(StringComparer.Ordinal)
    {
        ["host"] = "Host",
        ["hostaddr"] = "Host",
        ["port"] = "Port",
        ["dbname"] = "Database",
        ["user"] = "Username",
        ["password"] = "Password",
        ["passfile"] = "Passfile",
        ["sslmode"] = "SSL Mode",
        ["sslrootcert"] = "Root Certificate",
        ["sslcert"] = "SSL Certificate",
        ["sslkey"] = "SSL Key",
        ["sslpassword"] = "SSL Password",
        ["channel_binding"] = "Channel Binding",
        ["krbsrvname"] = "Kerberos Service Name",
        ["options"] = "Options",
        ["client_encoding"] = "Client Encoding",
        ["application_name"] = null,
        ["fallback_application_name"] = null,
        ["connect_timeout"] = null,
        ["target_session_attrs"] = null,
        ["load_balance_hosts"] = null,
        ["gssencmode"] = null,
        ["keepalives"] = null,
        ["keepalives_idle"] = null,
        ["keepalives_interval"] = null,
        ["keepalives_count"] = null,
        ["tcp_user_timeout"] = null,
    };

    /// <summary>Reads and parses <paramref name="path"/>.</summary>
    /// <exception cref="DsnFileException">The file is missing, readable for others, or not a connection string.</exception>
    public static NpgsqlConnectionStringBuilder Read(string path)
    {
        try
        {
            return Parse(SecretFile.Read(path), path);
        }
        catch (Exception e) when (e is SecretFileException or UnauthorizedAccessException)
        {
            throw new DsnFileException(e.Message);
        }
    }

    /// <summary>Parses the text of a DSN file; <paramref name="name"/> is what messages call it.</summary>
    /// <exception cref="DsnFileException">It is not a connection string.</exception>
    public static NpgsqlConnectionStringBuilder Parse(string text, string name)
    {
        var dsn = string.Join(' ', text.Split('\n').Select(l => l.Trim()).Where(l => l.Length > 0 && l[0] != '#'));
        if (dsn.Length == 0)
        {
            throw new DsnFileException($"{name}: is empty; expected a connection string");
        }

        var builder = new NpgsqlConnectionStringBuilder();
        var pairs = dsn.StartsWith("postgresql://", StringComparison.Ordinal) || dsn.StartsWith("postgres://", StringComparison.Ordinal)
            ? FromUri(dsn, name)
            : IsLibpq(dsn) ? FromLibpq(dsn, name) : null;
        if (pairs is null)
        {
            try
            {
                builder.ConnectionString = dsn;
            }
            catch (Exception e) when (e is ArgumentException or FormatException or KeyNotFoundException or NotSupportedException)
            {
                // The library's message may quote a value: it stays here.
                throw new DsnFileException($"{name}: is not a connection string that Npgsql accepts");
            }

            return builder;
        }

        for (var i = 0; i < pairs.Count; i++)
        {
            var (key, value) = pairs[i];
            if (!LibpqKeywords.TryGetValue(key, out var keyword))
            {
                // After a password without quotes the "keyword" may be the rest of it.
                throw new DsnFileException(i > 0 && pairs[i - 1].Key.EndsWith("password", StringComparison.Ordinal)
                    ? $"{name}: unknown keyword after the password (quote a password that has blanks)"
                    : $"{name}: unknown keyword \"{key}\"");
            }

            if (keyword is null || value.Length == 0)
            {
                continue;
            }

            try
            {
                builder[keyword] = keyword == "SSL Mode" ? SslModeOf(value, name) : value;
            }
            catch (Exception e) when (e is ArgumentException or FormatException or InvalidCastException or OverflowException or NotSupportedException)
            {
                throw new DsnFileException($"{name}: bad value for \"{key}\"");
            }
        }

        return builder;
    }

    /// <summary>libpq separates by blanks and Npgsql by semicolons; where there is one pair only, both read it alike.</summary>
    private static bool IsLibpq(string dsn)
    {
        var equals = dsn.IndexOf('=', StringComparison.Ordinal);
        return equals > 0 && LibpqKeywords.ContainsKey(dsn[..equals].TrimEnd()) && !HasBareSemicolon(dsn);
    }

    private static bool HasBareSemicolon(string dsn)
    {
        var quoted = false;
        for (var i = 0; i < dsn.Length; i++)
        {
            if (dsn[i] == '\\')
            {
                i++;
            }
            else if (dsn[i] == '\'')
            {
                quoted = !quoted;
            }
            else if (dsn[i] == ';' && !quoted)
            {
                return true;
            }
        }

        return false;
    }

    private static string SslModeOf(string value, string name) => value switch
    {
        "disable" => "Disable",
        "allow" => "Allow",
        "prefer" => "Prefer",
        "require" => "Require",
        "verify-ca" => "VerifyCA",
        "verify-full" => "VerifyFull",
        _ => throw new DsnFileException($"{name}: bad value for \"sslmode\""),
    };

    private static List<(string Key, string Value)> FromLibpq(string dsn, string name)
    {
        var pairs = new List<(string, string)>();
        var i = 0;
        while (true)
        {
            while (i < dsn.Length && char.IsWhiteSpace(dsn[i]))
            {
                i++;
            }

            if (i == dsn.Length)
            {
                return pairs;
            }

            var start = i;
            while (i < dsn.Length && dsn[i] != '=' && !char.IsWhiteSpace(dsn[i]))
            {
                i++;
            }

            var key = dsn[start..i];
            while (i < dsn.Length && char.IsWhiteSpace(dsn[i]))
            {
                i++;
            }

            if (i == dsn.Length || dsn[i] != '=')
            {
                // What stands here may be a part of a password that was not quoted: it is not repeated.
                throw new DsnFileException($"{name}: expected keyword = value pairs (value number {pairs.Count + 1} has no keyword; quote values with blanks)");
            }

            i++;
            while (i < dsn.Length && char.IsWhiteSpace(dsn[i]))
            {
                i++;
            }

            pairs.Add((key, Value(dsn, ref i, name)));
        }
    }

    private static string Value(string dsn, ref int i, string name)
    {
        var value = new StringBuilder();
        var quoted = i < dsn.Length && dsn[i] == '\'';
        if (quoted)
        {
            i++;
        }

        for (; i < dsn.Length; i++)
        {
            if (dsn[i] == '\\' && i + 1 < dsn.Length)
            {
                value.Append(dsn[++i]);
            }
            else if (quoted && dsn[i] == '\'')
            {
                i++;
                return value.ToString();
            }
            else if (!quoted && char.IsWhiteSpace(dsn[i]))
            {
                return value.ToString();
            }
            else
            {
                value.Append(dsn[i]);
            }
        }

        return quoted ? throw new DsnFileException($"{name}: a quoted value does not end") : value.ToString();
    }

    private static List<(string Key, string Value)> FromUri(string dsn, string name)
    {
        // Not System.Uri: passwords in the wild hold characters that it refuses.
        var pairs = new List<(string, string)>();
        var rest = dsn[(dsn.IndexOf("://", StringComparison.Ordinal) + 3)..];
        var question = rest.IndexOf('?', StringComparison.Ordinal);
        var query = question < 0 ? "" : rest[(question + 1)..];
        rest = question < 0 ? rest : rest[..question];
        var at = rest.LastIndexOf('@');
        var userInfo = at < 0 ? "" : rest[..at];
        rest = at < 0 ? rest : rest[(at + 1)..];
        var slash = rest.IndexOf('/', StringComparison.Ordinal);
        var database = slash < 0 ? "" : rest[(slash + 1)..];
        var hostAndPort = slash < 0 ? rest : rest[..slash];

        var colon = userInfo.IndexOf(':', StringComparison.Ordinal);
        pairs.Add(("user", Uri.UnescapeDataString(colon < 0 ? userInfo : userInfo[..colon])));
        if (colon >= 0)
        {
            pairs.Add(("password", Uri.UnescapeDataString(userInfo[(colon + 1)..])));
        }

        if (hostAndPort.Contains(',', StringComparison.Ordinal))
        {
            throw new DsnFileException($"{name}: names several hosts; expected one");
        }

        var portColon = hostAndPort.LastIndexOf(':');
        if (portColon > hostAndPort.LastIndexOf(']'))
        {
            if (!ushort.TryParse(hostAndPort[(portColon + 1)..], NumberStyles.None, CultureInfo.InvariantCulture, out var port) || port == 0)
            {
                throw new DsnFileException($"{name}: bad port");
            }

            pairs.Add(("port", port.ToString(CultureInfo.InvariantCulture)));
            hostAndPort = hostAndPort[..portColon];
        }

        pairs.Add(("host", Uri.UnescapeDataString(hostAndPort.Trim('[', ']'))));
        pairs.Add(("dbname", Uri.UnescapeDataString(database)));
        foreach (var part in query.Split('&', StringSplitOptions.RemoveEmptyEntries))
        {
            var equals = part.IndexOf('=', StringComparison.Ordinal);
            if (equals < 0)
            {
                throw new DsnFileException($"{name}: a parameter of the URI has no value");
            }

            pairs.Add((Uri.UnescapeDataString(part[..equals]), Uri.UnescapeDataString(part[(equals + 1)..])));
        }

        return pairs;
    }
}
