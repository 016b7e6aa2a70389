using System.Diagnostics;
using System.Text;
using System.Text.Json;
using FsCheck;
using FsCheck.Fluent;
using Shouldly;
using Sidecar.Agent.Audit;
using Sidecar.Agent.Audit.Model;
using Sidecar.Agent.Audit.Programs;
using Sidecar.Agent.Audit.Reading;
using Sidecar.Agent.Commands;
using Xunit;

namespace Sidecar.UnitTests.Audit;

/// <summary>No text makes a reader fail or hang, and nothing that may be a secret is ever shown.</summary>
public sealed class HostileTextTests
{
    private const string Secret = "S3cr3tGeheim";

    /// <summary>Words of the programs' languages, so that chance gets far into the readers.</summary>
    private static readonly string[] Words =
    [
        "http", "server", "location", "/", "{", "}", ";", "\n", "\n", " ", " ", "include", "/f", "*", "listen", "80", "uwsgi_pass", "unix:", "/run/x", "\"", "'", "#", "\\", "${", "}", "$",
        "defaults", "from", "a", "frontend", "backend", "bind", ":80", "timeout", "connect", "queue", "5s", "99999999999999999999", "-1", "option", "httpchk", "no", "default_backend",
        "maxconn", "check", "backup", "server-template", "[uwsgi]", "=", "harakiri", "socket", "ini", "%d", "%", "processes", "<VirtualHost", "*:80>", "</VirtualHost>", "<IfModule", ">",
        "WSGIDaemonProcess", "WSGIScriptAlias", "threads=", "ProxyPass", "balancer://", "Define", "Listen", "Timeout", "bind", "[", "]", "(", ")", ",", "timeout", "http_port", "cache_peer",
        "parent", "read_timeout", "minutes", "\t", "\r", "é", "\u2028", "\uFEFF", "\0", "=~", "://", "@", "1.5.5s", "0",
    ];

    private static readonly Func<ConfigFiles, ProgramFacts>[] Readers =
    [
        files => NginxReader.Read(files, "/f"), files => HaproxyReader.Read(files, ["/f"]), files => ApacheReader.Read(files, "/f"),
        files => UwsgiReader.Read(files, ["/f"], ["--harakiri", "x", "-p"]), files => GunicornReader.Read(files, "/f", ["-w", "-b"]), files => SquidReader.Read(files, "/f"),
    ];

    [Fact]
    public void No_text_makes_a_reader_fail()
    {
        var many = Config.QuickThrowOnFailure.WithMaxTest(1_000);
        var text = Gen.Choose(0, 120).SelectMany(length => Gen.Elements(Words).ArrayOf(length)).Select(string.Concat).ToArbitrary();
        Prop.ForAll(text, Survives).Check(many);
        var spaced = Gen.Choose(0, 120).SelectMany(length => Gen.Elements(Words).ArrayOf(length)).Select(words => string.Join(' ', words)).ToArbitrary();
        Prop.ForAll(spaced, Survives).Check(many);
        var bytes = ArbMap.Default.GeneratorFor<byte[]>().Select(Encoding.Latin1.GetString).ToArbitrary();
        Prop.ForAll(bytes, Survives).Check(many);
    }

    [Theory]
    [InlineData("''\n\"\" a\n'' {\n}\n'' = ''\n<''>\n")]
    public void Empty_names_make_no_reader_fail(string text) => Survives(text);

    [Theory]
    [InlineData("a {", 200_000)]
    [InlineData("}", 500_000)]
    [InlineData("${}", 500_000)]
    [InlineData("include /f;\ninclude /f\nInclude /f\nini = /f\n", 500)]
    [InlineData("listen a\n", 200_000)]
    [InlineData("defaults a from a\n", 100_000)]
    [InlineData("frontend a\nuse_backend b\nbackend b\nserver a 1.1.1.1:1\n", 10_000)]
    [InlineData("<IfModule x>\n", 100_000)]
    [InlineData("<Location />\nProxyPass http://a/\n</Location>\n", 20_000)]
    [InlineData("http { server { location / { proxy_pass http://1.1.1.1; } } }\n", 10_000)]
    [InlineData("http { upstream a { server a:1; } server { location / { proxy_pass http://a; } } }\n", 5_000)]
    [InlineData("[uwsgi]\nsocket = /a\nhttp = :1\n", 50_000)]
    [InlineData("\\\n", 500_000)]
    [InlineData("bind = [", 300_000)]
    [InlineData("Define a ${a}${a}\n${a}\n", 20_000)]
    public void No_length_makes_a_reader_hang(string piece, int times)
    {
        var text = string.Concat(Enumerable.Repeat(piece, times));
        var waited = Stopwatch.StartNew();
        Survives(text[..Math.Min(text.Length, 3_000_000)]);
        waited.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(60)); // a reader in the square of the length would take hours
    }

    [Fact]
    public void Proxies_that_lead_to_each_other_in_circles_make_nothing_hang()
    {
        var text = new StringBuilder("defaults\n mode http\n");
        for (var i = 0; i < 200; i++)
        {
            text.Append(System.Globalization.CultureInfo.InvariantCulture, $"listen l{i}\n bind :{1000 + i}\n");
            for (var j = 0; j < 200; j++)
            {
                text.Append(System.Globalization.CultureInfo.InvariantCulture, $" server s{j} 127.0.0.1:{1000 + j} maxconn 1\n");
            }
        }

        var waited = Stopwatch.StartNew();
        Survives(text.ToString());
        waited.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(60));
    }

    [Fact]
    public void Nothing_that_may_be_a_secret_is_shown()
    {
        (string Path, string Text)[] files =
        [
            ("/h.cfg", $"""
                global
                    stats socket /run/h.sock user {Secret}
                    # {Secret}
                defaults
                    mode http
                    timeout client {Secret}
                    timeout server 6s
                userlist people
                    user admin insecure-password {Secret}
                frontend www
                    bind :80 ssl crt /etc/{Secret}.pem
                    stats auth admin:{Secret}
                    http-request set-header Authorization "Basic {Secret}"
                    use_backend %[req.cook({Secret})]
                    default_backend app
                backend app
                    option httpchk GET /up?token={Secret}
                    http-check send hdr Authorization {Secret}
                    cookie {Secret} insert
                    server a user:{Secret}@10.0.0.1:8081 check
                    server b 127.0.0.1:8081 cookie {Secret}
                    {Secret}
                """),
            ("/n.conf", $$"""
                # {{Secret}}
                http { proxy_set_header X-Key "{{Secret}}"; keepalive_timeout {{Secret}}; include /missing/*.conf;
                  server { listen 8081; server_name "a {{Secret}}";
                    location / { uwsgi_param DB postgres://u:{{Secret}}@db/x; uwsgi_read_timeout 30s; uwsgi_pass unix:/run/u.sock; }
                    location /p { proxy_pass http://user:{{Secret}}@10.0.0.9/?k={{Secret}}; proxy_read_timeout {{Secret}}; }
                    location /q { proxy_pass http://$host/{{Secret}}; }
                    location "/r {{Secret}}" { proxy_pass {{Secret}}; } } }
                """),
            ("/u.ini", $"[uwsgi]\nsocket = /run/u.sock\nenv = DB=postgres://u:{Secret}@db/x\nset-placeholder = k={Secret}\nharakiri = {Secret}\nif-env = {Secret}\nhttp = {Secret}\n"),
            ("/g.py", $"bind = '127.0.0.1:1'\nraw_env = ['KEY={Secret}']\ntimeout = int('{Secret}')\nworker_class = '{Secret}'\nworkers = {Secret}\n"),
            ("/a.conf", $"""
                Listen 80
                Define KEY {Secret}
                SetEnv KEY {Secret}
                RequestHeader set Authorization "{Secret}"
                ProxyPass /x http://user:{Secret}@10.0.0.1/ timeout={Secret}
                ProxyPass /y ${"{"}KEY{"}"}
                Timeout {Secret}
                WSGIDaemonProcess "a {Secret}" request-timeout={Secret} python-path=/{Secret}
                WSGIScriptAlias / /srv/{Secret}.wsgi process-group="a {Secret}"
                WSGIScriptAlias /z /srv/z.wsgi process-group={Secret}
                """),
            ("/s.conf", $"http_port 3128\ncache_peer 10.0.0.1 parent 80 0 login=u:{Secret}\nread_timeout {Secret}\ncachemgr_passwd {Secret} all\n"),
        ];
        var open = new TestFiles(files);
        ProgramFacts[] programs =
        [
            HaproxyReader.Read(open.Open(), ["/h.cfg"]), NginxReader.Read(open.Open(), "/n.conf"), UwsgiReader.Read(open.Open(), ["/u.ini"], ["--env", Secret, "--harakiri", Secret]),
            GunicornReader.Read(open.Open(), "/g.py", ["--env", Secret, "--timeout", Secret]), ApacheReader.Read(open.Open(), "/a.conf"), SquidReader.Read(open.Open(), "/s.conf"),
        ];
        var report = AuditReport.Of(new AuditedStack { Programs = programs, LongestRequest = TimeSpan.FromMinutes(1) });

        report.Findings.ShouldNotBeEmpty();
        report.Notes.ShouldNotBeEmpty();
        Shown(report).ShouldNotContain(Secret);
    }

    /// <summary>The same for a secret at any place where a value may stand, of any directive.</summary>
    [Fact]
    public void Nothing_that_may_be_a_secret_is_shown_wherever_it_stands()
    {
        string[] values = ["5s", "admin", "127.0.0.1:80", "http://10.0.0.1/", "/run/x.sock", "x=y", "7"];
        string[] before = ["timeout server", "env =", "proxy_set_header A", "stats auth a", "password", "user a password", "set-header Cookie", "SetEnv K", "http-request add-header X", "raw_env =", "proxy_read_timeout", "harakiri =", "timeout =", "Timeout", "read_timeout"];
        var line = Gen.Elements(before).SelectMany(name => Gen.Elements(values).SelectMany(value => Gen.Elements(
            $"{name} {Secret}", $"{name} {value} {Secret}", $"{name} {Secret}{value}", $"{name} u:{Secret}@{value}", $"{name} \"{Secret} {value}\"", $"# {Secret}", $"{name} {value}?{Secret}")));
        var frame = Gen.Elements("backend a\n{0}\nserver s 10.0.0.1:1\n", "http {{ server {{ location / {{ {0}; proxy_pass http://10.0.0.1; }} }} }}", "[uwsgi]\nsocket = /x\n{0}\n", "Listen 80\n{0}\nProxyPass / http://10.0.0.1/\n", "http_port 1\n{0}\n", "{0}\n");
        var text = frame.SelectMany(one => line.ArrayOf(3).Select(lines => string.Format(System.Globalization.CultureInfo.InvariantCulture, one, string.Join(";\n", lines)))).ToArbitrary();
        Prop.ForAll(text, content =>
        {
            var files = new TestFiles(("/f", content));
            foreach (var read in Readers)
            {
                Shown(AuditReport.Of(new AuditedStack { Programs = [read(files.Open())] })).ShouldNotContain(Secret, Case.Sensitive, content);
            }
        }).QuickCheckThrowOnFailure();
    }

    private static void Survives(string text)
    {
        var files = new TestFiles(("/f", text), ("/a/f", text));
        var programs = Readers.Select(read => read(files.Open())).ToList();
        Shown(AuditReport.Of(new AuditedStack { Programs = programs, LongestRequest = TimeSpan.FromSeconds(5) }));
    }

    /// <summary>Everything that either output shows.</summary>
    private static string Shown(AuditReport report)
    {
        using var output = new StringWriter();
        var environment = new CommandEnvironment { Out = output, Error = output, Colors = false, Width = 10_000 };
        AuditText.Write(environment.CreateConsole(), report);
        output.Write(JsonSerializer.Serialize(AuditDocument.From(report), AuditJson.Default.AuditDocument));
        return output.ToString();
    }
}
