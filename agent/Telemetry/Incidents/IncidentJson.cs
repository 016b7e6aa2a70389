using System.Text.Json;
using System.Text.Json.Serialization;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Core.Remedies;

namespace Sidecar.Agent.Telemetry;

/// <summary>Incidents as JSON, without reflection, so that it survives trimming.</summary>
[JsonSerializable(typeof(Incident))]
[JsonSerializable(typeof(JsonElement))]
[JsonSourceGenerationOptions(RespectNullableAnnotations = true)]
internal sealed partial class IncidentJson : JsonSerializerContext
{
    /// <summary>
    /// The incident as one line, with its line feed, UTF-8. Control characters are escaped by JSON itself. Its recording is the last
    /// field, and no field of the incident's own: readers of incidents pass over it.
    /// </summary>
    public static byte[] Line(Incident incident)
    {
        using var stream = new MemoryStream(512);
        JsonSerializer.Serialize(stream, incident, Default.Incident);
        if (incident.Recording is { } recording)
        {
            stream.SetLength(stream.Length - 1); // the closing brace
            stream.Position = stream.Length;
            stream.WriteByte((byte)',');
            stream.Write(RecordingJson.Key);
            JsonSerializer.Serialize(stream, recording with { Agent = recording.Agent ?? ProductVersion.Text }, RecordingJson.Default.Recording);
            stream.WriteByte((byte)'}');
        }

        stream.WriteByte((byte)'\n');
        return stream.ToArray();
    }
}
