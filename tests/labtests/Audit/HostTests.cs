using System.Text.Json;

namespace Sidecar.LabTests.Audit;

/// <summary>What is asked of running processes and servers, other than their files.</summary>
public sealed class HostTests
{
    [Fact]
    public async Task A_server_without_a_file_is_read_from_its_command_line()
    {
        await using var host = await AuditedHost.StartAsync();
        host.Copy("slow.py");
        var gunicorn = host.Start("gunicorn", "/usr/bin/gunicorn", "--bind", "127.0.0.1:8000", "--backlog", "5", "--workers=2", "--env", $"KEY={AuditedHost.Password}", "slow:application");
        await host.ListensAsync(8000);

        var finding = (await host.AuditAsync()).ShouldHaveSingleItem();

        (finding.Id, finding.File, finding.Changes[0]).ShouldBe(("backlog-small", $"pid {gunicorn.Pid} (gunicorn)", "backlog = 1024"));
        (await host.AuditTextAsync()).ShouldContain("gunicorn, 2 slots");
    }

    [Fact]
    public async Task A_masters_own_socket_and_programs_that_do_not_run_are_no_part_of_it()
    {
        await using var host = await AuditedHost.StartAsync();
        await host.Lab.Network.Worker.SysctlAsync("net.core.somaxconn=4096");
        host.Write("haproxy.cfg", """
            global
                stats socket {dir}/run/admin.sock
            defaults
                mode http
                timeout connect 5s
                timeout queue   60s
                timeout client  60s
                timeout server  60s
            listen www
                bind 127.0.0.1:8080
                bind unix@{dir}/run/www.sock
                server a 127.0.0.1:8081 maxconn 8

            """);
        host.Start("haproxy", "/usr/sbin/haproxy", "-W", "-db", "-f", host.PathOf("haproxy.cfg"), "-S", host.PathOf("run/master.sock"));
        await host.ListensAsync(8080);

        (await host.AuditAsync()).ShouldBeEmpty();

        File.Exists("/etc/nginx/nginx.conf").ShouldBeTrue("a program that is installed and does not run");
        using var json = JsonDocument.Parse((await host.RunAsync("audit", "--json", "--config", host.PathOf("conn-sidecar.conf"))).Output);
        json.RootElement.GetProperty("files").EnumerateArray().Select(file => file.GetString()).ShouldBe([host.PathOf("haproxy.cfg")]);
        json.RootElement.GetProperty("listeners").EnumerateArray().Select(listener => listener.GetProperty("address").GetString()).ShouldContain($"unix:{host.PathOf("run/www.sock")}");
    }

    [Fact]
    public async Task The_database_is_asked_for_its_limits_and_a_path_without_keepalives_is_found()
    {
        await using var lab = await TestLab.StartAsync(new LabOptions { Workers = 1 });
        await MeasuredPath.ExecuteAsync(lab, "ALTER SYSTEM SET statement_timeout = '90s'", "SELECT pg_reload_conf()");
        var dsn = Path.Combine(lab.Directory, "orders-db.dsn");
        await File.WriteAllTextAsync(dsn, $"{lab.Database.Dsn("sidecar")} password={AuditedHost.Password}\n");
        File.SetUnixFileMode(dsn, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        var configuration = Path.Combine(lab.Directory, "audit.conf");
        await File.WriteAllTextAsync(configuration, $"""
            [agent]
            network-namespaces = own
            state-directory = {lab.Directory}/none
            [upstream:orders-db]
            endpoint = {lab.Database.EndPoint}
            protocol = postgresql
            idle-timeout = 350s
            keepalive = off
            dsn-file = {dsn}

            """);

        var result = await lab.Network.Worker.TryRunAsync([AgentProcess.Binary, "audit", "--json", "--request", "2m", "--config", configuration]);

        result.ExitCode.ShouldBe(1, result.Error);
        result.Output.ShouldNotContain(AuditedHost.Password);
        using var json = JsonDocument.Parse(result.Output);
        var findings = json.RootElement.GetProperty("findings").EnumerateArray().Select(finding =>
            (Id: finding.GetProperty("id").GetString(), File: finding.GetProperty("file").GetString(), Line: finding.GetProperty("line"), What: finding.GetProperty("what").GetString()!)).ToList();
        findings.ShouldContain(finding => finding.Id == "limit-too-short" && finding.What == "postgresql (orders-db): statement_timeout 1m30s", result.Output);
        findings.First(finding => finding.Id == "limit-too-short").File.ShouldNotBeNull().ShouldEndWith("/postgresql.auto.conf");
        var late = findings.First(finding => finding.Id == "keepalive-late");
        (late.File, late.Line.GetInt32()).ShouldBe((configuration, 4));
        findings.ShouldContain(finding => finding.Id == "postgresql-setting" && finding.What.Contains("tcp_user_timeout", StringComparison.Ordinal));
        json.RootElement.GetProperty("notes").EnumerateArray().Where(note => note.GetProperty("file").GetString() != "/proc").ShouldBeEmpty(); // the machine's init may not let itself be seen
        Directory.Exists(Path.Combine(lab.Directory, "none")).ShouldBeFalse("audit makes nothing");
    }

    [Fact]
    public async Task Without_rights_it_says_what_it_could_not_read()
    {
        await using var host = await AuditedHost.StartAsync();
        host.Copy("slow.py");
        host.Start("gunicorn", "/usr/bin/gunicorn", "--bind", "127.0.0.1:8000", "--config", host.Write("gunicorn.conf.py", "workers = 3\n"), "slow:application");
        await host.ListensAsync(8000);
        await AgentProcess.CopyBinaryAsync(host.PathOf("conn-sidecar"));

        var result = await host.Lab.Network.Worker.TryRunAsync(
            ["setpriv", "--reuid", "nobody", "--clear-groups", host.PathOf("conn-sidecar"), "audit", "--json", "--config", host.PathOf("conn-sidecar.conf")]);

        result.Error.ShouldBeEmpty();
        result.ExitCode.ShouldBeOneOf(0, 1);
        using var json = JsonDocument.Parse(result.Output);
        json.RootElement.GetProperty("notes").EnumerateArray().ShouldContain(note => note.GetProperty("text").GetString()!.Contains("cannot be looked at", StringComparison.Ordinal));
    }
}
