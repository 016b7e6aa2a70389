using System.Runtime.InteropServices;

namespace Sidecar.Probes.Interop;

/// <summary>
/// A file descriptor that is closed exactly once. System calls take the handle, never its number: the marshaller keeps the
/// descriptor open until the call returns, so its number cannot be given to another file meanwhile, and a handle that was
/// disposed is an <see cref="ObjectDisposedException"/>.
/// </summary>
public sealed class KernelHandle : SafeHandle
{
    public KernelHandle()
        : base(-1, ownsHandle: true)
    {
    }

    internal KernelHandle(int fd)
        : this(fd, owns: true)
    {
    }

    private KernelHandle(int fd, bool owns)
        : base(-1, owns) => SetHandle(fd);

    public override bool IsInvalid => handle < 0;

    /// <summary>A view of a descriptor that somebody else owns and may close at any time; it closes nothing.</summary>
    internal static KernelHandle Borrow(int fd) => new(fd, owns: false);

    protected override bool ReleaseHandle() => Libc.Close((int)handle) == 0;
}
