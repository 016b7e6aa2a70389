using System.Diagnostics;
using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.Extensions.Logging;
using Sidecar.Agent.Judgement;
using Sidecar.Agent.Tracking;

namespace Sidecar.Agent.Remedies;

/// <summary>One socket's options before and after the agent set them.</summary>
/// <param name="Namespace">Inode of its network namespace.</param>
/// <param name="Cookie">The kernel's cookie, unique until the next boot.</param>
/// <param name="Connection">Addresses, for people.</param>
/// <param name="Original">As the application left them.</param>
/// <param name="Armed">As the agent set them.</param>
internal sealed record KeepaliveEntry(ulong Namespace, ulong Cookie, string Connection, KeepaliveSettings Original, KeepaliveSettings Armed);

/// <summary>The file as a whole.</summary>
/// <param name="BootId">/proc/sys/kernel/random/boot_id: cookies of another boot mean nothing.</param>
/// <param name="Sockets">What was armed.</param>
internal sealed record KeepaliveFile(string BootId, IReadOnlyList<KeepaliveEntry> Sockets);

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower)]
[JsonSerializable(typeof(KeepaliveFile))]
internal sealed partial class KeepaliveJson : JsonSerializerContext;

/// <summary>
/// Remembers in <c>keepalives.json</c> of the state directory what was set on which socket, so that an agent that starts
/// again knows its own options from the application's. Written by atomic replace, at most every few seconds; a file that
/// is damaged is set aside and never fatal. Without it the agent takes its own earlier options for the application's,
/// and leaves them alone, which is the safe side.
/// </summary>
internal sealed class KeepaliveLedger
{
    private const string FileName = "keepalives.json";
    private static readonly TimeSpan WriteEvery = TimeSpan.FromSeconds(5);

    /// <summary>A connection of an earlier run that has not been seen for so long since the start has closed meanwhile.</summary>
    private static readonly TimeSpan ForgetUnseenAfter = TimeSpan.FromMinutes(10);

    // Entries of an earlier run whose connections have not been taken over yet.

    private readonly string _path;
    private readonly string _bootId;
    private readonly Action<LogLevel, string> _log;
    private readonly Dictionary<(ulong Namespace, ulong Cookie), KeepaliveEntry> _recalled = [];
    private bool _dirty;
    private bool _failed;
    private TimeSpan _nextWrite;

    public KeepaliveLedger(string stateDirectory, Action<LogLevel, string> log)
    {
        _path = Path.Combine(stateDirectory, FileName);
        _log = log;
        _bootId = ReadBootId();
        Load();
    }

    /// <summary>What an earlier run of the agent set on this connection; null where it set nothing.</summary>
    public KeepaliveEntry? Find(TrackedConnection connection) =>
        _recalled.GetValueOrDefault((connection.NamespaceInode, connection.Cookie.Value));

    /// <summary>Options of a connection were set; they are read from its <see cref="Protection"/> when it is time to write.</summary>
    public void NoteChange() => _dirty = true;

    /// <summary>A connection has gone.</summary>
    public void Forget(TrackedConnection connection) =>
        _dirty |= _recalled.Remove((connection.NamespaceInode, connection.Cookie.Value)) || IsOurs(connection, out _, out _);

    /// <summary>Writes what has changed, when it is time. Never throws.</summary>
    /// <param name="all">All watched connections.</param>
    /// <param name="now">Monotonic time.</param>
    /// <param name="atOnce">Does not wait: the agent ends.</param>
    public void Save(IReadOnlyCollection<TrackedConnection> all, TimeSpan now, bool atOnce = false)
    {
        if (!_dirty || (!atOnce && now < _nextWrite))
        {
            return;
        }

        var began = Stopwatch.GetTimestamp();
        try
        {
            var temporary = _path + ".new";
            using (var stream = new FileStream(temporary, FileMode.Create, FileAccess.Write))
            {
                Write(stream, all, now);
            }

            File.Move(temporary, _path, overwrite: true);
            _dirty = false;
            _failed = false;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            if (!_failed)
            {
                _log(LogLevel.Warning, $"{_path} cannot be written ({e.Message}): after a restart the agent will not know its own keepalive options");
            }

            _failed = true;
        }

        // The file of a hundred thousand connections takes its time; no more than a hundredth is spent on it.
        var took = Stopwatch.GetElapsedTime(began) * 100;
        _nextWrite = now + (took > WriteEvery ? took : WriteEvery);
    }

    private void Write(Stream stream, IReadOnlyCollection<TrackedConnection> all, TimeSpan now)
    {
        using var writer = new Utf8JsonWriter(stream);
        writer.WriteStartObject();
        writer.WriteString("boot_id"u8, _bootId);
        writer.WriteStartArray("sockets"u8);
        foreach (var connection in all)
        {
            if (IsOurs(connection, out var original, out var armed))
            {
                _recalled.Remove((connection.NamespaceInode, connection.Cookie.Value));
                Write(writer, new KeepaliveEntry(connection.NamespaceInode, connection.Cookie.Value, $"{connection.Key.Local} -> {connection.Key.Peer}", original, armed));
            }
        }

        if (now > ForgetUnseenAfter)
        {
            _recalled.Clear();
        }

        foreach (var entry in _recalled.Values)
        {
            Write(writer, entry);
        }

        writer.WriteEndArray();
        writer.WriteEndObject();
    }

    private static void Write(Utf8JsonWriter writer, KeepaliveEntry entry)
    {
        JsonSerializer.Serialize(writer, entry, KeepaliveJson.Default.KeepaliveEntry);
        if (writer.BytesPending > 64 * 1024)
        {
            writer.Flush();
        }
    }

    private static bool IsOurs(TrackedConnection connection, out KeepaliveSettings original, out KeepaliveSettings armed)
    {
        if (connection.Protection is { IsForTestOnly: false, Original: { } before, Armed: { } after })
        {
            (original, armed) = (before, after);
            return true;
        }

        (original, armed) = (default, default);
        return false;
    }

    private void Load()
    {
        try
        {
            if (!File.Exists(_path))
            {
                return;
            }

            using var stream = File.OpenRead(_path);
            var file = JsonSerializer.Deserialize(stream, KeepaliveJson.Default.KeepaliveFile);
            if (file is null || file.BootId != _bootId || file.Sockets is null)
            {
                return;
            }

            if (file.Sockets.Any(entry => entry is null))
            {
                throw new JsonException("a socket is missing");
            }

            foreach (var entry in file.Sockets)
            {
                _recalled[(entry.Namespace, entry.Cookie)] = entry;
            }
        }
        catch (JsonException e)
        {
            _log(LogLevel.Warning, $"{_path} is damaged ({e.Message}); it is set aside as {FileName}.damaged");
            try
            {
                File.Move(_path, _path + ".damaged", overwrite: true);
            }
            catch (Exception moving) when (moving is IOException or UnauthorizedAccessException)
            {
                // it will be replaced at the next save
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            _log(LogLevel.Warning, $"{_path} cannot be read: {e.Message}");
        }
    }

    private static string ReadBootId()
    {
        try
        {
            return File.ReadAllText("/proc/sys/kernel/random/boot_id").Trim();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }
}
