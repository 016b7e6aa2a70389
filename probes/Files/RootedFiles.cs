using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;
using Sidecar.Probes.Interop;

namespace Sidecar.Probes.Files;

/// <summary>
/// Reads files as a process sees them whose root directory is another one (/proc/PID/root, a mounted image). Symbolic
/// links cannot lead out of it. Opening never waits: a FIFO without a writer reads as empty. Nothing is ever written.
/// </summary>
/// <param name="root">The directory that is <c>/</c> there.</param>
public sealed class RootedFiles(string root)
{
    /// <summary>Larger files are refused: no configuration is as large as this.</summary>
    public const int MostBytes = 4 * 1024 * 1024;

    public string Root => root;

    /// <summary>The whole file, or null and why it cannot be read.</summary>
    public byte[]? Read(string path, out string problem)
    {
        problem = "";
        using var handle = Open(path, Libc.O_RDONLY | Libc.O_NONBLOCK | Libc.O_NOCTTY | Libc.O_CLOEXEC, out var errno);
        if (handle is null)
        {
            problem = Describe(errno);
            return null;
        }

        try
        {
            using var stream = new FileStream(handle, FileAccess.Read, bufferSize: 1);
            using var content = new MemoryStream();
            var buffer = new byte[64 * 1024];
            int length;
            while ((length = stream.Read(buffer)) > 0)
            {
                content.Write(buffer, 0, length);
                if (content.Length > MostBytes)
                {
                    problem = $"it is larger than {MostBytes} bytes";
                    return null;
                }
            }

            return content.ToArray();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or NotSupportedException or ArgumentException)
        {
            problem = e is UnauthorizedAccessException ? "it may not be read" : "it cannot be read";
            return null;
        }
    }

    /// <summary>Names in a directory, sorted as bytes; null where there is none that can be listed.</summary>
    public IReadOnlyList<string>? List(string directory)
    {
        using var handle = Open(directory, Libc.O_RDONLY | Libc.O_DIRECTORY | Libc.O_CLOEXEC, out _);
        if (handle is null)
        {
            return null;
        }

        try
        {
            var names = Directory.EnumerateFileSystemEntries($"/proc/self/fd/{handle.DangerousGetHandle()}").Select(path => Path.GetFileName(path)).ToList();
            names.Sort(StringComparer.Ordinal);
            return names;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    private SafeFileHandle? Open(string path, int flags, out int errno)
    {
        errno = 0;
        if (path.Contains('\0'))
        {
            errno = Libc.ENOENT;
            return null;
        }

        var fd = Libc.OpenInRoot(root, path, flags);
        if (fd < 0 && Marshal.GetLastPInvokeError() == Libc.ENOSYS && root == "/")
        {
            fd = Libc.Open(path, flags);
        }

        if (fd >= 0)
        {
            return new SafeFileHandle(fd, ownsHandle: true);
        }

        errno = Marshal.GetLastPInvokeError();
        return null;
    }

    private static string Describe(int errno) => errno switch
    {
        Libc.ENOENT => "it is not there",
        Libc.EACCES or Libc.EPERM => "it may not be read",
        Libc.ENOSYS => "this kernel is older than 5.6 and cannot look below another root",
        _ => $"it cannot be opened ({Marshal.GetPInvokeErrorMessage(errno)})",
    };
}
