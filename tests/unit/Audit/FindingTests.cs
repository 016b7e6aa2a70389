using System.Net;
using Shouldly;
using Sidecar.Agent.Audit;
using Sidecar.Agent.Audit.Findings;
using Sidecar.Agent.Audit.Host;
using Sidecar.Agent.Audit.Model;
using Sidecar.Agent.Audit.Reading;
using Sidecar.Agent.Core.Judgement;
using Xunit;

namespace Sidecar.UnitTests.Audit;

/// <summary>Each finding is there where its fault is, and is not where it is fixed.</summary>
public sealed class FindingTests
{
    private const string GoodHaproxy = """
        defaults
            mode http
            timeout connect 5s
            timeout queue 60s
            timeout client 60s
            timeout server 60s
        listen www
            bind :8080
            option allbackups
            server a 127.0.0.1:8081 maxconn 8 check
        """;

    private const string GoodNginx = "http { server { listen 8081; location / { uwsgi_read_timeout 50s; uwsgi_pass unix:/run/u.sock; } } }";

    private const string GoodUwsgi = "[uwsgi]\nsocket = /run/u.sock\nprocesses = 4\nthreads = 2\nharakiri = 40\n";

    [Fact]
    public void A_well_made_stack_is_met_with_silence() => Examine(GoodHaproxy, GoodNginx, GoodUwsgi).ShouldBeEmpty();

    [Fact]
    public void The_chain_is_followed_from_program_to_program()
    {
        var chain = AuditReport.Of(Stack(GoodHaproxy, GoodNginx, GoodUwsgi)).Chains.ShouldHaveSingleItem();
        chain.Hops.Select(hop => hop.Program).ShouldBe(["haproxy", "nginx", "uwsgi"]);
        chain.First!.Value.Limit.Setting.ShouldBe("harakiri");
        chain.SeenByClient(chain.Hops[2], chain.Hops[2].Limits[0]).ShouldBe("502 Bad Gateway");
    }

    [Fact]
    public void An_outer_limit_that_is_shorter_is_raised_above_what_may_take_longer()
    {
        var finding = Examine(GoodHaproxy.Replace("timeout server 60s", "timeout server 6s"), GoodNginx, GoodUwsgi).ShouldHaveSingleItem();
        (finding.Id, finding.Severity, finding.Place).ShouldBe(("chain-order", Severity.High, new Place("/h.cfg", 6)));
        finding.Consequence.ShouldStartWith("after 6s of silence haproxy closes first; the client sees: 504 Gateway Timeout");
        finding.Changes.ShouldBe([new Change(new Place("/h.cfg", 6), "timeout server 55s", false)]);
        Examine(GoodHaproxy.Replace("timeout server 60s", "timeout server 55s"), GoodNginx, GoodUwsgi).ShouldBeEmpty();
    }

    [Fact]
    public void An_inner_limit_that_is_longer_than_the_work_needs_is_lowered() =>
        Examine(GoodHaproxy, GoodNginx.Replace("50s", "1h"), GoodUwsgi).ShouldHaveSingleItem().Changes.ShouldBe([new Change(new Place("/n.conf", 1), "uwsgi_read_timeout 54s;", false)]);

    [Fact]
    public void A_line_that_many_chains_pass_has_one_value_for_all_of_them()
    {
        const string nginx = """
            http { uwsgi_read_timeout 300s;
            server { listen 8081;
            location / { uwsgi_pass unix:/run/u.sock; }
            location /slow {
            uwsgi_read_timeout 600s;
            uwsgi_pass unix:/run/u.sock; }
            location /proxy { proxy_pass http://127.0.0.1:9; } } }
            """;
        var findings = Examine(GoodHaproxy.Replace("timeout server 60s", "timeout server 6s"), nginx, GoodUwsgi.Replace("harakiri = 40\n", ""));
        findings.Count(finding => finding.Id == "chain-order").ShouldBe(3);
        findings.SelectMany(finding => finding.Changes).Distinct().ShouldBe([new Change(new Place("/h.cfg", 6), "timeout server 660s", false), new Change(new Place("/u.ini", 2), "harakiri = 270", true)], ignoreOrder: true);
    }

    [Fact]
    public void Two_stages_that_share_a_line_get_lines_of_their_own()
    {
        // The same defaults hold for both proxies, one in front of the other.
        var text = GoodHaproxy + "\nlisten outer\n    bind :8090\n    server a 127.0.0.1:8080 maxconn 1 check\n";
        var findings = Examine(text.Replace("maxconn 8", "maxconn 7"), GoodNginx, GoodUwsgi);
        var changes = findings.ShouldHaveSingleItem().Changes;
        changes.ShouldBe([new Change(new Place("/h.cfg", 7), "timeout server 54s", true)]);
    }

    [Fact]
    public void Two_databases_stand_side_by_side_and_not_one_behind_the_other()
    {
        Hop Database(string name) => new()
        {
            Program = "postgresql",
            Name = name,
            Place = new Place(name, 0),
            Limits = [new Limit { Kind = LimitKind.Work, Setting = "statement_timeout", Value = TimeSpan.FromSeconds(30), Place = new Place(name, 0), Form = "statement_timeout = '{0}s'", Ending = Ending.ServerError }],
        };
        AuditReport.Of(Stack(GoodHaproxy, GoodNginx, GoodUwsgi) with { Databases = [Database("a"), Database("b")] }).Findings.ShouldBeEmpty();
    }

    [Fact]
    public void Equal_limits_leave_it_to_chance() =>
        Examine(GoodHaproxy.Replace("timeout server 60s", "timeout server 50s"), GoodNginx, GoodUwsgi).ShouldHaveSingleItem().Consequence.ShouldContain("chance decides");

    [Fact]
    public void A_worker_without_a_limit_is_found()
    {
        var finding = Examine(GoodHaproxy, GoodNginx, GoodUwsgi.Replace("harakiri = 40\n", "")).ShouldHaveSingleItem();
        (finding.Id, finding.Place).ShouldBe(("no-work-limit", new Place("/u.ini", 2)));
        finding.Changes.ShouldBe([new Change(new Place("/u.ini", 2), "harakiri = 45", true)]);
    }

    [Fact]
    public void A_request_that_takes_longer_than_a_limit_is_foretold()
    {
        var stack = Stack(GoodHaproxy, GoodNginx, GoodUwsgi) with { LongestRequest = TimeSpan.FromSeconds(45) };
        var findings = AuditReport.Of(stack).Findings;
        var finding = findings.ShouldHaveSingleItem();
        finding.Id.ShouldBe("limit-too-short");
        finding.What.ShouldContain("harakiri 40s");
        finding.Consequence.ShouldContain("502 Bad Gateway");
    }

    [Fact]
    public void A_balancer_in_front_is_part_of_the_chain()
    {
        var balancer = new Hop
        {
            Program = "balancer",
            Name = "",
            Place = new Place("--balancer-timeout", 0),
            Limits = [new Limit { Kind = LimitKind.Wait, Setting = "idle timeout", Value = TimeSpan.FromSeconds(60), Place = new Place("--balancer-timeout", 0), Form = "idle timeout {0}s", Ending = Ending.Close }],
        };
        var findings = AuditReport.Of(Stack("", GoodNginx.Replace("50s", "90s"), GoodUwsgi) with { Front = [balancer] }).Findings;
        var order = findings.ShouldHaveSingleItem();
        order.Id.ShouldBe("chain-order");
        order.Consequence.ShouldContain("the client sees: the connection closed without an answer");

        // nginx keeps idle connections for 75 s: longer than the balancer, as it must.
        AuditReport.Of(Stack("", GoodNginx.Replace("http {", "http { keepalive_timeout 50s;"), GoodUwsgi) with { Front = [balancer] }).Findings
            .ShouldHaveSingleItem().Id.ShouldBe("keepalive-race");
    }

    [Fact]
    public void A_statement_that_outlives_its_worker_is_found()
    {
        Hop Database(TimeSpan? timeout) => new()
        {
            Program = "postgresql",
            Name = "db",
            Place = new Place("/c.conf", 9),
            Limits = [new Limit { Kind = LimitKind.Work, Setting = "statement_timeout", Value = timeout, Place = null, Form = "statement_timeout = '{0}s'", Ending = Ending.ServerError }],
        };
        IReadOnlyList<AuditFinding> With(TimeSpan? timeout) => AuditReport.Of(Stack(GoodHaproxy, GoodNginx, GoodUwsgi) with { Databases = [Database(timeout)] }).Findings;

        With(null).ShouldBeEmpty();
        With(TimeSpan.FromSeconds(30)).ShouldBeEmpty();
        var finding = With(TimeSpan.FromSeconds(90)).ShouldHaveSingleItem();
        (finding.Id, finding.Severity, finding.Changes[0].Text).ShouldBe(("chain-order", Severity.Medium, "statement_timeout = '36s'"));
    }

    [Theory]
    [InlineData("timeout queue 60s", "", "haproxy-queue-timeout", 3)]
    [InlineData("timeout queue 60s", "timeout queue 5s", "haproxy-queue-timeout", 4)]
    [InlineData("timeout connect 5s", "timeout connect 2s", "haproxy-connect-timeout", 3)]
    [InlineData("timeout connect 5s", "", "haproxy-timeout-missing", 7)]
    [InlineData(" maxconn 8", "", "haproxy-no-maxconn", 10)]
    [InlineData("maxconn 8", "maxconn 9", "haproxy-oversubscribed", 10)]
    [InlineData("option allbackups", "option httpchk GET /up", "haproxy-check-takes-workers", 9)]
    [InlineData("option allbackups", "server b 127.0.0.2:1 maxconn 1 backup\n    server c 127.0.0.2:2 maxconn 1 backup", "haproxy-no-allbackups", 9)]
    [InlineData("option allbackups", "server b 127.0.0.2:1 maxconn 1 backup\n    server c 127.0.0.2:2 maxconn 1", "haproxy-no-allbackups", 9)]
    public void What_makes_a_spike_into_an_outage_is_found_in_HAProxy(string good, string bad, string id, int line)
    {
        var finding = Examine(GoodHaproxy.Replace(good, bad), GoodNginx, GoodUwsgi).ShouldHaveSingleItem();
        (finding.Id, finding.Place).ShouldBe((id, new Place("/h.cfg", line)));
        finding.Changes.ShouldNotBeEmpty();
    }

    [Fact]
    public void A_check_that_the_web_server_answers_itself_takes_no_worker() =>
        Examine(
            GoodHaproxy.Replace("option allbackups", "option httpchk GET /up"),
            GoodNginx.Replace("location / {", "location = /up { return 204; } location / {"),
            GoodUwsgi).ShouldBeEmpty();

    [Fact]
    public void Slots_are_summed_over_all_proxies_that_lead_to_the_same_workers()
    {
        var second = GoodHaproxy + "\nlisten other\n    bind :8090\n    server a 127.0.0.1:8081 maxconn 8";
        var finding = Examine(second, GoodNginx, GoodUwsgi).ShouldHaveSingleItem();
        finding.Id.ShouldBe("haproxy-oversubscribed");
        finding.What.ShouldContain("= 16 for 8 slots");
        finding.Changes.Select(change => change.Text).ShouldBe(["server a … maxconn 4", "server a … maxconn 4"]);
    }

    [Fact]
    public void A_sum_holds_what_it_says_and_backups_share_what_those_have_that_they_take_over_from()
    {
        // Two for each in turn: the backups never count beside the others.
        var four = GoodHaproxy.Replace("server a 127.0.0.1:8081 maxconn 8 check",
            "server a 127.0.0.1:8081 maxconn 8\n    server b 127.0.0.1:8081 maxconn 8\n    server c 127.0.0.1:8081 maxconn 8 backup\n    server d 127.0.0.1:8081 maxconn 8 backup");
        var finding = Examine(four, GoodNginx, GoodUwsgi).ShouldHaveSingleItem();
        finding.What.ShouldStartWith("maxconn of www/a 8 + www/b 8 = 16 for 8 slots");
        finding.Changes.Select(change => change.Text).ShouldBe(["server a … maxconn 4", "server b … maxconn 4", "server c … maxconn 4", "server d … maxconn 4"]);

        // Those without a maxconn share the slots, instead of each getting all of them.
        Examine(four.Replace(" maxconn 8", ""), GoodNginx, GoodUwsgi).SelectMany(one => one.Changes).ShouldBe(finding.Changes);
        Examine(GoodHaproxy.Replace("server a", "server-template a 1-3"), GoodNginx, GoodUwsgi).ShouldHaveSingleItem().Changes.ShouldHaveSingleItem().Text.ShouldBe("server-template a … maxconn 2");
    }

    [Fact]
    public void A_line_of_defaults_is_told_once_for_all_that_take_it()
    {
        var finding = Examine(GoodHaproxy.Replace("timeout queue 60s", "") + "\nlisten other\n    bind :8090\n    server a 127.0.0.9:1 maxconn 1\n", GoodNginx, GoodUwsgi).ShouldHaveSingleItem();
        finding.What.ShouldStartWith("www, other: timeout connect 5s");
    }

    [Fact]
    public void A_small_backlog_is_found()
    {
        var finding = Examine(GoodHaproxy, GoodNginx, GoodUwsgi + "listen = 5\n").ShouldHaveSingleItem();
        (finding.Id, finding.Place, finding.Changes[0].Text).ShouldBe(("backlog-small", new Place("/u.ini", 6), "listen = 1024"));
    }

    [Fact]
    public void A_small_somaxconn_is_found_with_the_line_that_sets_it()
    {
        var files = SysctlReader.Files(new TestFiles(("/etc/sysctl.d/10-x.conf", "# net\nnet.core.somaxconn=64\n"), ("/usr/lib/sysctl.d/50-x.conf", "net/core/somaxconn = 128\n")).Open());
        IReadOnlyList<AuditFinding> With(long value) => AuditReport.Of(Stack(GoodHaproxy, GoodNginx, GoodUwsgi) with
        {
            Sysctls = [SysctlReader.Combine(0, new Dictionary<string, long?> { ["net.core.somaxconn"] = value }, files)],
        }).Findings;

        With(4096).ShouldBeEmpty();
        var finding = With(128).ShouldHaveSingleItem();
        (finding.Id, finding.Severity, finding.Place).ShouldBe(("somaxconn", Severity.High, new Place("/usr/lib/sysctl.d/50-x.conf", 1)));
        finding.What.ShouldContain("nginx asks for 511");
        With(100).ShouldHaveSingleItem().Place.File.ShouldBe("/proc/sys/net/core/somaxconn");
    }

    [Theory]
    [InlineData(4096, "listen = 1024")]
    [InlineData(512, "listen = 512")]
    [InlineData(32, "listen = 1024")]
    public void A_backlog_is_proposed_that_the_kernel_grants_or_the_kernel_is_to_grant_it(long somaxconn, string line)
    {
        var findings = AuditReport.Of(Stack(GoodHaproxy.Replace("bind", "backlog 512\n    bind"), GoodNginx.Replace("8081", "8081 backlog=512"), GoodUwsgi + "listen = 5\n") with
        {
            Sysctls = [SysctlReader.Combine(0, new Dictionary<string, long?> { ["net.core.somaxconn"] = somaxconn }, [])],
        }).Findings;
        findings.Single(finding => finding.Id == "backlog-small").Changes.ShouldHaveSingleItem().Text.ShouldBe(line);
        findings.Any(finding => finding.Id == "somaxconn").ShouldBe(somaxconn < 512);
    }

    [Fact]
    public void What_the_kernel_has_goes_before_what_files_say()
    {
        var socket = Address.Unix("/run/u.sock");
        IReadOnlyList<AuditFinding> With(string uwsgi, params IReadOnlyList<LiveListener> live) => AuditReport.Of(Stack(GoodHaproxy, GoodNginx, uwsgi) with { Listeners = live }).Findings;

        With(GoodUwsgi, new LiveListener(0, socket, 100, 0, "pid 7 (uwsgi)", true)).ShouldBeEmpty();
        var small = With(GoodUwsgi, new LiveListener(0, Address.Unix("/run/mirror.sock"), 5, 3, "pid 9 (python3)", false)).ShouldHaveSingleItem();
        (small.Id, small.Place.File).ShouldBe(("backlog-small", "pid 9 (python3)"));
        small.What.ShouldContain("unix:/run/mirror.sock");

        // a master's own socket, on which no request comes, and one whose queue the program's configuration does not set
        With(GoodUwsgi, new LiveListener(0, Address.Unix("/run/master.sock"), 10, 0, "pid 7 (uwsgi)", true)).ShouldBeEmpty();
        var cut = With(GoodUwsgi, new LiveListener(0, socket, 10, 0, "pid 7 (uwsgi)", true)).ShouldHaveSingleItem();
        cut.Changes.ShouldBe([new Change(new Place("/u.ini", 2), "listen = 1024", true)]);
        With(GoodUwsgi, new LiveListener(0, new Address("", 8080, null), 10, 0, "pid 8 (haproxy)", true)).ShouldHaveSingleItem().Changes.ShouldBe([new Change(new Place("/h.cfg", 7), "backlog 1024", true)]);
        With(GoodUwsgi, new LiveListener(0, new Address("", 8081, null), 10, 0, "pid 9 (nginx)", true)).ShouldHaveSingleItem().Changes.ShouldBe([new Change(new Place("/n.conf", 1), "listen … backlog=1024;", false)]);

        // set, and small: told once, with its line
        With(GoodUwsgi + "listen = 5\n", new LiveListener(0, socket, 5, 0, "pid 7 (uwsgi)", true)).ShouldHaveSingleItem().Place.File.ShouldBe("/u.ini");
    }

    [Fact]
    public void Unreaped_children_and_dead_addresses_are_found()
    {
        var findings = AuditReport.Of(new AuditedStack
        {
            Unreaped = [new UnreapedChildren("pid 9 (python3)", 12)],
            Names =
            [
                new CheckedName("www.example:80", "--balancer",
                    [
                        new CheckedAddress("10.0.0.1", AddressState.Alive, 3, 3, null),
                        new CheckedAddress("10.0.0.2", AddressState.Dead, 2, 0, "refused"),
                        new CheckedAddress("10.0.0.3", AddressState.Flapping, 3, 1, "no answer"),
                    ],
                    null),
            ],
        }).Findings;

        findings.Select(finding => finding.Id).ShouldBe(["name-dead-address", "unreaped-children"]);
        findings[0].What.ShouldContain("10.0.0.2 (refused)");
        findings[0].What.ShouldContain("10.0.0.3 (1 of 3)");
        findings[0].What.ShouldNotContain("10.0.0.1");
    }

    [Fact]
    public void A_path_that_forgets_without_keepalives_is_found()
    {
        IReadOnlyList<AuditFinding> With(bool armed, long keepalive) => AuditReport.Of(new AuditedStack
        {
            Sysctls = [SysctlReader.Combine(0, new Dictionary<string, long?> { ["net.ipv4.tcp_keepalive_time"] = keepalive }, [])],
            Upstreams = [new WatchedUpstream { Name = "db", Place = new Place("/c.conf", 3), IdleTimeout = TimeSpan.FromSeconds(350), KeepaliveIdle = KeepalivePlan.TargetIdle(TimeSpan.FromSeconds(350)), IsArmed = armed }],
        }).Findings;

        With(armed: true, 7200).ShouldBeEmpty();
        With(armed: false, 100).ShouldBeEmpty();
        With(armed: false, 7200).ShouldHaveSingleItem().Id.ShouldBe("keepalive-late");
    }

    [Fact]
    public void Another_hosts_port_is_not_taken_for_this_hosts()
    {
        var stack = Stack(GoodHaproxy.Replace("127.0.0.1:8081", "10.9.9.9:8081"), GoodNginx, GoodUwsgi);
        AuditReport.Of(stack with { LocalAddresses = new HashSet<IPAddress> { IPAddress.Parse("10.1.1.1") } }).Chains.Count.ShouldBe(2);
        AuditReport.Of(stack with { LocalAddresses = new HashSet<IPAddress> { IPAddress.Parse("10.9.9.9") } }).Chains.Count.ShouldBe(1);
    }

    [Theory]
    [InlineData("/run/h.sock.4711.tmp", "/run/h.sock")]
    [InlineData("/run/h.sock.tmp", "/run/h.sock.tmp")]
    [InlineData("/run/h.tmp", "/run/h.tmp")]
    [InlineData("/run/h.sock.4711", "/run/h.sock.4711")]
    [InlineData(".tmp", ".tmp")]
    public void HAProxys_sockets_have_the_names_that_they_are_renamed_to(string kernel, string name) => ListenerScan.FinalName(kernel).ShouldBe(name);

    [Fact]
    public void Programs_are_recognised_by_their_command_lines()
    {
        RunningProgram.Recognise("/usr/sbin/nginx", ["nginx: master process /usr/sbin/nginx -c /x/n.conf -g daemon off;"], out var nginx, out _).ShouldBe("nginx");
        nginx.ShouldBe(["-c", "/x/n.conf", "-g", "daemon", "off;"]);
        RunningProgram.Recognise("/usr/bin/python3.11", ["/usr/bin/python3", "/usr/bin/gunicorn", "-w", "2", "app:app"], out var gunicorn, out _).ShouldBe("gunicorn");
        gunicorn.ShouldBe(["-w", "2", "app:app"]);
        RunningProgram.Recognise("/usr/bin/python3.11", ["gunicorn: master [app]"], out _, out var isTitle).ShouldBe("gunicorn");
        isTitle.ShouldBeTrue();
        RunningProgram.Recognise("/usr/bin/python3.11", ["python3", "app.py"], out _, out _).ShouldBeNull();
        RunningProgram.Recognise("/usr/sbin/apache2", ["/usr/sbin/apache2", "-k", "start"], out _, out _).ShouldBe("apache");
        RunningProgram.Recognise("/bin/bash", ["bash"], out _, out _).ShouldBeNull();
    }

    private static IReadOnlyList<AuditFinding> Examine(string haproxy, string nginx, string uwsgi) => AuditReport.Of(Stack(haproxy, nginx, uwsgi)).Findings;

    private static AuditedStack Stack(string haproxy, string nginx, string uwsgi) => new()
    {
        Programs = [TestFiles.Haproxy(haproxy), TestFiles.Nginx(nginx), TestFiles.Uwsgi(uwsgi)],
    };
}
