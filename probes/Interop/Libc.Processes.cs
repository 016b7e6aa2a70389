using System.Runtime.InteropServices;

namespace Sidecar.Probes.Interop;

/// <summary>pidfd and namespaces. glibc wraps some of these only in newer versions, so they go through syscall(2).</summary>
internal static partial class Libc
{
    internal const int SIGTERM = 15;
    internal const int SIGKILL = 9;
    internal const int CLONE_NEWNET = 0x40000000;

    // Numbers shared by x86-64 and arm64 (asm-generic, 5.1 and later).
    private const long SYS_pidfd_send_signal = 424;
    private const long SYS_pidfd_open = 434;
    private const long SYS_pidfd_getfd = 438;

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial long Syscall(long number, long a, long b, long c, long d);

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial long Syscall(long number, SafeHandle a, long b, long c, long d);

    internal static KernelHandle PidfdOpen(int pid) => new((int)Syscall(SYS_pidfd_open, pid, 0, 0, 0));

    internal static KernelHandle PidfdGetFd(SafeHandle pidfd, int targetFd) => new((int)Syscall(SYS_pidfd_getfd, pidfd, targetFd, 0, 0));

    internal static int PidfdSendSignal(SafeHandle pidfd, int signal) => (int)Syscall(SYS_pidfd_send_signal, pidfd, signal, 0, 0);

    [LibraryImport("libc", EntryPoint = "setns", SetLastError = true)]
    internal static partial int SetNs(SafeHandle ns, int type);

    [LibraryImport("libc", EntryPoint = "unshare", SetLastError = true)]
    internal static partial int Unshare(int flags);

    /// <summary>glibc changes all threads of the process.</summary>
    [LibraryImport("libc", EntryPoint = "setresuid", SetLastError = true)]
    internal static partial int SetResUid(uint real, uint effective, uint saved);

    internal const int CLOCK_THREAD_CPUTIME_ID = 3;

    [StructLayout(LayoutKind.Sequential)]
    internal struct TimeSpec
    {
        internal long Seconds;
        internal long Nanoseconds;
    }

    [LibraryImport("libc", EntryPoint = "clock_gettime", SetLastError = true)]
    internal static unsafe partial int ClockGetTime(int clock, TimeSpec* time);

    internal const int PR_SET_DUMPABLE = 4;

    [LibraryImport("libc", EntryPoint = "prctl", SetLastError = true)]
    internal static partial int Prctl(int option, nuint argument, nuint unused3, nuint unused4, nuint unused5);
}
