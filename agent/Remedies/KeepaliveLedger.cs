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

    private readonly string _path;
    private readonly string _bootId;
    private readonly Action<LogLevel, string> _log;
    private readonly Dictionary<(ulong Namespace, ulong Cookie), KeepaliveEntry> _entries = [];
    private bool _dirty;
    private bool _failed;
    private TimeSpan _written = TimeSpan.MinValue;

    public KeepaliveLedger(string stateDirectory, Action<LogLevel, string> log)
    {
        _path = Path.Combine(stateDirectory, FileName);
        _log = log;
        _bootId = ReadBootId();
        Load();
    }

    public KeepaliveEntry? Find(TrackedConnection connection) =>
        _entries.GetValueOrDefault((connection.NamespaceInode, connection.Key.Cookie.Value));

    public void Note(TrackedConnection connection, Protection protection)
    {
        _entries[(connection.NamespaceInode, connection.Key.Cookie.Value)] = new KeepaliveEntry(
            connection.NamespaceInode, connection.Key.Cookie.Value, $"{connection.Key.Local} -> {connection.Key.Peer}", protection.Original!.Value, protection.Armed!.Value);
        _dirty = true;
    }

    public void Forget(TrackedConnection connection) =>
        _dirty |= _entries.Remove((connection.NamespaceInode, connection.Key.Cookie.Value));

    /// <summary>Writes what has changed, when it is time. Never throws.</summary>
    /// <param name="now">Monotonic time.</param>
    /// <param name="atOnce">Does not wait: the agent ends.</param>
    public void Save(TimeSpan now, bool atOnce = false)
    {
        if (!_dirty || (!atOnce && _written != TimeSpan.MinValue && now - _written < WriteEvery))
        {
            return;
        }

        _written = now;
        try
        {
            var file = new KeepaliveFile(_bootId, [.. _entries.Values]);
            var temporary = _path + ".new";
            File.WriteAllBytes(temporary, JsonSerializer.SerializeToUtf8Bytes(file, KeepaliveJson.Default.KeepaliveFile));
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
    }

    private void Load()
    {
        try
        {
            if (!File.Exists(_path))
            {
                return;
            }

            var file = JsonSerializer.Deserialize(File.ReadAllBytes(_path), KeepaliveJson.Default.KeepaliveFile);
            if (file is null || file.BootId != _bootId || file.Sockets is null)
            {
                return;
            }

            foreach (var entry in file.Sockets)
            {
                _entries[(entry.Namespace, entry.Cookie)] = entry;
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
