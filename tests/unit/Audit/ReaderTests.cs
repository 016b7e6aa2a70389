using Shouldly;
using Sidecar.Agent.Audit.Model;
using Sidecar.Agent.Audit.Programs;
using Sidecar.Agent.Audit.Reading;
using Xunit;

namespace Sidecar.UnitTests.Audit;

public sealed class ReaderTests
{
    [Theory]
    [InlineData("5000", 5)]
    [InlineData("5s", 5)]
    [InlineData("1m", 60)]
    [InlineData("1m30s", 90)]
    [InlineData("15 minutes", 900)]
    [InlineData("2h", 7200)]
    [InlineData("250ms", 0.25)]
    public void Times_are_read_with_every_unit(string text, double seconds)
    {
        Words.TryTime(text, TimeSpan.FromMilliseconds(1), out var time).ShouldBeTrue();
        time.TotalSeconds.ShouldBe(seconds);
    }

    [Theory]
    [InlineData("")]
    [InlineData("s")]
    [InlineData("5x")]
    [InlineData("-5s")]
    [InlineData("five")]
    [InlineData("1..5s")]
    public void What_is_no_time_is_not_read_as_one(string text) => Words.TryTime(text, TimeSpan.FromSeconds(1), out _).ShouldBeFalse();

    [Theory]
    [InlineData("a 'b c' \"d \\\" e\" f\\ g # h", new[] { "a", "b c", "d \" e", "f g" })]
    [InlineData("a#b #c", new[] { "a#b" })]
    [InlineData("''", new[] { "" })]
    [InlineData("\"unclosed word", new[] { "unclosed word" })]
    public void Words_are_held_together_by_quotes(string line, string[] words) => Words.Split(line).ShouldBe(words);

    [Theory]
    [InlineData("127.0.0.1:8080", "127.0.0.1:8080")]
    [InlineData("*:80", "*:80")]
    [InlineData(":80", "*:80")]
    [InlineData("[::]:80", "*:80")]
    [InlineData("[fd00::1]:80", "[fd00::1]:80")]
    [InlineData("8080", "*:8080")]
    [InlineData("http://user:password@host.example:81/path?query", "host.example:81")]
    [InlineData("https://host.example/", "host.example:443")]
    [InlineData("http://unix:/run/x.sock:/uri", "unix:/run/x.sock")]
    [InlineData("unix:/run/x.sock", "unix:/run/x.sock")]
    [InlineData("/run/x.sock", "unix:/run/x.sock")]
    [InlineData("unix@/run/x.sock", "unix:/run/x.sock")]
    [InlineData("abns@name", "unix:@name")]
    [InlineData("ipv4@10.0.0.1:80", "10.0.0.1:80")]
    public void Addresses_are_read_as_programs_write_them(string text, string shown) => Address.Parse(text).ShouldNotBeNull().ToString().ShouldBe(shown);

    [Theory]
    [InlineData("")]
    [InlineData("host")]
    [InlineData("host:0")]
    [InlineData("host:99999")]
    [InlineData("[::1:80")]
    [InlineData("$host:80")]
    [InlineData("user:password@host:80")]
    [InlineData("/run/$name.sock")]
    public void What_is_no_address_is_not_read_as_one(string text) => Address.Parse(text).ShouldBeNull();

    [Theory]
    [InlineData("*.conf", "a.conf", true)]
    [InlineData("*.conf", "a.conf.bak", false)]
    [InlineData("a?c", "abc", true)]
    [InlineData("[a-c]x", "bx", true)]
    [InlineData("[!a-c]x", "bx", false)]
    [InlineData("*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false)]
    [InlineData("[", "[", true)]
    public void Patterns_of_file_names_are_matched(string pattern, string name, bool matches) => ConfigFiles.Matches(pattern, name).ShouldBe(matches);

    [Fact]
    public void Nginx_is_read_with_includes_quotes_comments_and_inheritance()
    {
        var facts = NginxReader.Read(
            new TestFiles(
                ("/etc/nginx/nginx.conf", """
                    # uwsgi_read_timeout 1s;
                    http { uwsgi_read_timeout 20s; # of all
                      upstream app { server unix:/run/a.sock; server 10.0.0.7:3031 weight=2; }
                      include sites/*.conf; }
                    """),
                ("/etc/nginx/sites/a.conf", """
                    server {
                      listen 127.0.0.1:8080 backlog=2048; listen [::]:443 ssl;
                      server_name "a.example";
                      add_header X-Braces "}{;";
                      location / { uwsgi_pass app; }
                      location ~ ^/x${y}/ { uwsgi_read_timeout 1m30s;
                        proxy_read_timeout 7s; uwsgi_pass unix:/run/b.sock; }
                    }
                    """)).Open(),
            "/etc/nginx/nginx.conf");

        facts.Notes.ShouldBeEmpty();
        facts.Files.ShouldBe(["/etc/nginx/nginx.conf", "/etc/nginx/sites/a.conf"]);
        facts.Hops.Count.ShouldBe(2);
        var slow = facts.Hops[1];
        slow.Limits.ShouldHaveSingleItem().Value.ShouldBe(TimeSpan.FromSeconds(90));
        slow.Limits[0].Place.ShouldBe(new Place("/etc/nginx/sites/a.conf", 6));
        slow.Targets.ShouldHaveSingleItem().Address.ToString().ShouldBe("unix:/run/b.sock");
        var app = facts.Hops[0];
        app.Name.ShouldBe("server a.example, location /");
        app.Limits[0].Value.ShouldBe(TimeSpan.FromSeconds(20));
        app.Limits[0].Place.ShouldBe(new Place("/etc/nginx/nginx.conf", 2));
        app.Targets.Select(target => target.Address.ToString()).ShouldBe(["unix:/run/a.sock", "10.0.0.7:3031"]);
        app.Listens.Select(listener => (listener.Address.ToString(), listener.Backlog)).ShouldBe([("127.0.0.1:8080", 2048), ("*:443", 511)]);
        app.KeepAlive!.Value.ShouldBe(TimeSpan.FromSeconds(75));
        app.KeepAlive.Place.ShouldBeNull();
    }

    [Fact]
    public void Haproxy_is_read_with_defaults_and_their_ancestors()
    {
        var facts = TestFiles.Haproxy("""
            global
                maxconn 3000
            defaults base
                timeout connect 5000   # ms
                timeout server 1m
                default-server check inter 5s
            defaults web from base
                mode http
                option allbackups
                timeout client 30s
            frontend www
                bind *:80,*:81 backlog 99
                bind unix@/run/h.sock
                use_backend "app" if { path /x }
                default_backend app
            backend app
                no option allbackups
                option httpchk HEAD /up?x HTTP/1.1
                timeout server 6s
                server a 10.0.0.1:8000 maxconn 10
                server b 10.0.0.2:8000 no-check backup
                server c 10.0.0.3:8000 port 9000
            listen tcp from base
                bind :5432
                timeout client 7s
                server db db.example:5432
            """);

        facts.Notes.ShouldBeEmpty();
        facts.Hops.Count.ShouldBe(2);
        var web = facts.Hops[0];
        web.Limits.ShouldHaveSingleItem().Place.ShouldBe(new Place("/h.cfg", 19));
        web.Limits[0].Value.ShouldBe(TimeSpan.FromSeconds(6));
        web.Listens.Select(listener => (listener.Address.ToString(), listener.Backlog)).ShouldBe([("*:80", 99), ("*:81", 99), ("unix:/run/h.sock", 3000)]);
        var tcp = facts.Hops[1];
        (tcp.Limits[0].Setting, tcp.Limits[0].Value, tcp.Limits[0].Ending).ShouldBe(("timeout client", TimeSpan.FromSeconds(7), Ending.Close));
        var app = facts.Backends[0];
        app.AllBackups.ShouldBeFalse();
        app.HttpCheck.ShouldBe(("/up", new Place("/h.cfg", 18)));
        app.ConnectTimeout.ShouldBe((TimeSpan.FromSeconds(5), new Place("/h.cfg", 4)));
        app.Servers.Select(server => (server.Name, server.MaxConnections, server.IsBackup, server.IsCheckedInPlace))
            .ShouldBe([("a", 10, false, false), ("b", null, true, false), ("c", null, false, false)]);
    }

    [Fact]
    public void Apache_is_read_with_variables_conditions_continued_lines_and_mod_wsgi()
    {
        var facts = ApacheReader.Read(
            new TestFiles(
                ("/etc/apache2/envvars", "export APACHE_CONF=sites\nexport RUN=`id`\n"),
                ("/etc/apache2/apache2.conf", """
                    LoadModule wsgi_module /usr/lib/mod_wsgi.so
                    Define slow 90
                    Timeout 50
                    Listen 8080
                    <IfModule mod_wsgi.c>
                    ListenBacklog 1000
                    </IfModule>
                    <IfModule !wsgi_module>
                    Timeout 1
                    </IfModule>
                    IncludeOptional ${APACHE_CONF}/*.conf
                    """),
                ("/etc/apache2/sites/a.conf", """
                    <VirtualHost *:8080>
                      ServerName a.example
                      WSGIDaemonProcess app processes=2 threads=5 \
                        request-timeout=40 listen-backlog=7 socket-timeout=45
                      WSGIProcessGroup app
                      WSGIScriptAlias /app /srv/app.wsgi
                      <Location "/api">
                        ProxyPass "http://127.0.0.1:9000/" timeout=${slow}
                      </Location>
                      ProxyPass /b balancer://cluster/b
                      <Proxy balancer://cluster>
                        BalancerMember http://10.0.0.1:81 timeout=10
                        BalancerMember http://10.0.0.2:81
                      </Proxy>
                    </VirtualHost>
                    """)).Open(),
            "/etc/apache2/apache2.conf");

        facts.Notes.ShouldBeEmpty();
        var api = facts.Hops.First(hop => hop.Name == "a.example, /api");
        (api.Limits[0].Value, api.Limits[0].Place).ShouldBe((TimeSpan.FromSeconds(90), new Place("/etc/apache2/sites/a.conf", 8)));
        api.Listens.ShouldHaveSingleItem().Backlog.ShouldBe(1000);
        var balanced = facts.Hops.Where(hop => hop.Name.StartsWith("a.example, /b", StringComparison.Ordinal)).ToList();
        balanced.Select(hop => (hop.Name, hop.Limits[0].Setting, hop.Limits[0].Value)).ShouldBe(
        [
            ("a.example, /b to 10.0.0.1:81", "BalancerMember timeout", TimeSpan.FromSeconds(10)), ("a.example, /b to 10.0.0.2:81", "Timeout", TimeSpan.FromSeconds(50)),
        ]);
        var daemon = facts.Hops.First(hop => hop.Program == "mod_wsgi");
        (daemon.Slots, daemon.Listens[0].Backlog, daemon.Limits[0].Value, daemon.Place.Line).ShouldBe((10, 7, TimeSpan.FromSeconds(40), 3));
        var wsgi = facts.Hops.First(hop => hop.Name == "a.example, /app");
        (wsgi.Limits[0].Setting, wsgi.Limits[0].Value).ShouldBe(("socket-timeout", TimeSpan.FromSeconds(45)));
        wsgi.AnswersItself!("/status").ShouldBeTrue();
        wsgi.AnswersItself("/app/x").ShouldBeFalse();
    }

    [Fact]
    public void Uwsgi_is_read_with_includes_placeholders_and_the_command_line()
    {
        var files = new TestFiles(
            ("/etc/app.ini", "; harakiri = 1\n[other]\nharakiri = 2\n[uwsgi]\nini = common.ini\nsocket = %d%n.sock\nprocesses=4\nthreads = 2\nlisten = 7\nmaster\n"),
            ("/etc/common.ini", "[uwsgi]\nharakiri = 20\n"));
        var facts = UwsgiReader.Read(files.Open(), ["/etc/app.ini"], ["--ini", "/etc/app.ini", "--http", ":8080", "--http-timeout=90"], "pid 1 (uwsgi)");

        facts.Notes.ShouldBeEmpty();
        facts.Hops.Count.ShouldBe(2);
        facts.Hops[0].Limits[0].Value.ShouldBe(TimeSpan.FromSeconds(90));
        facts.Hops[0].Listens[0].Address.ToString().ShouldBe("*:8080");
        var workers = facts.Hops[1];
        workers.Slots.ShouldBe(8);
        (workers.Limits[0].Value, workers.Limits[0].Place).ShouldBe((TimeSpan.FromSeconds(20), new Place("/etc/common.ini", 2)));
        (workers.Listens[0].Address.ToString(), workers.Listens[0].Backlog, workers.Listens[0].BacklogPlace).ShouldBe(("unix:/etc/app.sock", 7, new Place("/etc/app.ini", 9)));
    }

    [Fact]
    public void A_format_of_uwsgi_that_is_not_read_is_named()
    {
        var facts = UwsgiReader.Read(new TestFiles(("/a.yaml", "uwsgi:\n")).Open(), ["/a.yaml"]);
        facts.Hops.ShouldBeEmpty();
        facts.Notes.ShouldHaveSingleItem().ToString().ShouldBe("/a.yaml: XML, YAML and JSON are not read, only INI");
    }

    [Fact]
    public void Gunicorn_is_read_from_simple_assignments_and_the_command_line_goes_before_them()
    {
        var facts = GunicornReader.Read(
            new TestFiles(("/g.py", "import os\nbind = ['127.0.0.1:8000', \"unix:/run/g.sock\"]  # two\ntimeout = 40\nbacklog=5\nworkers = os.cpu_count() * 2\nif True:\n    timeout = 1\n")).Open(),
            "/g.py", ["-w", "3", "--timeout=50", "app:app"], "pid 7 (gunicorn)");

        facts.Notes.ShouldHaveSingleItem().ToString().ShouldBe("/g.py:5: workers: an expression, not understood; its default is taken");
        var hop = facts.Hops.ShouldHaveSingleItem();
        hop.Slots.ShouldBe(3);
        hop.Listens.Select(listener => (listener.Address.ToString(), listener.Backlog)).ShouldBe([("127.0.0.1:8000", 5), ("unix:/run/g.sock", 5)]);
        (hop.Limits[0].Value, hop.Limits[0].Place).ShouldBe((TimeSpan.FromSeconds(50), new Place("pid 7 (gunicorn)", 0)));
    }

    [Fact]
    public void Only_gunicorns_sync_workers_have_a_limit_for_requests()
    {
        TestFiles.Gunicorn("worker_class = 'gthread'\nthreads = 4\n").Hops[0].Limits[0].Value.ShouldBeNull();
        TestFiles.Gunicorn("workers = 2\n").Hops[0].Limits[0].Value.ShouldBe(TimeSpan.FromSeconds(30));
    }

    [Fact]
    public void Squid_is_read()
    {
        var hop = TestFiles.Squid("http_port 3128 accel\ncache_peer 10.0.0.1 parent 80 0 no-query login=user:password\nread_timeout 2 minutes # less\n").Hops.ShouldHaveSingleItem();
        hop.Listens[0].Address.ToString().ShouldBe("*:3128");
        hop.Targets[0].Address.ToString().ShouldBe("10.0.0.1:80");
        (hop.Limits[0].Value, hop.Limits[0].Place!.Line).ShouldBe((TimeSpan.FromMinutes(2), 3));
    }

    [Fact]
    public void Includes_that_go_round_in_circles_end()
    {
        var nginx = NginxReader.Read(new TestFiles(("/n.conf", "http { include n.conf; include n.conf; }")).Open(), "/n.conf");
        nginx.Notes.ShouldNotBeEmpty();
        var uwsgi = UwsgiReader.Read(new TestFiles(("/u.ini", "[uwsgi]\nini = u.ini\nini = u.ini\n")).Open(), ["/u.ini"]);
        uwsgi.Notes.ShouldNotBeEmpty();
        var apache = ApacheReader.Read(new TestFiles(("/a.conf", "Include a.conf\nInclude *.conf\n")).Open(), "/a.conf");
        apache.Notes.ShouldNotBeEmpty();
        var squid = SquidReader.Read(new TestFiles(("/s.conf", "include /s.conf /s.conf\n")).Open(), "/s.conf");
        squid.Notes.ShouldNotBeEmpty();
    }
}
