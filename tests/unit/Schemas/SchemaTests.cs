using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.Extensions.Logging.Abstractions;
using Shouldly;
using Sidecar.Agent.Commands;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Endpoints;
using Sidecar.Agent.Telemetry;
using Sidecar.CoreTests.Remedies;
using Sidecar.UnitTests.Telemetry;
using Xunit;

namespace Sidecar.UnitTests.Schemas;

/// <summary>The schemas in the package say what is sent: neither less nor more. What the installed agent sends is checked by the boot tests.</summary>
public sealed class SchemaTests : IDisposable
{
    private static readonly string Published = TestTools.RepositoryFile("packaging", "deb", "schemas");

    private readonly TemporaryDirectory _directory = new();
    private readonly StringWriter _output = new();
    private readonly StringWriter _error = new();
    private readonly string _config;

    public SchemaTests() => _config = _directory.Write("a.conf", $"""
        [agent]
        state-directory = {_directory.Path}
        runtime-directory = {_directory.Path}
        [upstream:db]
        endpoint = 10.9.8.7:5432
        [workers:web]
        unit = uwsgi.service
        [haproxy:edge]
        socket = /run/haproxy/admin.sock
        [check:app]
        expected-command = /bin/echo 1
        actual-command = /bin/echo 1

        """);

    public void Dispose() => _directory.Dispose();

    /// <summary><c>make schemas</c> writes them.</summary>
    [Fact]
    public void The_published_schemas_are_those_of_what_is_written()
    {
        var files = DocumentSchemas.Files(File.ReadAllText(Path.Combine(Published, DocumentSchemas.OpenApi)));
        if (Environment.GetEnvironmentVariable("WRITE_SCHEMAS") == "1")
        {
            foreach (var (name, text) in files)
            {
                File.WriteAllText(Path.Combine(Published, name), text);
            }
        }

        Directory.GetFiles(Published).Select(f => Path.GetFileName(f)!).ShouldBe(files.Keys, ignoreOrder: true);
        foreach (var (name, text) in files)
        {
            File.ReadAllText(Path.Combine(Published, name)).ShouldBe(text, $"{name} is out of date: make schemas");
        }
    }

    [Fact]
    public void Every_command_that_prints_json_has_its_schema()
    {
        var commands = CommandTree.Build(CommandEnvironment.OfProcess()).Subcommands.Where(c => !c.Hidden && c.Options.Any(o => o.Name == "--json")).Select(c => c.Name);
        commands.Append("measure-http").ShouldBe(DocumentSchemas.OfCommands().Keys, ignoreOrder: true);
    }

    [Fact]
    public void What_commands_print_is_as_their_schemas_say()
    {
        var server = _directory.Write("nginx.conf", "http { server { listen 80; location / { proxy_pass http://10.9.8.7:80; } } }\n");
        var recycled = Recycled();
        File.AppendAllBytes(_directory.File("incidents.jsonl"), [.. IncidentJson.Line(Samples.Incident("0", "withheld", withheldBy: "path-down")), .. IncidentJson.Line(recycled)]);
        ShouldBeAllowed("status", "status", "--json", "--config", _config);
        ShouldBeAllowed("doctor", "doctor", "--json", "--config", _config);
        ShouldBeAllowed("check-config", "check-config", "--json", "--config", _config);
        ShouldBeAllowed("incidents", "incidents", "--json", "--config", _config);
        ShouldBeAllowed("replay", "replay", "--json", "--config", _config);
        ShouldBeAllowed("audit", "audit", "--json", "--root", _directory.Path, "--file", $"nginx=/{Path.GetFileName(server)}", "--config", _config);
    }

    [Fact]
    public async Task What_measure_prints_is_as_its_schemas_say()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        var port = ((IPEndPoint)listener.LocalEndpoint).Port;
        var serving = Task.Run(async () =>
        {
            while (true)
            {
                // Takes every connection, and ends the one that asks something.
                var client = await listener.AcceptTcpClientAsync();
                _ = Task.Run(async () =>
                {
                    using (client)
                    {
                        _ = await client.GetStream().ReadAtLeastAsync(new byte[1], 1, throwOnEndOfStream: false);
                    }
                });
            }
        });

        await Task.Run(() => ShouldBeAllowed("measure", "measure", $"127.0.0.1:{port}", "--max", "3s", "--json"));
        await Task.Run(() => ShouldBeAllowed("measure-http", "measure", "--http", $"http://127.0.0.1:{port}/", "--max", "3s", "--json"));
        listener.Stop();
        await Should.ThrowAsync<Exception>(serving);
    }

    [Theory]
    [InlineData("/")]
    [InlineData("/metrics")]
    [InlineData("/healthz")]
    [InlineData("/readyz")]
    [InlineData("/api/v1/connections")]
    [InlineData("/api/v1/incidents")]
    [InlineData("/api/v1/incidents?last=0", 400)]
    [InlineData("/api/v1/paths")]
    [InlineData("/api/v1/stack")]
    [InlineData("/check/db")]
    [InlineData("/check/db?upstream=none", 404)]
    [InlineData("/check/pool")]
    [InlineData("/check/version")]
    [InlineData("/check/workers")]
    [InlineData("/runbook")]
    [InlineData("/runbook?alert=ConnSidecarDown")]
    [InlineData("/runbook?alert=Nonsense", 404)]
    [InlineData("/check/host")]
    public async Task What_the_endpoint_answers_is_as_its_description_says(string request, int? status = null)
    {
        foreach (var before in new[] { false, true })
        {
            await using var endpoint = await StartAsync(before);
            using var client = new HttpClient { BaseAddress = new Uri($"http://{endpoint.Bound}") };
            using var answer = await client.GetAsync(request);
            if (status is not null && !before)
            {
                ((int)answer.StatusCode).ShouldBe(status.Value);
            }

            var text = await answer.Content.ReadAsStringAsync();
            var schema = SchemaValidation.OfAnswer(Published, request.Split('?')[0], (int)answer.StatusCode, answer.Content.Headers.ContentType!.ToString());
            (schema is not null).ShouldBe(!before && status is null && request.StartsWith("/api/", StringComparison.Ordinal) || (before && request == "/api/v1/incidents"));
            schema?.ShouldAllow(text);
        }
    }

    [Fact]
    public async Task The_description_has_every_path_with_the_statuses_of_the_page_and_no_other()
    {
        await using var endpoint = await StartAsync(before: false);
        var paths = JsonNode.Parse(File.ReadAllText(Path.Combine(Published, DocumentSchemas.OpenApi)))!["paths"]!.AsObject();
        paths.Select(p => p.Key).ShouldBe(endpoint.Paths, ignoreOrder: true);
        var page = File.ReadAllLines(TestTools.RepositoryFile("docs", "http.md"));
        foreach (var (path, item) in paths)
        {
            var statuses = item!["get"]!["responses"]!.AsObject().Select(r => r.Key).Where(k => k != "default");
            page.Single(l => l.StartsWith($"| `{path}` |", StringComparison.Ordinal)).ShouldEndWith($"| {string.Join(", ", statuses)} |");
        }
    }

    [Fact]
    public void A_field_that_is_missing_new_or_of_another_type_is_noticed()
    {
        var schema = SchemaValidation.OfCommand(Published, "incidents");
        var incident = JsonNode.Parse(IncidentJson.Line(Samples.Incident("a", "released")))!.AsObject();
        Errors(incident).ShouldBeEmpty();
        foreach (var change in new Action<JsonObject>[]
        {
            i => i.Remove("why"), i => i["new"] = 1, i => i["pid"] = "4711", i => i["time"] = "yesterday", i => i["remedy"] = "prayer", i => i["chain"] = new JsonArray(new JsonObject()),
        })
        {
            var changed = incident.DeepClone().AsObject();
            change(changed);
            Errors(changed).ShouldNotBeEmpty(changed.ToJsonString());
        }

        IReadOnlyList<string> Errors(JsonObject document) => schema.Errors(JsonDocument.Parse(document.ToJsonString()).RootElement);
    }

    private static Incident Recycled()
    {
        var bench = new Bench();
        bench.Forget(bench.Open());
        return bench.Hands.All<IncidentReport>().First().Incident;
    }

    private void ShouldBeAllowed(string schema, params string[] args)
    {
        _output.GetStringBuilder().Clear();
        CommandTree.Invoke(args, new CommandEnvironment { Out = _output, Error = _error, Colors = false, Width = 80, DefaultConfiguration = _config, DefaultRuntimeDirectory = _directory.Path })
            .ShouldBeOneOf(ExitCodes.Ok, ExitCodes.Failure);
        var documents = schema == "incidents" ? _output.ToString().Split('\n', StringSplitOptions.RemoveEmptyEntries) : [_output.ToString()];
        documents.ShouldNotBeEmpty();
        foreach (var document in documents)
        {
            SchemaValidation.OfCommand(Published, schema).ShouldAllow(document);
        }
    }

    private static async Task<HttpEndpoint> StartAsync(bool before)
    {
        var endpoint = new HttpEndpoint(
            new IPEndPoint(IPAddress.Loopback, 0),
            new HttpSources
            {
                Snapshot = () => before ? null : Samples.Snapshot(limitations: ["no raw sockets"]) with
                {
                    Listeners = [Samples.Listener(0)],
                    Groups = [Samples.Group(), Samples.Group(imbalance: null)],
                    Haproxies = [Samples.Haproxy(), Samples.Haproxy("gone")],
                    Checks = [Samples.Check(), Samples.Check(actual: null, problem: "no such package")],
                },
                Health = () => Samples.Health(silence: before ? 60 : 0.5, firstScan: !before),
                Incidents = _ => [Samples.Incident("a", "released")],
                Metrics = _ => Encoding.UTF8.GetBytes("# EOF\n"),
                Version = "0.1.0",
            },
            NullLoggerFactory.Instance);
        await endpoint.StartAsync();
        return endpoint;
    }
}
