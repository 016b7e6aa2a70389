using System.Runtime.CompilerServices;
using Microsoft.Extensions.Logging;
using Sidecar.Agent.Core.Recordings;
using Sidecar.Agent.Core.Remedies;

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

    private readonly Lock _gate = new();
    private readonly string _directory;
    private readonly ILogger _logger;
    private readonly TimeProvider _clock;
    private readonly long _rotateAt;
    private readonly TimeSpan _retryAfter = TimeSpan.FromSeconds(5);
    private readonly Queue<byte[]> _waiting = new();
    private readonly List<Incident> _recent = [];
    private readonly ConditionalWeakTable<Recording, string> _recorded = [];
    private AppendFile? _file;
    private long _size;
    private long _counter;
    private long _lost;
    private long _lastFailure;
    private string? _problem;
    private Task _syncing = Task.CompletedTask;
    private bool _syncWanted;

    /// <summary>Reads what is kept already and opens the file; a failure shows in <see cref="Problem"/>.</summary>
    /// <param name="directory">The state directory; made if it is not there.</param>
    /// <param name="logger">Told once when writing stops working and once when it works again.</param>
    /// <param name="clock">For ids and for the pause between attempts.</param>
    /// <param name="rotateAt">Size in bytes at which the file becomes <c>incidents.jsonl.1</c>; at most twice this is kept.</param>
    public IncidentStore(string directory, ILogger logger, TimeProvider clock, long rotateAt = 4 * 1024 * 1024)
    {
        _directory = directory;
        _logger = logger;
        _clock = clock;
        _rotateAt = rotateAt;
        lock (_gate)
        {
            try
            {
                _recent.AddRange(IncidentReader.Read(directory, MostRecent).Incidents);
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
            lock (_gate)
            {
                return _problem;
            }
        }
    }

    /// <summary>An id for a new incident: UTC time to the millisecond and a counter, so that ids sort by time.</summary>
    public string NextId()
    {
        var number = Interlocked.Increment(ref _counter);
        return $"{_clock.GetUtcNow().UtcDateTime:yyyyMMdd'T'HHmmss.fff'Z'}-{number:D6}";
    }

    /// <summary>
    /// Stores the incident, or its new state. It has been handed to the kernel when this returns (so it survives the
    /// agent's end); the disk gets it at once, but in the background, since a slow disk must not delay a rescue.
    /// </summary>
    public void Record(Incident incident)
    {
        lock (_gate)
        {
            // A recording is written once: with the first state of its incident, or with the one that brings it.
            var isWritten = incident.Recording is not { } recording || (_recorded.TryGetValue(recording, out var id) && id == incident.Id);
            var kept = incident with { Recording = null };
            Remember(kept);
            var line = IncidentJson.Line(isWritten ? kept : incident);
            if (incident.Recording is { } written)
            {
                _recorded.AddOrUpdate(written, incident.Id);
            }

            if (line.Length > LongestLine)
            {
                line = IncidentJson.Line(incident = kept);
            }

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
        lock (_gate)
        {
            if (_problem is not null && _clock.GetElapsedTime(_lastFailure) >= _retryAfter)
            {
                WriteOut([]);
            }
        }
    }

    /// <summary>The newest incidents, oldest first, each in its latest state. From memory.</summary>
    public IReadOnlyList<Incident> Recent(int last)
    {
        lock (_gate)
        {
            return [.. _recent.Skip(Math.Max(0, _recent.Count - last))];
        }
    }

    public void Dispose()
    {
        Task pending;
        lock (_gate)
        {
            if (_waiting.Count > 0)
            {
                WriteOut([]);
            }

            pending = _syncing;
        }

        // A disk that does not answer must not keep the agent from ending.
        pending.Wait(TimeSpan.FromSeconds(2));
        lock (_gate)
        {
            _file?.Dispose();
            _file = null;
        }
    }

    private void Remember(Incident incident)
    {
        // An update is nearly always of one of the newest.
        var index = _recent.FindLastIndex(known => string.Equals(known.Id, incident.Id, StringComparison.Ordinal));
        if (index >= 0)
        {
            _recent[index] = incident;
            return;
        }

        _recent.Add(incident);
        if (_recent.Count > MostRecent)
        {
            _recent.RemoveAt(0);
        }
    }

    private void WriteOut(ReadOnlySpan<byte[]> lines)
    {
        foreach (var line in lines)
        {
            if (_waiting.Count == MostWaiting)
            {
                _waiting.Dequeue();
                _lost++;
            }

            _waiting.Enqueue(line);
        }

        try
        {
            Open();
            while (_waiting.TryPeek(out var next))
            {
                Rotate(next.Length);
                _file!.Write(next);
                _size += next.Length;
                _waiting.Dequeue();
                _syncWanted = true;
            }

            Sync();
            Recovered();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or NotSupportedException or ArgumentException)
        {
            _file?.Dispose();
            _file = null;
            Failed(e.Message);
        }
    }

    private void Open()
    {
        // Somebody may have removed or replaced the directory under us; an unlinked file would swallow incidents.
        if (_file is not null && File.Exists(Path.Combine(_directory, IncidentReader.FileName)))
        {
            return;
        }

        _file?.Dispose();
        _file = null;
        Directory.CreateDirectory(_directory);
        var path = Path.Combine(_directory, IncidentReader.FileName);
        var opened = AppendFile.Open(path);
        try
        {
            _size = opened.Length;
            if (_size > 0 && !EndsWithLineFeed(path))
            {
                // A crash in mid-write left a torn line: end it, so that the next record starts on a line of its own.
                opened.Write("\n"u8);
                _size++;
            }
        }
        catch
        {
            opened.Dispose();
            throw;
        }

        _file = opened;
    }

    private static bool EndsWithLineFeed(string path)
    {
        using var handle = File.OpenHandle(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        Span<byte> lastByte = stackalloc byte[1];
        return RandomAccess.Read(handle, lastByte, RandomAccess.GetLength(handle) - 1) == 1 && lastByte[0] == (byte)'\n';
    }

    private void Rotate(int incoming)
    {
        if (_size == 0 || _size + incoming <= _rotateAt)
        {
            return;
        }

        var path = Path.Combine(_directory, IncidentReader.FileName);
        File.Move(path, Path.Combine(_directory, IncidentReader.RotatedFileName), overwrite: true);
        _file!.Dispose();
        _file = null;
        _file = AppendFile.Open(path);
        _size = 0;
    }

    // One background fsync at a time; what is written while it runs is taken by the next.
    private void Sync()
    {
        if (!_syncWanted || !_syncing.IsCompleted || _file is not { } current)
        {
            return;
        }

        _syncWanted = false;
        _syncing = Task.Run(() =>
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
                lock (_gate)
                {
                    Failed(e.Message);
                }

                return;
            }

            lock (_gate)
            {
                _syncing = Task.CompletedTask;
                Sync();
            }
        });
    }

    private void Failed(string reason)
    {
        _lastFailure = _clock.GetTimestamp();
        if (_problem is null)
        {
            _logger.LogError("incidents cannot be stored in {Directory}: {Reason}; the newest {Count} are kept in memory", _directory, reason, MostWaiting);
        }

        _problem = $"incidents cannot be stored in {_directory}: {reason}";
    }

    private void Recovered()
    {
        if (_problem is null)
        {
            return;
        }

        _problem = null;
        _logger.LogInformation("incidents are stored in {Directory} again; {Lost} were lost meanwhile", _directory, _lost);
        _lost = 0;
    }
}
