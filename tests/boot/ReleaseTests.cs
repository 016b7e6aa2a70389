using System.Globalization;
using System.Text.Json;

namespace Sidecar.BootTests;

/// <summary>What is published, and the ways in which hosts get it: <c>make release-test</c>.</summary>
[Trait("Speed", "slow")]
public sealed class ReleaseTests
{
    private static readonly string[] Apt = ["apt-get", "-y", "-qq"];

    /// <summary>What Ansible and autopkgtest ask of a host.</summary>
    private static readonly string[] More = ["python3-apt", "autopkgtest", "dpkg-dev"];

    [Fact]
    public async Task A_release_is_signed_and_says_what_is_in_it()
    {
        using var release = await Release.MakeAsync();
        var version = await DebianPackage.FieldAsync("Version");

        await Command.RunAsync("sh", ["-euc", $"cd {release.Directory} && sha256sum --check --strict --quiet SHA256SUMS"]);
        await release.GpgAsync("--verify", $"{release.Directory}/SHA256SUMS.asc", $"{release.Directory}/SHA256SUMS");
        await release.GpgAsync("--verify", $"{release.Repository}/dists/stable/InRelease");
        await release.GpgAsync("--verify", $"{release.Repository}/dists/stable/Release.gpg", $"{release.Repository}/dists/stable/Release");
        var listed = (await File.ReadAllLinesAsync($"{release.Directory}/SHA256SUMS")).Select(l => l.Split("  ", 2)[1]);
        Directory.GetFiles(release.Directory, "*", SearchOption.AllDirectories).Select(f => Path.GetRelativePath(release.Directory, f))
            .Where(f => !f.StartsWith("SHA256SUMS", StringComparison.Ordinal)).ShouldBe(listed, ignoreOrder: true);
        Directory.GetFiles(release.Directory, "*", SearchOption.AllDirectories).ShouldAllBe(f => !File.ReadAllText(f).Contains("PRIVATE KEY", StringComparison.Ordinal));

        var notes = await File.ReadAllTextAsync($"{release.Directory}/RELEASE-NOTES.md");
        notes.ShouldStartWith($"# conn-sidecar {version}\n");
        notes.ShouldContain("### Added");

        using var bom = JsonDocument.Parse(await File.ReadAllTextAsync($"{release.Directory}/conn-sidecar_{version}.cdx.json"));
        bom.RootElement.GetProperty("bomFormat").GetString().ShouldBe("CycloneDX");
        var product = bom.RootElement.GetProperty("metadata").GetProperty("component");
        product.GetProperty("version").GetString().ShouldBe(version);
        var packaged = (await Command.RunAsync("sha256sum", [await DebianPackage.GetAsync()]))[..64];
        product.GetProperty("hashes")[0].GetProperty("content").GetString().ShouldBe(packaged);
        var components = bom.RootElement.GetProperty("components").EnumerateArray().ToDictionary(c => c.GetProperty("name").GetString()!, StringComparer.Ordinal);
        // What is used and locked, the runtime that is part of the file, and nothing that only took part in building.
        components.Keys.ShouldBe(
        [
            "Microsoft.AspNetCore.App.Runtime.linux-x64", "Microsoft.NETCore.App.Runtime.linux-x64", "Npgsql", "OpenTelemetry", "OpenTelemetry.Api",
            "OpenTelemetry.Api.ProviderBuilderExtensions", "OpenTelemetry.Exporter.OpenTelemetryProtocol", "Spectre.Console", "System.CommandLine",
        ], ignoreOrder: true);
        components.Values.ShouldAllBe(c => c.GetProperty("hashes")[0].GetProperty("content").GetString()!.Length == 128 && c.GetProperty("licenses").GetArrayLength() == 1);
        var references = components.Values.Select(c => c.GetProperty("bom-ref").GetString()).Append(product.GetProperty("bom-ref").GetString()).ToHashSet();
        bom.RootElement.GetProperty("dependencies").EnumerateArray().SelectMany(d => d.GetProperty("dependsOn").EnumerateArray().Append(d.GetProperty("ref")))
            .Select(r => r.GetString()).ToHashSet().ShouldBe(references, ignoreOrder: true);
    }

    [Fact]
    public async Task Apt_installs_from_the_repository_and_upgrades_from_the_version_before()
    {
        var directory = Directory.CreateTempSubdirectory("sidecar-older-").FullName;
        try
        {
            var version = await DebianPackage.FieldAsync("Version");
            using var release = await Release.MakeAsync(await DebianPackage.OlderAsync(directory));
            await using var machine = await Machine.BootAsync();
            await release.PublishAsync(machine);

            await machine.RunAsync([.. Apt, "update"]);
            await machine.RunAsync([.. Apt, "install", $"conn-sidecar={version}~before"]);
            (await machine.UnitAsync("ActiveState")).ShouldBe("active");
            var before = await machine.MainPidAsync();

            await machine.RunAsync([.. Apt, "-o", "Dpkg::Options::=--force-confold", "upgrade"]);
            (await machine.RunAsync("dpkg-query", "-W", "-f", "${Version}", "conn-sidecar")).ShouldBe(version);
            (await machine.UnitAsync("ActiveState")).ShouldBe("active");
            (await machine.MainPidAsync()).ShouldNotBe(before);
            (await machine.RunAsync("apt-cache", "policy", "conn-sidecar")).ShouldContain("file:/srv/apt stable/main amd64 Packages");
        }
        finally
        {
            Directory.Delete(directory, recursive: true);
        }
    }

    [Fact]
    public async Task Apt_refuses_a_repository_that_was_changed_or_that_somebody_else_has_signed()
    {
        using var release = await Release.MakeAsync();
        using var stranger = await Release.MakeAsync();
        await using var machine = await Machine.BootAsync();

        await release.PublishAsync(machine);
        await machine.ShellAsync("printf x >>/srv/apt/pool/main/c/conn-sidecar/conn-sidecar_*_amd64.deb");
        await machine.RunAsync([.. Apt, "update"]);
        (await machine.TryRunAsync([.. Apt, "install", "conn-sidecar"])).Error.ShouldContain("Hash Sum mismatch");

        await release.PublishAsync(machine);
        await machine.ShellAsync("sed -i 's/^Label: .*/Label: other/' /srv/apt/dists/stable/InRelease");
        (await machine.TryRunAsync([.. Apt, "-o", "APT::Update::Error-Mode=any", "update"])).Error.ShouldContain("The following signatures were invalid: BADSIG");

        await stranger.PublishAsync(machine);
        machine.CopyIn(Path.Combine(release.Repository, "conn-sidecar.gpg"), "/srv/apt/conn-sidecar.gpg");
        (await machine.TryRunAsync([.. Apt, "-o", "APT::Update::Error-Mode=any", "update"])).Error.ShouldContain("NO_PUBKEY");
        (await machine.TryRunAsync("dpkg-query", "-W", "conn-sidecar")).ExitCode.ShouldBe(1);
    }

    [Fact]
    public async Task The_role_installs_configures_checks_before_it_reloads_and_changes_nothing_the_second_time()
    {
        using var release = await Release.MakeAsync();
        await using var machine = await Machine.BootAsync(root: await DebianRoot.GetAsync(More));
        await release.PublishAsync(machine);
        var variables = new Dictionary<string, object>(StringComparer.Ordinal)
        {
            ["conn_sidecar_repository"] = "file:/srv/apt",
            ["conn_sidecar_repository_key"] = Path.Combine(release.Repository, "conn-sidecar.gpg"),
            ["conn_sidecar_dsn_files"] = new Dictionary<string, string> { ["orders-db.dsn"] = "Host=db;Password=secret" },
            ["conn_sidecar_configuration"] = Configuration("10.9.8.7:5432"),
        };

        (await PlayAsync(machine, variables)).ShouldContain("failed=0");
        (await machine.UnitAsync("ActiveState")).ShouldBe("active");
        (await machine.RunAsync("stat", "-c", "%a %U %G", "/etc/conn-sidecar/orders-db.dsn")).Trim().ShouldBe("640 root conn-sidecar");
        await Wait.UntilAsync("the configuration is in force", async () => (await machine.RunAsync("conn-sidecar", "status", "--json")).Contains("10.9.8.7:5432", StringComparison.Ordinal), Wait.Seconds(20));
        var main = await machine.MainPidAsync();

        var second = await PlayAsync(machine, variables);
        second.ShouldContain("changed=0 ");
        second.ShouldContain("failed=0 ");

        variables["conn_sidecar_configuration"] = Configuration("10.9.8.6:5432, 10.9.8.5:5432");
        (await PlayAsync(machine, variables)).ShouldContain("failed=0 ");
        await Wait.UntilAsync("the change is in force", async () => (await machine.RunAsync("conn-sidecar", "status", "--json")).Contains("10.9.8.5:5432", StringComparison.Ordinal), Wait.Seconds(20));

        // What is wrong is taken back, told, and never heard of by the agent.
        var good = await machine.RunAsync("cat", "/etc/conn-sidecar/conf.d/ansible.conf");
        variables["conn_sidecar_configuration"] = Configuration("nowhere");
        var refused = await PlayAsync(machine, variables);
        refused.ShouldContain("failed=1 ");
        refused.ShouldContain("ansible.conf:4: [upstream:orders-db] endpoint: expected");
        (await machine.RunAsync("cat", "/etc/conn-sidecar/conf.d/ansible.conf")).ShouldBe(good);
        (await machine.RunAsync("ls", "/etc/conn-sidecar/conf.d")).Trim().ShouldBe("ansible.conf");
        (await machine.MainPidAsync()).ShouldBe(main);
        (await machine.RunAsync("conn-sidecar", "check-config")).ShouldContain("10.9.8.5:5432");

        static Dictionary<string, object> Configuration(string endpoint) => new(StringComparer.Ordinal)
        {
            ["upstream:orders-db"] = new Dictionary<string, object> { ["endpoint"] = endpoint, ["protocol"] = "postgresql", ["recycle"] = false, ["dsn-file"] = "/etc/conn-sidecar/orders-db.dsn" },
            ["workers:web"] = new Dictionary<string, object> { ["unit"] = "uwsgi.service", ["terminate"] = true, ["budget"] = "3/h" },
        };
    }

    [Fact]
    public async Task The_tests_of_the_package_pass_under_autopkgtest()
    {
        var package = await DebianPackage.GetAsync();
        await using var machine = await Machine.BootAsync(root: await DebianRoot.GetAsync(More));
        await machine.CopyTreeAsync(Path.Combine(Repository.Root, "packaging", "deb"), "/srv/source");
        await machine.ShellAsync(": >/etc/apt/sources.list");
        machine.CopyIn(package, $"/srv/{Path.GetFileName(package)}");

        var result = await machine.TryRunAsync("autopkgtest", "--no-built-binaries", $"/srv/{Path.GetFileName(package)}", "/srv/source/", "--", "null");
        result.ExitCode.ShouldBe(0, result.Output + result.Error);
        result.Output.ShouldMatch(@"(?m)^commands +PASS");
        result.Output.ShouldMatch(@"(?m)^service +PASS");
    }

    /// <summary>Runs the role; returns what Ansible says, its last lines the sums.</summary>
    private static async Task<string> PlayAsync(Machine machine, Dictionary<string, object> variables)
    {
        var directory = Directory.CreateTempSubdirectory("sidecar-ansible-").FullName;
        try
        {
            await File.WriteAllTextAsync(Path.Combine(directory, "variables.json"), JsonSerializer.Serialize(variables));
            await File.WriteAllTextAsync(Path.Combine(directory, "play.yml"), "- hosts: all\n  gather_facts: false\n  roles: [conn_sidecar]\n");
            var played = await Command.TryRunAsync("env",
            [
                $"ANSIBLE_ROLES_PATH={Path.Combine(Repository.Root, "packaging", "ansible", "roles")}", $"ANSIBLE_LOCAL_TEMP={directory}",
                $"ANSIBLE_CONNECTION_PLUGINS={Path.Combine(AppContext.BaseDirectory, "ansible", "connection_plugins")}", "ANSIBLE_NOCOLOR=1", "LC_ALL=C.UTF-8",
                "ansible-playbook", "--inventory", "machine,", "--connection", "nsenter",
                "--extra-vars", $"ansible_nsenter_pid={machine.Leader.ToString(CultureInfo.InvariantCulture)} ansible_python_interpreter=/usr/bin/python3",
                "--extra-vars", $"@{directory}/variables.json", Path.Combine(directory, "play.yml"),
            ]);
            return played.Output + played.Error;
        }
        finally
        {
            Directory.Delete(directory, recursive: true);
        }
    }
}
