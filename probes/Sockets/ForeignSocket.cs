using Sidecar.Probes.Interop;
using Sidecar.Probes.Processes;
using Sidecar.Probes.Values;

namespace Sidecar.Probes.Sockets;

/// <summary>What came of touching a socket that another process holds.</summary>
public enum TouchResult
{
    Done,

    /// <summary>Process, descriptor or socket are no longer what was seen. Nothing was changed.</summary>
    Gone,

    /// <summary>CAP_SYS_PTRACE is missing, or Yama or an LSM forbids pidfd_getfd.</summary>
    NotPermitted,

    /// <summary>The kernel is older than 5.6.</summary>
    NotSupported,

    /// <summary>setsockopt or getsockopt failed.</summary>
    Failed,

    /// <summary>The socket is in a state in which this must not be done: not established, or in repair mode. Nothing was changed.</summary>
    WrongState,
}

/// <summary>
/// Reads and sets keepalive options on another process's live socket: pidfd_getfd(2), the cookie compared, the options,
/// close. The duplicate lives for microseconds, since the owner's close() sends no FIN while it is open. Its file-status
/// flags are shared with the owner and are never touched.
/// </summary>
public static class ForeignSocket
{
    /// <summary>Reads the options.</summary>
    public static TouchResult TryRead(ProcessHandle owner, int descriptor, SocketCookie cookie, out KeepaliveOptions options)
    {
        options = default;
        using var socket = Duplicate(owner, descriptor, cookie, out var result);
        return socket is null ? result : Read(socket, out options) ? TouchResult.Done : TouchResult.Failed;
    }

    /// <summary>
    /// Hands the present options to <paramref name="decide"/> and sets what it returns, or nothing when it returns null.
    /// Reading, deciding and setting happen on one duplicate, so nothing is set on grounds of stale options. With
    /// <paramref name="force"/> TCP_KEEPIDLE is set even where it does not change, which re-arms the timer.
    /// </summary>
    public static TouchResult TryChange(
        ProcessHandle owner,
        int descriptor,
        SocketCookie cookie,
        Func<KeepaliveOptions, KeepaliveOptions?> decide,
        out KeepaliveOptions before,
        out KeepaliveOptions? after,
        bool force = false)
    {
        before = default;
        after = null;
        using var socket = Duplicate(owner, descriptor, cookie, out var result);
        if (socket is null)
        {
            return result;
        }

        if (!Read(socket, out before))
        {
            return TouchResult.Failed;
        }

        after = decide(before);
        return after is not { } wanted || Write(socket, before, wanted, force) ? TouchResult.Done : TouchResult.Failed;
    }

    /// <summary>The owner's socket, when the descriptor still is the one with that cookie; the caller closes it within microseconds.</summary>
    internal static KernelHandle? Duplicate(ProcessHandle owner, int descriptor, SocketCookie cookie, out TouchResult result)
    {
        var socket = owner.TryDuplicate(descriptor, out var failure);
        if (socket is null)
        {
            result = failure switch
            {
                HandleFailure.Gone => TouchResult.Gone,
                HandleFailure.NotPermitted => TouchResult.NotPermitted,
                HandleFailure.NotSupported => TouchResult.NotSupported,
                _ => TouchResult.Failed,
            };
            return null;
        }

        if (!Libc.TryGetOption(socket, Libc.SOL_SOCKET, Libc.SO_COOKIE, out ulong found) || found != cookie.Value)
        {
            socket.Dispose();
            result = TouchResult.Gone;
            return null;
        }

        result = TouchResult.Done;
        return socket;
    }

    private static bool Read(KernelHandle socket, out KeepaliveOptions options)
    {
        options = default;
        if (!Libc.TryGetOption(socket, Libc.SOL_SOCKET, Libc.SO_KEEPALIVE, out int enabled)
            || !Libc.TryGetOption(socket, Libc.SOL_TCP, Libc.TCP_KEEPIDLE, out int idle)
            || !Libc.TryGetOption(socket, Libc.SOL_TCP, Libc.TCP_KEEPINTVL, out int interval)
            || !Libc.TryGetOption(socket, Libc.SOL_TCP, Libc.TCP_KEEPCNT, out int count)
            || !Libc.TryGetOption(socket, Libc.SOL_TCP, Libc.TCP_USER_TIMEOUT, out int userTimeout))
        {
            return false;
        }

        options = new KeepaliveOptions(
            enabled != 0, TimeSpan.FromSeconds(idle), TimeSpan.FromSeconds(interval), count, TimeSpan.FromMilliseconds(userTimeout));
        return true;
    }

    /// <summary>Sets only what differs. TCP_USER_TIMEOUT is read for the decision and never set.</summary>
    private static bool Write(KernelHandle socket, in KeepaliveOptions before, in KeepaliveOptions wanted, bool force)
    {
        var ok = true;

        // Count and interval first: once the timer runs, it must run with all three.
        if (wanted.Count != before.Count)
        {
            ok &= Libc.TrySetOption(socket, Libc.SOL_TCP, Libc.TCP_KEEPCNT, wanted.Count);
        }

        if (wanted.Interval != before.Interval)
        {
            ok &= Libc.TrySetOption(socket, Libc.SOL_TCP, Libc.TCP_KEEPINTVL, (int)wanted.Interval.TotalSeconds);
        }

        if (wanted.Enabled != before.Enabled)
        {
            ok &= Libc.TrySetOption(socket, Libc.SOL_SOCKET, Libc.SO_KEEPALIVE, wanted.Enabled ? 1 : 0);
        }

        // Last, because with SO_KEEPALIVE on it re-arms the timer from the time already idle; it also runs when only
        // SO_KEEPALIVE changed, whose own timer would start from now.
        if (force || wanted.Idle != before.Idle || wanted.Enabled != before.Enabled)
        {
            ok &= Libc.TrySetOption(socket, Libc.SOL_TCP, Libc.TCP_KEEPIDLE, (int)wanted.Idle.TotalSeconds);
        }

        return ok;
    }
}
