using System.Globalization;
using System.Text.Json;
using Sidecar.UnitTests.Schemas;

namespace Sidecar.BootTests;

/// <summary>The worker host of a lab: a booted Debian with the application as <c>uwsgi.service</c> and the package installed.</summary>
public sealed class WorkerHost : IAsyncLifetime
{
    private WorkerMachine? _host;

    internal TestLab Lab => _host!.Lab;

    internal Machine Machine => _host!.Machine;

    internal WebService Web => _host!.Web;

    public async Task InitializeAsync()
    {
        var package = await DebianPackage.GetAsync();
        _host = await WorkerMachine.StartAsync();
        var master = await Machine.MainPidAsync(WebService.Unit);
        await Machine.InstallAsync(package);
        // The package came to a stack that was there, and left it alone.
        (await Machine.MainPidAsync(WebService.Unit)).ShouldBe(master);
    }

    public async Task DisposeAsync()
    {
        if (_host is not null)
        {
            await _host.DisposeAsync();
        }
    }

    /// <summary>Restarts the agent with this configuration for the database, and nothing left of an earlier test.</summary>
    internal async Task ConfigureAsync(string upstream = "", string workers = "", string dropIn = "", string idleTimeout = "350s")
    {
        await Machine.ShellAsync("systemctl stop conn-sidecar; systemctl reset-failed conn-sidecar; rm -rf /etc/conn-sidecar/conf.d/* /etc/systemd/system/conn-sidecar.service.d /var/lib/conn-sidecar/*");
        if (dropIn.Length > 0)
        {
            await Machine.ShellAsync($"install -D -m 0644 {dropIn} /etc/systemd/system/conn-sidecar.service.d/test.conf");
        }

        await Machine.WriteAsync("/etc/conn-sidecar/conf.d/test.conf",
            $"[upstream:orders-db]\nendpoint = {Lab.Database.EndPoint}\nprotocol = postgresql\nidle-timeout = {idleTimeout}\n{upstream}\n{workers}\n");
        await Machine.ShellAsync("systemctl daemon-reload; systemctl start conn-sidecar");
    }

    /// <summary>Waits for a condition; where it does not come, says what the agent saw.</summary>
    internal async Task UntilAsync(string what, Func<Task<bool>> condition, TimeSpan timeout)
    {
        try
        {
            await Wait.UntilAsync(what, condition, timeout);
        }
        catch (TimeoutException e)
        {
            throw new TimeoutException($"{e.Message}\n{await AgentsViewAsync()}", e);
        }
    }

    private async Task<string> AgentsViewAsync()
    {
        var agent = await Machine.TryRunAsync("sh", "-c", "conn-sidecar status; conn-sidecar incidents; journalctl --no-pager -u 'conn-sidecar*' -n 40; systemctl --no-pager -l status conn-sidecar-check.socket");
        return agent.Output + agent.Error;
    }

    /// <summary>The kernel's view of a worker's connection; the worker by its number inside the machine.</summary>
    /// <returns>Null where it has none.</returns>
    internal async Task<SocketState?> FindSocketOfAsync(int pid) => OfWorker(await Lab.DatabaseSocketsAsync(), pid);

    /// <inheritdoc cref="FindSocketOfAsync"/>
    /// <exception cref="InvalidOperationException">It has none.</exception>
    internal async Task<SocketState> SocketOfAsync(int pid)
    {
        var sockets = await Lab.DatabaseSocketsAsync();
        return OfWorker(sockets, pid)
            ?? throw new InvalidOperationException($"worker {pid} has no connection, but there are:\n{string.Join('\n', sockets.Select(s => s.Details))}\n{await AgentsViewAsync()}");
    }

    private static SocketState? OfWorker(IEnumerable<SocketState> sockets, int pid) =>
        sockets.SingleOrDefault(s => s.Pid is { } owner && PidInside(owner) == pid);

    private static int PidInside(int pid)
    {
        var line = File.ReadLines($"/proc/{pid}/status").Single(l => l.StartsWith("NSpid:", StringComparison.Ordinal));
        return int.Parse(line.Split('\t')[^1], CultureInfo.InvariantCulture);
    }
}

/// <summary>The service as systemd runs it.</summary>
public sealed class ServiceTests(WorkerHost host) : IClassFixture<WorkerHost>
{
    private const string Agent = "conn-sidecar.service";

    /// <summary>Those of capabilities(7) that the unit declares, as bits.</summary>
    private static readonly Dictionary<string, int> Declared = new(StringComparer.Ordinal)
    {
        ["CAP_DAC_READ_SEARCH"] = 2,
        ["CAP_KILL"] = 5,
        ["CAP_NET_ADMIN"] = 12,
        ["CAP_NET_RAW"] = 13,
        ["CAP_SYS_PTRACE"] = 19,
    };

    private Machine Machine => host.Machine;

    private string Schemas => $"/proc/{Machine.Leader}/root/usr/share/conn-sidecar/schemas";

    [Fact]
    public async Task It_is_ready_with_its_first_look_and_sees_the_workers_with_their_unit()
    {
        await host.ConfigureAsync();
        await host.Web.RestartAsync(Machine);

        (await Machine.UnitAsync("ActiveState")).ShouldBe("active");
        (await Machine.UnitAsync("Type")).ShouldBe("notify");
        (await Machine.UnitAsync("StatusText")).ShouldContain("mode protect");
        await host.UntilAsync("four connections with their unit", async () =>
        {
            using var status = JsonDocument.Parse(await Machine.RunAsync("conn-sidecar", "status", "--json"));
            return status.RootElement.GetProperty("connections").EnumerateArray().Count(c => c.GetProperty("unit").GetString() == WebService.Unit) == 4;
        }, Wait.Seconds(20));
        (await Machine.JournalAsync("-t", "conn-sidecar", "MESSAGE_ID=b514fe0a04c8440abeb51eb68795905c")).ShouldContain("started");
    }

    [Fact]
    public async Task It_runs_as_its_own_user_with_exactly_the_declared_capabilities_and_steps_back_before_the_stack()
    {
        await host.ConfigureAsync();
        var pid = await Machine.MainPidAsync();
        var status = (await Machine.RunAsync("cat", $"/proc/{pid}/status")).Split('\n').Select(l => l.Split(':', 2)).Where(p => p.Length == 2)
            .ToDictionary(p => p[0], p => p[1].Trim(), StringComparer.Ordinal);
        var declared = Declared.Values.Aggregate(0UL, (bits, bit) => bits | (1UL << bit)).ToString("x16", CultureInfo.InvariantCulture);
        foreach (var set in new[] { "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb" })
        {
            status[set].ShouldBe(declared, set);
        }

        (await Machine.UnitAsync("AmbientCapabilities")).Split(' ').ShouldBe(Declared.Keys.Select(k => k.ToLowerInvariant()), ignoreOrder: true);
        var uid = (await Machine.RunAsync("id", "-u", "conn-sidecar")).Trim();
        status["Uid"].Split('\t').ShouldAllBe(u => u == uid);
        uid.ShouldNotBe("0");
        status["NoNewPrivs"].ShouldBe("1");
        status["Seccomp"].ShouldBe("2");
        (await Machine.RunAsync("cat", $"/proc/{pid}/oom_score_adj")).Trim().ShouldBe("500");
        (await Machine.RunAsync("cat", $"/proc/{pid}/limits")).ShouldMatch(@"Max core file size +0 +0");
        (await Machine.UnitAsync("MemoryMax")).ShouldBe($"{256 << 20}");
    }

    [Fact]
    public async Task Reload_takes_over_a_good_configuration_and_refuses_a_bad_one()
    {
        await host.ConfigureAsync();
        var pid = await Machine.MainPidAsync();
        await Machine.WriteAsync("/etc/conn-sidecar/conf.d/more.conf", "[agent]\nmode = observe\n");

        await Machine.RunAsync("systemctl", "reload", "conn-sidecar");
        await host.UntilAsync("observe is in force", async () => (await Machine.RunAsync("conn-sidecar", "status")).Contains("mode observe, running", StringComparison.Ordinal), Wait.Seconds(10));
        (await Machine.JournalAsync("-t", "conn-sidecar", "-n", "20")).ShouldContain("reload: [agent] mode: protect -> observe");

        await Machine.WriteAsync("/etc/conn-sidecar/conf.d/more.conf", "[agent]\nmode = sometimes\n");
        (await Machine.TryRunAsync("systemctl", "reload", "conn-sidecar")).ExitCode.ShouldBe(1);
        const string reason = "more.conf:2: [agent] mode: expected observe or protect, got \"sometimes\"";
        (await Machine.JournalAsync("-u", Agent, "-n", "20")).ShouldContain(reason);
        // Where systemctl sends whoever sees it fail.
        (await Machine.TryRunAsync("systemctl", "status", "--no-pager", "-l", "conn-sidecar")).Output.ShouldContain("the last reload was refused");
        (await Machine.UnitAsync("StatusText")).ShouldContain(reason);
        // Whoever sends the signal by hand gets the same from the agent itself.
        await Machine.RunAsync("systemctl", "kill", "--signal=HUP", "--kill-who=main", "conn-sidecar");
        await host.UntilAsync("the refusal is in the journal", async () =>
            (await Machine.JournalAsync("-t", "conn-sidecar", "MESSAGE_ID=5255074cbd67451b8f00e599f3ff446c")).Contains("more.conf", StringComparison.Ordinal), Wait.Seconds(10));

        await host.UntilAsync("the status says so", async () => await Machine.UnitAsync("StatusText") is var text
            && text.StartsWith("mode observe, 1 upstream, ", StringComparison.Ordinal) && text.Contains(reason, StringComparison.Ordinal), Wait.Seconds(10));
        (await Machine.UnitAsync("ActiveState")).ShouldBe("active");
        (await Machine.MainPidAsync()).ShouldBe(pid);
        (await Machine.TryRunAsync("conn-sidecar", "status")).Output.ShouldContain("mode observe, running");

        await Machine.RunAsync("rm", "/etc/conn-sidecar/conf.d/more.conf");
        await Machine.RunAsync("systemctl", "reload", "conn-sidecar");
        await host.UntilAsync("nothing is refused any more", async () => await Machine.UnitAsync("StatusText") is var text
            && text.StartsWith("mode protect, ", StringComparison.Ordinal) && !text.Contains("refused", StringComparison.Ordinal), Wait.Seconds(20));
    }

    [Fact]
    public async Task Each_mistake_of_the_configuration_is_one_line_with_its_remedy_and_a_metric()
    {
        await Machine.WriteAsync("/etc/conn-sidecar/orders-db.dsn", host.Lab.Database.Dsn("web") + "\n");
        await Machine.ShellAsync("chgrp conn-sidecar /etc/conn-sidecar/orders-db.dsn; chmod 0640 /etc/conn-sidecar/orders-db.dsn");
        await host.ConfigureAsync(
            upstream: "dsn-file = /etc/conn-sidecar/orders-db.dsn\n[upstream:named]\nendpoint = db.nosuch.invalid:5432\n[haproxy:edge]\nsocket = /run/haproxy/none.sock\n",
            workers: "[workers:web]\nunit = uwsg.service\n[check:app]\nexpected-command = /bin/echo 1\nactual-command = /bin/false\ninterval = 1s\n");
        (string Kind, string Name, string Line)[] expected =
        [
            ("resolution", "named", "named: db.nosuch.invalid has no address "),
            ("sessions", "orders-db", "orders-db: the sessions on the server are not seen, and none can be ended there (release): the role may not see the sessions of others: GRANT pg_monitor TO web;"),
            ("workers", "web", "workers web match no process: this host has no unit uwsg.service; did you mean uwsgi.service?"),
            ("haproxy", "edge", "haproxy edge is not seen: /run/haproxy/none.sock is not there; HAProxy has to run with the line \"stats socket /run/haproxy/none.sock mode 660 group conn-sidecar level user\""),
            ("check", "app", "check app is not known: actual: exit status 1"),
        ];
        IReadOnlyList<string> lines = [];
        await host.UntilAsync("five lines", async () =>
        {
            using var status = JsonDocument.Parse(await Machine.RunAsync("conn-sidecar", "status", "--json"));
            lines = [.. status.RootElement.GetProperty("limitations").EnumerateArray().Select(line => line.GetString()!)];
            return expected.All(one => lines.Any(line => line.StartsWith(one.Line, StringComparison.Ordinal)));
        }, Wait.Seconds(60));
        (await Machine.RunAsync("conn-sidecar", "status")).Split('\n').Count(line => line.StartsWith("! ", StringComparison.Ordinal)).ShouldBe(lines.Count);
        var metrics = await AskAsync("/metrics");
        var journal = await Machine.JournalAsync("-t", "conn-sidecar", "MESSAGE_ID=8cf41c38fa2b4097bab70aae02fc4d9c", "-n", "40");
        foreach (var (kind, name, line) in expected)
        {
            metrics.ShouldContain($"conn_sidecar_source_up{{kind=\"{kind}\",name=\"{name}\"}} 0\n");
            journal.ShouldContain(line);
        }

        // What is mended is gone from all of it.
        await host.ConfigureAsync(workers: $"[workers:web]\nunit = {WebService.Unit}\n");
        await host.UntilAsync("the group is there", async () => (await AskAsync("/metrics")).Contains("conn_sidecar_source_up{kind=\"workers\",name=\"web\"} 1\n", StringComparison.Ordinal), Wait.Seconds(30));
        (await Machine.RunAsync("conn-sidecar", "status")).ShouldNotContain("match no process");
    }

    [Fact]
    public async Task The_fully_qualified_name_of_the_host_and_those_of_the_configuration_are_answered()
    {
        await host.ConfigureAsync(workers: "[agent]\nhost-names = metrics.example.org\n");
        var name = (await Machine.RunAsync("hostname")).Trim();
        await Machine.ShellAsync($"printf '127.0.0.1 localhost\n127.0.1.1 {name}.day.example.org {name}\n' > /etc/hosts");
        (await Machine.RunAsync("hostname", "--fqdn")).Trim().ShouldBe($"{name}.day.example.org");

        foreach (var ours in new[] { name, $"{name}.day.example.org", $"{name}.day.example.org.", "metrics.example.org", "127.0.0.1" })
        {
            (await AskAsync("/metrics", ours)).ShouldContain("conn_sidecar_build_info", customMessage: ours);
        }

        (await AskAsync("/metrics", $"{name}.evil.example")).ShouldContain(" 421 ");
    }

    [Fact]
    public async Task A_killed_agent_comes_back_and_its_keepalives_hold_meanwhile()
    {
        // Well below the router's 10 s, so that a slow machine arms in time as well.
        await host.ConfigureAsync("keepalive = on", idleTimeout: "4s");
        var worker = (await host.Web.RestartAsync(Machine))[0];
        await host.UntilAsync("the agent has armed a keepalive", async () => (await host.SocketOfAsync(worker)).Timer.StartsWith("keepalive,", StringComparison.Ordinal), Wait.Seconds(20));
        var killed = await Machine.MainPidAsync();

        await Machine.RunAsync("kill", "-KILL", $"{killed}");

        await host.UntilAsync("the agent is dead", async () => (await Machine.TryRunAsync("test", "-e", $"/proc/{killed}")).ExitCode == 1, Wait.Seconds(5));
        var held = await host.SocketOfAsync(worker);
        held.Timer.ShouldStartWith("keepalive,");
        var connection = held.Local;
        await host.UntilAsync("another agent is active", async () => await Machine.UnitAsync("ActiveState") == "active" && await Machine.MainPidAsync() is not 0 and var pid && pid != killed, Wait.Seconds(20));
        (await Machine.UnitAsync("NRestarts")).ShouldBe("1");
        await Wait.ThroughoutAsync(host.Lab.Options.IdleTimeout + Wait.Seconds(2), async () => (await host.Lab.Router.KnowsAsync(connection)).ShouldBeTrue());
        (await host.Web.AskAsync(1)).ShouldBe((worker, null));
    }

    [Fact]
    public async Task However_often_it_is_killed_it_comes_back()
    {
        await host.ConfigureAsync();
        for (var crash = 1; crash <= 7; crash++)
        {
            var pid = 0;
            await host.UntilAsync($"it runs for the {crash}. time", async () => await Machine.UnitAsync("ActiveState") == "active" && (pid = await Machine.MainPidAsync()) != 0, Wait.Seconds(40));
            await Machine.RunAsync("kill", "-KILL", $"{pid}");
            await host.UntilAsync("systemd knows", async () => await Machine.MainPidAsync() != pid, Wait.Seconds(5));
        }

        await host.UntilAsync("it runs again", async () => await Machine.UnitAsync("ActiveState") == "active" && await Machine.MainPidAsync() != 0, Wait.Seconds(40));
        (await Machine.UnitAsync("NRestarts")).ShouldBe("7");
        (await Machine.UnitAsync("RestartUSec")).ShouldBe("3s", "a crash loop takes no more than a tenth of a core");
    }

    [Fact]
    public async Task The_memory_of_other_processes_can_be_written_neither_by_system_call_nor_through_proc()
    {
        await host.ConfigureAsync();
        var allowed = (await Machine.UnitAsync("SystemCallFilter")).Split(' ');
        allowed.ShouldContain("pidfd_getfd");
        allowed.ShouldContain("memfd_create");
        allowed.Intersect(["process_vm_writev", "process_vm_readv", "userfaultfd", "ptrace", "io_uring_setup", "shmget", "msgget", "semget", "mq_open"]).ShouldBeEmpty();
        var pid = await Machine.MainPidAsync();
        var mounts = (await Machine.RunAsync("cat", $"/proc/{pid}/mountinfo")).Split('\n').Select(line => line.Split(' ')).Where(fields => fields.Length > 5 && fields[4] == "/proc").ToList();
        mounts[^1][5].Split(',').ShouldContain("ro");
    }

    [Fact]
    public async Task A_command_of_a_check_runs_and_is_neither_the_agents_user_nor_anybody_with_rights()
    {
        // What the command is, what it may do to the agent, and whether it gets at the agent's state.
        await Machine.WriteAsync("/usr/local/bin/who-am-i", """
            #!/bin/sh
            pid=$(cat /srv/agent-pid 2>/dev/null) || { echo the agent is not known; exit; }
            kill -0 "$pid" 2>/dev/null && signal=yes || signal=no
            ls /var/lib/conn-sidecar >/dev/null 2>&1 && state=yes || state=no
            echo "$(id -un) $(sed -n 's/^CapEff:.//p' /proc/self/status) signal=$signal state=$state"
            """);
        await Machine.RunAsync("chmod", "755", "/usr/local/bin/who-am-i");
        await host.ConfigureAsync(workers: "[check:app]\nexpected-command = /usr/local/bin/who-am-i\nactual-command = /bin/echo conn-sidecar-check 0000000000000000 signal=no state=no\ninterval = 1s\n");
        await Machine.WriteAsync("/srv/agent-pid", $"{await Machine.MainPidAsync()}");
        var check = "";
        await host.UntilAsync("both sides say the same", async () =>
        {
            check = await AskAsync("/check/version");
            return check.Contains("ServiceOK app", StringComparison.Ordinal);
        }, Wait.Seconds(40));
        check.ShouldContain("conn-sidecar-check 0000000000000000 signal=no state=no");

        // Nobody else may have commands run.
        (await Machine.RunAsync("stat", "-c", "%U:%G %a", "/run/conn-sidecar-check.sock")).Trim().ShouldBe("root:conn-sidecar 660");
    }

    [Fact]
    public async Task The_watchdog_ends_a_loop_that_no_longer_looks()
    {
        await host.ConfigureAsync();
        var stopped = await Machine.MainPidAsync();

        await Machine.RunAsync("kill", "-STOP", $"{stopped}");

        await host.UntilAsync("another agent is active", async () => await Machine.UnitAsync("ActiveState") == "active" && await Machine.MainPidAsync() is not 0 and var pid && pid != stopped, Wait.Seconds(60));
        (await Machine.JournalAsync("-u", Agent, "-n", "30")).ShouldContain("Watchdog timeout");
        (await Machine.TryRunAsync("test", "-e", $"/proc/{stopped}")).ExitCode.ShouldBe(1);
    }

    [Fact]
    public async Task Members_of_the_group_may_ask_and_nobody_else()
    {
        await host.ConfigureAsync();
        await Machine.ShellAsync("id member || useradd --groups conn-sidecar member; id stranger || useradd stranger");

        var member = await Machine.TryRunAsync("runuser", "-u", "member", "--", "conn-sidecar", "status");
        (await Machine.TryRunAsync("runuser", "-u", "member", "--", "conn-sidecar", "incidents")).ExitCode.ShouldBe(0);
        var stranger = await Machine.TryRunAsync("runuser", "-u", "stranger", "--", "conn-sidecar", "status");
        (await Machine.TryRunAsync("runuser", "-u", "stranger", "--", "conn-sidecar", "incidents")).ExitCode.ShouldBe(3);

        member.ExitCode.ShouldBe(0, member.Error);
        member.Output.ShouldContain("mode protect, running");
        stranger.ExitCode.ShouldBe(3);
        stranger.Output.ShouldBe("");
    }

    [Fact]
    public async Task The_unit_verifies_silently_and_its_exposure_is_low()
    {
        await host.ConfigureAsync();
        var verify = await Machine.TryRunAsync("systemd-analyze", "verify", $"/lib/systemd/system/{Agent}");
        (verify.Output + verify.Error).ShouldBe("");
        verify.ExitCode.ShouldBe(0);

        var security = await Machine.RunAsync("systemd-analyze", "security", "--no-pager", Agent);
        var exposure = security.Split('\n').Single(l => l.Contains("Overall exposure level", StringComparison.Ordinal)).Split(':')[1].Trim().Split(' ')[0];
        decimal.Parse(exposure, CultureInfo.InvariantCulture).ShouldBeLessThanOrEqualTo(3.0m, security);
    }

    [Fact]
    public async Task Every_hardening_directive_has_its_reason()
    {
        var lines = (await Machine.RunAsync("cat", $"/lib/systemd/system/{Agent}")).Split('\n');
        string[] plain =
        [
            // What each of these does is in its own name.
            "ExecStart", "ExecReload", "Restart", "RestartSec", "TimeoutStopSec", "Group", "StateDirectoryMode", "RuntimeDirectoryMode", "StateDirectory",
            // Explained by the line before it.
            "UMask", "StandardError", "ProtectHostname", "SystemCallArchitectures",
        ];
        var service = Array.IndexOf(lines, "[Service]");
        for (var i = service + 1; i < lines.Length && lines[i] != "[Install]"; i++)
        {
            if (lines[i].Length > 0 && lines[i][0] != '#' && !plain.Contains(lines[i].Split('=')[0], StringComparer.Ordinal))
            {
                lines[i - 1].ShouldStartWith("#", customMessage: lines[i]);
            }
        }
    }

    [Fact]
    public async Task Observe_only_takes_all_capabilities_and_still_sees_the_connections()
    {
        await host.ConfigureAsync();
        // What the example itself says is to be done.
        var example = await Machine.RunAsync("cat", "/usr/share/doc/conn-sidecar/examples/observe-only.conf");
        await Machine.ShellAsync(string.Join('\n', example.Split('\n').Where(line => line.StartsWith("#     ", StringComparison.Ordinal)).Select(line => line[1..])));

        // New connections, on which the agent has set nothing while it protected.
        await host.Web.RestartAsync(Machine);
        (await Machine.RunAsync("cat", $"/proc/{await Machine.MainPidAsync()}/status")).ShouldMatch(@"CapEff:\s0{16}\n");
        await host.UntilAsync("four connections", async () =>
        {
            using var status = JsonDocument.Parse(await Machine.RunAsync("conn-sidecar", "status", "--json"));
            return status.RootElement.GetProperty("connections").GetArrayLength() == 4;
        }, Wait.Seconds(20));
        (await host.Lab.DatabaseSocketsAsync()).ShouldAllBe(s => !s.Timer.StartsWith("keepalive", StringComparison.Ordinal));
        (await Machine.UnitAsync("ActiveState")).ShouldBe("active");
        (await AskAsync("/readyz")).ShouldContain("200 OK");
        var shown = await Machine.RunAsync("conn-sidecar", "status");
        shown.ShouldContain("mode observe, running");
        // What is missing for remedies alone is no limitation of who only observes.
        shown.ShouldNotContain("recycle");
        shown.ShouldContain("! CAP_SYS_PTRACE is missing: owners");
    }

    [Fact]
    public async Task With_the_containers_drop_in_connections_in_other_network_namespaces_are_seen()
    {
        await host.ConfigureAsync(upstream: "", dropIn: "/usr/share/doc/conn-sidecar/examples/containers.conf");
        // A namespace with a connection over its own loopback: what a container looks like from outside.
        await Machine.WriteAsync("/etc/conn-sidecar/conf.d/inner.conf", "[upstream:inner]\nendpoint = 127.0.0.9:6000\n");
        await Machine.RunAsync("systemctl", "reload", "conn-sidecar");
        await Machine.WriteAsync("/srv/pair.py", """
            import socket, time
            server = socket.create_server(("127.0.0.9", 6000))
            client = socket.create_connection(("127.0.0.9", 6000))
            time.sleep(1000)

            """);
        await Machine.ShellAsync("systemctl stop pair 2>/dev/null || true; systemd-run --quiet --collect --unit=pair --property=PrivateNetwork=yes python3 /srv/pair.py");
        try
        {
            await host.UntilAsync("the connection in the other namespace", async () =>
            {
                using var status = JsonDocument.Parse(await Machine.RunAsync("conn-sidecar", "status", "--json"));
                return status.RootElement.GetProperty("connections").EnumerateArray()
                    .Any(c => c.GetProperty("upstream").GetString() == "inner" && c.GetProperty("namespace").GetString() != "own" && c.GetProperty("unit").GetString() == "pair.service");
            }, Wait.Seconds(30));
        }
        finally
        {
            await Machine.RunAsync("systemctl", "stop", "pair");
        }
    }

    [Fact]
    public async Task A_blackout_ends_with_the_termination_of_the_worker_that_hung_first_when_its_unit_is_named()
    {
        await host.ConfigureAsync("keepalive = off\nrecycle = off", $"[workers:web]\nunit = {WebService.Unit}\nterminate = on\ngrace = 2s");
        var (sleeper, incident, answer) = await BlackoutAsync(i => i.GetProperty("remedy").GetString() == "terminate" && i.GetProperty("outcome").GetString() is "exited" or "killed");

        incident.GetProperty("pid").GetInt32().ShouldBe(sleeper);
        incident.GetProperty("unit").GetString().ShouldBe(WebService.Unit);
        incident.GetProperty("workers").GetString().ShouldBe("web");
        // Broken off, or answered by the new worker where the client asked again by itself.
        answer?.Pid.ShouldNotBe(sleeper);
        (await host.Web.AskAsync(4)).Pid.ShouldNotBe(sleeper);
        (await Machine.JournalAsync("-t", "conn-sidecar", "MESSAGE_ID=6880a2b1fd7a4b3d98e2d8425696416b", "CONN_SIDECAR_UPSTREAM=orders-db", "CONN_SIDECAR_REMEDY=terminate"))
            .ShouldContain($"[{sleeper}]");
    }

    [Fact]
    public async Task A_blackout_ends_with_the_recycling_of_the_dead_connection_and_no_process_dies()
    {
        await host.ConfigureAsync("keepalive = off");
        var (sleeper, incident, answer) = await BlackoutAsync(i => i.GetProperty("remedy").GetString() == "recycle" && i.GetProperty("outcome").GetString() == "released");

        incident.GetProperty("unit").GetString().ShouldBe(WebService.Unit);
        answer.ShouldNotBeNull().Pid.ShouldBe(sleeper);
        answer.Value.Error.ShouldNotBeNull().ShouldContain("Software caused connection abort");
        (await host.Web.AskAsync(4)).ShouldBe((sleeper, null));
        await ShouldBeAsDescribedAsync("incidents", "incidents", "--json");
        await ShouldBeAsDescribedAsync("replay", "replay", "--json", incident.GetProperty("id").GetString()!);
    }

    [Fact]
    public async Task What_the_installed_agent_sends_is_as_the_installed_schemas_say()
    {
        await host.ConfigureAsync(workers: $"[workers:web]\nunit = {WebService.Unit}");
        // Each worker opens its connection when it is first asked.
        await host.Web.RestartAsync(Machine);
        await host.UntilAsync("the workers are seen", async () => (await Machine.RunAsync("conn-sidecar", "status", "--json")).Contains($"\"unit\": \"{WebService.Unit}\"", StringComparison.Ordinal), Wait.Seconds(30));
        await ShouldBeAsDescribedAsync("status", "status", "--json");
        await ShouldBeAsDescribedAsync("doctor", "doctor", "--json");
        await ShouldBeAsDescribedAsync("check-config", "check-config", "--json");
        await ShouldBeAsDescribedAsync("audit", "audit", "--json");
        await ShouldBeAsDescribedAsync("measure", "measure", $"{host.Lab.Database.EndPoint}", "--max", "3s", "--json");
        await ShouldBeAsDescribedAsync("measure-http", "measure", "--http", "http://127.0.0.1:8081/query", "--max", "3s", "--json");

        using var http = host.Lab.Network.Worker.HttpClient();
        using var description = JsonDocument.Parse(await File.ReadAllTextAsync(Path.Combine(Schemas, "openapi.json")));
        foreach (var path in description.RootElement.GetProperty("paths").EnumerateObject().Select(p => p.Name))
        {
            using var answer = await http.GetAsync(new Uri($"http://127.0.0.1:10042{path}"));
            var schema = SchemaValidation.OfAnswer(Schemas, path, (int)answer.StatusCode, answer.Content.Headers.ContentType!.ToString());
            (schema is not null).ShouldBe(path.StartsWith("/api/", StringComparison.Ordinal), $"{path}: {answer.StatusCode}");
            schema?.ShouldAllow(await answer.Content.ReadAsStringAsync());
        }
    }

    [Fact]
    public async Task AppArmor_holds_the_agent_where_the_kernel_has_it_and_is_not_missed_where_it_has_not()
    {
        (await Machine.UnitAsync("AppArmorProfile")).ShouldContain("conn-sidecar");
        const string profile = "/etc/apparmor.d/conn-sidecar";
        if (!File.Exists("/sys/kernel/security/apparmor/profiles"))
        {
            await host.ConfigureAsync();
            (await Machine.UnitAsync("ActiveState")).ShouldBe("active");
            var main = await Machine.MainPidAsync();
            (await Machine.TryRunAsync("cat", $"/proc/{main}/attr/current")).Output.ShouldNotContain("conn-sidecar");
            // systemd writes the profile's name there, once /proc is read-only already.
            (await Machine.RunAsync("cat", $"/proc/{main}/mountinfo")).ShouldMatch($@"(?m)^\d+ \d+ \S+ \S+ /proc/{main}/attr rw");
            return;
        }

        // Profiles are the kernel's, not the machine's: this host loads it, in force.
        var enforced = Path.GetTempFileName();
        await File.WriteAllTextAsync(enforced, (await File.ReadAllTextAsync($"/proc/{Machine.Leader}/root{profile}")).Replace(", complain)", ")", StringComparison.Ordinal));
        await Command.RunAsync("apparmor_parser", ["--replace", "--skip-cache", enforced]);
        try
        {
            await host.ConfigureAsync();
            (await Machine.RunAsync("cat", $"/proc/{await Machine.MainPidAsync()}/attr/current")).Trim().ShouldBe("conn-sidecar (enforce)");
            await host.UntilAsync("keepalives are set under the profile", async () => (await Machine.RunAsync("conn-sidecar", "status", "--json")).Contains("\"keepalive\": true", StringComparison.Ordinal), Wait.Seconds(30));
            await Machine.RunAsync("systemctl", "reload", Agent);
        }
        finally
        {
            await Machine.RunAsync("systemctl", "stop", Agent);
            await Command.RunAsync("apparmor_parser", ["--remove", enforced]);
            File.Delete(enforced);
        }
    }

    [Fact]
    public async Task Completion_knows_every_command_and_every_option()
    {
        var commands = await PackageTests.CommandsAsync("--help");
        (await CompleteAsync("conn-sidecar ")).ShouldBe([.. commands, "--help", "--version"], ignoreOrder: true);
        (await CompleteAsync("conn-sidecar st")).ShouldBe(["status"]);
        foreach (var command in commands)
        {
            (await CompleteAsync($"conn-sidecar {command} --")).ShouldBe(await PackageTests.OptionsAsync(command), ignoreOrder: true, customMessage: command);
        }
    }

    [Fact]
    public async Task Completion_knows_the_endpoints_of_the_declared_upstreams()
    {
        await host.ConfigureAsync(upstream: "[upstream:cache]\nendpoint = cache.example.org:6379, 10.1.0.0/16:6379");

        (await CompleteAsync("conn-sidecar measure ")).ShouldBe([$"{host.Lab.Database.EndPoint}", "cache.example.org:6379"], ignoreOrder: true);
        (await CompleteAsync("conn-sidecar measure ca")).ShouldBe(["cache.example.org:6379"]);
        (await CompleteAsync("conn-sidecar measure --protocol ")).ShouldBe(["tcp", "postgresql"], ignoreOrder: true);
    }

    /// <summary>
    /// Brings the failure about: the last worker sleeps until the router has forgotten its connection, then it is asked,
    /// hangs with the lock that all share, and all hang. Returns when everybody is answered again.
    /// </summary>
    private async Task<(int Sleeper, JsonElement Incident, (int Pid, string? Error)? Answer)> BlackoutAsync(Func<JsonElement, bool> rescue)
    {
        var sleeper = (await host.Web.RestartAsync(Machine))[3];
        var connection = (await host.SocketOfAsync(sleeper)).Local;
        await host.UntilAsync("the router has forgotten", async () =>
        {
            // The others are kept busy, so that they are healthy when it happens.
            await Task.WhenAll(host.Web.AskAsync(1), host.Web.AskAsync(2), host.Web.AskAsync(3));
            return !await host.Lab.Router.KnowsAsync(connection);
        }, Wait.Seconds(40));

        var woken = host.Web.AskAsync(4);
        await host.UntilAsync("data is unanswered, or the rescue is over", async () => await host.FindSocketOfAsync(sleeper) is null or { SendQueue: > 0 }, Wait.Seconds(5));
        var waiting = host.Web.AskAsync(1);
        JsonElement? found = null;
        await host.UntilAsync("the incident of the rescue", async () =>
        {
            found = (await Machine.RunAsync("conn-sidecar", "incidents", "--json")).Split('\n', StringSplitOptions.RemoveEmptyEntries)
                .Select(l => JsonDocument.Parse(l).RootElement).Where(rescue).Cast<JsonElement?>().FirstOrDefault();
            return found is not null;
        }, Wait.Seconds(45));

        (await waiting.WaitAsync(Wait.Seconds(20))).Error.ShouldBeNull();
        (int Pid, string? Error)? answer = null;
        try
        {
            answer = await woken.WaitAsync(Wait.Seconds(20));
        }
        catch (HttpRequestException)
        {
            // Its worker was terminated.
        }

        return (sleeper, found!.Value, answer);
    }

    /// <summary>The answer of the HTTP endpoint, with its head.</summary>
    private Task<string> AskAsync(string path, string name = "localhost") =>
        Machine.ShellAsync($"exec 3<>/dev/tcp/127.0.0.1/10042; printf 'GET {path} HTTP/1.0\\r\\nHost: {name}\\r\\n\\r\\n' >&3; cat <&3");

    /// <summary>Runs a command and holds what it prints against its schema; of incidents, each line.</summary>
    private async Task ShouldBeAsDescribedAsync(string schema, params IReadOnlyList<string> arguments)
    {
        var result = await Machine.TryRunAsync(["conn-sidecar", .. arguments]);
        result.ExitCode.ShouldBeOneOf([0, 1], result.Error);
        var documents = schema == "incidents" ? result.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries) : [result.Output];
        documents.ShouldNotBeEmpty();
        foreach (var document in documents)
        {
            SchemaValidation.OfCommand(Schemas, schema).ShouldAllow(document);
        }
    }

    /// <summary>What bash offers for a line, asked in the way that bash asks.</summary>
    private async Task<IReadOnlyList<string>> CompleteAsync(string line)
    {
        var output = await Machine.ShellAsync($$"""
            set +eu
            source /usr/share/bash-completion/bash_completion
            _completion_loader conn-sidecar
            COMP_LINE='{{line}}'
            COMP_POINT=${#COMP_LINE}
            read -ra COMP_WORDS <<< "$COMP_LINE"
            [[ $COMP_LINE == *' ' ]] && COMP_WORDS+=('')
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            _conn_sidecar conn-sidecar "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
            printf '%s\n' "${COMPREPLY[@]}"
            """);
        return output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
    }
}
