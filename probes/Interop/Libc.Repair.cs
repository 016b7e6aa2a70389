namespace Sidecar.Probes.Interop;

/// <summary>Options that the window probe and the connect probe need.</summary>
internal static partial class Libc
{
    internal const int SO_REUSEADDR = 2;

    /// <summary>Ports are chosen by connect(2), not by bind(2) (ip(7); 4.2 and later).</summary>
    internal const int IP_BIND_ADDRESS_NO_PORT = 24;

    /// <summary>Repair mode (include/uapi/linux/tcp.h).</summary>
    internal const int TCP_REPAIR = 19;
    internal const int TCP_REPAIR_OFF = 0;
}
