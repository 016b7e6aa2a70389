using System.Text;

namespace Sidecar.Probes.Processes;

/// <summary>
/// Whether a process is frozen by its control group. A frozen process shows itself nowhere else for certain: with version 2 its threads are in state S
/// (tried on 6.18; version 1 shows D) and /proc/PID/syscall still names the call they were frozen in.
/// </summary>
internal static class Freezer
{
    /// <summary>Where a thread sleeps that version 2 holds (do_freezer_trap, inlined in some builds) or version 1 (__refrigerator).</summary>
    private static readonly string[] Traps = ["do_freezer_trap", "get_signal", "__refrigerator"];

    /// <summary>True, false, or null where the control groups cannot be read from here.</summary>
    /// <param name="cgroupFile">/proc/PID/cgroup.</param>
    /// <param name="mount">/sys/fs/cgroup.</param>
    internal static bool? IsFrozen(string cgroupFile, string mount)
    {
        if (ReadText(cgroupFile) is not { } text)
        {
            return null;
        }

        bool? frozen = false;
        foreach (var line in text.Split('\n', StringSplitOptions.RemoveEmptyEntries))
        {
            // hierarchy-ID:controllers:path
            if (line.Split(':', 3) is not [_, var controllers, var path])
            {
                return null;
            }

            var here = controllers.Length == 0 ? UnifiedIsFrozen(mount, path)
                : controllers.Split(',').Contains("freezer") ? VersionOneIsFrozen(mount, path)
                : false;
            if (here == true)
            {
                return true;
            }

            frozen = here is null ? null : frozen;
        }

        return frozen;
    }

    /// <summary>What the place at which a thread sleeps says: true for the freezer's, null where the kernel does not tell.</summary>
    /// <param name="wchanFile">/proc/PID/task/TID/wchan.</param>
    internal static bool? IsTrapped(string wchanFile) =>
        ReadText(wchanFile) is { Length: > 0 } place && place != "0" ? Traps.Contains(place) : null;

    /// <summary>
    /// cgroup.events says "frozen 1" once every thread of the group is; cgroup.freeze of the group or of one above it says that they are about to be.
    /// The root has neither file.
    /// </summary>
    private static bool? UnifiedIsFrozen(string mount, string path)
    {
        var root = File.Exists(mount + "/cgroup.controllers") ? mount : mount + "/unified";
        var group = path.TrimEnd('/');
        if (ReadText(root + group + "/cgroup.events") is not { } events || HasParentStep(path))
        {
            return group.Length == 0 && File.Exists(root + "/cgroup.controllers") ? false : null;
        }

        if (events.Split('\n').Contains("frozen 1"))
        {
            return true;
        }

        for (; group.Length > 0; group = group[..group.LastIndexOf('/')])
        {
            if (ReadText(root + group + "/cgroup.freeze")?.TrimEnd('\n') == "1")
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>freezer.state counts the groups above: THAWED, FREEZING or FROZEN. The root has no such file.</summary>
    private static bool? VersionOneIsFrozen(string mount, string path)
    {
        var root = mount + "/freezer";
        return HasParentStep(path) ? null
            : ReadText(root + path.TrimEnd('/') + "/freezer.state") is { } state ? state.TrimEnd('\n') != "THAWED"
            : path == "/" && File.Exists(root + "/cgroup.procs") ? false
            : null;
    }

    /// <summary>A group outside the reader's own cgroup namespace is shown by steps upwards, which lead nowhere here.</summary>
    private static bool HasParentStep(string path) => path.Split('/').Contains("..");

    private static string? ReadText(string path)
    {
        Span<byte> buffer = stackalloc byte[4096];
        return ProcessReader.TryReadFile(path, buffer, out var length) && length < buffer.Length ? Encoding.UTF8.GetString(buffer[..length]) : null;
    }
}
