using System.Net;
using System.Runtime.InteropServices;
using System.Text;
using FsCheck;
using FsCheck.Fluent;
using Shouldly;
using Sidecar.Agent.Configuration;
using Sidecar.Agent.Core.Settings;
using Xunit;

namespace Sidecar.UnitTests.Configuration;

public sealed partial class ConfigurationLoaderTests
{
    private const string Upstream = "[upstream:db]\nendpoint = 10.0.2.2:5432\n";

    [Fact]
    public void Every_key_is_read()
    {
        using var directory = new TemporaryDirectory();
        var dsn = directory.Write("db.dsn", "Host=db");
        File.SetUnixFileMode(dsn, UnixFileMode.UserRead);
        var configuration = Parse($"""
            # a comment
            ; another
            [agent]
            mode = observe
            listen = [fd00::1]:9000
            listen-remote = yes
            host-names = metrics.example.org, app1
            state-directory = /tmp/state/
            runtime-directory = /tmp/run
            scan-interval = 250ms
            network-namespaces = own
            otlp-endpoint = http://collector.example.org:4318

            [upstream:orders-db]
            endpoint = 10.0.2.2:5432, [fd00::/64]:5432 , db.example.org:6432
            direction = inbound
            protocol = postgresql
            idle-timeout = 350s
            keepalive = off
            recycle = off
            dead-after = 1m
            dsn-file = {dsn}

            [workers:web]
            unit = uwsgi@main.service
            user = www-data
            executable = /usr/bin/uwsgi-core
            terminate = on
            grace = 0s
            budget = 2/30m
            """);

        configuration.Agent.HostNames.ShouldBe(["metrics.example.org", "app1"]);
        (configuration.Agent with { HostNames = [] }).ShouldBe(new AgentSection
        {
            Mode = AgentMode.Observe,
            Listen = new IPEndPoint(IPAddress.Parse("fd00::1"), 9000),
            StateDirectory = "/tmp/state",
            RuntimeDirectory = "/tmp/run",
            ScanInterval = TimeSpan.FromMilliseconds(250),
            AllNetworkNamespaces = false,
            OtlpEndpoint = new Uri("http://collector.example.org:4318/v1/metrics"),
        });
        var upstream = configuration.Upstreams.ShouldHaveSingleItem();
        upstream.Name.ShouldBe("orders-db");
        upstream.Endpoints.Select(e => (e.Host, e.Network, e.Port)).ShouldBe(
        [
            ((string?)null, (IPNetwork?)IPNetwork.Parse("10.0.2.2/32"), 5432),
            (null, IPNetwork.Parse("fd00::/64"), 5432),
            ("db.example.org", null, 6432),
        ]);
        upstream.Direction.ShouldBe(UpstreamDirection.Inbound);
        upstream.Protocol.ShouldBe(UpstreamProtocol.PostgreSql);
        upstream.IdleTimeout.ShouldBe(new IdleTimeoutSetting(IdleTimeoutSource.Declared, TimeSpan.FromSeconds(350)));
        upstream.Keepalive.ShouldBeFalse();
        upstream.Recycle.ShouldBeFalse();
        upstream.DeadAfter.ShouldBe(TimeSpan.FromMinutes(1));
        upstream.DsnFile.ShouldBe(dsn);
        upstream.IsBuiltIn.ShouldBeFalse();
        configuration.Workers.ShouldHaveSingleItem().ShouldBe(new WorkersSection
        {
            Name = "web",
            Unit = "uwsgi@main.service",
            User = "www-data",
            Executable = "/usr/bin/uwsgi-core",
            Terminate = true,
            Grace = TimeSpan.Zero,
            Budget = new TerminationBudget(2, TimeSpan.FromMinutes(30)),
        });
        configuration.Warnings.ShouldBeEmpty();
    }

    [Fact]
    public void What_is_not_written_has_its_default()
    {
        var configuration = Parse(Upstream + "[workers:w]\nuser = 33\n");
        configuration.Agent.ShouldBe(new AgentSection());
        configuration.Upstreams[0].IdleTimeout.Source.ShouldBe(IdleTimeoutSource.Measure);
        configuration.Upstreams[0].Recycle.ShouldBeTrue();
        configuration.Workers[0].Terminate.ShouldBeFalse();
    }

    [Fact]
    public void Without_a_file_well_known_back_end_ports_are_protected_and_nothing_is_terminated()
    {
        using var directory = new TemporaryDirectory();
        var configuration = ConfigurationLoader.LoadOrBuiltIn(directory.File("missing.conf"));
        configuration.Upstreams.ShouldAllBe(u => u.IsBuiltIn && u.Keepalive && u.Recycle && u.Endpoints.Count == 2);
        configuration.Upstreams.Select(u => (u.Name, u.Endpoints[0].Port)).ShouldContain(("postgresql", 5432));
        configuration.Upstreams.Select(u => u.Endpoints[0].Port).ShouldBeUnique();
        configuration.Upstreams.Count.ShouldBe(10);
        configuration.Workers.ShouldBeEmpty();
        configuration.Files.ShouldBeEmpty();
    }

    [Fact]
    public void A_file_without_upstreams_keeps_the_built_in_ones()
    {
        var configuration = Parse("[agent]\nmode = observe\n");
        configuration.Agent.Mode.ShouldBe(AgentMode.Observe);
        configuration.Upstreams.Select(u => u.Name).ShouldBe(ConfigurationLoader.BuiltIn().Upstreams.Select(u => u.Name));
    }

    [Theory]
    [InlineData("[agnt]", 1, "did you mean [agent]?")]
    [InlineData("[Agent]", 1, "did you mean [agent]?")]
    [InlineData("[upstreams:db]\nendpoint = 1.2.3.4:5", 1, "did you mean [upstream:db]?")]
    [InlineData("[worker:web]", 1, "did you mean [workers:web]?")]
    [InlineData("[upstream]", 1, "did you mean [upstream:NAME]?")]
    [InlineData("[]", 1, "expected [agent], [upstream:NAME], [workers:NAME], [haproxy:NAME] or [check:NAME]")]
    [InlineData("[upstream:]\nendpoint = 1.2.3.4:5", 1, "expected a name of 1 to 64 characters")]
    [InlineData("[upstream:a b]\nendpoint = 1.2.3.4:5", 1, "got \"a b\"")]
    [InlineData("[agent]\nmodus = observe", 2, "did you mean mode?")]
    [InlineData("[agent]\nscan_interval = 1s", 2, "did you mean scan-interval?")]
    [InlineData("[agent]\nMode = observe", 2, "did you mean mode?")]
    [InlineData("[agent]\nzzzzzzzzzzzz = 1", 2, "(there are: mode, listen,")]
    [InlineData("[agent]\nmode = protct", 2, "mode: expected observe or protect, got \"protct\"")]
    [InlineData("[agent]\nmode =", 2, "got \"\"")]
    [InlineData("[agent]\nmode = observe # quiet", 2, "(comments stand on lines of their own)")]
    [InlineData("[agent]\nmode = observe\nmode = protect", 3, "expected each key once in a section, got it again (first at test.conf:2)")]
    [InlineData("[agent]\n[upstream:a]\nendpoint = 1.2.3.4:5\n[agent]", 4, "expected each section once, got it again (first at test.conf:1)")]
    [InlineData("[agent]\nscan-interval = 99ms", 2, "expected a duration of 100ms to 1m, got \"99ms\"")]
    [InlineData("[agent]\nscan-interval = 61s", 2, "100ms to 1m")]
    [InlineData("[agent]\nscan-interval = 1", 2, "100ms to 1m")]
    [InlineData("[agent]\nlisten = localhost:80", 2, "expected none or ADDRESS:PORT")]
    [InlineData("[agent]\nlisten = 0.0.0.0:10042", 2, "listen-remote = yes")]
    [InlineData("[agent]\nlisten = [::]:10042", 2, "listen-remote = yes")]
    [InlineData("[agent]\nlisten-remote = maybe", 2, "expected yes or no")]
    [InlineData("[agent]\nhost-names = app1:10042", 2, "host names without a port")]
    [InlineData("[agent]\nhost-names = app1, *.example.org", 2, "got \"*.example.org\"")]
    [InlineData("[agent]\nhost-names = 10.0.2.2", 2, "host names without a port")]
    [InlineData("[agent]\nstate-directory = var/lib", 2, "expected an absolute path")]
    [InlineData("[agent]\nstate-directory = /var/../etc", 2, "without \"..\"")]
    [InlineData("[agent]\nruntime-directory = /01234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890", 2, "at most 90 characters")]
    [InlineData("[agent]\nnetwork-namespaces = some", 2, "expected all or own")]
    [InlineData("[agent]\notlp-endpoint = collector:4318", 2, "expected none or a URL such as http://127.0.0.1:4318")]
    [InlineData("[agent]\notlp-endpoint = grpc://collector:4317", 2, "expected none or a URL")]
    [InlineData("[agent]\notlp-endpoint = http://user:secret@collector", 2, "expected none or a URL")]
    [InlineData("[upstream:a]\nprotocol = tcp", 1, "endpoint: expected a line \"endpoint = …\"")]
    [InlineData("[upstream:a]\nendpoint =", 2, "expected ADDRESS:PORT")]
    [InlineData("[upstream:a]\nendpoint = 1.2.3.4:5,", 2, "expected ADDRESS:PORT")]
    [InlineData("[upstream:a]\nendpoint = 1.2.3.4", 2, "expected ADDRESS:PORT")]
    [InlineData("[upstream:a]\nendpoint = 10.0.2.5/24:5432", 2, "the network of this address is 10.0.2.0/24")]
    [InlineData("[upstream:a]\nendpoint = 1.2.3.4:5\nidle-timeout = 31d", 3, "expected measure, none or a duration of 1s to 30d")]
    [InlineData("[upstream:a]\nendpoint = 1.2.3.4:5\ndead-after = 5s", 3, "expected kernel or a duration of 10s to 1d")]
    [InlineData("[upstream:a]\nendpoint = 1.2.3.4:5\nkeepalive = 1", 3, "expected on or off")]
    [InlineData("[upstream:a]\nendpoint = 1.2.3.4:5\ndirection = up", 3, "expected outbound or inbound")]
    [InlineData("[upstream:a]\nendpoint = 1.2.3.4:5\nprotocol = oracle", 3, "expected tcp or postgresql or mysql or redis or http or tls")]
    [InlineData("[upstream:a]\nendpoint = 1.2.3.4:5\ndsn-file = /x", 3, "protocol = postgresql")]
    [InlineData("[workers:w]\nterminate = on", 1, "expected at least one of unit, user or executable beside \"terminate = on\"")]
    [InlineData("[workers:w]\nexecutable = uwsgi\nterminate = on", 1, "expected unit or user beside \"terminate = on\"")]
    [InlineData("[workers:w]", 1, "expected at least one of unit, user or executable")]
    [InlineData("[workers:w]\nunit = uwsgi", 2, "ends in .service or .scope")]
    [InlineData("[workers:w]\nuser = a b", 2, "expected a user name")]
    [InlineData("[workers:w]\nexecutable = bin/uwsgi", 2, "expected an absolute path or a file name")]
    [InlineData("[workers:w]\nuser = w\ngrace = 11m", 3, "expected a duration of 0s to 10m")]
    [InlineData("[workers:w]\nuser = w\nbudget = 0/h", 3, "expected COUNT/PERIOD")]
    [InlineData("[workers:w]\nuser = w\nbudget = 3", 3, "expected COUNT/PERIOD")]
    [InlineData("[workers:w]\nuser = w\nbudget = 3/", 3, "expected COUNT/PERIOD")]
    [InlineData("[workers:w]\nuser = w\nbudget = 3/w", 3, "expected COUNT/PERIOD")]
    [InlineData("[workers:w]\nuser = w\nbudget = 3/10s", 3, "a period of 1m to 30d")]
    [InlineData("mode = observe", 1, "expected a [section] header before the first key")]
    [InlineData("[agent", 1, "expected a section header")]
    [InlineData("[agent] # x", 1, "expected a section header")]
    [InlineData("[agent]\nmode", 2, "expected \"key = value\"")]
    [InlineData("[agent]\n= x", 2, "expected \"key = value\"")]
    public void An_error_names_its_line_and_what_was_expected(string text, int line, string message)
    {
        var errors = ErrorsOf(text);
        errors.ShouldContain(e => e.Line == line && e.ToString().Contains(message, StringComparison.Ordinal),
            string.Join('\n', errors));
        errors.ShouldAllBe(e => e.ToString().StartsWith($"test.conf:{e.Line}: ", StringComparison.Ordinal));
    }

    [Fact]
    public void The_form_of_an_error_is_file_line_section_key()
        => ErrorsOf("[agent]\nmode = x").ShouldHaveSingleItem().ToString()
            .ShouldBe("test.conf:2: [agent] mode: expected observe or protect, got \"x\"");

    [Fact]
    public void All_errors_are_told_at_once()
    {
        using var directory = new TemporaryDirectory();
        var main = directory.Write("a.conf", "[agent]\nmode = x\nlisten = y\n[upstrem:z]\n");
        var more = directory.Write("conf.d/b.conf", "[agent]\nfoo = 1\n");
        var errors = Should.Throw<ConfigurationException>(() => ConfigurationLoader.Load(main)).Errors;
        errors.Select(e => (e.File, e.Line)).ShouldBe([(main, 2), (main, 3), (main, 4), (more, 1), (more, 2)]);
    }

    [Theory]
    [InlineData("3/h", 3, 60)]
    [InlineData("10/d", 10, 1440)]
    [InlineData("2/30m", 2, 30)]
    [InlineData("1/1h30m", 1, 90)]
    public void A_budget_is_a_count_in_a_period(string text, int count, int minutes) =>
        Parse($"[workers:w]\nuser = w\nbudget = {text}").Workers[0].Budget.ShouldBe(new TerminationBudget(count, TimeSpan.FromMinutes(minutes)));

    [Fact]
    public void The_metrics_endpoint_can_be_switched_off() => Parse("[agent]\nlisten = none").Agent.Listen.ShouldBeNull();

    [Fact]
    public void Byte_order_mark_and_carriage_returns_do_not_matter()
    {
        byte[] content = [0xef, 0xbb, 0xbf, .. "[agent]\r\nmode = observe\r\n"u8];
        ConfigurationLoader.Parse("test.conf", content).Agent.Mode.ShouldBe(AgentMode.Observe);
    }

    [Theory]
    [InlineData(new byte[] { 0x00 }, "got a NUL byte")]
    [InlineData(new byte[] { 0xff, 0xfe }, "expected UTF-8 text, got an invalid byte at position 8")]
    [InlineData(new byte[] { 0x1b, (byte)'[', (byte)'2', (byte)'J' }, "got the control character \\x1b")]
    public void Bytes_that_are_no_text_are_an_error_of_their_line(byte[] odd, string message)
    {
        byte[] content = [.. "[agent]\nmode = "u8, .. odd, .. "\n"u8];
        var error = Should.Throw<ConfigurationException>(() => ConfigurationLoader.Parse("test.conf", content)).Errors.ShouldHaveSingleItem();
        error.Line.ShouldBe(2);
        error.Message.ShouldContain(message);
    }

    [Fact]
    public void A_very_long_line_is_an_error()
        => ErrorsOf("[agent]\n# " + new string('x', IniDocument.MaxLineBytes)).ShouldHaveSingleItem().ToString().ShouldContain("test.conf:2: [agent] expected at most 4096 bytes on a line");

    [Fact]
    public void A_file_of_more_than_a_megabyte_is_refused()
    {
        using var directory = new TemporaryDirectory();
        var path = directory.Write("a.conf", new string('\n', IniDocument.MaxFileBytes + 1));
        LoadErrors(path).ShouldHaveSingleItem().ToString().ShouldBe($"{path}: expected a file of at most 1 MB, got a larger one");
        LoadErrors("/dev/zero").ShouldHaveSingleItem().ToString().ShouldContain("at most 1 MB");
        directory.Write("a.conf", new string('\n', IniDocument.MaxFileBytes));
        ConfigurationLoader.Load(path).Files.ShouldBe([path]);
    }

    [Fact]
    public void A_missing_file_is_an_error_where_it_was_named()
    {
        using var directory = new TemporaryDirectory();
        var path = directory.File("missing.conf");
        LoadErrors(path).ShouldHaveSingleItem().ToString().ShouldBe($"{path}: expected a configuration file, found nothing there");
    }

    [Fact]
    public void A_directory_is_not_a_file()
    {
        using var directory = new TemporaryDirectory();
        LoadErrors(directory.Path).ShouldHaveSingleItem().ToString().ShouldBe($"{directory.Path}: expected a file, got a directory");
    }

    [Fact]
    public void A_file_that_may_not_be_read_is_an_error()
    {
        using var directory = new TemporaryDirectory();
        var path = directory.Write("a.conf", "[agent]\n");
        File.SetUnixFileMode(path, UnixFileMode.None);
        File.SetUnixFileMode(directory.Path, (UnixFileMode)0x1ed);

        // Root reads everything; the file-system identity of one thread, which ends with this, can be somebody else's.
        Exception? thrown = null;
        var thread = new Thread(() =>
        {
            _ = SetFileSystemUser(65534);
            thrown = Record.Exception(() => ConfigurationLoader.Load(path));
        });
        thread.Start();
        thread.Join();
        var errors = thrown.ShouldBeOfType<ConfigurationException>().Errors;
        errors.ShouldHaveSingleItem().ToString().ShouldBe($"{path}: expected a readable file, got: permission denied");
    }

    [Fact]
    public void Files_of_conf_d_are_read_in_ordinal_order_and_others_there_are_not()
    {
        using var directory = new TemporaryDirectory();
        var main = directory.Write("conn-sidecar.conf", "[agent]\nmode = observe\n");
        var b = directory.Write("conf.d/b.conf", "[upstream:b]\nendpoint = 10.0.0.2:1\n");
        var a = directory.Write("conf.d/B.conf", "[upstream:a]\nendpoint = 10.0.0.1:1\n");
        directory.Write("conf.d/c.conf.dpkg-old", "nonsense");
        var configuration = ConfigurationLoader.Load(main);
        configuration.Files.ShouldBe([main, a, b]);
        configuration.Upstreams.Select(u => u.Name).ShouldBe(["a", "b"]);
    }

    [Fact]
    public void A_section_in_two_files_is_a_duplicate_and_both_places_are_named()
    {
        using var directory = new TemporaryDirectory();
        var main = directory.Write("a.conf", Upstream);
        var more = directory.Write("conf.d/b.conf", "\n" + Upstream);
        LoadErrors(main).ShouldHaveSingleItem().ToString()
            .ShouldBe($"{more}:2: [upstream:db] expected each section once, got it again (first at {main}:1)");
    }

    [Fact]
    public void What_is_allowed_but_odd_is_a_warning()
    {
        using var directory = new TemporaryDirectory();
        var open = directory.Write("open.dsn", "");
        File.SetUnixFileMode(open, UnixFileMode.UserRead | UnixFileMode.OtherRead);
        var warnings = Parse($"""
            [agent]
            listen-remote = yes
            [upstream:a]
            endpoint = 10.0.0.1:5432
            protocol = postgresql
            dsn-file = {open}
            [upstream:b]
            endpoint = 10.0.0.2:5432, 10.0.0.1:5432
            protocol = postgresql
            dsn-file = {directory.File("missing.dsn")}
            """).Warnings;
        warnings.Count.ShouldBe(4);
        warnings[0].ShouldBe("test.conf:2: [agent] listen-remote: has no effect: listen names no address that other hosts reach");
        warnings[1].ShouldContain("lets others in; it holds a password: chmod 0600");
        warnings[2].ShouldContain("missing.dsn does not exist");
        warnings[3].ShouldContain("10.0.0.1:5432 is already named by [upstream:a]");
    }

    [Fact]
    public void Hostile_values_cannot_move_the_cursor_of_whoever_reads_the_error()
    {
        var text = ErrorsOf("[agent]\nmode = \u202eabc\u009b2J").ShouldHaveSingleItem().ToString();
        text.ShouldNotContain('\u202e');
        text.ShouldNotContain('\u009b');
    }

    [Fact]
    public void Any_text_either_loads_or_gives_errors_with_lines() => Check.One(
        Config.QuickThrowOnFailure.WithMaxTest(500),
        Prop.ForAll(AnyConfiguration().ToArbitrary(), LoadsOrTellsLines));

    [Fact]
    public void Any_bytes_either_load_or_give_errors_with_lines() => Check.QuickThrowOnFailure(Prop.ForAll(
        ArbMap.Default.ArbFor<byte[]>(), LoadsOrTellsLines));

    [Fact]
    public void What_loads_is_written_out_and_read_back_to_the_same() => Check.One(
        Config.QuickThrowOnFailure.WithMaxTest(300),
        Prop.ForAll(ValidConfiguration().ToArbitrary(), text =>
        {
            var first = Parse(text);
            var again = Parse(ConfigurationText.Write(first));
            return first.Agent == again.Agent
                && first.Workers.SequenceEqual(again.Workers)
                && first.Upstreams.Select(WithoutList).SequenceEqual(again.Upstreams.Select(WithoutList))
                && first.Upstreams.Zip(again.Upstreams).All(p => p.First.Endpoints.SequenceEqual(p.Second.Endpoints));

            static UpstreamSection WithoutList(UpstreamSection upstream) => upstream with { Endpoints = [] };
        }));

    private static Gen<string> ValidConfiguration()
    {
        var agent = Section("agent", "",
            ("mode", "observe|protect"), ("listen", "none|127.0.0.1:1|[::1]:65535"), ("listen-remote", "yes|no"), ("state-directory", "/a|/b/"),
            ("runtime-directory", "/r"), ("scan-interval", "100ms|7s|1m"), ("network-namespaces", "all|own"), ("otlp-endpoint", "none|http://127.0.0.1:4318|https://c.example.org/otlp/v1/metrics"));
        var upstream = Section("upstream:u", "endpoint = [fd00::/64]:5432, db:1",
            ("direction", "inbound|outbound"), ("protocol", "tcp|POSTGRESQL|mysql|redis|http|tls"), ("idle-timeout", "none|measure|2h4m|1500ms"), ("keepalive", "on|off|no"),
            ("recycle", "on|off|false"), ("dead-after", "kernel|10s|1d"));
        var workers = Section("workers:w", "user = w",
            ("unit", "a.service|b@1.scope"), ("executable", "/bin/x|x"), ("terminate", "on|off"), ("grace", "0s|10m|1s500ms"), ("budget", "3/h|10/d|2/30m|1000/1h30m"));
        return agent.Zip(upstream).Zip(workers).Select(s => $"{s.Item1.Item1}\n{s.Item1.Item2}\n{s.Item2}\n");

        static Gen<string> Section(string name, string always, params (string Key, string Values)[] keys) => keys
            .Select(k => Gen.Elements<string>([.. k.Values.Split('|').Select(v => $"{k.Key} = {v}"), "# not written"]))
            .Aggregate(Gen.Constant($"[{name}]\n{always}"), (text, line) => text.Zip(line).Select(p => $"{p.Item1}\n{p.Item2}"));
    }

    /// <summary>Pieces that make sense, put together without any, with arbitrary text in between.</summary>
    private static Gen<byte[]> AnyConfiguration()
    {
        string[] names = ["agent", "upstream:a", "upstream:b", "workers:w", "upstream:", "workers", "nonsense"];
        string[] values = ["on", "yes", "1s", "3/h", "10.0.0.1:5432", "[fd00::/64]:1", "db:1", "none", "/x", "w", "x.service", "observe", "", "[", "/", ":", ",", "0.0.0.0/0:1", "9999999999d", "9/9999999999999h", "tcp"];
        var keys = ConfigurationKeys.All.ToArray();
        var header = Gen.Elements(names).Select(n => $"[{n}]");
        var entry = Gen.Elements(keys).Zip(Gen.Elements(values)).Select(e => $"{e.Item1} = {e.Item2}");
        var odd = ArbMap.Default.ArbFor<string>().Generator.Select(s => s ?? "");
        var oddEntry = Gen.Elements(keys).Zip(odd).Select(e => $"{e.Item1} = {e.Item2}");
        var line = Gen.Frequency((3, header), (6, entry), (2, oddEntry), (1, odd));
        return line.ListOf().Zip(Gen.Elements("\n", "\r\n", "\n\n", "\r", "\0")).Select(p => Encoding.UTF8.GetBytes(string.Join(p.Item2, p.Item1)));
    }

    private static bool LoadsOrTellsLines(byte[] content)
    {
        try
        {
            var configuration = ConfigurationLoader.Parse("test.conf", content);

            // What loads can be written out and read back to the same.
            var text = ConfigurationText.Write(configuration);
            return string.Equals(text, ConfigurationText.Write(Again(configuration, text)), StringComparison.Ordinal);
        }
        catch (ConfigurationException e)
        {
            return e.Errors.Count > 0 && e.Errors.All(x => x.Line >= 1);
        }
    }

    private static SidecarConfiguration Again(SidecarConfiguration first, string text)
    {
        var again = ConfigurationLoader.Parse("test.conf", Encoding.UTF8.GetBytes(text));

        // Where it came from is not part of the text; that upstreams were built in is a comment there.
        return again with { Upstreams = [.. again.Upstreams.Select((u, i) => u with { IsBuiltIn = first.Upstreams[i].IsBuiltIn })] };
    }

    private static SidecarConfiguration Parse(string text) => ConfigurationLoader.Parse("test.conf", Encoding.UTF8.GetBytes(text));

    private static IReadOnlyList<ConfigurationError> ErrorsOf(string text) => Should.Throw<ConfigurationException>(() => Parse(text)).Errors;

    private static IReadOnlyList<ConfigurationError> LoadErrors(string path) => Should.Throw<ConfigurationException>(() => ConfigurationLoader.Load(path)).Errors;

    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    [LibraryImport("libc", EntryPoint = "setfsuid")]
    private static partial int SetFileSystemUser(uint user);
}
