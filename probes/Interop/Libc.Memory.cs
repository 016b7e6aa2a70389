using System.Runtime.InteropServices;

namespace Sidecar.Probes.Interop;

/// <summary>
/// Another process's memory by /proc/PID/mem. process_vm_readv(2) is not used: it is one more system call for the service's filter to allow, and it
/// names the process by a pid that may have been reused, where an open file keeps meaning the same one.
/// </summary>
internal static partial class Libc
{
    [LibraryImport("libc", EntryPoint = "pread", SetLastError = true)]
    private static unsafe partial nint ReadAt(KernelHandle file, byte* buffer, nuint length, long offset);

    /// <summary>Fills the buffer from a position of the file; false when less is there or it may not be read.</summary>
    internal static unsafe bool TryReadAt(KernelHandle file, ulong position, Span<byte> buffer)
    {
        var read = 0;
        while (read < buffer.Length)
        {
            nint length;
            fixed (byte* p = buffer[read..])
            {
                length = ReadAt(file, p, (nuint)(buffer.Length - read), (long)position + read);
            }

            if (length <= 0)
            {
                return false;
            }

            read += (int)length;
        }

        return true;
    }
}
