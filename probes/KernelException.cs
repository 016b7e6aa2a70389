using System.ComponentModel;

namespace Sidecar.Probes;

/// <summary>A system call failed in a way its caller cannot absorb.</summary>
public sealed class KernelException : Exception
{
    public KernelException(string call, int errno)
        : base($"{call}: {new Win32Exception(errno).Message} (errno {errno})")
    {
        Call = call;
        Errno = errno;
    }

    /// <summary>The system call, or the netlink request, that failed.</summary>
    public string Call { get; }

    /// <summary>errno as the kernel gave it.</summary>
    public int Errno { get; }

    /// <summary>True for EPERM and EACCES: a capability is missing, nothing is broken.</summary>
    public bool IsNotPermitted => Errno is Interop.Libc.EPERM or Interop.Libc.EACCES;
}
