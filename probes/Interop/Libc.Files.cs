using System.Runtime.InteropServices;

namespace Sidecar.Probes.Interop;

/// <summary>Opening files below another process's root: openat2(2); and whose an open file is: statx(2).</summary>
internal static partial class Libc
{
    internal const int ENOSYS = 38;
    internal const int O_NOCTTY = 0x100;
    internal const int O_NONBLOCK = 0x800;
    internal const int O_DIRECTORY = 0x10000;
    private const ulong RESOLVE_IN_ROOT = 0x10;
    private const long SYS_openat2 = 437;

    /// <summary>struct open_how.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct OpenHow
    {
        internal ulong Flags;
        internal ulong Mode;
        internal ulong Resolve;
    }

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static unsafe partial nint OpenAt2(long number, SafeHandle directory, string path, OpenHow* how, nuint size);

    /// <summary>
    /// Opens a path as a process sees it whose root is <paramref name="root"/>: absolute paths, "..", and symbolic links
    /// stay below it. Returns a descriptor, or -1 with errno set (ENOSYS before Linux 5.6).
    /// </summary>
    internal static unsafe int OpenInRoot(string root, string path, int flags)
    {
        using var directory = OpenHandle(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (directory.IsInvalid)
        {
            return -1;
        }

        var how = new OpenHow { Flags = (ulong)(uint)flags, Mode = 0, Resolve = RESOLVE_IN_ROOT };
        var opened = (int)OpenAt2(SYS_openat2, directory, path, &how, (nuint)sizeof(OpenHow));
        var errno = Marshal.GetLastPInvokeError();
        directory.Dispose();
        Marshal.SetLastPInvokeError(errno); // close() has one of its own
        return opened;
    }

    private const int AT_EMPTY_PATH = 0x1000;
    private const uint STATX_BASIC_STATS = 0x7ff;
    private const int SizeOfStatx = 256;

    [LibraryImport("libc", EntryPoint = "statx", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static unsafe partial int StatX(SafeHandle directory, string path, int flags, uint mask, byte* buffer);

    [LibraryImport("libc", EntryPoint = "geteuid")]
    internal static partial uint GetEffectiveUser();

    [LibraryImport("libc", EntryPoint = "getegid")]
    internal static partial uint GetEffectiveGroup();

    /// <summary>Owner, group and mode (with its type) of an open file; false with errno set where they cannot be had.</summary>
    internal static unsafe bool TryStat(SafeHandle file, out uint user, out uint group, out uint mode)
    {
        var buffer = stackalloc byte[SizeOfStatx];
        var done = StatX(file, "", AT_EMPTY_PATH, STATX_BASIC_STATS, buffer) == 0;

        // struct statx: stx_uid at 20, stx_gid at 24, stx_mode at 28.
        (user, group, mode) = done ? (*(uint*)(buffer + 20), *(uint*)(buffer + 24), *(ushort*)(buffer + 28)) : (0u, 0u, 0u);
        return done;
    }
}
