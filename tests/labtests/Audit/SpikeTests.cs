namespace Sidecar.LabTests.Audit;

/// <summary>HAProxy, Apache with mod_wsgi, and behind it a server on a Unix socket that forks for each connection.</summary>
public sealed class SpikeTests
{
    [Fact]
    public async Task Each_fault_that_makes_a_spike_into_an_outage_is_named_with_its_place()
    {
        await using var host = await AuditedHost.StartAsync();
        await host.Lab.Network.Worker.SysctlAsync("net.core.somaxconn=128");
        host.Write("sysctl.d/20-listen.conf", "# of old\nnet.core.somaxconn = 128\n");
        var forking = await StartAsync(host, "5", "forget", """
            defaults
                mode http
                timeout connect 5s
                timeout client  60s
                timeout server  60s
            listen mirrors
                bind 127.0.0.1:8000
                server one   127.0.0.1:8080 check
                server two   127.0.0.1:8081 check backup
                server three 127.0.0.1:8082 check backup

            """, "Timeout 50", "processes=2 threads=4");

        var findings = await host.AuditAsync();

        void Is(string id, string file, int? line) => findings.ShouldContain(finding => finding.Id == id && finding.File == file && finding.Line == line, $"{id} at {file}:{line} is not among\n{string.Join('\n', findings)}");
        Is("backlog-small", $"pid {forking.Pid} (python3)", null);
        findings.First(finding => finding.Id == "backlog-small").What.ShouldContain("an accept queue of 5");
        Is("somaxconn", "/etc/sysctl.d/20-listen.conf", 2);
        Is("haproxy-queue-timeout", host.PathOf("haproxy.cfg"), host.LineOf("haproxy.cfg", "timeout connect"));
        Is("haproxy-no-maxconn", host.PathOf("haproxy.cfg"), host.LineOf("haproxy.cfg", "server one"));
        Is("haproxy-no-maxconn", host.PathOf("haproxy.cfg"), host.LineOf("haproxy.cfg", "server three"));
        Is("haproxy-no-allbackups", host.PathOf("haproxy.cfg"), host.LineOf("haproxy.cfg", "server two"));
        Is("unreaped-children", $"pid {forking.Pid} (python3)", null);
        Is("no-work-limit", host.PathOf("apache.conf"), host.LineOf("apache.conf", "WSGIDaemonProcess"));
        findings.Count.ShouldBe(9, string.Join('\n', findings));
        findings.ShouldContain(finding => finding.Id == "haproxy-no-maxconn" && finding.Changes[0] == "server one … maxconn 8");
    }

    [Fact]
    public async Task The_mended_stack_is_met_with_silence()
    {
        await using var host = await AuditedHost.StartAsync();
        await host.Lab.Network.Worker.SysctlAsync("net.core.somaxconn=4096");
        await StartAsync(host, "1024", "reap", """
            defaults
                mode http
                timeout connect 5s
                timeout queue   60s
                timeout client  60s
                timeout server  60s
            listen mirrors
                bind 127.0.0.1:8000
                option allbackups
                server one   127.0.0.1:8080 check maxconn 8
                server two   127.0.0.1:8081 check maxconn 4 backup
                server three 127.0.0.1:8082 check maxconn 4 backup

            """, "Timeout 50", "processes=2 threads=4 request-timeout=40");

        var findings = await host.AuditAsync();

        findings.ShouldBeEmpty(string.Join('\n', findings));
        (await host.AuditTextAsync()).ShouldContain("mod_wsgi (group mirror), 8 slots");
    }

    /// <summary>Starts the three and asks some times, so that the server has had children.</summary>
    private static async Task<ChildProcess> StartAsync(AuditedHost host, string backlog, string children, string haproxy, string timeout, string daemon)
    {
        host.Write("haproxy.cfg", haproxy);
        host.Write("apache.conf", $$"""
            ServerRoot /etc/apache2
            ServerName mirror.example
            PidFile {dir}/run/apache.pid
            DefaultRuntimeDir {dir}/run
            ErrorLog {dir}/run/error.log
            User www-data
            Group www-data
            LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
            LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
            LoadModule wsgi_module /usr/lib/apache2/modules/mod_wsgi.so
            LoadModule env_module /usr/lib/apache2/modules/mod_env.so
            SetEnv DATABASE_URL postgres://web:{{AuditedHost.Password}}@db.example/web
            {{timeout}}
            Listen 127.0.0.1:8080
            Listen 127.0.0.1:8081
            Listen 127.0.0.1:8082
            <IfModule mod_wsgi.c>
                WSGISocketPrefix {dir}/run/wsgi
                WSGIDaemonProcess mirror {{daemon}}
                WSGIProcessGroup mirror
                WSGIApplicationGroup %{GLOBAL}
                WSGIScriptAlias / {dir}/mirror.py
                <Directory {dir}>
                    Require all granted
                </Directory>
            </IfModule>

            """);
        host.Copy("mirror.py");
        var forking = host.Start("forking", "/usr/bin/python3", "-u", host.Copy("forking.py"), host.PathOf("mirror.sock"), backlog, children);
        await forking.WaitForLineAsync(line => line == "listening", Wait.Seconds(20));
        host.Start("apache", "/usr/sbin/apache2", "-f", host.PathOf("apache.conf"), "-DFOREGROUND");
        await host.ListensAsync(8080);
        host.Start("haproxy", "/usr/sbin/haproxy", "-db", "-f", host.PathOf("haproxy.cfg"));
        await host.ListensAsync(8000);
        using var client = host.Lab.Network.Worker.HttpClient();
        for (var i = 0; i < 5; i++)
        {
            (await client.GetStringAsync(new Uri("http://127.0.0.1:8000/"))).ShouldBe("mirror\n");
        }

        return forking;
    }
}
