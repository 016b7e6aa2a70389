using System.Text.Json;
using System.Text.Json.Serialization;

namespace Sidecar.Agent.Telemetry;

/// <summary>Incidents as JSON, without reflection, so that it survives trimming.</summary>
[JsonSerializable(typeof(Incident))]
[JsonSourceGenerationOptions(RespectNullableAnnotations = true)]
internal sealed partial class IncidentJson : JsonSerializerContext
{
    /// <summary>The incident as one line, with its line feed, UTF-8. Control characters are escaped by JSON itself.</summary>
    public static byte[] Line(Incident incident)
    {
        using var stream = new MemoryStream(512);
        JsonSerializer.Serialize(stream, incident, Default.Incident);
        stream.WriteByte((byte)'\n');
        return stream.ToArray();
    }
}
