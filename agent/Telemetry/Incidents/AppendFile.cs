using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace Sidecar.Agent.Telemetry;

/// <summary>
/// A file opened with O_APPEND. .NET's FileMode.Append seeks once and then writes at offsets of its own, so it would
/// overwrite what another writer appended; O_APPEND makes the kernel place each write at the end.
/// </summary>
internal sealed partial class AppendFile : IDisposable
{
    // The values are the same on x86-64 and arm64.
    private const int WriteOnly = 0x1;
    private const int Create = 0x40;
    private const int Append = 0x400;
    private const int CloseOnExec = 0x80000;

    private readonly SafeFileHandle _handle;

    private AppendFile(SafeFileHandle handle) => _handle = handle;

    /// <summary>Size in bytes. Throws <see cref="IOException"/>.</summary>
    public long Length => RandomAccess.GetLength(_handle);

    /// <summary>Opens or makes the file, mode 0640. Throws <see cref="IOException"/> with the reason.</summary>
    public static AppendFile Open(string path)
    {
        var opened = open(path, WriteOnly | Create | Append | CloseOnExec, 0b110_100_000);
        if (!opened.IsInvalid)
        {
            return new AppendFile(opened);
        }

        var errno = Marshal.GetLastPInvokeError();
        opened.Dispose();
        throw Failure($"cannot open {path}", errno);
    }

    /// <summary>
    /// Writes one record by one write(2). A record that did not fit (disk full) is taken back, so that the file never
    /// keeps half a line. Throws <see cref="IOException"/>.
    /// </summary>
    public unsafe void Write(ReadOnlySpan<byte> record)
    {
        nint written;
        int errno;
        fixed (byte* bytes = record)
        {
            do
            {
                written = write(_handle, bytes, record.Length);
                errno = Marshal.GetLastPInvokeError();
            }
            while (written < 0 && errno == 4 /* EINTR */);
        }

        if (written == record.Length)
        {
            return;
        }

        if (written < 0)
        {
            throw Failure("cannot write", errno);
        }

        RandomAccess.SetLength(_handle, RandomAccess.GetLength(_handle) - written);
        throw new IOException("cannot write: no space left on device");
    }

    /// <summary>Waits until the disk has it. Throws <see cref="IOException"/>.</summary>
    public void Sync() => RandomAccess.FlushToDisk(_handle);

    public void Dispose() => _handle.Dispose();

    private static IOException Failure(string what, int errno) => new($"{what}: {Marshal.GetPInvokeErrorMessage(errno)}");

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.System32)]
    private static partial SafeFileHandle open(string path, int flags, uint mode);

    [LibraryImport("libc", SetLastError = true)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.System32)]
    private static unsafe partial nint write(SafeFileHandle fd, byte* buffer, nint count);
}
