namespace Sidecar.Probes.Values;

/// <summary>What the kernel has counted of TCP in a network namespace since it was made (RFC 4022; IPv6 is in it).</summary>
/// <param name="Opens">Connections opened either way: tcpActiveOpens + tcpPassiveOpens.</param>
/// <param name="Established">Connections that are ESTABLISHED or CLOSE-WAIT now: tcpCurrEstab.</param>
/// <param name="Retransmissions">Segments sent again, SYNs and tail loss probes among them: tcpRetransSegs.</param>
public readonly record struct TcpCounters(long Opens, long Established, long Retransmissions)
{
    /// <summary>The sum over two namespaces.</summary>
    public static TcpCounters operator +(TcpCounters a, TcpCounters b) => new(a.Opens + b.Opens, a.Established + b.Established, a.Retransmissions + b.Retransmissions);
}
