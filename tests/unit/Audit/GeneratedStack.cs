using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using Shouldly;
using Sidecar.Agent.Audit;
using Sidecar.Agent.Audit.Findings;
using Sidecar.Agent.Audit.Host;
using Sidecar.Agent.Audit.Model;
using Sidecar.Agent.Audit.Programs;
using Sidecar.Agent.Audit.Reading;

namespace Sidecar.UnitTests.Audit;

/// <summary>
/// A stack by chance: HAProxy, nginx, Apache with mod_wsgi, uWSGI, gunicorn, Squid, databases, a balancer and the kernel's
/// limit, each as far as chance wants it, with whatever values. Every program leads only to those behind it.
/// </summary>
internal sealed partial class GeneratedStack
{
    private const string Haproxy = "/etc/haproxy.cfg";
    private const string Nginx = "/etc/nginx.conf";
    private const string Apache = "/etc/apache.conf";
    private const string Squid = "/etc/squid.conf";
    private const string Uwsgi = "/etc/uwsgi.ini";
    private const string Router = "/etc/router.ini";
    private const string Gunicorn = "/etc/gunicorn.py";
    private const string Balancer = "--balancer-timeout";

    private static readonly string[] Databases = ["db1", "db2"];

    private static readonly int[] Times = [1, 2, 3, 5, 6, 9, 10, 11, 20, 29, 30, 31, 45, 54, 55, 59, 60, 61, 66, 75, 90, 120, 300, 600, 3600];

    private readonly Dictionary<string, string> _files;
    private readonly TimeSpan? _request;

    private GeneratedStack(Dictionary<string, string> files, TimeSpan? request) => (_files, _request) = (files, request);

    public override string ToString() => $"request {_request}\n" + string.Join('\n', _files.Select(file => $"--- {file.Key}\n{file.Value}"));

    public static GeneratedStack Of(int seed) => new Maker(new Random(seed)).Make();

    public AuditReport Audit()
    {
        var files = new TestFiles([.. _files.Select(file => (file.Key, file.Value))]);
        ProgramFacts?[] programs =
        [
            _files.ContainsKey(Haproxy) ? HaproxyReader.Read(files.Open(), [Haproxy]) : null,
            _files.ContainsKey(Nginx) ? NginxReader.Read(files.Open(), Nginx) : null,
            _files.ContainsKey(Apache) ? ApacheReader.Read(files.Open(), Apache) : null,
            _files.ContainsKey(Squid) ? SquidReader.Read(files.Open(), Squid) : null,
            UwsgiReader.Read(files.Open(), [Uwsgi]),
            UwsgiReader.Read(files.Open(), [Router]),
            GunicornReader.Read(files.Open(), Gunicorn),
        ];
        programs.OfType<ProgramFacts>().SelectMany(program => program.Notes).ShouldBeEmpty();
        return AuditReport.Of(new AuditedStack
        {
            Programs = [.. programs.OfType<ProgramFacts>()],
            Front = Value(Balancer) is { } idle ? [Elsewhere("balancer", Balancer, LimitKind.Wait, "idle timeout", idle, "idle timeout {0}s")] : [],
            Databases = [.. Databases.Where(_files.ContainsKey).Select(name => Elsewhere("postgresql", name, LimitKind.Work, "statement_timeout", Value(name)!.Value, "statement_timeout = '{0}s'"))],
            Sysctls = [SysctlReader.Combine(0, new Dictionary<string, long?> { ["net.core.somaxconn"] = Value("kernel") }, SysctlReader.Files(files.Open()))],
            LongestRequest = _request,
        });
    }

    /// <summary>The stack with these changes in its files, as an operator makes them who does what is said and nothing else.</summary>
    public GeneratedStack With(IReadOnlyList<Change> changes)
    {
        var files = _files.ToDictionary(file => file.Key, file => file.Value.Split('\n').Select(line => (List<string>)[line]).ToList(), StringComparer.Ordinal);
        foreach (var change in changes)
        {
            if (change.Place.File.StartsWith("/proc/sys/", StringComparison.Ordinal) || change.Place.File.StartsWith("/etc/sysctl.d/", StringComparison.Ordinal))
            {
                files["kernel"] = [[change.Text.Split('=')[1].Trim()]];
                continue;
            }

            var lines = files.GetValueOrDefault(change.Place.File).ShouldNotBeNull(change.ToString());
            if (change.Place.Line == 0)
            {
                var isValue = change.Place.File[0] != '/';
                (isValue != change.IsNew).ShouldBeTrue(change.ToString());
                if (isValue)
                {
                    lines[0] = [Digits().Match(change.Text).Value];
                }
                else
                {
                    lines.Add([change.Text]);
                }
            }
            else if (change.IsNew)
            {
                lines[change.Place.Line - 1].Add(change.Text);
            }
            else
            {
                var line = lines[change.Place.Line - 1];
                line[0] = change.Text.Contains('…') ? Option(line[0], change.Text) : change.Text;
            }
        }

        return new GeneratedStack(files.ToDictionary(file => file.Key, file => string.Join('\n', file.Value.SelectMany(line => line)), StringComparer.Ordinal), _request);
    }

    /// <summary><c>server a … maxconn 8</c>: the line stays as it is but for that option.</summary>
    private static string Option(string line, string text)
    {
        var parts = text.Split(" … ");
        line.TrimStart().Split(' ')[0].ShouldBe(parts[0].Split(' ')[0], text);
        var end = line.EndsWith(';') ? ";" : "";
        var option = parts[1].TrimEnd(';');
        var name = option[..(option.IndexOfAny(['=', ' ']) + 1)];
        var old = Regex.Match(line, $"(?<= ){Regex.Escape(name)}[^ ;]*");
        return old.Success ? line.Replace(old.Value, option, StringComparison.Ordinal) : line.TrimEnd(';') + " " + option + end;
    }

    private int? Value(string name) => _files.TryGetValue(name, out var text) ? int.Parse(text, CultureInfo.InvariantCulture) : null;

    private static Hop Elsewhere(string program, string name, LimitKind kind, string setting, int seconds, string form) => new()
    {
        Program = program,
        Name = "",
        Place = new Place(name, 0),
        Limits =
        [
            new Limit { Kind = kind, Setting = setting, Value = TimeSpan.FromSeconds(seconds), Place = new Place(name, 0), Form = form, Ending = Ending.Close, IsElsewhere = kind == LimitKind.Wait },
        ],
    };

    [GeneratedRegex("[0-9]+")]
    private static partial Regex Digits();

    /// <summary>Writes the files, the innermost first.</summary>
    private sealed class Maker(Random random)
    {
        private readonly Dictionary<string, string> _files = new(StringComparer.Ordinal);

        /// <summary>What may be led to so far: host and port, or a socket's path.</summary>
        private readonly List<string> _http = ["127.0.0.1:8000", "127.0.0.1:9001", "127.0.0.1:9002"];

        public GeneratedStack Make()
        {
            Workers();
            if (May())
            {
                ApacheFile();
            }

            if (May())
            {
                NginxFile();
            }

            if (random.Next(5) == 0)
            {
                _files[Squid] = $"http_port 3128 accel\ncache_peer 127.0.0.1 parent {One(_http)[10..]} 0 no-query\n" + Maybe($"read_timeout {Time()} seconds\n");
                _http.Add("127.0.0.1:3128");
            }

            if (random.Next(5) > 0)
            {
                HaproxyFile();
            }

            foreach (var name in Databases.Append(Balancer).Where(_ => random.Next(3) == 0))
            {
                _files[name] = Time();
            }

            _files["kernel"] = One(["20", "128", "512", "1024", "4096"]);
            if (May())
            {
                _files["/etc/sysctl.d/10-a.conf"] = $"net.core.somaxconn = {_files["kernel"]}";
            }

            return new GeneratedStack(_files, random.Next(3) == 0 ? TimeSpan.FromSeconds(One(Times)) : null);
        }

        private bool May() => random.Next(2) == 0;

        private string Maybe(string text) => May() ? text : "";

        private T One<T>(IReadOnlyList<T> values) => values[random.Next(values.Count)];

        private string Time() => One(Times).ToString(CultureInfo.InvariantCulture);

        private int Small() => random.Next(1, 6);

        private string Backlog(string form) => random.Next(3) == 0 ? form.Replace("{0}", One(["5", "20", "63", "100", "2000"]), StringComparison.Ordinal) : "";

        private void Workers()
        {
            _files[Uwsgi] = $"[uwsgi]\nsocket = /run/u.sock\nhttp-socket = 127.0.0.1:9001\nprocesses = {Small()}\nthreads = {Small()}\n" + Maybe($"harakiri = {Time()}\n") + Backlog("listen = {0}\n");
            _files[Router] = $"[uwsgi]\nhttp = 127.0.0.1:9002\nworkers = {Small()}\n" + Maybe($"harakiri = {Time()}\n") + Maybe($"http-timeout = {Time()}\n") + Backlog("listen = {0}\n");
            _files[Gunicorn] = $"bind = '127.0.0.1:8000'\nworkers = {Small()}\n" + (random.Next(4) == 0 ? "threads = 3\n" : "") + Maybe($"timeout = {Time()}\n") + Backlog("backlog = {0}\n") + (random.Next(4) == 0 ? $"keepalive = {Time()}\n" : "");
        }

        private void ApacheFile()
        {
            var text = new StringBuilder();
            text.Append(Maybe($"Timeout {Time()}\n")).Append(Maybe($"ProxyTimeout {Time()}\n")).Append(Maybe($"KeepAliveTimeout {Time()}\n")).Append(Backlog("ListenBacklog {0}\n"));
            var hosts = random.Next(1, 4);
            for (var i = 0; i < hosts; i++)
            {
                var port = Number(8090 + i);
                var target = One(_http);
                text.Append(Invariant($"Listen 127.0.0.1:{port}\n<VirtualHost *:{port}>\nServerName a{port}\n")).Append(Maybe($"ProxyTimeout {Time()}\n")).Append(random.Next(4) == 0 ? $"Timeout {Time()}\n" : "");
                switch (random.Next(4))
                {
                    case 0:
                        text.Append($"ProxyPass / http://{target}/{Maybe($" timeout={Time()}")}\n");
                        break;
                    case 1:
                        text.Append($"<Location /x>\nProxyPass http://{target}/{Maybe($" timeout={Time()}")}\n</Location>\n");
                        break;
                    case 2:
                        text.Append(Invariant($"<Proxy balancer://b{port}>\nBalancerMember http://{target}{Maybe($" timeout={Time()}")}\nBalancerMember http://{One(_http)}{Maybe($" timeout={Time()}")}\n</Proxy>\nProxyPass / balancer://b{port}/\n"));
                        break;
                    default:
                        text.Append(Invariant($"WSGIDaemonProcess d{port} processes={Small()} threads={Small()}{Maybe($" request-timeout={Time()}")}{Maybe($" socket-timeout={Time()}")}{Backlog(" listen-backlog={0}")}\n"))
                            .Append(Invariant($"WSGIProcessGroup d{port}\nWSGIScriptAlias / /srv/a.wsgi\n"));
                        break;
                }

                text.Append("</VirtualHost>\n");
            }

            _files[Apache] = text.ToString();
            _http.AddRange(Enumerable.Range(0, hosts).Select(i => "127.0.0.1:" + Number(8090 + i)));
        }

        private void NginxFile()
        {
            var text = new StringBuilder("http {\n");
            text.Append(Maybe($"uwsgi_read_timeout {Time()}s;\n")).Append(Maybe($"proxy_read_timeout {Time()};\n")).Append(Maybe($"keepalive_timeout {Time()};\n"));
            text.Append($"upstream both {{\nserver {One(_http)};\nserver {One(_http)};\n}}\n");
            for (var i = random.Next(1, 5); i > 0; i--)
            {
                var port = Number(8080 + i);
                var before = _http.ToList();
                text.Append($"server {{\nlisten 127.0.0.1:{port}{Backlog(" backlog={0}")};\nserver_name n{port};\n").Append(random.Next(4) == 0 ? $"proxy_read_timeout {Time()}s;\n" : "");
                for (var j = random.Next(1, 3); j > 0; j--)
                {
                    text.Append(Invariant($"location /{j} {{\n")).Append(Pass(before));
                    if (random.Next(4) == 0)
                    {
                        text.Append(Invariant($"location /{j}/in {{\n{Pass(before)}}}\n"));
                    }

                    text.Append("}\n");
                }

                text.Append(Maybe("location /up {\nreturn 204;\n}\n")).Append("}\n");
                _http.Add("127.0.0.1:" + port); // the servers that come later may lead to it
            }

            _files[Nginx] = text.Append("}\n").ToString();
        }

        private string Pass(List<string> targets) => random.Next(3) switch
        {
            0 => Maybe($"uwsgi_read_timeout {Time()}s;\n") + "uwsgi_pass unix:/run/u.sock;\n",
            1 => Maybe($"proxy_read_timeout {Time()}s;\n") + $"proxy_pass http://{One(targets)};\n",
            _ => Maybe($"proxy_read_timeout {Time()};\n") + "proxy_pass http://both;\n",
        };

        private void HaproxyFile()
        {
            var text = new StringBuilder();
            foreach (var name in new[] { "one", "two" })
            {
                text.Append($"defaults {name}\nmode {One(["http", "http", "tcp"])}\n").Append(Clocks(5));
                text.Append(random.Next(3) == 0 ? "option httpchk GET /up\n" : "").Append(random.Next(3) == 0 ? "option allbackups\n" : "");
            }

            for (var i = random.Next(1, 5); i > 0; i--)
            {
                var port = Number(7000 + i);
                var before = _http.ToList();
                var from = One(["one", "two"]);
                if (May())
                {
                    text.Append($"listen l{port} from {from}\nbind 127.0.0.1:{port}{Backlog(" backlog {0}")}\n");
                }
                else
                {
                    text.Append($"frontend f{port} from {from}\nbind 127.0.0.1:{port}\n").Append(Backlog("backlog {0}\n")).Append(random.Next(4) == 0 ? $"timeout client {Time()}s\n" : "")
                        .Append($"default_backend b{port}\nbackend b{port} from {from}\n");
                }

                text.Append(Clocks(1)).Append(random.Next(4) == 0 ? "no option allbackups\n" : "");
                for (var j = random.Next(1, 6); j > 0; j--)
                {
                    var target = random.Next(8) == 0 ? "10.9.9.9:80" : One(before);
                    text.Append(random.Next(6) == 0 ? Invariant($"server-template t{j} {Small()} {target}") : Invariant($"server s{j} {target}"))
                        .Append(May() ? Invariant($" maxconn {random.Next(1, 20)}") : "").Append(Maybe(" check")).Append(random.Next(3) == 0 ? " backup" : "").Append('\n');
                }

                _http.Add("127.0.0.1:" + port);
            }

            _files[Haproxy] = text.ToString();
        }

        /// <summary>HAProxy's timeouts, each with so many chances in six.</summary>
        private string Clocks(int chances)
        {
            var text = new StringBuilder();
            foreach (var which in new[] { "connect", "queue", "client", "server" })
            {
                text.Append(random.Next(6) < chances ? $"timeout {which} {(random.Next(8) == 0 ? "0" : random.Next(8) == 0 ? "1500" : Time() + "s")}\n" : "");
            }

            return text.ToString();
        }

        private static string Number(int value) => value.ToString(CultureInfo.InvariantCulture);

        private static string Invariant(FormattableString text) => FormattableString.Invariant(text);
    }
}
