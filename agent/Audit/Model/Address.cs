using System.Globalization;
using System.Net;
using Sidecar.Agent.Audit.Reading;

namespace Sidecar.Agent.Audit.Model;

/// <summary>
/// Where a program listens or connects to: host and port, or the path of a Unix socket. User information, paths and
/// queries of URLs are never part of it, so that it can be shown.
/// </summary>
/// <param name="Host">Host name or address; empty: any address of this host. Null for a Unix socket.</param>
/// <param name="Port">TCP port; 0 for a Unix socket.</param>
/// <param name="Path">Path of a Unix socket, with <c>@</c> in front of an abstract one; or null.</param>
internal sealed record Address(string? Host, int Port, string? Path)
{
    private const string HostCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:%";

    public bool IsUnix => Path is not null;

    public static Address Unix(string path) => new(null, 0, path);

    public override string ToString() => Path is not null ? $"unix:{Path}"
        : Host!.Contains(':') ? string.Create(CultureInfo.InvariantCulture, $"[{Host}]:{Port}")
        : string.Create(CultureInfo.InvariantCulture, $"{(Host.Length == 0 ? "*" : Host)}:{Port}");

    /// <summary>
    /// Reads <c>host:port</c>, <c>*:port</c>, <c>:port</c>, <c>[v6]:port</c>, <c>port</c>, <c>host</c>, <c>unix:/path</c>,
    /// <c>unix@/path</c>, <c>abns@name</c>, <c>/path</c> and URLs of these; null for what is none of them.
    /// </summary>
    /// <param name="text">The word.</param>
    /// <param name="port">Port where there is none in it; null: it must name one.</param>
    public static Address? Parse(string text, int? port = null)
    {
        var rest = text.AsSpan().Trim();
        if (rest.IndexOf("://") is >= 0 and var scheme)
        {
            port ??= rest[..scheme] switch
            {
                "https" or "grpcs" => 443,
                "http" or "grpc" or "ws" => 80,
                "ajp" => 8009,
                _ => null,
            };
            rest = rest[(scheme + 3)..];
            if (rest.StartsWith("unix:"))
            {
                // nginx: http://unix:/path:/uri; the colon ends the socket's path
                var end = rest[5..].IndexOf(':');
                return UnixOrNull(end < 0 ? rest[5..] : rest.Slice(5, end));
            }

            var slash = rest.IndexOfAny('/', '?', '#');
            rest = slash < 0 ? rest : rest[..slash];
            rest = rest[(rest.LastIndexOf('@') + 1)..]; // user information
        }

        foreach (var prefix in (ReadOnlySpan<string>)["unix:", "unix@", "ipv4@", "ipv6@", "ipv4:", "ipv6:", "tcp4@", "tcp6@", "abns@"])
        {
            if (rest.StartsWith(prefix, StringComparison.OrdinalIgnoreCase))
            {
                rest = rest[prefix.Length..];
                if (prefix == "abns@")
                {
                    return UnixOrNull("@" + rest.ToString());
                }

                break;
            }
        }

        if (rest.IsEmpty)
        {
            return null;
        }

        if (rest[0] is '/' or '@')
        {
            return UnixOrNull(rest);
        }

        string host;
        if (rest[0] == '[')
        {
            var close = rest.IndexOf(']');
            if (close < 0)
            {
                return null;
            }

            host = rest[1..close].ToString();
            rest = rest[(close + 1)..];
            if (!rest.IsEmpty && rest[0] != ':')
            {
                return null;
            }

            rest = rest.IsEmpty ? rest : rest[1..];
        }
        else
        {
            var colon = rest.LastIndexOf(':');
            if (colon < 0 && port is null && Words.Number(rest.ToString()) is not null)
            {
                (host, colon) = ("", -1);
            }
            else
            {
                host = (colon < 0 ? rest : rest[..colon]).ToString();
                rest = colon < 0 ? [] : rest[(colon + 1)..];
            }
        }

        var number = rest.IsEmpty ? port : Words.Number(rest.ToString());
        if (number is not (> 0 and <= ushort.MaxValue) || host.AsSpan().IndexOfAnyExcept(HostCharacters + "*") >= 0 || host.Length > 255)
        {
            return null;
        }

        return new Address(host is "*" or "0.0.0.0" or "::" ? "" : host, number.Value, null);
    }

    /// <summary>Whether what connects to this may reach what listens at <paramref name="listener"/>.</summary>
    /// <param name="listener">Where something listens.</param>
    /// <param name="local">Addresses of this host; null: not known, then the port alone decides.</param>
    public bool Reaches(Address listener, IReadOnlySet<IPAddress>? local)
    {
        if (IsUnix || listener.IsUnix)
        {
            return Path is not null && Path == listener.Path;
        }

        if (Port != listener.Port)
        {
            return false;
        }

        if (string.Equals(Host, listener.Host, StringComparison.OrdinalIgnoreCase) || Host!.Length == 0)
        {
            return true;
        }

        if (IsLoopback(Host))
        {
            return listener.Host!.Length == 0 || IsLoopback(listener.Host);
        }

        // A name or an address: this host's, or another's?
        return listener.Host!.Length == 0 && (local is null || (IPAddress.TryParse(Host, out var address) && local.Contains(address)));
    }

    private static bool IsLoopback(string host) =>
        string.Equals(host, "localhost", StringComparison.OrdinalIgnoreCase) || (IPAddress.TryParse(host, out var address) && IPAddress.IsLoopback(address));

    private static Address? UnixOrNull(ReadOnlySpan<char> path)
    {
        // 108 bytes is what sockaddr_un holds.
        return path.Length is > 1 and <= 108 && path[0] is '/' or '@' && path.IndexOfAny(" \t$") < 0 ? Unix(path.ToString()) : null;
    }
}
