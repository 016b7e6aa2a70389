using System.Runtime.InteropServices;

namespace Sidecar.Probes.Interop;

/// <summary>errno values and the few system calls every area needs. Values are those of Linux on x86-64 and arm64.</summary>
// Over 400 lines: because it is declarations of one library, a file for each area of system calls; there is no state.
internal static partial class Libc
{
    internal const int EPERM = 1;
    internal const int ENOENT = 2;
    internal const int ESRCH = 3;
    internal const int EINTR = 4;
    internal const int EBADF = 9;
    internal const int EAGAIN = 11;
    internal const int EACCES = 13;
    internal const int EINVAL = 22;
    internal const int EBADMSG = 74;
    internal const int EOPNOTSUPP = 95;
    internal const int EPROTONOSUPPORT = 93;
    internal const int ENOBUFS = 105;
    internal const int ETIMEDOUT = 110;

    internal const int O_RDONLY = 0;
    internal const int O_CLOEXEC = 0x80000;

    [LibraryImport("libc", EntryPoint = "open", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int Open(string path, int flags);

    /// <summary>open(2) with a handle; invalid, with errno set, where it failed. It returns int, which the marshaller would not sign-extend.</summary>
    internal static KernelHandle OpenHandle(string path, int flags) => new(Open(path, flags));

    [LibraryImport("libc", EntryPoint = "close", SetLastError = true)]
    internal static partial int Close(int fd);

    [LibraryImport("libc", EntryPoint = "readlink", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static unsafe partial nint ReadLink(string path, byte* buffer, nuint size);

    /// <summary>Reads a symbolic link as bytes into <paramref name="buffer"/>; returns its length, or -1 with errno set.</summary>
    internal static unsafe int ReadLink(string path, Span<byte> buffer)
    {
        fixed (byte* p = buffer)
        {
            return (int)ReadLink(path, p, (nuint)buffer.Length);
        }
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct PollFd
    {
        internal int Fd;
        internal short Events;
        internal short Revents;
    }

    internal const short POLLIN = 1;

    [LibraryImport("libc", EntryPoint = "poll", SetLastError = true)]
    private static unsafe partial int Poll(PollFd* fds, nuint count, int timeoutMilliseconds);

    /// <summary>True when <paramref name="handle"/> becomes readable within <paramref name="timeout"/>; EINTR is retried.</summary>
    /// <exception cref="ObjectDisposedException">The handle has been closed.</exception>
    internal static bool WaitReadable(SafeHandle handle, TimeSpan timeout)
    {
        // poll(2) takes descriptors in a structure, where the marshaller does not hold them open.
        var isHeld = false;
        try
        {
            handle.DangerousAddRef(ref isHeld);
            return WaitReadable((int)handle.DangerousGetHandle(), timeout);
        }
        finally
        {
            if (isHeld)
            {
                handle.DangerousRelease();
            }
        }
    }

    private static unsafe bool WaitReadable(int fd, TimeSpan timeout)
    {
        var deadline = Environment.TickCount64 + (long)timeout.TotalMilliseconds;
        while (true)
        {
            var poll = new PollFd { Fd = fd, Events = POLLIN };
            var left = Math.Max(0, deadline - Environment.TickCount64);
            var result = Poll(&poll, 1, (int)Math.Min(left, int.MaxValue));
            if (result > 0)
            {
                return true;
            }

            if (result == 0 || Marshal.GetLastPInvokeError() != EINTR)
            {
                return false;
            }
        }
    }
}
