using System.Buffers.Binary;
using System.Collections.Frozen;
using System.Numerics;
using System.Runtime.InteropServices;
using Sidecar.Probes.Interop;
using Sidecar.Probes.Values;

namespace Sidecar.Probes.Processes;

/// <summary>Whether a process is blocked on one socket.</summary>
public enum BlockedVerdict
{
    /// <summary>It could not be told: gone, not readable, a 32-bit program, an unknown architecture.</summary>
    Unknown,

    /// <summary>At least one of its threads sleeps in a system call that waits for that socket and for nothing else.</summary>
    OnSocket,

    /// <summary>No thread does: they run, or wait for something else, or for several things at once.</summary>
    NotBlocked,

    /// <summary>It is stopped, traced or frozen: that it does not go on says nothing about the socket.</summary>
    Stopped,
}

/// <summary>What was found.</summary>
/// <param name="Verdict">The verdict.</param>
/// <param name="Reason">For the operator: <c>thread 123 waits in recvfrom on descriptor 7</c>.</param>
/// <param name="Threads">Threads that were read.</param>
/// <param name="ThreadsOnSocket">How many of them wait for the socket.</param>
/// <param name="ThreadsRunning">How many of them ran, or were ready to.</param>
public readonly record struct BlockedInspection(BlockedVerdict Verdict, string Reason, int Threads = 0, int ThreadsOnSocket = 0, int ThreadsRunning = 0);

/// <summary>
/// Proves that a process is blocked on one socket: the system call and its descriptors from /proc/PID/task/TID/syscall, sets of poll and select from
/// /proc/PID/mem. Descriptors are compared by the socket's inode, so a duplicate counts. What cannot be proven is not claimed.
/// </summary>
/// <remarks>
/// syscall and mem want PTRACE_MODE_ATTACH: CAP_SYS_PTRACE, and CAP_DAC_READ_SEARCH as the files belong to the process's user. Threads with
/// descriptors of their own (clone without CLONE_FILES) are not told apart.
/// </remarks>
public static class BlockedThreads
{
    /// <summary>A process with more threads is not judged.</summary>
    public const int MostThreads = 4096;

    /// <summary>A set of poll or select that is larger is an event loop.</summary>
    private const int MostSetBytes = 64 * 1024;

    private const int PollEntry = 8;

    /// <summary>Reads every thread of the process.</summary>
    /// <param name="processes">The proc file system.</param>
    /// <param name="process">The process that is meant.</param>
    /// <param name="descriptor">One of its descriptors for the socket.</param>
    /// <param name="inode">The socket's inode, as sock_diag gave it: had the descriptor been reused, it would differ.</param>
    /// <param name="cgroups">Where control groups are mounted.</param>
    public static BlockedInspection Inspect(ProcessReader processes, ProcessIdentity process, int descriptor, uint inode, string cgroups = "/sys/fs/cgroup") =>
        Inspect(processes, process, descriptor, inode, cgroups, RuntimeInformation.ProcessArchitecture);

    internal static BlockedInspection Inspect(
        ProcessReader processes, ProcessIdentity process, int descriptor, uint inode, string cgroups, Architecture architecture)
    {
        if (SystemCalls.Of(architecture) is not { } calls)
        {
            return new BlockedInspection(BlockedVerdict.Unknown, $"system calls of {architecture} are not known");
        }

        if (!processes.IsAlive(process))
        {
            return Gone(process);
        }

        var directory = $"{processes.Root}/{process.Pid}";
        if (!Is64Bit(directory))
        {
            return new BlockedInspection(BlockedVerdict.Unknown, $"process {process.Pid} is a 32-bit program, or may not be read");
        }

        if (!processes.HoldsSocket(process.Pid, descriptor, inode))
        {
            return new BlockedInspection(BlockedVerdict.Unknown, $"descriptor {descriptor} of process {process.Pid} is no longer that socket, or may not be read");
        }

        using var inspection = new Inspection(processes, process.Pid, inode, calls);
        var frozenBefore = Freezer.IsFrozen(directory + "/cgroup", cgroups);
        var found = inspection.Run(directory, groupsAreKnown: frozenBefore is not null);
        if (frozenBefore == true || Freezer.IsFrozen(directory + "/cgroup", cgroups) == true)
        {
            return found with { Verdict = BlockedVerdict.Stopped, Reason = $"process {process.Pid} is frozen by its control group" };
        }

        // All that was read was this process's only if it still is.
        return !processes.IsAlive(process) ? Gone(process)
            : found.Verdict == BlockedVerdict.OnSocket && !processes.HoldsSocket(process.Pid, descriptor, inode)
                ? found with { Verdict = BlockedVerdict.Unknown, Reason = $"descriptor {descriptor} of process {process.Pid} is no longer that socket" }
            : found;
    }

    private static BlockedInspection Gone(ProcessIdentity process) => new(BlockedVerdict.Unknown, $"process {process.Pid} has gone");

    /// <summary>
    /// AT_PHENT of the auxiliary vector is 56 in a 64-bit program. The numbers of a 32-bit one are others, and /proc does not say which they are.
    /// The executable itself is not opened: it may lie on a file system that hangs.
    /// </summary>
    private static bool Is64Bit(string directory)
    {
        const ulong AT_PHENT = 4;
        const ulong Elf64ProgramHeader = 56;
        Span<byte> vector = stackalloc byte[2048];
        if (!ProcessReader.TryReadFile(directory + "/auxv", vector, out var length))
        {
            return false;
        }

        for (var at = 0; at + 16 <= length; at += 16)
        {
            if (BinaryPrimitives.ReadUInt64LittleEndian(vector[at..]) == AT_PHENT)
            {
                return BinaryPrimitives.ReadUInt64LittleEndian(vector[(at + 8)..]) == Elf64ProgramHeader;
            }
        }

        return false;
    }

    private enum ThreadVerdict
    {
        Gone,
        Unreadable,
        OnSocket,
        Elsewhere,
        Running,
        Stopped,
    }

    /// <summary>One pass over the threads of one process.</summary>
    private sealed class Inspection(ProcessReader processes, int pid, uint inode, FrozenDictionary<long, SystemCall> calls) : IDisposable
    {
        private KernelHandle? _memory;

        public void Dispose() => _memory?.Dispose();

        internal BlockedInspection Run(string directory, bool groupsAreKnown)
        {
            var threads = new List<int>();
            var listed = Libc.VisitNumbers(directory + "/task", (thread, _, _) =>
            {
                if (threads.Count <= MostThreads)
                {
                    threads.Add(thread);
                }
            });
            if (!listed || threads.Count > MostThreads)
            {
                return new BlockedInspection(
                    BlockedVerdict.Unknown, listed ? $"process {pid} has more than {MostThreads} threads" : $"threads of process {pid} cannot be listed");
            }

            Span<int> counts = stackalloc int[6];
            var reasons = new string?[6];
            foreach (var thread in threads)
            {
                var verdict = Judge($"{directory}/task/{thread}", groupsAreKnown, out var what);
                counts[(int)verdict]++;
                reasons[(int)verdict] ??= $"thread {thread} {what}";
            }

            var read = threads.Count - counts[(int)ThreadVerdict.Gone];
            var most = Decide(counts);
            var other = reasons[(int)ThreadVerdict.Elsewhere] ?? reasons[(int)ThreadVerdict.Running] ?? $"no thread of process {pid} is left";
            var reason = most switch
            {
                BlockedVerdict.Stopped => reasons[(int)ThreadVerdict.Stopped]!,
                BlockedVerdict.OnSocket => reasons[(int)ThreadVerdict.OnSocket]!,
                BlockedVerdict.Unknown => reasons[(int)ThreadVerdict.Unreadable] ?? other,
                _ => read > 1 ? $"no thread waits on the socket alone: {other}, {read - 1} more" : other,
            };
            return new BlockedInspection(most, reason, read, counts[(int)ThreadVerdict.OnSocket], counts[(int)ThreadVerdict.Running]);
        }

        /// <summary>One stopped thread stops the claim (a debugger holds the process); one proven thread is enough; one unreadable one forbids a denial.</summary>
        private static BlockedVerdict Decide(ReadOnlySpan<int> counts) =>
            counts[(int)ThreadVerdict.Stopped] > 0 ? BlockedVerdict.Stopped
            : counts[(int)ThreadVerdict.OnSocket] > 0 ? BlockedVerdict.OnSocket
            : counts[(int)ThreadVerdict.Unreadable] > 0 || counts[(int)ThreadVerdict.Elsewhere] + counts[(int)ThreadVerdict.Running] == 0 ? BlockedVerdict.Unknown
            : BlockedVerdict.NotBlocked;

        private ThreadVerdict Judge(string directory, bool groupsAreKnown, out string what)
        {
            what = "has gone";
            if (!ThreadState.TryRead(directory, out var before) || before.State is 'Z' or 'X')
            {
                return ThreadVerdict.Gone;
            }

            if (before.State is 'T' or 't')
            {
                what = before.State == 'T' ? "is stopped" : "is stopped by a debugger";
                return ThreadVerdict.Stopped;
            }

            if (before.Tracer != 0)
            {
                what = $"is traced by process {before.Tracer}";
                return ThreadVerdict.Stopped;
            }

            if (!ThreadCall.TryRead(directory, out var call))
            {
                what = "cannot be read (CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH)";
                return ThreadState.TryRead(directory, out _) ? ThreadVerdict.Unreadable : ThreadVerdict.Gone;
            }

            if (call.IsRunning || before.State == 'R')
            {
                what = "runs";
                return ThreadVerdict.Running;
            }

            // A wait for a socket can be interrupted (S); in D a thread waits for memory or a disk, or version 1 of control groups has frozen it.
            if (before.State != 'S' || !call.IsCall)
            {
                what = call.IsCall ? $"sleeps uninterruptibly in {Name(call)}" : "waits, but in no system call";
                return ThreadVerdict.Elsewhere;
            }

            if (!WaitsForSocket(call, out what))
            {
                return ThreadVerdict.Elsewhere;
            }

            var trapped = Freezer.IsTrapped(directory + "/wchan");
            if (trapped == true)
            {
                what = "is frozen";
                return ThreadVerdict.Stopped;
            }

            if (trapped is null && !groupsAreKnown)
            {
                what = "may be frozen: neither its control group nor its wait channel can be read";
                return ThreadVerdict.Unreadable;
            }

            // Had the thread run while its sets and descriptors were read, they might belong to another call.
            if (ThreadState.TryRead(directory, out var after) && after == before && ThreadCall.TryRead(directory, out var again) && again == call)
            {
                return ThreadVerdict.OnSocket;
            }

            what = "has just moved";
            return ThreadVerdict.Running;
        }

        private string Name(in ThreadCall call) => calls.TryGetValue(call.Number, out var known) ? known.Name : $"system call {call.Number}";

        private bool WaitsForSocket(in ThreadCall call, out string what)
        {
            what = $"waits in {Name(call)}";
            if (!calls.TryGetValue(call.Number, out var known))
            {
                return false;
            }

            switch (known.Kind)
            {
                case CallKind.Descriptor:
                    var descriptor = (int)call.First;
                    what += $" on descriptor {descriptor}";
                    return processes.HoldsSocket(pid, descriptor, inode);
                case CallKind.Poll:
                    return Only(PollSet(call), ref what);
                case CallKind.Select:
                    return Only(SelectSets(call), ref what);
                default:
                    return false;
            }
        }

        /// <summary>True when a set holds the socket and nothing else. Null is a set that could not be read or is too large.</summary>
        private bool Only(IEnumerable<int>? set, ref string what)
        {
            var first = -1;
            foreach (var descriptor in set ?? [])
            {
                if (!processes.HoldsSocket(pid, descriptor, inode))
                {
                    what += first < 0 ? $" on descriptor {descriptor}" : $" on descriptors {first}, {descriptor} and perhaps more";
                    return false;
                }

                first = descriptor;
            }

            what += first >= 0 ? $" on descriptor {first}" : set is null ? " on a set that cannot be read" : " on no descriptor";
            return first >= 0;
        }

        /// <summary>Descriptors of the array that have events; negative ones are ignored by the kernel, too.</summary>
        private List<int>? PollSet(in ThreadCall call)
        {
            var count = (uint)call.Second;
            var set = new byte[Math.Min((ulong)count * PollEntry, MostSetBytes + 1)];
            if (set.Length > MostSetBytes || !TryReadMemory(call.First, set))
            {
                return null;
            }

            var descriptors = new List<int>();
            for (var at = 0; at < set.Length; at += PollEntry)
            {
                var descriptor = BinaryPrimitives.ReadInt32LittleEndian(set.AsSpan(at));
                if (descriptor >= 0 && BinaryPrimitives.ReadInt16LittleEndian(set.AsSpan(at + 4)) != 0)
                {
                    descriptors.Add(descriptor);
                }
            }

            return descriptors;
        }

        /// <summary>Descriptors in any of the three sets, of which only the first bits count.</summary>
        private List<int>? SelectSets(in ThreadCall call)
        {
            var bits = (int)call.First;
            if (bits is < 0 or > MostSetBytes * 8)
            {
                return null;
            }

            var union = new ulong[(bits + 63) / 64];
            var set = new byte[union.Length * 8];
            foreach (var address in (ReadOnlySpan<ulong>)[call.Second, call.Third, call.Fourth])
            {
                if (address == 0)
                {
                    continue;
                }

                if (!TryReadMemory(address, set))
                {
                    return null;
                }

                for (var i = 0; i < union.Length; i++)
                {
                    union[i] |= BinaryPrimitives.ReadUInt64LittleEndian(set.AsSpan(i * 8));
                }
            }

            var descriptors = new List<int>();
            for (var i = 0; i < union.Length; i++)
            {
                for (var left = union[i]; left != 0; left &= left - 1)
                {
                    var descriptor = i * 64 + BitOperations.TrailingZeroCount(left);
                    if (descriptor < bits)
                    {
                        descriptors.Add(descriptor);
                    }
                }
            }

            return descriptors;
        }

        private bool TryReadMemory(ulong address, Span<byte> buffer)
        {
            _memory ??= new KernelHandle(Libc.Open($"{processes.Root}/{pid}/mem", Libc.O_RDONLY | Libc.O_CLOEXEC));
            return !_memory.IsInvalid && Libc.TryReadAt(_memory, address, buffer);
        }
    }
}
