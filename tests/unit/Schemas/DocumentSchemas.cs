using System.Collections.Frozen;
using System.Reflection;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Schema;
using System.Text.Json.Serialization.Metadata;
using System.Text.RegularExpressions;
using System.Xml.Linq;
using Sidecar.Agent.Audit;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Doctor;
using Sidecar.Agent.Endpoints;
using Sidecar.Agent.Measurement;
using Sidecar.Agent.Telemetry;

namespace Sidecar.UnitTests.Schemas;

/// <summary>
/// The schemas of everything that the agent writes as JSON, from the types that are written: names and types from the
/// serializer, meanings from the docstrings. They are committed, and installed with the package.
/// </summary>
internal static partial class DocumentSchemas
{
    public const string OpenApi = "openapi.json";

    private static readonly JsonSerializerOptions Layout = new() { WriteIndented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    private static readonly FrozenDictionary<(Type, string), IReadOnlyList<string>> FixedNames = new Dictionary<(Type, string), IReadOnlyList<string>>
    {
        [(typeof(ConnectionView), "verdict")] = [.. VerdictNames.All.Select(VerdictNames.ToName)],
        [(typeof(StatusDocument), "mode")] = ["protect", "observe"],
        [(typeof(ConfigurationView.AgentView), "mode")] = ["protect", "observe"],
        [(typeof(ServerDocument), "role")] = KnownLabels.ServerRoles,
        [(typeof(Incident), "cause")] = KnownLabels.Causes,
        [(typeof(Incident), "withheld_by")] = [.. Enum.GetValues<Guardrail>().Select(GuardrailNames.ToName)],
    }.ToFrozenDictionary();

    private static readonly Dictionary<Assembly, FrozenDictionary<string, XElement>> Docstrings = [];

    /// <summary>By the command whose <c>--json</c> they describe; of <c>incidents</c>, each line.</summary>
    public static IReadOnlyDictionary<string, JsonObject> OfCommands() => new Dictionary<string, JsonObject>(StringComparer.Ordinal)
    {
        ["status"] = Document("conn-sidecar status --json", ControlJson.Default.StatusDocument),
        ["incidents"] = Document("conn-sidecar incidents --json, one line", IncidentJson.Default.Incident),
        ["replay"] = Replay(),
        ["doctor"] = Document("conn-sidecar doctor --json", DoctorJson.Default.DoctorDocument),
        ["check-config"] = Document("conn-sidecar check-config --json", ConfigurationJson.Default.ConfigurationView),
        ["measure"] = Document("conn-sidecar measure --json", MeasurementJson.Default.MeasurementDocument),
        ["measure-http"] = Document("conn-sidecar measure --http --json", SilentResponseJson.Default.SilentResponseDocument),
        ["audit"] = Document("conn-sidecar audit --json", AuditJson.Default.AuditDocument),
    };

    /// <summary>Those that <see cref="OpenApi"/> refers to.</summary>
    public static JsonObject OfTheEndpoint() => new()
    {
        ["Connection"] = Schema(ControlJson.Default.ConnectionView),
        ["Path"] = Schema(ControlJson.Default.UpstreamView),
        ["Stack"] = Schema(ControlJson.Default.StackDocument),
        ["Incident"] = Schema(IncidentJson.Default.Incident),
    };

    /// <summary>The files by their names; <see cref="OpenApi"/> keeps all but its schemas as it is.</summary>
    public static IReadOnlyDictionary<string, string> Files(string openApi)
    {
        var files = OfCommands().ToDictionary(schema => $"{schema.Key}.schema.json", schema => Text(schema.Value), StringComparer.Ordinal);
        var description = JsonNode.Parse(openApi)!;
        description["components"]!["schemas"] = OfTheEndpoint();
        files[OpenApi] = Text(description);
        return files;
    }

    private static string Text(JsonNode node) => node.ToJsonString(Layout) + "\n";

    private static JsonObject Document(string title, JsonTypeInfo type) => Titled(title, Schema(type));

    private static JsonObject Titled(string title, JsonObject schema)
    {
        schema.Insert(0, "$schema", "https://json-schema.org/draft/2020-12/schema");
        schema.Insert(1, "title", title);
        return schema;
    }

    private static JsonObject Schema(JsonTypeInfo type, bool leavesOut = false) => JsonSchemaExporter.GetJsonSchemaAsNode(type.Options, type.Type, new JsonSchemaExporterOptions
    {
        TreatNullObliviousAsNonNullable = true,
        TransformSchemaNode = (context, schema) => Complete(context, schema, leavesOut),
    }).AsObject();

    /// <summary>What a replay prints is written by hand, and so is this.</summary>
    private static JsonObject Replay()
    {
        var incident = Schema(IncidentJson.Default.Incident);
        incident["properties"]!["recording"] = Schema(RecordingJson.Default.Recording, leavesOut: true);
        incident["required"]!.AsArray().Add("recording");
        static JsonObject Judged() => Object(("verdict", Names(VerdictNames.All.Select(VerdictNames.ToName))), ("reason", Of("string")), ("odds", Of("number")));
        static JsonObject Decided() => Object(("remedy", Names(Enum.GetValues<Remedy>().Select(RemedyNames.ToName))), ("withheld_by", Nullable(Names(Enum.GetValues<Guardrail>().Select(GuardrailNames.ToName)))));
        var guardrails = Object([.. Enum.GetValues<Guardrail>().Select(g => (g.ToName(), Names(["withholds", "passes"])))]);
        guardrails.Remove("required");
        var step = Object(
            ("at_seconds", Of("number")), ("what", Of("string")),
            ("recorded", Judged()), ("replayed", Judged()), ("recorded_decision", Decided()), ("replayed_decision", Decided()), ("guardrails", guardrails));
        step["required"] = new JsonArray("at_seconds", "what");
        return Titled("conn-sidecar replay --json", Object(
            ("result", Names(["same", "different"])), ("difference", Nullable(Of("string"))), ("agent", Of("string")),
            ("steps", new JsonObject { ["type"] = "array", ["items"] = step }), ("incident", incident)));
    }

    private static JsonObject Of(string type) => new() { ["type"] = type };

    private static JsonObject Names(IEnumerable<string> names) => new() { ["type"] = "string", ["enum"] = new JsonArray([.. names.Select(n => (JsonNode)n)]) };

    private static JsonObject Nullable(JsonObject schema)
    {
        schema["type"] = new JsonArray((string)schema["type"]!, "null");
        (schema["enum"] as JsonArray)?.Add(null);
        return schema;
    }

    private static JsonObject Object(params (string Name, JsonObject Schema)[] fields)
    {
        var schema = Of("object");
        schema["properties"] = new JsonObject(fields.Select(f => KeyValuePair.Create(f.Name, (JsonNode?)f.Schema)));
        schema["required"] = new JsonArray([.. fields.Select(f => (JsonNode)f.Name)]);
        return schema;
    }

    private static JsonNode Complete(JsonSchemaExporterContext context, JsonNode node, bool leavesOut)
    {
        if ((System.Nullable.GetUnderlyingType(context.TypeInfo.Type) ?? context.TypeInfo.Type) == typeof(TimeSpan))
        {
            // Recordings have seconds.
            node = Of("number");
        }

        if (node is not JsonObject schema)
        {
            return node;
        }

        if (schema["properties"] is JsonObject properties)
        {
            schema.Remove("required");
            if (!leavesOut)
            {
                // Null, empty or false: it is there all the same.
                schema["required"] = new JsonArray([.. properties.Select(p => (JsonNode)p.Key)]);
            }
        }

        if (context.PropertyInfo is { } property)
        {
            var owner = ((MemberInfo?)property.AttributeProvider)?.DeclaringType ?? property.DeclaringType;
            var member = ((MemberInfo?)property.AttributeProvider)?.Name;
            var meaning = Docstring(owner, member);
            if (meaning is not null && OnlyNames().IsMatch(meaning))
            {
                Restrict(schema, [.. Name().Matches(meaning).Select(m => m.Groups["name"].Value)]);
            }
            else if (FixedNames.TryGetValue((owner, property.Name), out var names))
            {
                Restrict(schema, names);
            }

            if (meaning is not null)
            {
                schema.Insert(0, "description", Name().Replace(meaning, "${name}"));
            }
        }

        return schema;
    }

    private static void Restrict(JsonObject schema, IReadOnlyList<string> names)
    {
        var values = new JsonArray([.. names.Select(n => (JsonNode)n)]);
        if (schema["type"] is JsonArray)
        {
            values.Add(null);
        }

        schema["enum"] = values;
    }

    /// <summary>The summary of a property, as text but for its <c>&lt;c&gt;</c> elements; null where it has none.</summary>
    private static string? Docstring(Type owner, string? member)
    {
        if (member is null)
        {
            return null;
        }

        if (!Docstrings.TryGetValue(owner.Assembly, out var all))
        {
            all = XDocument.Load(Path.ChangeExtension(owner.Assembly.Location, ".xml")).Descendants("member").ToFrozenDictionary(m => (string)m.Attribute("name")!, StringComparer.Ordinal);
            Docstrings[owner.Assembly] = all;
        }

        if (!all.TryGetValue($"P:{owner.FullName!.Replace('+', '.')}.{member}", out var found) || found.Element("summary") is not { } summary)
        {
            return null;
        }

        foreach (var reference in summary.Descendants("see").ToList())
        {
            reference.ReplaceWith(((string?)reference.Attribute("cref") ?? "").Split('.', ':')[^1]);
        }

        return Blank().Replace(string.Concat(summary.Nodes().Select(n => n is XText text ? text.Value : n.ToString())), " ").Trim();
    }

    [GeneratedRegex("^<c>[a-z-]+</c>(,( or)? <c>[a-z-]+</c>)+\\.$", RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex OnlyNames();

    [GeneratedRegex("<c>(?<name>[^<]*)</c>", RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex Name();

    [GeneratedRegex(@"\s+", RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex Blank();
}
