using System.Buffers.Text;
using System.Runtime.InteropServices;

namespace Sidecar.Probes.Interop;

/// <summary>Called for a directory's entry that is a number.</summary>
/// <param name="number">Its name.</param>
/// <param name="directory">Descriptor of the directory.</param>
/// <param name="name">Its name with the terminating zero.</param>
internal delegate void NumberVisitor(int number, int directory, ReadOnlySpan<byte> name);

/// <summary>
/// Directories of /proc, without a string for each entry: a process may hold tens of thousands of descriptors.
/// </summary>
internal static partial class Libc
{

    // struct linux_dirent64: d_ino (8), d_off (8), d_reclen (2), d_type (1), d_name.
    private const int OffsetLength = 16;
    private const int OffsetName = 19;

    [LibraryImport("libc", EntryPoint = "getdents64", SetLastError = true)]
    private static unsafe partial nint GetDirectoryEntries(int fd, byte* buffer, nuint size);

    [LibraryImport("libc", EntryPoint = "readlinkat", SetLastError = true)]
    private static unsafe partial nint ReadLinkAt(int directory, byte* name, byte* buffer, nuint size);

    /// <summary>Reads a symbolic link of an open directory; <paramref name="name"/> ends with a zero. Returns its length, or -1.</summary>
    internal static unsafe int ReadLinkAt(int directory, ReadOnlySpan<byte> name, Span<byte> buffer)
    {
        fixed (byte* n = name)
        fixed (byte* p = buffer)
        {
            return (int)ReadLinkAt(directory, n, p, (nuint)buffer.Length);
        }
    }

    /// <summary>Visits the entries whose names are numbers. False when the directory cannot be read; what was read before is visited.</summary>
    internal static unsafe bool VisitNumbers(string path, NumberVisitor visit)
    {
        var fd = Open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
        {
            return false;
        }

        using var handle = new KernelHandle(fd);
        Span<byte> buffer = stackalloc byte[8192];
        while (true)
        {
            nint length;
            fixed (byte* p = buffer)
            {
                length = GetDirectoryEntries(fd, p, (nuint)buffer.Length);
            }

            if (length <= 0)
            {
                return length == 0;
            }

            for (ReadOnlySpan<byte> rest = buffer[..(int)length]; rest.Length > OffsetName;)
            {
                int size = MemoryMarshal.Read<ushort>(rest[OffsetLength..]);
                var name = rest[OffsetName..size];
                name = name[..(name.IndexOf((byte)0) + 1)];
                if (Utf8Parser.TryParse(name, out int number, out var used) && used == name.Length - 1 && name[0] != (byte)'-')
                {
                    visit(number, fd, name);
                }

                rest = rest[size..];
            }
        }
    }
}
