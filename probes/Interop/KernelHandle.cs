using System.Runtime.InteropServices;

namespace Sidecar.Probes.Interop;

/// <summary>A file descriptor that is closed exactly once.</summary>
public sealed class KernelHandle : SafeHandle
{
    public KernelHandle()
        : base(-1, ownsHandle: true)
    {
    }

    internal KernelHandle(int fd)
        : base(-1, ownsHandle: true) => SetHandle(fd);

    public override bool IsInvalid => handle < 0;

    /// <summary>The descriptor's number. Valid only while the handle is alive and not disposed.</summary>
    internal int Descriptor => IsClosed ? -1 : (int)handle;

    protected override bool ReleaseHandle() => Libc.Close((int)handle) == 0;
}
