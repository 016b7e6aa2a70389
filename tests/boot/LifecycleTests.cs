namespace Sidecar.BootTests;

/// <summary>Installation, upgrade, removal: each on a freshly booted Debian.</summary>
public sealed class LifecycleTests
{
    private const string Unit = "conn-sidecar.service";

    [Fact]
    public async Task Installation_starts_protection_and_touches_nothing_and_purge_leaves_nothing()
    {
        await using var machine = await Machine.BootAsync();
        var filesBefore = await FilesAsync(machine);
        var accountsBefore = await AccountsAsync(machine);
        var servicesBefore = await ServicesAsync(machine);

        await machine.InstallAsync(await DebianPackage.GetAsync());

        (await machine.UnitAsync("ActiveState")).ShouldBe("active");
        (await machine.UnitAsync("SubState")).ShouldBe("running");
        (await machine.UnitAsync("UnitFileState")).ShouldBe("enabled");
        (await machine.UnitAsync("NRestarts")).ShouldBe("0");
        (await machine.RunAsync("systemctl", "is-system-running")).Trim().ShouldBe("running");
        (await ServicesAsync(machine)).Where(s => !s.StartsWith(Unit, StringComparison.Ordinal)).ShouldBe(servicesBefore);
        (await machine.RunAsync("conn-sidecar", "status")).ShouldContain("mode protect, running");

        // What an operator adds.
        await machine.WriteAsync("/etc/conn-sidecar/conf.d/local.conf", "[agent]\nscan-interval = 2s\n");
        await machine.WriteAsync("/etc/conn-sidecar/db.dsn", "Host=db;Password=secret\n");
        await machine.RunAsync("apt-get", "remove", "-y", "-qq", "conn-sidecar");

        (await machine.UnitAsync("LoadState")).ShouldNotBe("loaded");
        (await machine.TryRunAsync("pgrep", "-x", "conn-sidecar")).ExitCode.ShouldBe(1);
        (await machine.ShellAsync("ls -d /etc/conn-sidecar/conn-sidecar.conf /etc/conn-sidecar/conf.d/local.conf /etc/conn-sidecar/db.dsn /var/lib/conn-sidecar | wc -l")).Trim().ShouldBe("4");
        (await AccountsAsync(machine)).ShouldNotBe(accountsBefore);

        await machine.RunAsync("apt-get", "purge", "-y", "-qq", "conn-sidecar");

        (await FilesAsync(machine)).Except(filesBefore, StringComparer.Ordinal).ShouldBeEmpty();
        filesBefore.Except(await FilesAsync(machine), StringComparer.Ordinal).ShouldBeEmpty();
        (await AccountsAsync(machine)).ShouldBe(accountsBefore);
        (await ServicesAsync(machine)).ShouldBe(servicesBefore);
        (await machine.RunAsync("systemctl", "is-system-running")).Trim().ShouldBe("running");
    }

    [Fact]
    public async Task An_upgrade_keeps_local_edits_and_the_operators_decisions()
    {
        var directory = Directory.CreateTempSubdirectory("sidecar-upgrade-").FullName;
        try
        {
            await using var machine = await Machine.BootAsync();
            await machine.InstallAsync(await DebianPackage.OlderAsync(directory));
            var edited = await machine.RunAsync("cat", "/etc/conn-sidecar/conn-sidecar.conf") + "[agent]\nmode = observe\n";
            edited.ShouldContain("# a line of the earlier release");
            await machine.WriteAsync("/etc/conn-sidecar/conn-sidecar.conf", edited);
            await machine.WriteAsync("/etc/conn-sidecar/conf.d/local.conf", "[upstream:db]\nendpoint = 10.9.8.7:5432\n");
            await machine.WriteAsync($"/etc/systemd/system/{Unit}.d/local.conf", "[Service]\nMemoryMax=200M\n");
            await machine.ShellAsync($"systemctl daemon-reload; systemctl restart {Unit}; echo kept > /var/lib/conn-sidecar/state");
            var before = await machine.MainPidAsync();

            await machine.InstallAsync(await DebianPackage.GetAsync());

            (await machine.RunAsync("dpkg-query", "-W", "-f", "${Version}", "conn-sidecar")).ShouldBe(await DebianPackage.FieldAsync("Version"));
            (await machine.RunAsync("cat", "/etc/conn-sidecar/conn-sidecar.conf")).ShouldBe(edited);
            (await machine.UnitAsync("ActiveState")).ShouldBe("active");
            (await machine.MainPidAsync()).ShouldNotBe(before);
            (await machine.RunAsync("readlink", $"/proc/{await machine.MainPidAsync()}/exe")).Trim().ShouldBe("/usr/bin/conn-sidecar");
            (await machine.RunAsync("conn-sidecar", "status")).ShouldContain("mode observe, running");
            (await machine.RunAsync("conn-sidecar", "check-config")).ShouldContain("10.9.8.7:5432");
            (await machine.UnitAsync("MemoryMax")).ShouldBe($"{200 << 20}");
            (await machine.RunAsync("cat", "/var/lib/conn-sidecar/state")).Trim().ShouldBe("kept");

            // Whoever has switched it off finds it off after the next upgrade as well.
            await machine.RunAsync("systemctl", "disable", "--now", "--quiet", Unit);
            await machine.RunAsync("apt-get", "install", "-y", "-qq", "--reinstall", "/tmp/conn-sidecar.deb");
            (await machine.UnitAsync("UnitFileState")).ShouldBe("disabled");
        }
        finally
        {
            Directory.Delete(directory, recursive: true);
        }
    }

    [Fact]
    public async Task A_host_with_a_bad_configuration_is_installed_all_the_same_and_the_agent_says_why_it_does_not_start()
    {
        await using var machine = await Machine.BootAsync();
        await machine.WriteAsync("/etc/conn-sidecar/conf.d/bad.conf", "[agent]\nmode = sometimes\n");

        await machine.InstallAsync(await DebianPackage.GetAsync());

        (await machine.RunAsync("dpkg-query", "-W", "-f", "${Status}", "conn-sidecar")).ShouldBe("install ok installed");
        (await machine.UnitAsync("ActiveState")).ShouldBe("failed");
        (await machine.UnitAsync("ExecMainStatus")).ShouldBe("78");
        (await machine.UnitAsync("NRestarts")).ShouldBe("0");
        (await machine.JournalAsync("-u", Unit)).ShouldContain("bad.conf:2: [agent] mode: expected observe or protect");
    }

    /// <summary>All files with what matters of them, but for what changes by itself and what apt and dpkg note in their own books.</summary>
    private static async Task<IReadOnlyList<string>> FilesAsync(Machine machine)
    {
        // Contents of /etc but for the accounts' backups; of accounts, see AccountsAsync.
        var list = await machine.ShellAsync("""
            find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var/tmp \
                -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/cache -o -path /var/log -o -path /var/lib/systemd/random-seed \
                -o -path /var/lib/systemd/timers -o -name '.pwd.lock' -o -path '/etc/*-' -o -path /var/lib/private \) -prune \
                -o -printf '%y %m %u %g %p %l\n' | sort
            find /etc -xdev -type f ! -name '*-' ! -name .pwd.lock ! -name passwd ! -name group ! -name shadow ! -name gshadow -exec sha256sum {} + | sort
            find /run /var/lib/systemd/deb-systemd-helper-enabled /var/lib/systemd/deb-systemd-helper-masked -name '*conn-sidecar*' 2>/dev/null || true
            """);
        return list.Split('\n', StringSplitOptions.RemoveEmptyEntries);
    }

    private static Task<string> AccountsAsync(Machine machine) => machine.ShellAsync("cut -d: -f1 /etc/shadow /etc/gshadow; cat /etc/passwd /etc/group");

    /// <summary>The services that run, with their main processes: one that was restarted has another.</summary>
    private static async Task<IReadOnlyList<string>> ServicesAsync(Machine machine)
    {
        var names = (await machine.RunAsync("systemctl", "list-units", "--type=service", "--state=running", "--plain", "--no-legend"))
            .Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(l => l.Split(' ')[0]);
        var services = new List<string>();
        foreach (var name in names)
        {
            services.Add($"{name} {await machine.MainPidAsync(name)}");
        }

        return services;
    }
}
