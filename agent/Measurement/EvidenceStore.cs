using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.Extensions.Logging;
using Sidecar.Agent.Core.Judgement.IdleTimeout;

namespace Sidecar.Agent.Measurement;

/// <summary>
/// Keeps the evidence about idle timeouts in <c>idle-timeouts.json</c> in the state directory. The file is replaced
/// as a whole; one that cannot be read is set aside as <c>idle-timeouts.json.damaged</c> and measuring begins anew.
/// Never throws: without a state directory the agent works, and forgets when it ends.
/// </summary>
internal sealed class EvidenceStore(string directory, ILogger logger)
{
    public const string FileName = "idle-timeouts.json";

    private const long LargestFile = 16 * 1024 * 1024;

    private readonly string _path = Path.Combine(directory, FileName);
    private string? _problem;

    /// <summary>All that was kept; empty when there is nothing, or nothing that can be read.</summary>
    public Dictionary<KeptPathKey, KeptEvidence> Load()
    {
        var kept = new Dictionary<KeptPathKey, KeptEvidence>();
        try
        {
            if (!File.Exists(_path))
            {
                return kept;
            }

            if (new FileInfo(_path).Length > LargestFile)
            {
                throw new JsonException("the file is far too large");
            }

            using var stream = File.OpenRead(_path);
            var document = JsonSerializer.Deserialize(stream, EvidenceJson.Default.EvidenceDocument) ?? throw new JsonException("no object");
            if (document.Version != EvidenceDocument.CurrentVersion)
            {
                throw new JsonException($"version {document.Version} is not known");
            }

            foreach (var path in document.Paths)
            {
                kept[path.Path] = path.Evidence.Observations.All(observation => observation is not null) ? path.Evidence : throw new JsonException("an observation is missing");
            }
        }
        catch (Exception e) when (e is JsonException or NotSupportedException or ArgumentException or NullReferenceException)
        {
            kept.Clear();
            SetAside(e.Message);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            logger.LogWarning("{File} cannot be read: {Reason}; idle timeouts are measured anew", _path, e.Message);
        }

        return kept;
    }

    /// <summary>Replaces what is kept. A failure is logged once, and once more when it works again.</summary>
    public void Save(IReadOnlyDictionary<KeptPathKey, KeptEvidence> evidence)
    {
        var document = new EvidenceDocument
        {
            Version = EvidenceDocument.CurrentVersion,
            Paths = [.. evidence.Select(e => new EvidenceOfPath { Path = e.Key, Evidence = e.Value })],
        };
        var temporary = _path + ".new";
        try
        {
            Directory.CreateDirectory(directory);
            using (var stream = new FileStream(temporary, FileMode.Create, FileAccess.Write))
            {
                JsonSerializer.Serialize(stream, document, EvidenceJson.Default.EvidenceDocument);
                stream.Flush(flushToDisk: true);
            }

            File.Move(temporary, _path, overwrite: true);
            if (_problem is not null)
            {
                logger.LogInformation("{File} can be written again", _path);
            }

            _problem = null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            if (_problem != e.Message)
            {
                logger.LogWarning("{File} cannot be written: {Reason}; measured idle timeouts are lost when the agent ends", _path, e.Message);
            }

            _problem = e.Message;
        }
    }

    private void SetAside(string reason)
    {
        var aside = _path + ".damaged";
        try
        {
            File.Move(_path, aside, overwrite: true);
            logger.LogWarning("{File} is damaged ({Reason}); it was set aside as {Aside}, and idle timeouts are measured anew", _path, reason, aside);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            logger.LogWarning("{File} is damaged ({Reason}) and cannot be set aside: {Problem}", _path, reason, e.Message);
        }
    }
}

/// <summary>The file's content.</summary>
internal sealed record EvidenceDocument
{
    public const int CurrentVersion = 1;

    [JsonPropertyName("version")] public required int Version { get; init; }

    [JsonPropertyName("paths")] public required IReadOnlyList<EvidenceOfPath> Paths { get; init; }
}

/// <summary>One path in the file.</summary>
internal sealed record EvidenceOfPath
{
    [JsonPropertyName("path")] public required KeptPathKey Path { get; init; }

    [JsonPropertyName("evidence")] public required KeptEvidence Evidence { get; init; }
}

[JsonSerializable(typeof(EvidenceDocument))]
[JsonSourceGenerationOptions(WriteIndented = true, UseStringEnumConverter = true, RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true)]
internal sealed partial class EvidenceJson : JsonSerializerContext;
