using System.Text.Json;
using System.Text.RegularExpressions;
using Shouldly;
using Sidecar.Agent.Commands;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Core.Judgement;
using Sidecar.Agent.Core.Remedies;
using Sidecar.Agent.Core.Snapshots;
using Sidecar.Agent.Endpoints;
using Sidecar.Agent.Telemetry;
using Sidecar.UnitTests.Telemetry;
using Xunit;

namespace Sidecar.UnitTests.Commands;

public sealed class CommandTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();
    private readonly StringWriter _output = new();
    private readonly StringWriter _error = new();
    private readonly string _config;
    private AgentSnapshot _look = Snapshots.Of(Snapshots.Connection());

    public CommandTests() => _config = _directory.Write("a.conf", $"[agent]\nstate-directory = {_directory.Path}\nruntime-directory = {_directory.Path}\n");

    private string Out => _output.ToString();

    private string Error => _error.ToString();

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData]
    [InlineData("nonsense")]
    [InlineData("status", "--jsno")]
    [InlineData("status", "extra")]
    [InlineData("status", "--config")]
    [InlineData("incidents", "--last", "0")]
    [InlineData("incidents", "--last", "-1")]
    [InlineData("incidents", "--last", "many")]
    [InlineData("incidents", "--last")]
    [InlineData("measure")]
    [InlineData("measure", "10.0.0.1:1", "--http", "http://10.0.0.1/")]
    [InlineData("audit", "--request", "soon")]
    [InlineData("audit", "--file")]
    public void A_command_line_that_is_not_understood_is_a_usage_error(params string[] args)
    {
        Invoke(args).ShouldBe(ExitCodes.Usage);
        Error.ShouldContain("Try: conn-sidecar");
        Error.ShouldNotContain("System.");
        Out.ShouldBeEmpty();
    }

    [Theory]
    [InlineData("--help")]
    [InlineData("run", "--help")]
    [InlineData("status", "-h")]
    [InlineData("incidents", "--help")]
    [InlineData("check-config", "--help")]
    [InlineData("audit", "--help")]
    [InlineData("version", "--help")]
    [InlineData("--version")]
    public void Help_and_version_are_no_errors(params string[] args)
    {
        Invoke(args).ShouldBe(ExitCodes.Ok);
        Out.ShouldNotBeEmpty();
        Error.ShouldBeEmpty();
    }

    [Theory]
    [InlineData("version")]
    [InlineData("--version")]
    public void Version_prints_the_version(string form)
    {
        Invoke(form).ShouldBe(ExitCodes.Ok);
        Out.ShouldMatch(@"^conn-sidecar \d+\.\d+\.\d+\S*\n$");
    }

    /// <summary>As help shows it and as the man page does.</summary>
    [Fact]
    public void A_default_that_is_shown_can_be_typed_and_stands_in_the_man_page()
    {
        var manual = TestTools.RepositoryFile("packaging", "deb", "man", "conn-sidecar.8");
        var entries = File.ReadAllText(manual).Replace("\\-", "-", StringComparison.Ordinal).Split("\n.TP\n");
        var checkedOptions = new List<string>();
        var root = CommandTree.Build(Environment(_config));
        foreach (var command in root.Subcommands.Where(command => !command.Hidden))
        {
            foreach (var option in command.Options.Where(option => option.Name is not ("--help" or "--config") && option.ValueType != typeof(bool)))
            {
                var inWords = Regex.Match(option.Description ?? "", @"Default: (\S+?)\.?(\s|$)").Groups[1].Value;
                var shown = option.HasDefaultValue ? option.GetDefaultValue()!.ToString()! : inWords;
                if (shown.Length == 0)
                {
                    continue;
                }

                checkedOptions.Add(option.Name);
                string[] line = [command.Name, .. command.Name == "measure" ? ["10.0.0.1:1"] : Array.Empty<string>(), option.Name, shown];
                root.Parse(line).Errors.ShouldBeEmpty(string.Join(' ', line));
                entries.Single(entry => Regex.IsMatch(entry, $@"^\.B[IR] .*{option.Name}\b")).ShouldMatch($@"Default:?\s+(\.BR? )?{Regex.Escape(shown)}( \.|\.|\s)", option.Name);
            }
        }

        checkedOptions.ShouldBe(["--last", "--protocol", "--max", "--precision", "--share"], ignoreOrder: true);
    }

    [Theory]
    [InlineData("--file", "iis=/etc/x")]
    [InlineData("--file", "nginx=")]
    [InlineData("--file", "/etc/nginx/nginx.conf")]
    [InlineData("--balancer", "www.example.org")]
    [InlineData("--balancer", "10.0.0.0/24:80")]
    [InlineData("--root", "/nowhere")]
    public void Audit_says_what_it_expects(params string[] args)
    {
        Invoke(["audit", "--config", _config, .. args]).ShouldBe(ExitCodes.Usage);
        Error.ShouldStartWith(args[0] + ": ");
        Out.ShouldBeEmpty();
    }

    [Theory]
    [InlineData("--file", "nginx=/nosuch", "it is not there")]
    [InlineData("--file", "haproxy=/nosuch", "it is not there")]
    [InlineData("--file", "apache=/nosuch", "it is not there")]
    [InlineData("--file", "squid=/nosuch", "it is not there")]
    [InlineData("--file", "gunicorn=/nosuch", "it is not there")]
    [InlineData("--file", "uwsgi=/nosuch:section", "it is not there")]
    [InlineData("--file", "uwsgi=/", "it cannot be read")]
    [InlineData("--file", "uwsgi=/x.yaml", "only INI")]
    [InlineData("--file", "nginx=DIR/zero", "it is no text")]
    [InlineData("--file", "haproxy=DIR/empty", "it holds no configuration")]
    [InlineData("--root", "DIR/empty", "no configuration of a known program")]
    public void Audit_of_what_is_named_and_cannot_be_read_is_an_error(string option, string value, string message)
    {
        Directory.CreateDirectory(Path.Combine(_directory.Path, "empty"));
        _directory.Write("zero", "http { }\0");
        var good = _directory.Write("u.ini", "[uwsgi]\nsocket = /run/u.sock\n");
        string[] beside = option == "--file" ? ["--file", $"uwsgi={good}"] : [];
        Invoke(["audit", "--config", _config, .. beside, option, value.Replace("DIR", _directory.Path, StringComparison.Ordinal)]).ShouldBe(ExitCodes.Usage);
        Error.ShouldStartWith(option + ": ");
        Error.ShouldContain(message);
        Out.ShouldBeEmpty();
    }

    [Fact]
    public void Audit_shows_the_lines_that_a_single_finding_needs_elsewhere()
    {
        var nginx = _directory.Write("n.conf", "http {\nserver {\nlisten 8081;\nlocation / {\nproxy_read_timeout 20s;\nproxy_pass http://127.0.0.1:8082;\n}\n}\n"
            + "server {\nlisten 8082;\nlocation / {\nuwsgi_read_timeout 10s;\nuwsgi_pass unix:/run/u.sock;\n}\n}\n}\n");
        var uwsgi = _directory.Write("u.ini", "[uwsgi]\nsocket = /run/u.sock\nharakiri = 30\n");
        Invoke("audit", "--config", _config, "--file", $"nginx={nginx}", "--file", $"uwsgi={uwsgi}").ShouldBe(ExitCodes.Failure);
        Out.ShouldContain("1 finding in 2 files");
        Out.ShouldContain("all changes together");
        Out.ShouldContain($"at {nginx}:5: proxy_read_timeout 37s;");
        Out.ShouldContain($"at {nginx}:12: uwsgi_read_timeout 33s;");
    }

    [Fact]
    public void Audit_takes_a_directory_a_section_and_names_a_file_of_another_program()
    {
        Directory.CreateDirectory(Path.Combine(_directory.Path, "d"));
        _directory.Write("d/a.cfg", "defaults\n    mode http\n");
        var file = _directory.Write("u.ini", "[app]\nsocket = /run/u.sock\n");
        Invoke("audit", "--config", _config, "--file", $"haproxy={_directory.Path}/d/", "--file", $"uwsgi={file}:app").ShouldBe(ExitCodes.Ok);
        Out.ReplaceLineEndings(" ").ShouldContain("is it a configuration of haproxy?");
        Out.ReplaceLineEndings(" ").ShouldNotContain("is it a configuration of uwsgi?");
    }

    [Fact]
    public void Audit_ends_with_1_where_there_are_findings_and_with_0_where_there_are_none()
    {
        var file = _directory.Write("u.ini", "[uwsgi]\nsocket = /run/u.sock\nlisten = 5\n");
        Invoke("audit", "--config", _config, "--file", $"uwsgi={file}").ShouldBe(ExitCodes.Failure);
        Out.ShouldContain($"HIGH  backlog-small  {file}:3");
        Out.ShouldContain($"fix: at {file}:3: listen = 1024");

        file = _directory.Write("u.ini", "[uwsgi]\nsocket = /run/u.sock\n");
        Invoke("audit", "--config", _config, "--file", $"uwsgi={file}").ShouldBe(ExitCodes.Ok);
        Out.ShouldEndWith("No findings in 1 file.\n");
    }

    [Fact]
    public void Audit_prints_json_for_programs()
    {
        var file = _directory.Write("u.ini", "[uwsgi]\nhttp = :8080\nlisten = 5\n");
        Invoke("audit", "--json", "--config", _config, "--file", $"uwsgi={file}", "--balancer-timeout", "30s").ShouldBe(ExitCodes.Failure);
        var json = JsonDocument.Parse(Out).RootElement;
        json.GetProperty("findings").EnumerateArray().Select(finding => finding.GetProperty("id").GetString()).ShouldBe(["chain-order", "backlog-small", "no-work-limit"]);
        json.GetProperty("chains")[0].GetProperty("hops").EnumerateArray().Select(hop => hop.GetProperty("program").GetString()).ShouldBe(["balancer", "uwsgi", "uwsgi"]);
        json.GetProperty("chains")[0].GetProperty("first").GetProperty("seconds").GetDouble().ShouldBe(30);
        json.GetProperty("files").GetArrayLength().ShouldBe(1);
        json.GetProperty("plan").EnumerateArray().Select(change => change.GetProperty("text").GetString()).ShouldBe(["http-timeout = 27", "harakiri = 24", "listen = 1024"]);
    }

    [Fact]
    public void Audit_reads_another_root_alone()
    {
        Directory.CreateDirectory(Path.Combine(_directory.Path, "etc/sysctl.d"));
        Directory.CreateDirectory(Path.Combine(_directory.Path, "etc/nginx"));
        _directory.Write("etc/sysctl.d/a.conf", "net.core.somaxconn = 128\n");
        _directory.Write("etc/nginx/nginx.conf", "http { server { location / { proxy_pass http://10.0.0.1; } } }\n");
        Invoke("audit", "--config", _config, "--root", _directory.Path).ShouldBe(ExitCodes.Failure);
        Out.ShouldContain("HIGH  somaxconn  /etc/sysctl.d/a.conf:1");
        Out.ShouldContain("1 finding in 1 file.");
    }

    [Fact]
    public void Check_config_tells_all_errors_and_the_exit_code_of_sysexits()
    {
        var bad = _directory.Write("bad.conf", "[agent]\nmode = x\nfoo = 1\n");
        Invoke("check-config", "--config", bad).ShouldBe(ExitCodes.BadConfiguration);
        ExitCodes.BadConfiguration.ShouldBe(78);
        Error.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length.ShouldBe(2);
        Error.ShouldStartWith($"{bad}:2: [agent] mode: expected observe or protect, got \"x\"\n");
        Out.ShouldBeEmpty();
    }

    [Fact]
    public void Check_config_prints_what_is_in_force()
    {
        Invoke("check-config", "--config", _config).ShouldBe(ExitCodes.Ok);
        Out.ShouldContain($"# from {_config}\n");
        Out.ShouldContain($"state-directory = {_directory.Path}\n");
        Out.ShouldContain("[upstream:postgresql]\n");
        Error.ShouldBeEmpty();
    }

    [Fact]
    public void Check_config_prints_json_for_programs()
    {
        Invoke("check-config", "--json", "-c", _config).ShouldBe(ExitCodes.Ok);
        var json = JsonDocument.Parse(Out).RootElement;
        json.GetProperty("agent").GetProperty("scan_interval_seconds").GetDouble().ShouldBe(1);
        json.GetProperty("upstreams").GetArrayLength().ShouldBe(10);
    }

    [Theory]
    [InlineData("run")]
    [InlineData("status")]
    [InlineData("incidents")]
    public void Every_command_refuses_a_configuration_with_errors(string command)
    {
        var bad = _directory.Write("bad.conf", "[agent]\nmode = x\n");
        Invoke(command, "--config", bad).ShouldBe(ExitCodes.BadConfiguration);
    }

    [Fact]
    public async Task Status_shows_what_the_running_agent_sees()
    {
        await using var server = ControlServer.Start(_directory.Path, () => Snapshots.Of(Snapshots.Connection(verdict: Verdict.Stuck)), _ => []);
        Invoke("status", "--config", _config).ShouldBe(ExitCodes.Ok);
        Error.ShouldBeEmpty();
        Out.ShouldBe($"""
            conn-sidecar {ProductVersion.Text}, mode protect, running; seen 2026-03-04 05:06:07Z in 3.5ms

            db  10.0.2.2:5432
              1 stuck; path up (0.6ms); idle timeout 5m to 5m50s
              1234 uwsgi-core  10.0.1.2:40001 -> 10.0.2.2:5432  idle 12s  stuck
                   segments moved 12 s ago; unanswered for 2.5s; uwsgi.service

            """);
    }

    [Fact]
    public async Task Status_in_json_is_the_agents_own_answer()
    {
        await using var server = ControlServer.Start(_directory.Path, () => Snapshots.Of(Snapshots.Connection()), _ => []);
        Invoke("status", "--json", "--config", _config).ShouldBe(ExitCodes.Ok);
        var json = JsonDocument.Parse(Out).RootElement;
        json.GetProperty("running").GetBoolean().ShouldBeTrue();
        json.GetProperty("connections")[0].GetProperty("peer").GetString().ShouldBe("10.0.2.2:5432");
    }

    [Fact]
    public void Without_a_running_agent_status_looks_itself_and_says_so()
    {
        Invoke("status", "--json", "--config", _config).ShouldBe(ExitCodes.Ok);
        Error.ShouldContain("no agent is running");
        var json = JsonDocument.Parse(Out).RootElement;
        json.GetProperty("running").GetBoolean().ShouldBeFalse();
        json.GetProperty("connections").GetArrayLength().ShouldBe(1);
    }

    [Fact]
    public async Task A_running_agent_can_be_asked_while_the_default_configuration_has_errors()
    {
        var bad = _directory.Write("bad.conf", "[agent]\nmode = x\n");
        await using var server = ControlServer.Start(_directory.Path, () => Snapshots.Of(), _ => []);
        CommandTree.Invoke(["status", "--json"], Environment(bad)).ShouldBe(ExitCodes.Ok);
        Error.ShouldContain("expected observe or protect");
        JsonDocument.Parse(Out).RootElement.GetProperty("running").GetBoolean().ShouldBeTrue();
    }

    [Fact]
    public void A_default_configuration_with_errors_is_one_where_no_agent_is_running()
    {
        var bad = _directory.Write("bad.conf", "[agent]\nmode = x\n");
        CommandTree.Invoke(["status"], Environment(bad)).ShouldBe(ExitCodes.BadConfiguration);
        Out.ShouldBeEmpty();
    }

    [Fact]
    public async Task An_agent_that_does_not_answer_is_told_with_its_exit_code()
    {
        await using var server = ControlServer.Start(_directory.Path, () => throw new IOException("broken"), _ => []);
        Invoke("status", "--config", _config).ShouldBe(ExitCodes.Unreachable);
        Error.ShouldContain("did not answer as expected");
    }

    [Fact]
    public void Status_fits_into_80_columns_and_puts_what_is_urgent_first()
    {
        _look = Snapshots.Of(
            Snapshots.Connection(1) with { Idle = TimeSpan.FromDays(3), Executable = "/opt/a-very-long-name-of-an-executable" },
            Snapshots.Connection(65535, Verdict.BlockedByPeer) with
            {
                Pid = 4194304,
                Local = System.Net.IPEndPoint.Parse("[2001:db8:1111:2222:3333:4444:5555:6666]:65535"),
                Peer = System.Net.IPEndPoint.Parse("[2001:db8:1111:2222:3333:4444:5555:7777]:65535"),
                Namespace = "net:[4026532000]",
            },
            Snapshots.Connection(3, Verdict.Stuck) with { Pid = null, Executable = null, Unit = null, Why = string.Concat(Enumerable.Repeat("silence ", 40)) + new string('x', 200) });
        _look = _look with
        {
            Limitations = ["no CAP_NET_ADMIN: connections cannot be recycled, workers named in the configuration are terminated at once"],
            Upstreams = [.. _look.Upstreams, Snapshots.Upstream("idle", "10.9.9.9:1") with { PathUp = null }, Snapshots.Upstream("down", "10.9.9.8:1") with { PathUp = false, Advice = ["look at the router"] }],
        };
        Invoke("status", "--config", _config).ShouldBe(ExitCodes.Ok);
        var lines = Out.Split('\n');
        lines.ShouldAllBe(l => l.Length <= 80);
        lines.ShouldAllBe(l => !l.EndsWith(' '));
        Out.IndexOf("  stuck\n", StringComparison.Ordinal).ShouldBeLessThan(Out.IndexOf("  blocked-by-peer\n", StringComparison.Ordinal));
        Out.IndexOf("  blocked-by-peer\n", StringComparison.Ordinal).ShouldBeLessThan(Out.IndexOf("  healthy\n", StringComparison.Ordinal));
        Out.ShouldContain("no connections: idle\n");
        Out.ShouldContain("path DOWN");
        Out.ShouldContain("  ! look at the router\n");
    }

    [Fact]
    public void Hostile_names_cannot_move_the_cursor()
    {
        _look = Snapshots.Of(Snapshots.Connection() with
        {
            Executable = "/tmp/\u001b[2J\r\n\u202e[red]x",
            Unit = "a\u0007.service",
            Why = "\u009b2Jwhy\ud800 [bold]",
        });
        Invoke("status", "--config", _config).ShouldBe(ExitCodes.Ok);
        Out.ShouldAllBe(c => c == '\n' || (!char.IsControl(c) && !char.IsSurrogate(c) && c != '\u202e'));
        Out.ShouldContain(@"\x1b[2J");
        Out.ShouldContain(@"\x9b2Jwhy\ud800 [bold]");
        Out.ShouldContain(@"a\x07.service");
    }

    [Fact]
    public void Colours_are_for_terminals_alone()
    {
        Invoke("status", "--config", _config);
        Out.ShouldNotContain('\u001b');
        CommandTree.Invoke(["status", "--config", _config], Environment(_config) with { Colors = true });
        Out.ShouldContain("\u001b[");
    }

    [Fact]
    public void Without_incidents_that_is_said()
    {
        Invoke("incidents", "--config", _config).ShouldBe(ExitCodes.Ok);
        Out.ShouldBe($"no incidents in {_directory.Path}\n");
        Invoke("incidents", "--json", "--config", _config).ShouldBe(ExitCodes.Ok);
        Out.ShouldBe($"no incidents in {_directory.Path}\n");
    }

    [Fact]
    public void Incidents_are_told_to_people_in_their_order()
    {
        WriteIncidents(Line(1), Line(2, i => i with { Outcome = "withheld", WithheldBy = "observe", ReleaseSeconds = null, StuckSeconds = 2.5 }));
        Invoke("incidents", "--config", _config).ShouldBe(ExitCodes.Ok);
        Out.ShouldBe("""
            2026-03-04 05:06:07Z  db  stuck: recycle released
                1234 uwsgi-core  10.0.1.2:40001 -> 10.0.2.2:5432  released after 2.6s
                no answer for 2.5 s while a fresh connection succeeded
                id 20260304T050607.001-1
            2026-03-04 05:06:07Z  db  stuck: recycle withheld (observe)
                1234 uwsgi-core  10.0.1.2:40001 -> 10.0.2.2:5432  unanswered for 2.5s
                no answer for 2.5 s while a fresh connection succeeded
                id 20260304T050607.002-1

            """);
    }

    [Fact]
    public void Incidents_in_json_are_one_object_a_line_of_which_the_newest_can_be_chosen()
    {
        WriteIncidents([.. Enumerable.Range(1, 30).Select(n => Line(n))]);
        Invoke("incidents", "--json", "--last", "2", "--config", _config).ShouldBe(ExitCodes.Ok);
        var incidents = Out.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(l => JsonDocument.Parse(l).RootElement).ToList();
        incidents.Select(i => i.GetProperty("id").GetString()).ShouldBe([Snapshots.Incident(29).Id, Snapshots.Incident(30).Id]);
        foreach (var name in new[] { "time", "upstream", "cause", "remedy", "outcome", "pid", "withheld_by" })
        {
            incidents[0].TryGetProperty(name, out _).ShouldBeTrue(name);
        }

        incidents[0].GetProperty("withheld_by").ValueKind.ShouldBe(JsonValueKind.Null);
    }

    [Fact]
    public void People_see_the_last_twenty_and_programs_all()
    {
        WriteIncidents([.. Enumerable.Range(1, 30).Select(n => Line(n))]);
        Invoke("incidents", "--config", _config);
        Out.Split('\n').Count(l => l.StartsWith("2026-", StringComparison.Ordinal)).ShouldBe(20);
        _output.GetStringBuilder().Clear();
        Invoke("incidents", "--json", "--config", _config);
        Out.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length.ShouldBe(30);
    }

    [Fact]
    public void Torn_and_damaged_lines_are_counted_and_the_others_shown()
    {
        WriteIncidents(Line(1), "garbage", "{}", "\"\"", "[1]", "null", Line(2), Line(3)[..40]);
        Invoke("incidents", "--json", "--config", _config).ShouldBe(ExitCodes.Ok);
        Out.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length.ShouldBe(2);
        Error.ShouldStartWith("6 damaged lines left out");
    }

    [Fact]
    public void Hostile_incidents_cannot_move_the_cursor_or_make_the_command_fail()
    {
        WriteIncidents(Line(1, i => i with { Why = "\u001b[2J\n", Upstream = "[bold]\u0007", Executable = "/x/\u001b", ReleaseSeconds = 1e300 }));
        Invoke("incidents", "--config", _config).ShouldBe(ExitCodes.Ok);
        Invoke("incidents", "--json", "--config", _config).ShouldBe(ExitCodes.Ok);
        Out.ShouldAllBe(c => c == '\n' || !char.IsControl(c));
        Out.ShouldContain(@"[bold]\x07");
    }

    [Fact]
    public void Incidents_that_are_no_file_are_an_error()
    {
        Directory.CreateDirectory(_directory.File("incidents.jsonl"));
        Invoke("incidents", "--config", _config).ShouldBe(ExitCodes.Unreachable);
        Error.ShouldContain("not permitted to read the incidents");
    }

    private static string Line(int number, Func<Incident, Incident>? change = null)
    {
        var incident = Snapshots.Incident(number);
        return JsonSerializer.Serialize(change is null ? incident : change(incident), IncidentJson.Default.Incident);
    }

    private void WriteIncidents(params string[] lines) => _directory.Write("incidents.jsonl", string.Join('\n', lines));

    private int Invoke(params string[] args) => CommandTree.Invoke(args, Environment(_config));

    private CommandEnvironment Environment(string defaultConfiguration) => new()
    {
        Out = _output,
        Error = _error,
        Colors = false,
        Width = 80,
        DefaultConfiguration = defaultConfiguration,
        DefaultRuntimeDirectory = _directory.Path,
        Scan = _ => _look,
    };
}
