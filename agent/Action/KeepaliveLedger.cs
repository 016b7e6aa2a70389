using System.Diagnostics;
using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.Extensions.Logging;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Telemetry;

namespace Sidecar.Agent.Action;

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
    private readonly ILogger _log;
    private bool _failed;
    private TimeSpan _nextWrite;

    /// <summary>The ledger of a state directory.</summary>
    public KeepaliveLedger(string stateDirectory, ILogger log)
    {
        _path = Path.Combine(stateDirectory, FileName);
        _log = log;
        _bootId = ReadBootId();
    }

    /// <summary>Writes what has changed, when it is time. Never throws.</summary>
    /// <param name="engine">Knows the options in force.</param>
    /// <param name="now">Monotonic time.</param>
    /// <param name="atOnce">Does not wait: the agent ends.</param>
    public void Save(RemedyEngine engine, TimeSpan now, bool atOnce = false)
    {
        if ((!atOnce && now < _nextWrite) || engine.ChangedKeepalives is not { } entries)
        {
            return;
        }

        var began = Stopwatch.GetTimestamp();
        try
        {
            var temporary = _path + ".new";
            using (var stream = new FileStream(temporary, FileMode.Create, FileAccess.Write))
            {
                Write(stream, entries);
            }

            File.Move(temporary, _path, overwrite: true);
            engine.KeepalivesSaved(now);
            _failed = false;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            if (!_failed)
            {
                _log.LedgerNotWritten(_path, e.Message);
            }

            _failed = true;
        }

        // The file of a hundred thousand connections takes its time; no more than a hundredth is spent on it.
        var took = Stopwatch.GetElapsedTime(began) * 100;
        _nextWrite = now + (took > WriteEvery ? took : WriteEvery);
    }

    private void Write(Stream stream, IEnumerable<KeepaliveEntry> entries)
    {
        using var writer = new Utf8JsonWriter(stream);
        writer.WriteStartObject();
        writer.WriteString("boot_id"u8, _bootId);
        writer.WriteStartArray("sockets"u8);
        foreach (var entry in entries)
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

    /// <summary>What an earlier run has set; empty where there is nothing, or nothing that can be read.</summary>
    public IReadOnlyList<KeepaliveEntry> Load()
    {
        try
        {
            if (!File.Exists(_path))
            {
                return [];
            }

            using var stream = File.OpenRead(_path);
            var file = JsonSerializer.Deserialize(stream, KeepaliveJson.Default.KeepaliveFile);
            if (file is null || file.BootId != _bootId || file.Sockets is null)
            {
                return [];
            }

            if (file.Sockets.Any(entry => entry is null))
            {
                throw new JsonException("a socket is missing");
            }

            return file.Sockets;
        }
        catch (JsonException e)
        {
            _log.LedgerDamaged(_path, e.Message, FileName + ".damaged");
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
            _log.LedgerNotRead(_path, e.Message);
        }

        return [];
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
