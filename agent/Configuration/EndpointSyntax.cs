using System.Buffers;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Sidecar.Agent.Core.Settings;

namespace Sidecar.Agent.Configuration;

/// <summary>How addresses with ports are written, in both directions.</summary>
internal static class EndpointSyntax
{
    /// <summary>For error messages.</summary>
    public const string Expected = "ADDRESS:PORT, CIDR:PORT or HOST:PORT, such as 10.0.2.2:5432, 10.0.2.0/24:5432, [fd00::1]:5432, [fd00::/64]:5432 or db.example.org:5432";

    private static readonly SearchValues<char> HostCharacters =
        SearchValues.Create("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");

    /// <summary><c>10.0.0.1:5432</c> or <c>[fd00::1]:5432</c>; an IPv4-mapped address reads as the IPv4 address that it is.</summary>
    public static string Format(IPEndPoint endpoint)
    {
        var address = endpoint.Address.IsIPv4MappedToIPv6 ? endpoint.Address.MapToIPv4() : endpoint.Address;
        return address.AddressFamily == AddressFamily.InterNetworkV6
            ? string.Create(CultureInfo.InvariantCulture, $"[{address}]:{endpoint.Port}")
            : string.Create(CultureInfo.InvariantCulture, $"{address}:{endpoint.Port}");
    }

    /// <summary>Reads one entry of an <c>endpoint</c> list; on failure <paramref name="problem"/> says what was expected.</summary>
    public static bool TryParse(string text, out EndpointPattern? pattern, out string problem)
    {
        pattern = null;
        if (!TrySplit(text, out var host, out var bracketed, out var port))
        {
            problem = Expected;
            return false;
        }

        var slash = host.IndexOf('/', StringComparison.Ordinal);
        var addressText = slash < 0 ? host : host[..slash];
        if (!TryParseAddress(addressText, bracketed, out var address))
        {
            problem = Expected;
            if (bracketed || slash >= 0 || !IsHostName(host))
            {
                return false;
            }

            pattern = new EndpointPattern(text, host, null, port);
            return true;
        }

        var width = address.AddressFamily == AddressFamily.InterNetwork ? 32 : 128;
        var prefix = width;
        if (slash >= 0 && (!int.TryParse(host.AsSpan(slash + 1), NumberStyles.None, CultureInfo.InvariantCulture, out prefix) || prefix > width))
        {
            problem = $"a prefix length of 0 to {width} after the slash";
            return false;
        }

        if (address.IsIPv4MappedToIPv6 && prefix >= 96)
        {
            // The kernel reports such connections as IPv4 on one kind of socket and as mapped on the other: keep one form.
            address = address.MapToIPv4();
            prefix -= 96;
        }

        var masked = Mask(address, prefix);
        if (!masked.Equals(address))
        {
            problem = $"a network without host bits (the network of this address is {masked}/{prefix})";
            return false;
        }

        problem = "";
        pattern = new EndpointPattern(text, null, new IPNetwork(address, prefix), port);
        return true;
    }

    /// <summary>Reads <c>ADDRESS:PORT</c> with a literal address.</summary>
    public static bool TryParseEndPoint(string text, out IPEndPoint? endpoint)
    {
        endpoint = null;
        if (!TrySplit(text, out var host, out var bracketed, out var port) || !TryParseAddress(host, bracketed, out var address))
        {
            return false;
        }

        endpoint = new IPEndPoint(address, port);
        return true;
    }

    private static bool TrySplit(string text, out string host, out bool bracketed, out int port)
    {
        host = "";
        port = 0;
        bracketed = text.StartsWith('[');
        var colon = text.LastIndexOf(':');
        if (colon <= 0)
        {
            return false;
        }

        host = text[..colon];
        if (bracketed)
        {
            if (!host.EndsWith(']'))
            {
                return false;
            }

            host = host[1..^1];
        }

        return int.TryParse(text.AsSpan(colon + 1), NumberStyles.None, CultureInfo.InvariantCulture, out port) && port is >= 1 and <= 65535;
    }

    /// <summary>
    /// Stricter than the framework's parser, which also takes "1", "0x7f.1" and octal forms, where a slip of the pen
    /// would silently name another host. Scoped (link-local) addresses are not taken: the scope is not in the socket table.
    /// </summary>
    private static bool TryParseAddress(string text, bool bracketed, out IPAddress address)
    {
        address = IPAddress.None;
        if (bracketed)
        {
            if (text.Contains('%', StringComparison.Ordinal) || !text.Contains(':', StringComparison.Ordinal) || text.AsSpan().ContainsAny("[]/ "))
            {
                return false;
            }

            return IPAddress.TryParse(text, out address!) && address.AddressFamily == AddressFamily.InterNetworkV6;
        }

        Span<Range> parts = stackalloc Range[5];
        if (text.AsSpan().Split(parts, '.') != 4)
        {
            return false;
        }

        Span<byte> bytes = stackalloc byte[4];
        for (var i = 0; i < 4; i++)
        {
            var part = text.AsSpan(parts[i]);
            if ((part.Length > 1 && part[0] == '0') || !byte.TryParse(part, NumberStyles.None, CultureInfo.InvariantCulture, out bytes[i]))
            {
                return false;
            }
        }

        address = new IPAddress(bytes);
        return true;
    }

    /// <summary>Whether it can be the name of a host; an address is none.</summary>
    public static bool IsHostName(string text)
    {
        if (text.Length is 0 or > 253 || text.AsSpan().ContainsAnyExcept(HostCharacters))
        {
            return false;
        }

        var name = text.EndsWith('.') ? text[..^1] : text;
        var labels = name.Split('.');

        // A last label of digits only is a mistyped address, never a host (RFC 1123, 2.1).
        return Array.TrueForAll(labels, l => l.Length is >= 1 and <= 63 && l[0] != '-' && l[^1] != '-')
            && labels[^1].AsSpan().ContainsAnyExceptInRange('0', '9');
    }

    private static IPAddress Mask(IPAddress address, int prefix)
    {
        var bytes = address.GetAddressBytes();
        for (var i = 0; i < bytes.Length; i++)
        {
            var bits = Math.Clamp(prefix - (8 * i), 0, 8);
            bytes[i] &= (byte)(0xff << (8 - bits));
        }

        return new IPAddress(bytes);
    }
}
