using System.IO.Pipelines;
using System.Text.Json;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Telemetry;

namespace Sidecar.Agent.Endpoints;

/// <summary>
/// The JSON of <c>/api/v1</c>, with the field names of <c>status --json</c> and <c>incidents --json</c>. Written piece
/// by piece, so that a slow reader of many connections holds a buffer and not a document.
/// </summary>
internal static class ApiJson
{
    // The default encoder escapes <, >, & and all that is not ASCII: the answer is harmless wherever it is pasted.
    private static readonly JsonWriterOptions Options = new() { SkipValidation = true };

    /// <summary><c>{"time":…,"scan":…,"mode":…,"limitations":[…],"connections":[…]}</c></summary>
    public static async Task WriteConnectionsAsync(PipeWriter body, AgentSnapshot snapshot, string? upstream, string? verdict, CancellationToken cancelled)
    {
        await using var json = new Utf8JsonWriter(body, Options);
        Begin(json, snapshot);
        json.WriteStartArray("limitations");
        foreach (var limitation in snapshot.Limitations)
        {
            json.WriteStringValue(limitation);
        }

        json.WriteEndArray();
        json.WriteStartArray("connections");
        var count = 0;
        foreach (var connection in snapshot.Connections)
        {
            if ((upstream is not null && !string.Equals(upstream, connection.Upstream, StringComparison.Ordinal))
                || (verdict is not null && !string.Equals(verdict, connection.Verdict.ToName(), StringComparison.Ordinal)))
            {
                continue;
            }

            JsonSerializer.Serialize(json, ConnectionView.From(connection), ControlJson.Default.ConnectionView);
            if (++count % 64 == 0)
            {
                await FlushAsync(json, body, cancelled);
            }
        }

        json.WriteEndArray();
        json.WriteEndObject();
        await FlushAsync(json, body, cancelled);
    }

    /// <summary><c>{"time":…,"scan":…,"mode":…,"paths":[…]}</c></summary>
    public static async Task WritePathsAsync(PipeWriter body, AgentSnapshot snapshot, CancellationToken cancelled)
    {
        await using var json = new Utf8JsonWriter(body, Options);
        Begin(json, snapshot);
        json.WriteStartArray("paths");
        foreach (var upstream in snapshot.Upstreams)
        {
            JsonSerializer.Serialize(json, UpstreamView.From(upstream), ControlJson.Default.UpstreamView);
        }

        json.WriteEndArray();
        json.WriteEndObject();
        await FlushAsync(json, body, cancelled);
    }

    /// <summary><c>{"time":…,"listeners":[…],"groups":[…]}</c></summary>
    public static Task WriteStackAsync(PipeWriter body, AgentSnapshot snapshot, CancellationToken cancelled) =>
        JsonSerializer.SerializeAsync(body, StackDocument.From(snapshot), ControlJson.Default.StackDocument, cancelled);

    /// <summary><c>{"incidents":[…]}</c>, oldest first.</summary>
    public static async Task WriteIncidentsAsync(PipeWriter body, IReadOnlyList<Incident> incidents, CancellationToken cancelled)
    {
        await using var json = new Utf8JsonWriter(body, Options);
        json.WriteStartObject();
        json.WriteStartArray("incidents");
        var count = 0;
        foreach (var incident in incidents)
        {
            JsonSerializer.Serialize(json, incident, IncidentJson.Default.Incident);
            if (++count % 64 == 0)
            {
                await FlushAsync(json, body, cancelled);
            }
        }

        json.WriteEndArray();
        json.WriteEndObject();
        await FlushAsync(json, body, cancelled);
    }

    private static void Begin(Utf8JsonWriter json, AgentSnapshot snapshot)
    {
        json.WriteStartObject();
        json.WriteString("time", snapshot.Time);
        json.WriteNumber("scan", snapshot.Scan);
        json.WriteString("mode", snapshot.Mode);
    }

    private static async Task FlushAsync(Utf8JsonWriter json, PipeWriter body, CancellationToken cancelled)
    {
        await json.FlushAsync(cancelled);
        await body.FlushAsync(cancelled);
        cancelled.ThrowIfCancellationRequested();
    }
}
