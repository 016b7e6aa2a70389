using System.Buffers.Text;
using System.Runtime.InteropServices;

namespace Sidecar.Probes.Interop;

/// <summary>Called for a directory's entry that is a number.</summary>
/// <param name="number">Its name.</param>
/// <param name="directory">The open directory; valid during the call only.</param>
/// <param name="name">Its name with the terminating zero.</param>
internal delegate void NumberVisitor(int number, SafeHandle directory, ReadOnlySpan<byte> name);

/// <summary>
/// Directories of /proc, without a string for each entry: a process may hold tens of thousands of descriptors.
/// </summary>
internal static partial class Libc
{

    // struct linux_dirent64: d_ino (8), d_off (8), d_reclen (2), d_type (1), d_name.
    private const int OffsetNext = 8;
    private const int OffsetLength = 16;
    private const int OffsetName = 19;

    [LibraryImport("libc", EntryPoint = "getdents64", SetLastError = true)]
    private static unsafe partial nint GetDirectoryEntries(SafeHandle directory, byte* buffer, nuint size);

    [LibraryImport("libc", EntryPoint = "readlinkat", SetLastError = true)]
    private static unsafe partial nint ReadLinkAt(SafeHandle directory, byte* name, byte* buffer, nuint size);

    /// <summary>Reads a symbolic link of an open directory; <paramref name="name"/> ends with a zero. Returns its length, or -1.</summary>
    internal static unsafe int ReadLinkAt(SafeHandle directory, ReadOnlySpan<byte> name, Span<byte> buffer)
    {
        fixed (byte* n = name)
        fixed (byte* p = buffer)
        {
            return (int)ReadLinkAt(directory, n, p, (nuint)buffer.Length);
        }
    }

    [LibraryImport("libc", EntryPoint = "lseek", SetLastError = true)]
    private static partial long Seek(SafeHandle directory, long offset, int whence);

    /// <summary>Visits the entries whose names are numbers. False when the directory cannot be read; what was read before is visited.</summary>
    internal static bool VisitNumbers(string path, NumberVisitor visit)
    {
        long cursor = 0;
        return VisitNumbers(path, ref cursor, int.MaxValue, visit) >= 0;
    }

    /// <summary>
    /// Visits at most <paramref name="atMost"/> entries from a cursor on. The directory is opened anew each time: a place in it
    /// outlives its descriptor (in /proc/PID/fd it is the descriptor's number).
    /// </summary>
    /// <param name="path">The directory.</param>
    /// <param name="cursor">0 for the beginning; where to go on afterwards.</param>
    /// <param name="atMost">Entries of any kind.</param>
    /// <param name="visit">Called for those whose names are numbers.</param>
    /// <returns>Entries read; fewer than asked for at the end of the directory; -1 when it cannot be read.</returns>
    internal static unsafe int VisitNumbers(string path, ref long cursor, int atMost, NumberVisitor visit)
    {
        using var directory = OpenHandle(path, O_RDONLY | O_CLOEXEC);
        if (directory.IsInvalid || (cursor != 0 && Seek(directory, cursor, 0) != cursor))
        {
            return -1;
        }

        var read = 0;
        Span<byte> buffer = stackalloc byte[8192];
        while (true)
        {
            nint length;
            fixed (byte* p = buffer)
            {
                length = GetDirectoryEntries(directory, p, (nuint)buffer.Length);
            }

            if (length <= 0)
            {
                return length == 0 ? read : -1;
            }

            for (ReadOnlySpan<byte> rest = buffer[..(int)length]; rest.Length > OffsetName;)
            {
                int size = MemoryMarshal.Read<ushort>(rest[OffsetLength..]);
                var name = rest[OffsetName..size];
                name = name[..(name.IndexOf((byte)0) + 1)];
                if (Utf8Parser.TryParse(name, out int number, out var used) && used == name.Length - 1 && name[0] != (byte)'-')
                {
                    visit(number, directory, name);
                }

                cursor = MemoryMarshal.Read<long>(rest[OffsetNext..]);
                if (++read == atMost)
                {
                    return read;
                }

                rest = rest[size..];
            }
        }
    }
}
