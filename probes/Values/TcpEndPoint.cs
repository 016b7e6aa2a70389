using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;

namespace Sidecar.Probes.Values;

/// <summary>
/// Address and port without allocation. IPv4 is kept in its IPv4-mapped form, so a Java worker's ::ffff:10.0.0.1 and a
/// C worker's 10.0.0.1 are the same address, which they are on the wire.
/// </summary>
public readonly record struct TcpEndPoint
{
    // A UInt128 would be aligned to 16 bytes and make 32 of these 24.
    private readonly ulong _high;
    private readonly ulong _low;

    /// <summary>An address and a port.</summary>
    /// <param name="address">128 bits in host order; IPv4 as ::ffff:a.b.c.d.</param>
    /// <param name="port">TCP port.</param>
    public TcpEndPoint(UInt128 address, ushort port)
    {
        _high = (ulong)(address >> 64);
        _low = (ulong)address;
        Port = port;
    }

    /// <summary>128 bits in host order; IPv4 as ::ffff:a.b.c.d.</summary>
    public UInt128 Address => new(_high, _low);

    /// <summary>TCP port.</summary>
    public ushort Port { get; }

    private static readonly UInt128 MappedPrefix = (UInt128)0xffff << 32;

    public bool IsIPv4 => _high == 0 && _low >> 32 == 0xffff;

    /// <summary>127.0.0.0/8 or ::1.</summary>
    public bool IsLoopback => IsIPv4 ? (byte)(_low >> 24) == 127 : _high == 0 && _low == 1;

    /// <summary>True when the address lies in the network; <paramref name="prefixLength"/> counts in the mapped form (96 more for IPv4).</summary>
    public bool IsIn(UInt128 network, int prefixLength)
    {
        if (prefixLength == 0)
        {
            return true;
        }

        var shift = 128 - prefixLength;
        return Address >> shift == network >> shift;
    }

    public static TcpEndPoint From(IPAddress address, int port)
    {
        Span<byte> bytes = stackalloc byte[16];
        if (address.AddressFamily == AddressFamily.InterNetwork)
        {
            address.TryWriteBytes(bytes, out _);
            return new TcpEndPoint(MappedPrefix | BinaryPrimitives.ReadUInt32BigEndian(bytes), (ushort)port);
        }

        address.TryWriteBytes(bytes, out _);
        return new TcpEndPoint(BinaryPrimitives.ReadUInt128BigEndian(bytes), (ushort)port);
    }

    /// <summary>AF_INET, as the kernel numbers it.</summary>
    private const int InterNetwork = 2;

    /// <summary>From an inet_diag_sockid: 16 bytes of which IPv4 uses the first four, network order.</summary>
    internal static TcpEndPoint FromWire(int family, ReadOnlySpan<byte> bytes, ushort port) => new(
        family == InterNetwork
            ? MappedPrefix | BinaryPrimitives.ReadUInt32BigEndian(bytes)
            : BinaryPrimitives.ReadUInt128BigEndian(bytes),
        port);

    /// <summary>Writes the address as an inet_diag_sockid of <paramref name="family"/> wants it: 16 bytes.</summary>
    internal void WriteWire(int family, Span<byte> bytes)
    {
        bytes[..16].Clear();
        if (family == InterNetwork)
        {
            BinaryPrimitives.WriteUInt32BigEndian(bytes, (uint)Address);
        }
        else
        {
            BinaryPrimitives.WriteUInt128BigEndian(bytes, Address);
        }
    }

    public IPAddress ToIPAddress()
    {
        Span<byte> bytes = stackalloc byte[16];
        if (IsIPv4)
        {
            BinaryPrimitives.WriteUInt32BigEndian(bytes, (uint)Address);
            return new IPAddress(bytes[..4]);
        }

        BinaryPrimitives.WriteUInt128BigEndian(bytes, Address);
        return new IPAddress(bytes);
    }

    public IPEndPoint ToEndPoint() => new(ToIPAddress(), Port);

    public override string ToString() => ToEndPoint().ToString();
}
