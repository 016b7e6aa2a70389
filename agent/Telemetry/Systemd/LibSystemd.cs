using System.Runtime.InteropServices;

namespace Sidecar.Agent.Telemetry.Systemd;

/// <summary>The few functions of libsystemd that the agent calls. All return a negative errno on failure.</summary>
internal static unsafe partial class LibSystemd
{
    private const string Library = "libsystemd.so.0";

    /// <summary>False on a host without systemd, where each call would throw <see cref="DllNotFoundException"/>.</summary>
    public static bool Present { get; } = NativeLibrary.TryLoad(Library, out _);

    /// <summary>sd_notify(3): 0 where NOTIFY_SOCKET is not set, positive where the message was sent.</summary>
    [LibraryImport(Library, StringMarshalling = StringMarshalling.Utf8)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.System32)]
    public static partial int sd_notify(int unsetEnvironment, string state);

    /// <summary>sd_watchdog_enabled(3): positive where a watchdog is armed, with its time in microseconds.</summary>
    [LibraryImport(Library)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.System32)]
    public static partial int sd_watchdog_enabled(int unsetEnvironment, out ulong microseconds);

    /// <summary>sd_journal_sendv(3): one field <c>NAME=value</c> per vector.</summary>
    [LibraryImport(Library)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.System32)]
    public static partial int sd_journal_sendv(IoVector* vectors, int count);

    /// <summary>statx(2), whose structure is the same on every architecture, where fstat's is not.</summary>
    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.System32)]
    public static partial int statx(int directory, string path, int flags, uint mask, byte* buffer);

    /// <summary>struct iovec.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct IoVector
    {
        public byte* Base;
        public nuint Length;
    }
}
