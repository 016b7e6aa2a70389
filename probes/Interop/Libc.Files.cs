using System.Runtime.InteropServices;

namespace Sidecar.Probes.Interop;

/// <summary>Opening files below another process's root: openat2(2).</summary>
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
    private static unsafe partial nint OpenAt2(long number, long directory, string path, OpenHow* how, nuint size);

    /// <summary>
    /// Opens a path as a process sees it whose root is <paramref name="root"/>: absolute paths, "..", and symbolic links
    /// stay below it. Returns a descriptor, or -1 with errno set (ENOSYS before Linux 5.6).
    /// </summary>
    internal static unsafe int OpenInRoot(string root, string path, int flags)
    {
        var directory = Open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (directory < 0)
        {
            return -1;
        }

        var how = new OpenHow { Flags = (ulong)(uint)flags, Mode = 0, Resolve = RESOLVE_IN_ROOT };
        var opened = (int)OpenAt2(SYS_openat2, directory, path, &how, (nuint)sizeof(OpenHow));
        var errno = Marshal.GetLastPInvokeError();
        _ = Close(directory);
        Marshal.SetLastPInvokeError(errno); // close() has one of its own
        return opened;
    }
}
