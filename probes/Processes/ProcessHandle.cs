using System.Runtime.InteropServices;
using Sidecar.Probes.Interop;
using Sidecar.Probes.Values;

namespace Sidecar.Probes.Processes;

/// <summary>Why a process, or one of its descriptors, could not be taken hold of.</summary>
public enum HandleFailure
{
    None,

    /// <summary>ESRCH or EBADF: gone, or not the process that was meant.</summary>
    Gone,

    /// <summary>EPERM: CAP_KILL or CAP_SYS_PTRACE is missing, or Yama or an LSM forbids it.</summary>
    NotPermitted,

    /// <summary>ENOSYS: older than 5.3 (pidfd_open) or 5.6 (pidfd_getfd).</summary>
    NotSupported,

    /// <summary>Anything else.</summary>
    Failed,
}

/// <summary>
/// A pidfd: it keeps meaning the same process, whatever happens to its pid (pidfd_open(2)).
/// </summary>
public sealed class ProcessHandle : IDisposable
{
    private const int ENOSYS = 38;

    private readonly KernelHandle _pidfd;

    private ProcessHandle(KernelHandle pidfd, ProcessIdentity identity)
    {
        _pidfd = pidfd;
        Identity = identity;
    }

    public ProcessIdentity Identity { get; }

    /// <summary>
    /// Opens the process and, with the pidfd in hand, checks its start time: had the pid been reused before, it would differ.
    /// </summary>
    public static ProcessHandle? TryOpen(ProcessIdentity identity, ProcessReader processes, out HandleFailure failure)
    {
        var handle = Libc.PidfdOpen(identity.Pid);
        if (handle.IsInvalid)
        {
            failure = Classify(Marshal.GetLastPInvokeError());
            return null;
        }

        if (!processes.TryReadStat(identity.Pid, out var stat) || stat.Identity != identity)
        {
            handle.Dispose();
            failure = HandleFailure.Gone;
            return null;
        }

        failure = HandleFailure.None;
        return new ProcessHandle(handle, identity);
    }

    /// <summary>SIGTERM.</summary>
    public HandleFailure Terminate() => Signal(Libc.SIGTERM);

    /// <summary>SIGKILL.</summary>
    public HandleFailure Kill() => Signal(Libc.SIGKILL);

    /// <summary>Signal 0: whether signals would be permitted, sending none.</summary>
    public HandleFailure Rehearse() => Signal(0);

    /// <summary>True once the process has exited (a pidfd becomes readable then; a zombie has exited).</summary>
    public bool HasExited => Libc.WaitReadable(_pidfd, TimeSpan.Zero);

    /// <summary>
    /// Duplicates one of the process's descriptors (pidfd_getfd(2)). While the duplicate is open the owner's close() sends
    /// no FIN, so it must be closed within microseconds.
    /// </summary>
    internal KernelHandle? TryDuplicate(int descriptor, out HandleFailure failure)
    {
        var duplicate = Libc.PidfdGetFd(_pidfd, descriptor);
        if (duplicate.IsInvalid)
        {
            failure = Classify(Marshal.GetLastPInvokeError());
            return null;
        }

        failure = HandleFailure.None;
        return duplicate;
    }

    public void Dispose() => _pidfd.Dispose();

    private HandleFailure Signal(int signal) =>
        Libc.PidfdSendSignal(_pidfd, signal) == 0 ? HandleFailure.None : Classify(Marshal.GetLastPInvokeError());

    private static HandleFailure Classify(int errno) => errno switch
    {
        Libc.ESRCH or Libc.EBADF => HandleFailure.Gone,
        Libc.EPERM or Libc.EACCES => HandleFailure.NotPermitted,
        ENOSYS => HandleFailure.NotSupported,
        _ => HandleFailure.Failed,
    };
}
