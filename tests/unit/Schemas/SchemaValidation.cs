using System.Text.Json;
using System.Text.Json.Nodes;
using Json.Schema;

namespace Sidecar.UnitTests.Schemas;

/// <summary>
/// What is sent, held against the schemas of the package. The schemas leave room for fields that later versions add; here
/// they are closed, so that a field which they do not describe is an error.
/// </summary>
internal sealed class SchemaValidation
{
    private readonly JsonSchema _schema;

    private SchemaValidation(JsonNode schema)
    {
        Close(schema);
        _schema = JsonSchema.FromText(schema.ToJsonString(), new BuildOptions { SchemaRegistry = new SchemaRegistry() });
    }

    /// <summary>Of a command's <c>--json</c>: <c>status</c>, <c>measure-http</c>.</summary>
    public static SchemaValidation OfCommand(string directory, string name) =>
        new(JsonNode.Parse(File.ReadAllText(Path.Combine(directory, $"{name}.schema.json")))!);

    /// <summary>Of an answer of the HTTP endpoint; null where it has no schema, since it is text.</summary>
    /// <exception cref="InvalidDataException">The description has not this path, status or content type.</exception>
    public static SchemaValidation? OfAnswer(string directory, string path, int status, string contentType)
    {
        var description = JsonNode.Parse(File.ReadAllText(Path.Combine(directory, "openapi.json")))!;
        var responses = (description["paths"]![path] ?? throw new InvalidDataException($"no path {path}"))["get"]!["responses"]!;
        var response = responses[$"{status}"] ?? responses["default"] ?? throw new InvalidDataException($"{path} does not answer {status}");
        if ((string?)response["$ref"] is { } reference)
        {
            response = description["components"]!["responses"]![reference.Split('/')[^1]]!;
        }

        var content = response["content"]![contentType.Split(';')[0]] ?? throw new InvalidDataException($"{path} does not answer {status} with {contentType}");
        if (content["schema"]!.DeepClone() is not JsonObject schema || (string?)schema["type"] == "string")
        {
            return null;
        }

        schema["$defs"] = description["components"]!["schemas"]!.DeepClone();
        return new(JsonNode.Parse(schema.ToJsonString().Replace("#/components/schemas/", "#/$defs/", StringComparison.Ordinal))!);
    }

    /// <summary>Fails where a text is not as described.</summary>
    /// <exception cref="InvalidDataException">The text is not as described; the message says where and why.</exception>
    public void ShouldAllow(string json)
    {
        using var document = JsonDocument.Parse(json);
        if (Errors(document.RootElement) is { Count: > 0 } errors)
        {
            throw new InvalidDataException($"{string.Join('\n', errors)}\n{(json.Length > 2000 ? json[..2000] : json)}");
        }
    }

    /// <summary>Where and why a document is not as described; empty where it is.</summary>
    public IReadOnlyList<string> Errors(JsonElement document)
    {
        var result = _schema.Evaluate(document, new EvaluationOptions { OutputFormat = OutputFormat.List, RequireFormatValidation = true });
        return result.IsValid ? [] : [.. (result.Details ?? []).Append(result).Where(d => d.Errors is not null).SelectMany(d => d.Errors!.Select(e => $"{d.InstanceLocation}: {e.Key} {e.Value}"))];
    }

    private static void Close(JsonNode? node)
    {
        if (node is JsonObject schema)
        {
            if (schema["properties"] is JsonObject && !schema.ContainsKey("additionalProperties"))
            {
                schema["additionalProperties"] = false;
            }

            foreach (var (_, inner) in schema.ToList())
            {
                Close(inner);
            }
        }
        else if (node is JsonArray list)
        {
            foreach (var inner in list)
            {
                Close(inner);
            }
        }
    }
}
