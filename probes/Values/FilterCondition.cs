namespace Sidecar.Probes.Values;

/// <summary>Which end of the socket a condition looks at.</summary>
public enum FilterEnd
{
    /// <summary>The remote end: outbound connections to a declared upstream.</summary>
    Peer,

    /// <summary>The local end: accepted connections of a server on this host.</summary>
    Local,
}

/// <summary>One condition: a network and a port of one end. Prefix length 0 matches every address.</summary>
/// <param name="End">Which end.</param>
/// <param name="Network">Network address, IPv4 in mapped form.</param>
/// <param name="PrefixLength">In the mapped form: 0, 96 + n for IPv4, n for IPv6.</param>
/// <param name="Port">1 to 65535.</param>
public readonly record struct FilterCondition(FilterEnd End, UInt128 Network, int PrefixLength, ushort Port)
{
    /// <summary>The same test the kernel makes, for sockets that came by another way.</summary>
    public bool Matches(in TcpEndPoint local, in TcpEndPoint peer)
    {
        var end = End == FilterEnd.Peer ? peer : local;
        return end.Port == Port && end.IsIn(Network, PrefixLength);
    }
}
