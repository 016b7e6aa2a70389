using System.Buffers.Text;
using System.Text;
using Microsoft.Win32.SafeHandles;
using Sidecar.Probes.Values;

namespace Sidecar.Probes.Processes;

/// <summary>What /proc/PID/stat says, as far as it is used.</summary>
/// <param name="Identity">Pid and start time.</param>
/// <param name="Comm">The command name, up to 15 bytes, any bytes at all.</param>
/// <param name="State">R, S, D, Z, T …</param>
/// <param name="ParentPid">Parent's pid; 0 for PID 1 and for kernel threads' root.</param>
/// <param name="IsKernelThread">PF_KTHREAD in flags.</param>
public readonly record struct ProcessStat(ProcessIdentity Identity, string Comm, char State, int ParentPid, bool IsKernelThread);

/// <summary>
/// Reads processes under /proc (proc(5)). Every method returns false or null when the process has gone or may not be
/// read; nothing throws for that, since a process may vanish between any two lines of code.
/// </summary>
public sealed class ProcessReader
{
    private const ulong PF_KTHREAD = 0x00200000;

    private readonly string _root;

    /// <summary>A reader of the proc file system at <paramref name="root"/>; tests give a directory of their own.</summary>
    public ProcessReader(string root = "/proc") => _root = root;

    internal string Root => _root;

    /// <summary>Reads pid, state, parent and start time.</summary>
    public bool TryReadStat(int pid, out ProcessStat stat)
    {
        stat = default;
        Span<byte> buffer = stackalloc byte[1024];
        return TryReadFile($"{_root}/{pid}/stat", buffer, out var length) && TryParseStat(buffer[..length], out stat) && stat.Identity.Pid == pid;
    }

    /// <summary>Reads what the process has used; false when it has gone, or another has its pid.</summary>
    public bool TryReadUsage(ProcessIdentity identity, out ProcessUsage usage)
    {
        usage = default;
        Span<byte> buffer = stackalloc byte[1024];
        return TryReadFile($"{_root}/{identity.Pid}/stat", buffer, out var length)
            && ProcessUsage.TryParse(buffer[..length], Environment.SystemPageSize, out usage)
            && usage.Identity == identity;
    }

    /// <summary>
    /// Parses a stat line. comm may hold spaces, parentheses and newlines, so it ends at the last ')'.
    /// </summary>
    internal static bool TryParseStat(ReadOnlySpan<byte> line, out ProcessStat stat)
    {
        stat = default;
        var open = line.IndexOf((byte)'(');
        var close = line.LastIndexOf((byte)')');
        if (open < 2 || close < open || !Utf8Parser.TryParse(line[..open], out int pid, out _) || close + 4 > line.Length)
        {
            return false;
        }

        var comm = Encoding.UTF8.GetString(line[(open + 1)..close]);
        var rest = line[(close + 2)..];
        var state = (char)rest[0];
        var parent = 0;
        ulong flags = 0;
        ulong start = 0;

        // rest begins with field 3; ppid is 4, flags 9, starttime 22.
        var field = 3;
        while (field <= 22)
        {
            var end = rest.IndexOf((byte)' ');
            var token = end < 0 ? rest.TrimEnd((byte)'\n') : rest[..end];
            switch (field)
            {
                case 4 when !Utf8Parser.TryParse(token, out parent, out _):
                case 9 when !Utf8Parser.TryParse(token, out flags, out _):
                case 22 when !Utf8Parser.TryParse(token, out start, out _):
                    return false;
            }

            if (end < 0)
            {
                break;
            }

            rest = rest[(end + 1)..];
            field++;
        }

        if (field < 22)
        {
            return false;
        }

        stat = new ProcessStat(new ProcessIdentity(pid, start), comm, state, parent, (flags & PF_KTHREAD) != 0);
        return true;
    }

    /// <summary>True while the same process (not another with its pid) exists and is no zombie.</summary>
    public bool IsAlive(ProcessIdentity identity) =>
        TryReadStat(identity.Pid, out var stat) && stat.Identity == identity && stat.State is not ('Z' or 'X');

    /// <summary>Absolute path of the executable; " (deleted)" is kept off. Null for kernel threads or where not permitted.</summary>
    public string? ReadExecutable(int pid)
    {
        const string deleted = " (deleted)";
        var path = ReadPath(pid, "exe");
        return path?.EndsWith(deleted, StringComparison.Ordinal) == true ? path[..^deleted.Length] : path;
    }

    /// <summary>
    /// The command line, word by word; a program that writes a title over it leaves one word. Empty for kernel threads, null
    /// where it cannot be read. At most 64 KiB of it.
    /// </summary>
    public IReadOnlyList<string>? ReadArguments(int pid)
    {
        var buffer = new byte[64 * 1024];
        return TryReadFile($"{_root}/{pid}/cmdline", buffer, out var length)
            ? Encoding.UTF8.GetString(buffer.AsSpan(0, length)).TrimEnd('\0').Split('\0')
            : null;
    }

    /// <summary>Working directory as the process sees it; null where it may not be read.</summary>
    public string? ReadWorkingDirectory(int pid) => ReadPath(pid, "cwd");

    /// <summary>The directory through which the process's own root is reached.</summary>
    public string RootDirectory(int pid) => $"{_root}/{pid}/root";

    /// <summary>Real uid of the process.</summary>
    public uint? ReadUid(int pid)
    {
        Span<byte> buffer = stackalloc byte[4096];
        if (!TryReadFile($"{_root}/{pid}/status", buffer, out var length))
        {
            return null;
        }

        // The first line holds the process's own name with newlines escaped, so "\nUid:" cannot be forged.
        var at = buffer[..length].IndexOf("\nUid:\t"u8);
        return at >= 0 && Utf8Parser.TryParse(buffer[(at + 6)..length], out uint uid, out _) ? uid : null;
    }

    /// <summary>
    /// The systemd unit: the element of the cgroup path that ends in .service or .scope and stands below slices alone
    /// (systemd.slice(5)); below it, in user@1000.service or a container, names are chosen by others. Read from the unified
    /// hierarchy, or from name=systemd where the host still has version 1.
    /// </summary>
    public string? ReadUnit(int pid)
    {
        Span<byte> buffer = stackalloc byte[4096];
        return TryReadFile($"{_root}/{pid}/cgroup", buffer, out var length)
            ? ParseUnit(Encoding.UTF8.GetString(buffer[..length]))
            : null;
    }

    internal static string? ParseUnit(string cgroupFile)
    {
        foreach (var line in cgroupFile.Split('\n'))
        {
            // hierarchy-ID:controllers:path
            var first = line.IndexOf(':', StringComparison.Ordinal);
            var second = first < 0 ? -1 : line.IndexOf(':', first + 1);
            if (second < 0)
            {
                continue;
            }

            var controllers = line[(first + 1)..second];
            if (controllers is not ("" or "name=systemd"))
            {
                continue;
            }

            foreach (var element in line[(second + 1)..].Split('/', StringSplitOptions.RemoveEmptyEntries))
            {
                if (element.EndsWith(".service", StringComparison.Ordinal) || element.EndsWith(".scope", StringComparison.Ordinal))
                {
                    return element;
                }

                if (!element.EndsWith(".slice", StringComparison.Ordinal))
                {
                    break;
                }
            }
        }

        return null;
    }

    /// <summary>
    /// Voluntary and involuntary context switches of all threads: a process whose count has not moved did not run at all.
    /// Null when it cannot be read.
    /// </summary>
    public long? ReadContextSwitches(int pid)
    {
        try
        {
            long total = 0;
            Span<byte> buffer = stackalloc byte[4096];
            foreach (var task in Directory.EnumerateDirectories($"{_root}/{pid}/task"))
            {
                if (!TryReadFile(task + "/status", buffer, out var length))
                {
                    continue;
                }

                var text = buffer[..length];
                total += ReadNumberAfter(text, "\nvoluntary_ctxt_switches:\t"u8) + ReadNumberAfter(text, "\nnonvoluntary_ctxt_switches:\t"u8);
            }

            return total;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    private static long ReadNumberAfter(ReadOnlySpan<byte> text, ReadOnlySpan<byte> label)
    {
        var at = text.IndexOf(label);
        return at >= 0 && Utf8Parser.TryParse(text[(at + label.Length)..], out long value, out _) ? value : 0;
    }

    /// <summary>Inode of the process's network namespace, or 0 where it cannot be read.</summary>
    public ulong ReadNetworkNamespace(int pid)
    {
        Span<byte> buffer = stackalloc byte[64];
        var length = Interop.Libc.ReadLink($"{_root}/{pid}/ns/net", buffer);
        return length > 0 ? ParseBracketed(buffer[..length], "net:["u8) : 0;
    }

    /// <summary>Whether there are TCP sockets in the process's network namespace, of anybody; true where it cannot be read. No right is needed for it.</summary>
    public bool HasTcpSockets(int pid)
    {
        return Counts($"{_root}/{pid}/net/sockstat", "TCP: inuse "u8) || Counts($"{_root}/{pid}/net/sockstat6", "TCP6: inuse "u8);

        static bool Counts(string path, ReadOnlySpan<byte> label)
        {
            Span<byte> buffer = stackalloc byte[1024];
            return !TryReadFile(path, buffer, out var length) || ReadNumberAfter(buffer[..length], label) != 0;
        }
    }

    /// <summary>Path through which the namespace can be opened.</summary>
    public string NetworkNamespacePath(int pid) => $"{_root}/{pid}/ns/net";

    /// <summary>All numeric entries of /proc.</summary>
    public List<int> ReadPids()
    {
        var pids = new List<int>(256);
        Interop.Libc.VisitNumbers(_root, (pid, _, _) => pids.Add(pid));
        return pids;
    }

    /// <summary>
    /// Visits the sockets a process holds: descriptor number and inode. False when its descriptors may not be listed
    /// (CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE) or it has gone.
    /// </summary>
    public bool TryVisitSockets(int pid, Action<int, uint> visit)
    {
        long cursor = 0;
        return VisitSockets(pid, ref cursor, int.MaxValue, visit) >= 0;
    }

    /// <summary>Visits the sockets among at most so many descriptors of a process, from a cursor on.</summary>
    /// <param name="pid">The process.</param>
    /// <param name="cursor">0 for the first descriptor; where to go on afterwards.</param>
    /// <param name="atMost">Descriptors of any kind.</param>
    /// <param name="visit">Called with descriptor number and inode.</param>
    /// <returns>Descriptors read: fewer than asked for when there are no more; -1 when they may not be listed, or the process has gone.</returns>
    public int VisitSockets(int pid, ref long cursor, int atMost, Action<int, uint> visit) =>
        Interop.Libc.VisitNumbers($"{_root}/{pid}/fd", ref cursor, atMost, (fd, directory, name) =>
        {
            Span<byte> link = stackalloc byte[64];
            var length = Interop.Libc.ReadLinkAt(directory, name, link);
            if (length > 0 && ParseBracketed(link[..length], "socket:["u8) is var inode and not 0)
            {
                visit(fd, (uint)inode);
            }
        });

    /// <summary>True while descriptor <paramref name="fd"/> of the process is the socket with that inode.</summary>
    public bool HoldsSocket(int pid, int fd, uint inode)
    {
        Span<byte> link = stackalloc byte[64];
        var length = Interop.Libc.ReadLink($"{_root}/{pid}/fd/{fd}", link);
        return length > 0 && inode != 0 && ParseBracketed(link[..length], "socket:["u8) == inode;
    }

    /// <summary>Where a link of the process's directory leads; null where it may not be read, or is longer than a path may be.</summary>
    private string? ReadPath(int pid, string link)
    {
        Span<byte> buffer = stackalloc byte[4096];
        var length = Interop.Libc.ReadLink($"{_root}/{pid}/{link}", buffer);
        return length > 0 && length < buffer.Length ? Encoding.UTF8.GetString(buffer[..length]) : null;
    }

    internal static ulong ParseBracketed(ReadOnlySpan<byte> link, ReadOnlySpan<byte> prefix) =>
        link.StartsWith(prefix) && link[^1] == (byte)']' && Utf8Parser.TryParse(link[prefix.Length..^1], out ulong value, out var used)
        && used == link.Length - prefix.Length - 1
            ? value
            : 0;

    internal static bool TryReadFile(string path, Span<byte> buffer, out int length)
    {
        length = 0;
        try
        {
            using SafeFileHandle handle = File.OpenHandle(path);
            while (length < buffer.Length)
            {
                var read = RandomAccess.Read(handle, buffer[length..], length);
                if (read == 0)
                {
                    break;
                }

                length += read;
            }

            return length > 0;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or NotSupportedException)
        {
            // ENOENT and ESRCH: it has gone. EACCES: not ours to read.
            return false;
        }
    }
}
