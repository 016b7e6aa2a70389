using Microsoft.Win32.SafeHandles;
using Sidecar.Probes.Values;

namespace Sidecar.Probes.Namespaces;

/// <summary>
/// /proc/net/snmp of the network namespace in which it was opened: the kernel ties the file to it then, so that it can be
/// read from any thread. Not for use by two threads at once.
/// </summary>
internal sealed class TcpCounterFile : IDisposable
{
    private readonly SafeFileHandle? _file;
    private readonly byte[] _text = new byte[4096];

    private TcpCounterFile(SafeFileHandle? file) => _file = file;

    /// <summary>Opens it in the calling thread's namespace; where that is refused it reads nothing.</summary>
    internal static TcpCounterFile Open()
    {
        try
        {
            // Not /proc/net, which is that of the process's first thread.
            return new(File.OpenHandle("/proc/thread-self/net/snmp"));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return new(null);
        }
    }

    /// <summary>What is counted now; null where it cannot be read.</summary>
    internal TcpCounters? Read()
    {
        if (_file is null)
        {
            return null;
        }

        try
        {
            return Parse(_text.AsSpan(0, RandomAccess.Read(_file, _text, 0)));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>Reads the text of /proc/net/snmp; null where it is not all there.</summary>
    internal static TcpCounters? Parse(ReadOnlySpan<byte> snmp) =>
        ProcNetTable.Find(snmp, "Tcp:"u8, "ActiveOpens"u8) is { } active
        && ProcNetTable.Find(snmp, "Tcp:"u8, "PassiveOpens"u8) is { } passive
        && ProcNetTable.Find(snmp, "Tcp:"u8, "CurrEstab"u8) is { } established
        && ProcNetTable.Find(snmp, "Tcp:"u8, "RetransSegs"u8) is { } retransmissions
            ? new TcpCounters(active + passive, established, retransmissions)
            : null;

    public void Dispose() => _file?.Dispose();
}
