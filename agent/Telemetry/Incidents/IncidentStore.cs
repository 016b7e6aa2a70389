using Microsoft.Extensions.Logging;

namespace Sidecar.Agent.Telemetry;

/// <summary>
/// Keeps incidents: appended to <c>incidents.jsonl</c> in the state directory, and the newest in memory for the HTTP
/// endpoint. An incident is recorded before its action with outcome <c>pending</c> and again, with the same id, when
/// the outcome is known; readers take an id's last line. Never throws: while the directory cannot be written, records
/// wait in memory (the newest 1,024) and <see cref="Problem"/> says why.
/// </summary>
internal sealed class IncidentStore : IDisposable
{
    private const int MostWaiting = 1024;
    private const int MostRecent = 1000;
    private const int LongestLine = 64 * 1024;

    private readonly Lock gate = new();
    private readonly string directory;
    private readonly ILogger logger;
    private readonly TimeProvider clock;
    private readonly long rotateAt;
    private readonly TimeSpan retryAfter = TimeSpan.FromSeconds(5);
    private readonly Queue<byte[]> waiting = new();
    private readonly List<Incident> recent = [];
    private AppendFile? file;
    private long size;
    private long counter;
    private long lost;
    private long lastFailure;
    private string? problem;
    private Task syncing = Task.CompletedTask;
    private bool syncWanted;

    /// <summary>Reads what is kept already and opens the file; a failure shows in <see cref="Problem"/>.</summary>
    /// <param name="directory">The state directory; made if it is not there.</param>
    /// <param name="logger">Told once when writing stops working and once when it works again.</param>
    /// <param name="clock">For ids and for the pause between attempts.</param>
    /// <param name="rotateAt">Size in bytes at which the file becomes <c>incidents.jsonl.1</c>; at most twice this is kept.</param>
    public IncidentStore(string directory, ILogger logger, TimeProvider clock, long rotateAt = 4 * 1024 * 1024)
    {
        this.directory = directory;
        this.logger = logger;
        this.clock = clock;
        this.rotateAt = rotateAt;
        lock (gate)
        {
            try
            {
                recent.AddRange(IncidentReader.Read(directory, MostRecent).Incidents);
            }
            catch (Exception e)
            {
                logger.LogWarning("earlier incidents cannot be read: {Reason}", e.Message);
            }

            WriteOut([]);
        }
    }

    /// <summary>Why incidents are not being stored, for the agent's list of limitations; null while they are.</summary>
    public string? Problem
    {
        get
        {
            lock (gate)
                return problem;
        }
    }

    /// <summary>An id for a new incident: UTC time to the millisecond and a counter, so that ids sort by time.</summary>
    public string NextId()
    {
        var number = Interlocked.Increment(ref counter);
        return $"{clock.GetUtcNow().UtcDateTime:yyyyMMdd'T'HHmmss.fff'Z'}-{number:D6}";
    }

    /// <summary>
    /// Stores the incident, or its new state. It has been handed to the kernel when this returns (so it survives the
    /// agent's end); the disk gets it at once, but in the background, since a slow disk must not delay a rescue.
    /// </summary>
    public void Record(Incident incident)
    {
        lock (gate)
        {
            Remember(incident);
            var line = IncidentJson.Line(incident);
            if (line.Length > LongestLine)
            {
                var cut = new Dictionary<string, string>(StringComparer.Ordinal) { ["evidence_dropped"] = "too long to keep" };
                line = IncidentJson.Line(incident with { Evidence = cut, Why = incident.Why.Length > 1024 ? incident.Why[..1024] : incident.Why });
            }

            WriteOut([line]);
        }
    }

    /// <summary>Tries again what could not be written; to be called once per tick. Costs nothing while all is well.</summary>
    public void Retry()
    {
        lock (gate)
        {
            if (problem is not null && clock.GetElapsedTime(lastFailure) >= retryAfter)
                WriteOut([]);
        }
    }

    /// <summary>The newest incidents, oldest first, each in its latest state. From memory.</summary>
    public IReadOnlyList<Incident> Recent(int last)
    {
        lock (gate)
            return [.. recent.Skip(Math.Max(0, recent.Count - last))];
    }

    public void Dispose()
    {
        Task pending;
        lock (gate)
        {
            if (waiting.Count > 0)
                WriteOut([]);
            pending = syncing;
        }

        // A disk that does not answer must not keep the agent from ending.
        pending.Wait(TimeSpan.FromSeconds(2));
        lock (gate)
        {
            file?.Dispose();
            file = null;
        }
    }

    private void Remember(Incident incident)
    {
        // An update is nearly always of one of the newest.
        var index = recent.FindLastIndex(known => string.Equals(known.Id, incident.Id, StringComparison.Ordinal));
        if (index >= 0)
        {
            recent[index] = incident;
            return;
        }

        recent.Add(incident);
        if (recent.Count > MostRecent)
            recent.RemoveAt(0);
    }

    private void WriteOut(ReadOnlySpan<byte[]> lines)
    {
        foreach (var line in lines)
        {
            if (waiting.Count == MostWaiting)
            {
                waiting.Dequeue();
                lost++;
            }

            waiting.Enqueue(line);
        }

        try
        {
            Open();
            while (waiting.TryPeek(out var next))
            {
                Rotate(next.Length);
                file!.Write(next);
                size += next.Length;
                waiting.Dequeue();
                syncWanted = true;
            }

            Sync();
            Recovered();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or NotSupportedException or ArgumentException)
        {
            file?.Dispose();
            file = null;
            Failed(e.Message);
        }
    }

    private void Open()
    {
        // Somebody may have removed or replaced the directory under us; an unlinked file would swallow incidents.
        if (file is not null && File.Exists(Path.Combine(directory, IncidentReader.FileName)))
            return;
        file?.Dispose();
        file = null;
        Directory.CreateDirectory(directory);
        var path = Path.Combine(directory, IncidentReader.FileName);
        var opened = AppendFile.Open(path);
        try
        {
            size = opened.Length;
            if (size > 0 && !EndsWithLineFeed(path))
            {
                // A crash in mid-write left a torn line: end it, so that the next record starts on a line of its own.
                opened.Write("\n"u8);
                size++;
            }
        }
        catch
        {
            opened.Dispose();
            throw;
        }

        file = opened;
    }

    private static bool EndsWithLineFeed(string path)
    {
        using var handle = File.OpenHandle(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        Span<byte> lastByte = stackalloc byte[1];
        return RandomAccess.Read(handle, lastByte, RandomAccess.GetLength(handle) - 1) == 1 && lastByte[0] == (byte)'\n';
    }

    private void Rotate(int incoming)
    {
        if (size == 0 || size + incoming <= rotateAt)
            return;
        var path = Path.Combine(directory, IncidentReader.FileName);
        File.Move(path, Path.Combine(directory, IncidentReader.RotatedFileName), overwrite: true);
        file!.Dispose();
        file = null;
        file = AppendFile.Open(path);
        size = 0;
    }

    // One background fsync at a time; what is written while it runs is taken by the next.
    private void Sync()
    {
        if (!syncWanted || !syncing.IsCompleted || file is not { } current)
            return;
        syncWanted = false;
        syncing = Task.Run(() =>
        {
            try
            {
                current.Sync();
            }
            catch (ObjectDisposedException)
            {
                // Rotated away meanwhile; the kernel writes it out by itself within seconds.
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                lock (gate)
                    Failed(e.Message);
                return;
            }

            lock (gate)
            {
                syncing = Task.CompletedTask;
                Sync();
            }
        });
    }

    private void Failed(string reason)
    {
        lastFailure = clock.GetTimestamp();
        if (problem is null)
            logger.LogError("incidents cannot be stored in {Directory}: {Reason}; the newest {Count} are kept in memory", directory, reason, MostWaiting);
        problem = $"incidents cannot be stored in {directory}: {reason}";
    }

    private void Recovered()
    {
        if (problem is null)
            return;
        problem = null;
        logger.LogInformation("incidents are stored in {Directory} again; {Lost} were lost meanwhile", directory, lost);
        lost = 0;
    }
}
