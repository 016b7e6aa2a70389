using System.Collections.Frozen;
using System.Runtime.InteropServices;

namespace Sidecar.Probes.Processes;

/// <summary>How a system call names the descriptors that it waits for.</summary>
internal enum CallKind
{
    /// <summary>It waits for no socket's data, or for many things at once.</summary>
    Other,

    /// <summary>The first argument is the descriptor.</summary>
    Descriptor,

    /// <summary>poll, ppoll: an array of struct pollfd and its length.</summary>
    Poll,

    /// <summary>select, pselect6: a number of bits and three sets.</summary>
    Select,
}

/// <summary>A system call as far as it matters here.</summary>
internal readonly record struct SystemCall(string Name, CallKind Kind);

/// <summary>
/// The numbers of system calls (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h). restart_syscall stands for a poll or a
/// sleep that a signal has interrupted; which of them it is cannot be told, so it is none.
/// </summary>
internal static class SystemCalls
{
    private static readonly FrozenDictionary<long, SystemCall> X64 = new Dictionary<long, SystemCall>
    {
        [0] = new("read", CallKind.Descriptor),
        [1] = new("write", CallKind.Descriptor),
        [7] = new("poll", CallKind.Poll),
        [19] = new("readv", CallKind.Descriptor),
        [20] = new("writev", CallKind.Descriptor),
        [23] = new("select", CallKind.Select),
        [35] = new("nanosleep", CallKind.Other),
        [43] = new("accept", CallKind.Other),
        [44] = new("sendto", CallKind.Descriptor),
        [45] = new("recvfrom", CallKind.Descriptor),
        [46] = new("sendmsg", CallKind.Descriptor),
        [47] = new("recvmsg", CallKind.Descriptor),
        [61] = new("wait4", CallKind.Other),
        [202] = new("futex", CallKind.Other),
        [219] = new("restart_syscall", CallKind.Other),
        [230] = new("clock_nanosleep", CallKind.Other),
        [232] = new("epoll_wait", CallKind.Other),
        [270] = new("pselect6", CallKind.Select),
        [271] = new("ppoll", CallKind.Poll),
        [281] = new("epoll_pwait", CallKind.Other),
        [288] = new("accept4", CallKind.Other),
        [299] = new("recvmmsg", CallKind.Descriptor),
        [307] = new("sendmmsg", CallKind.Descriptor),
        [441] = new("epoll_pwait2", CallKind.Other),
    }.ToFrozenDictionary();

    private static readonly FrozenDictionary<long, SystemCall> Arm64 = new Dictionary<long, SystemCall>
    {
        [22] = new("epoll_pwait", CallKind.Other),
        [63] = new("read", CallKind.Descriptor),
        [64] = new("write", CallKind.Descriptor),
        [65] = new("readv", CallKind.Descriptor),
        [66] = new("writev", CallKind.Descriptor),
        [72] = new("pselect6", CallKind.Select),
        [73] = new("ppoll", CallKind.Poll),
        [98] = new("futex", CallKind.Other),
        [101] = new("nanosleep", CallKind.Other),
        [115] = new("clock_nanosleep", CallKind.Other),
        [128] = new("restart_syscall", CallKind.Other),
        [202] = new("accept", CallKind.Other),
        [206] = new("sendto", CallKind.Descriptor),
        [207] = new("recvfrom", CallKind.Descriptor),
        [211] = new("sendmsg", CallKind.Descriptor),
        [212] = new("recvmsg", CallKind.Descriptor),
        [242] = new("accept4", CallKind.Other),
        [243] = new("recvmmsg", CallKind.Descriptor),
        [260] = new("wait4", CallKind.Other),
        [269] = new("sendmmsg", CallKind.Descriptor),
        [441] = new("epoll_pwait2", CallKind.Other),
    }.ToFrozenDictionary();

    /// <summary>The table of an architecture; null where there is none.</summary>
    internal static FrozenDictionary<long, SystemCall>? Of(Architecture architecture) => architecture switch
    {
        Architecture.X64 => X64,
        Architecture.Arm64 => Arm64,
        _ => null,
    };
}
