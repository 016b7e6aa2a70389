using System.Globalization;

namespace Sidecar.LabTests.Audit;

/// <summary>Balancer, nginx, uWSGI and an application whose requests take long: seconds stand for the minutes of a real stack.</summary>
public sealed class ChainTests
{
    [Fact]
    public async Task A_balancer_that_gives_up_first_is_foretold_shown_and_mended()
    {
        await using var host = await StartAsync(balancer: 6, nginx: 30, harakiri: null);

        var findings = await host.AuditAsync();
        findings.Select(finding => finding.Id).ShouldBe(["chain-order", "no-work-limit"], string.Join('\n', findings));
        (findings[0].File, findings[0].Line).ShouldBe((host.PathOf("haproxy.cfg"), host.LineOf("haproxy.cfg", "timeout server")));
        findings[0].Consequence.ShouldStartWith("after 6s of silence haproxy closes first; the client sees: 504 Gateway Timeout");
        findings[0].Changes.ShouldBe(["timeout server 33s"]);
        (findings[1].File, findings[1].Line).ShouldBe((host.PathOf("uwsgi.ini"), 2));
        (await host.AuditTextAsync()).ShouldContain("← first");

        var measured = await host.MeasureAsync("http://127.0.0.1:8080/?seconds=8");
        (measured.EndedBy, measured.Status).ShouldBe(("status", 504));
        ShouldBe(measured.Silent, 6);
    }

    [Fact]
    public async Task A_web_server_that_gives_up_before_its_worker_is_foretold_and_shown()
    {
        await using var host = await StartAsync(balancer: 6, nginx: 3, harakiri: 30);

        var finding = (await host.AuditAsync()).ShouldHaveSingleItem();
        (finding.Id, finding.File, finding.Line).ShouldBe(("chain-order", host.PathOf("nginx.conf"), host.LineOf("nginx.conf", "uwsgi_read_timeout")));

        var measured = await host.MeasureAsync("http://127.0.0.1:8080/?seconds=8");
        (measured.EndedBy, measured.Status).ShouldBe(("status", 504));
        measured.Server.ShouldNotBeNull().ShouldStartWith("nginx");
        ShouldBe(measured.Silent, 3);
    }

    [Fact]
    public async Task A_chain_in_good_order_ends_long_requests_where_it_says_and_lets_them_pass_once_it_is_longer()
    {
        await using var host = await StartAsync(balancer: 6, nginx: 5, harakiri: 3);

        (await host.AuditAsync()).ShouldBeEmpty();
        var short3 = (await host.AuditAsync("--request", "8s")).Where(finding => finding.Id == "limit-too-short").ToList();
        short3.Count.ShouldBe(3);
        short3.ShouldContain(finding => finding.File == host.PathOf("uwsgi.ini") && finding.Line == host.LineOf("uwsgi.ini", "harakiri") && finding.Consequence.EndsWith("502 Bad Gateway", StringComparison.Ordinal));
        var killed = await host.MeasureAsync("http://127.0.0.1:8080/?seconds=20");
        (killed.EndedBy, killed.Status).ShouldBe(("status", 502)); // uWSGI looks once a second, so how late it is says nothing

        await using var repaired = await StartAsync(balancer: 30, nginx: 20, harakiri: 15);
        (await repaired.AuditAsync("--request", "8s")).ShouldBeEmpty();
        var passed = await repaired.MeasureAsync("http://127.0.0.1:8080/?seconds=4");
        (passed.EndedBy, passed.Status).ShouldBe(("answer", 200));
        ShouldBe(passed.Silent, 4);
    }

    [Fact]
    public async Task A_balancer_of_plain_connections_closes_without_an_answer()
    {
        await using var host = await StartAsync(balancer: 4, nginx: 30, harakiri: 20, mode: "tcp");

        var finding = (await host.AuditAsync()).ShouldHaveSingleItem();
        finding.Id.ShouldBe("chain-order");
        finding.Consequence.ShouldContain("the connection closed without an answer");

        var measured = await host.MeasureAsync("http://127.0.0.1:8080/?seconds=8");
        measured.EndedBy.ShouldBe("fin");
        measured.Status.ShouldBeNull();
        ShouldBe(measured.Silent, 4);
    }

    [Fact]
    public async Task A_connection_that_the_path_forgets_is_told_from_one_that_waits()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { Servers = false, IdleTimeout = Wait.Seconds(5) });
        using var silent = MeasuredPath.Listen(lab, 8099);
        async Task<string> EndedByAsync(string max)
        {
            var result = await lab.Network.Worker.TryRunAsync([AgentProcess.Binary, "measure", "--http", $"http://{lab.Network.DatabaseAddress4}:8099/", "--max", max, "--json"]);
            result.ExitCode.ShouldBe(0, result.Error);
            return System.Text.Json.JsonDocument.Parse(result.Output).RootElement.GetProperty("ended_by").GetString()!;
        }

        var both = await Task.WhenAll(EndedByAsync("3s"), EndedByAsync("9s"));
        both.ShouldBe(["waiting", "silence"]);
    }

    [Fact]
    public async Task Of_a_name_with_five_addresses_the_four_dead_ones_are_named()
    {
        await using var host = await AuditedHost.StartAsync();
        host.WriteHosts(string.Join('\n', Enumerable.Range(11, 5).Select(last => string.Create(CultureInfo.InvariantCulture, $"127.0.0.{last} balancer.example"))));
        host.Write("haproxy.cfg", "defaults\n    mode http\n    timeout connect 5s\n    timeout client 5s\n    timeout server 5s\nfrontend one\n    bind 127.0.0.13:8443\n");
        host.Start("haproxy", "/usr/sbin/haproxy", "-db", "-f", host.PathOf("haproxy.cfg"));
        await host.ListensAsync(8443);

        var finding = (await host.AuditAsync("--balancer", "balancer.example:8443")).ShouldHaveSingleItem();
        finding.Id.ShouldBe("name-dead-address");
        finding.What.ShouldContain("5 addresses");
        foreach (var dead in new[] { "127.0.0.11", "127.0.0.12", "127.0.0.14", "127.0.0.15" })
        {
            finding.What.ShouldContain($"{dead} (refused)");
        }

        finding.What.ShouldNotContain("127.0.0.13");
        (await host.AuditTextAsync("--balancer", "balancer.example:8443")).ShouldContain("1 of 5 addresses answer");

        host.WriteHosts("127.0.0.13 balancer.example");
        (await host.AuditAsync("--balancer", "balancer.example:8443")).ShouldBeEmpty();
    }

    /// <summary>Within 5 %, or 0.3 s and what a busy machine adds.</summary>
    private static void ShouldBe(double seconds, double expected)
    {
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"T = {expected} s: ended after {seconds} s"));
        seconds.ShouldBeInRange(expected - Math.Max(0.3, expected * 0.05), expected + (Patience.For(Wait.Seconds(Math.Max(0.3, expected * 0.05))).TotalSeconds));
    }

    private static async Task<AuditedHost> StartAsync(int balancer, int nginx, int? harakiri, string mode = "http")
    {
        var host = await AuditedHost.StartAsync();
        host.Write("haproxy.cfg", $"""
            # the balancer
            defaults
                mode {mode}
                timeout connect 5s
                timeout queue   60s
                timeout client  {(mode == "tcp" ? balancer : 60)}s
                timeout server  {balancer}s
            frontend www
                bind 127.0.0.1:8080
                http-request set-header Authorization "Basic {AuditedHost.Password}"
                default_backend app
            backend app
                server one 127.0.0.1:8081 maxconn 4 check

            """.Replace("    http-request", mode == "tcp" ? "    #" : "    http-request", StringComparison.Ordinal));
        host.Write("sites.conf", $$"""
            server {
                listen 127.0.0.1:8081;
                location / {
                    include {dir}/app.conf;
                    uwsgi_pass unix:{dir}/run/app.sock;
                }
            }

            """);
        host.Write("app.conf", $"""
            uwsgi_param QUERY_STRING $query_string;
            uwsgi_param REQUEST_METHOD $request_method;
            uwsgi_param PATH_INFO $document_uri;
            uwsgi_param SERVER_PROTOCOL $server_protocol;
            uwsgi_param SERVER_NAME $server_name;
            uwsgi_param SERVER_PORT $server_port;
            uwsgi_param DATABASE_URL postgres://web:{AuditedHost.Password}@db.example/web;

            """);
        host.Write("nginx.conf", $$"""
            daemon off;
            user www-data;
            worker_processes 1;
            pid {dir}/run/nginx.pid;
            error_log stderr;
            events { worker_connections 64; }
            http {
                access_log off;
                client_body_temp_path {dir}/run/body; proxy_temp_path {dir}/run/proxy; uwsgi_temp_path {dir}/run/uwsgi;
                fastcgi_temp_path {dir}/run/fastcgi; scgi_temp_path {dir}/run/scgi;
                # 60 s by default
                uwsgi_read_timeout {{nginx}}s;
                include {dir}/sites*.conf;
            }

            """);
        host.Write("uwsgi.ini", $"""
            [uwsgi]
            socket = %drun/app.sock
            chmod-socket = 666
            plugin = python3
            master = true
            processes = 4
            wsgi-file = %dslow.py
            need-app = true
            env = DATABASE_URL=postgres://web:{AuditedHost.Password}@db.example/web
            {(harakiri is null ? "" : $"harakiri = {harakiri}")}

            """);
        host.Copy("slow.py");
        var uwsgi = host.Start("uwsgi", "/usr/bin/uwsgi-core", "--ini", host.PathOf("uwsgi.ini"));
        await uwsgi.WaitForLineAsync(line => line.StartsWith("spawned uWSGI worker 4 ", StringComparison.Ordinal), Wait.Seconds(30));
        host.Start("nginx", "/usr/sbin/nginx", "-c", host.PathOf("nginx.conf"));
        await host.ListensAsync(8081);
        host.Start("haproxy", "/usr/sbin/haproxy", "-db", "-f", host.PathOf("haproxy.cfg"));
        await host.ListensAsync(8080);
        return host;
    }
}
