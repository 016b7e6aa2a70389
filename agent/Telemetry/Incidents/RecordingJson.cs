using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using Sidecar.Agent.Core.Recordings;
using Sidecar.Agent.Core.Remedies;

namespace Sidecar.Agent.Telemetry;

/// <summary>An incident whose recording has been read.</summary>
/// <param name="Incident">The incident, its recording with it; null where it cannot be used.</param>
/// <param name="Problem">Why not, in words.</param>
internal readonly record struct RecordedIncident(Incident? Incident, string? Problem);

/// <summary>Recordings as JSON: what is zero, false or unknown is left out, durations are seconds.</summary>
[JsonSerializable(typeof(Recording))]
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingDefault,
    UseStringEnumConverter = true,
    RespectNullableAnnotations = true,
    Converters = [typeof(SecondsConverter)])]
internal sealed partial class RecordingJson : JsonSerializerContext
{
    /// <summary>The field of an incident's line, with its colon.</summary>
    public static ReadOnlySpan<byte> Key => "\"recording\":"u8;

    /// <summary>Reads an incident with its recording, from a line of the incident file or from what <c>replay --json</c> has printed.</summary>
    /// <param name="json">As it came; anybody may have sent it.</param>
    public static RecordedIncident Read(ReadOnlyMemory<byte> json)
    {
        try
        {
            using var document = JsonDocument.Parse(json);
            var root = document.RootElement;
            if (root.ValueKind == JsonValueKind.Object && root.TryGetProperty("incident", out var inner))
            {
                root = inner;
            }

            if (root.ValueKind != JsonValueKind.Object || IncidentReader.Parse(JsonSerializer.SerializeToUtf8Bytes(root, IncidentJson.Default.JsonElement)) is not { } incident)
            {
                return new(null, "this is no incident");
            }

            if (!root.TryGetProperty("recording", out var field) || field.ValueKind == JsonValueKind.Null)
            {
                return new(null, $"incident {incident.Id} has no recording");
            }

            if (field.Deserialize(Default.Recording) is not { } recording)
            {
                return new(null, $"incident {incident.Id} has no recording");
            }

            return RecordingCheck.Of(recording) is { } wrong
                ? new(null, $"the recording of incident {incident.Id} cannot be used: {wrong}")
                : new(incident with { Recording = recording }, null);
        }
        catch (JsonException e)
        {
            // Its own message quotes what may be a page.
            return new(null, string.Create(CultureInfo.InvariantCulture, $"this is no incident with a recording: something else is expected in line {e.LineNumber + 1}, byte {e.BytePositionInLine + 1}"));
        }
        catch (InvalidOperationException)
        {
            return new(null, "this is no incident with a recording: it has half of a surrogate pair for text");
        }
    }
}

/// <summary>Seconds with seven digits, which are a duration's own: nothing is rounded on the way there and back.</summary>
internal sealed class SecondsConverter : JsonConverter<TimeSpan>
{
    private const decimal Most = 9e11m;

    public override TimeSpan Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) =>
        reader.TokenType == JsonTokenType.Number && reader.TryGetDecimal(out var seconds) && Math.Abs(seconds) < Most
            ? new TimeSpan((long)(seconds * TimeSpan.TicksPerSecond))
            : throw new JsonException();

    public override void Write(Utf8JsonWriter writer, TimeSpan value, JsonSerializerOptions options) =>
        writer.WriteNumberValue((decimal)value.Ticks / TimeSpan.TicksPerSecond);
}
