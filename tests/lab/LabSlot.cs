using System.Globalization;

namespace Sidecar.Lab;

/// <summary>
/// A place that one lab owns: a number (and with it the names of its namespaces and its subnets) and a directory.
/// The owner holds a lock on a file that the kernel gives back when the owner dies in whatever way; what a dead
/// owner left is removed by the next one that comes.
/// </summary>
internal sealed class LabSlot : IDisposable
{
    /// <summary>Numbers 1 to 250 are labs; the number is the third byte of their IPv4 addresses.</summary>
    private const int Last = 250;

    private const string LockDirectory = "/run/sidecar-lab";
    private readonly FileStream _lockFile;
    private int _disposed;

    private LabSlot(string id, FileStream lockFile)
    {
        Id = id;
        _lockFile = lockFile;
        Directory = System.IO.Directory.CreateTempSubdirectory($"sidecar-lab-{id}-").FullName;
        using var writer = new StreamWriter(lockFile, leaveOpen: true);
        writer.Write($"{Directory}\n");
        writer.Flush();
        // The servers run as users of their own and must be able to reach their parts.
        File.SetUnixFileMode(Directory, (UnixFileMode)0x1ED /* 0755 */);
    }

    /// <summary>The number as text, or a name for something that has no network.</summary>
    public string Id { get; }

    /// <summary>The number; meaningless for a named slot.</summary>
    public int Number => int.Parse(Id, CultureInfo.InvariantCulture);

    public string Directory { get; }

    /// <summary>Removes what dead owners left and takes the lowest free number.</summary>
    /// <exception cref="InvalidOperationException">All numbers are taken.</exception>
    public static LabSlot TakeNumber()
    {
        using var registry = LockRegistry();
        ReapLocked();
        for (var number = 1; number <= Last; number++)
        {
            if (TryLock(number.ToString(CultureInfo.InvariantCulture)) is { } lockFile)
            {
                return new LabSlot(number.ToString(CultureInfo.InvariantCulture), lockFile);
            }
        }

        throw new InvalidOperationException($"{Last} labs run already");
    }

    /// <summary>Takes a place that has only a directory.</summary>
    public static LabSlot TakeNamed(string name)
    {
        using var registry = LockRegistry();
        var id = $"{name}-{Environment.ProcessId}";
        return new LabSlot(id, TryLock(id) ?? throw new InvalidOperationException($"{id} is taken"));
    }

    /// <summary>Removes what dead owners left and returns their ids.</summary>
    public static IReadOnlyList<string> Reap()
    {
        using var registry = LockRegistry();
        return ReapLocked();
    }

    public void Dispose()
    {
        if (Interlocked.Exchange(ref _disposed, 1) != 0)
        {
            return;
        }

        Remove(Id, Directory);
        using var registry = LockRegistry();
        File.Delete(_lockFile.Name);
        _lockFile.Dispose();
    }

    private static List<string> ReapLocked()
    {
        var reaped = new List<string>();
        foreach (var path in System.IO.Directory.GetFiles(LockDirectory, "*.lock"))
        {
            var id = Path.GetFileNameWithoutExtension(path);
            if (TryLock(id) is not { } lockFile)
            {
                continue;
            }

            using (lockFile)
            {
                using var reader = new StreamReader(lockFile, leaveOpen: true);
                Remove(id, reader.ReadLine());
                File.Delete(path);
                reaped.Add(id);
            }
        }

        return reaped;
    }

    /// <summary>Ends what still runs in the namespaces of this id, deletes them and the directory.</summary>
    private static void Remove(string id, string? directory)
    {
        foreach (var name in LabNetwork.NamespaceNames(id))
        {
            if (!File.Exists(NetworkNamespace.PathOf(name)))
            {
                continue;
            }

            // More than once, because a master may respawn a worker between the scan and the signal.
            for (var attempt = 0; attempt < 100 && ProcessesIn(name) is { Length: > 0 } pids; attempt++)
            {
                Array.ForEach(pids, pid => ChildProcess.SendTo(pid, Signal.Kill));
                Thread.Sleep(20);
            }

            Command.TryRunAsync("ip", ["netns", "del", name]).GetAwaiter().GetResult();
        }

        if (directory is not null && System.IO.Directory.Exists(directory))
        {
            System.IO.Directory.Delete(directory, recursive: true);
        }
    }

    private static int[] ProcessesIn(string name)
    {
        var pids = Command.TryRunAsync("ip", ["netns", "pids", name]).GetAwaiter().GetResult().Output;
        return [.. pids.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(pid => int.Parse(pid, CultureInfo.InvariantCulture))];
    }

    private static FileStream? TryLock(string id)
    {
        try
        {
            // FileShare.None is flock(LOCK_EX) here, and the descriptor is not inherited by children.
            return new FileStream(Path.Combine(LockDirectory, $"{id}.lock"), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        }
        catch (IOException)
        {
            return null;
        }
    }

    /// <summary>Slots are taken and given back one at a time, so that no lock file is deleted under its new owner.</summary>
    private static FileStream LockRegistry()
    {
        System.IO.Directory.CreateDirectory(LockDirectory);
        for (var attempt = 0; ; attempt++)
        {
            try
            {
                return new FileStream(Path.Combine(LockDirectory, "registry"), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (IOException) when (attempt < 1000)
            {
                Thread.Sleep(20);
            }
        }
    }
}
