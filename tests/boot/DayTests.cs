using System.Net;
using System.Text.Json;
using System.Text.RegularExpressions;
using Xunit.Abstractions;

namespace Sidecar.BootTests;

/// <summary>
/// A day with the package, as an operator spends it who has read README.md and the pages that it links: what is typed and
/// what is configured is taken from them, and adapted by address alone.
/// </summary>
public sealed partial class DayTests(ITestOutputHelper output) : IAsyncLifetime
{
    private const string Configuration = "/etc/conn-sidecar/conf.d/local.conf";
    private const int Workers = 4;
    private static readonly TimeSpan Soon = Wait.Seconds(30);

    private readonly string _directory = Directory.CreateTempSubdirectory("sidecar-day-").FullName;
    private WorkerMachine? _host;

    private TestLab Lab => _host!.Lab;

    private Machine Machine => _host!.Machine;

    private WebService Web => _host!.Web;

    public async Task InitializeAsync()
    {
        // The example's path: it forgets after 350 s.
        _host = await WorkerMachine.StartAsync(new LabOptions { IdleTimeout = Wait.Seconds(350) });
        await Web.RestartAsync(Machine);
    }

    public async Task DisposeAsync()
    {
        if (_host is not null)
        {
            await _host.DisposeAsync();
        }

        Directory.Delete(_directory, recursive: true);
    }

    [Fact]
    public async Task A_day_from_installation_to_removal_goes_as_the_README_says()
    {
        await InstallAsync(await DebianPackage.OlderAsync(_directory));
        await Wait.UntilAsync("the workers' connections are seen", async () => (await ConnectionsAsync()).Count == Workers, Soon);

        // There is no incident yet, so none that could be replayed.
        foreach (var command in Page.Commands("README.md", "## The first five minutes"))
        {
            await DoAsync(command, command.EndsWith(" replay", StringComparison.Ordinal) ? 2 : 0);
        }

        var example = Page.Blocks("README.md", "## Configure")[0];
        example.ShouldContain("endpoint = 10.0.2.2:5432\n");
        example.ShouldContain($"unit = {WebService.Unit}\n");
        example = example.Replace("10.0.2.2:5432", $"{Lab.Database.EndPoint}", StringComparison.Ordinal);
        await ConfigureAsync(example);
        await RestsAsync("orders-db");

        await MakeEachMistakeAsync(example);

        await DoAsync("systemctl restart conn-sidecar");
        await RestsAsync("orders-db");
        await ConfigureAsync(example.Replace("grace = 5s", "grace = 6s", StringComparison.Ordinal));
        await RestsAsync("orders-db");
        (await Machine.JournalAsync("-t", "conn-sidecar", "-n", "10")).ShouldContain("reload: [workers:web] grace: 5s -> 6s");

        await BeRescuedAsync();
        await UpgradeAsync();
        await RemoveAsync();
    }

    private async Task MakeEachMistakeAsync(string example)
    {
        // A wrong name of a unit.
        await MistakeAsync(example.Replace("unit = uwsgi.service", "unit = uwsg.service", StringComparison.Ordinal),
            "workers web match no process: this host has no unit uwsg.service; did you mean uwsgi.service?",
            async told => await ConfigureAsync(example.Replace("unit = uwsgi.service", $"unit = {Meant().Match(told).Groups["unit"].Value}", StringComparison.Ordinal)));

        // A name without an address.
        await MistakeAsync(example.Replace($"{Lab.Database.EndPoint}", "db.nosuch.invalid:5432", StringComparison.Ordinal),
            "orders-db: db.nosuch.invalid has no address",
            async told =>
            {
                told.ShouldContain("so that its connections are not watched; correct the name, or what answers \"getent hosts db.nosuch.invalid\"");
                await ConfigureAsync(example);
            });
        await RestsAsync("orders-db");

        // No stats socket of HAProxy: the line that it needs is in the message.
        await MistakeAsync($"{example}\n[haproxy:edge]\nsocket = /run/haproxy/conn-sidecar.sock\n",
            "haproxy edge is not seen: /run/haproxy/conn-sidecar.sock is not there; HAProxy has to run with the line",
            async told => await Machine.ShellAsync($"sed -i '/^global/a {Quoted().Match(told).Groups["line"].Value}' /etc/haproxy/haproxy.cfg; systemctl restart haproxy"));

        // A file that is not there, and a role without its grants, which are in the message.
        var statements = Page.Blocks("docs/configuration.md", "## dsn-file")[0].Split('\n', StringSplitOptions.RemoveEmptyEntries);
        statements[0].ShouldStartWith("CREATE ROLE conn_sidecar LOGIN");
        var withSessions = example.Replace("protocol = postgresql\n", "protocol = postgresql\ndsn-file = /etc/conn-sidecar/orders-db.dsn\n", StringComparison.Ordinal);
        await MistakeAsync(withSessions, "/etc/conn-sidecar/orders-db.dsn does not exist; it has to hold a connection string: install ", async told =>
        {
            await AskDatabaseAsync(statements[0]);
            await Machine.ShellAsync($"{told[told.IndexOf("install ", StringComparison.Ordinal)..]} <<<'{Lab.Database.Dsn("conn_sidecar")} password=...'");
            var grants = Grant().Matches(await ToldAsync("GRANT pg_monitor TO conn_sidecar;")).Select(grant => grant.Value).ToList();
            grants.ShouldBe(statements[1..].Select(statement => statement.Split("--")[0].Trim()), ignoreOrder: true);
            await AskDatabaseAsync(string.Join('\n', grants));
        });

        // A command of a check that fails.
        await MistakeAsync($"{withSessions}\n[check:app]\nexpected-command = /bin/echo 3.2.1\nactual-command = /bin/cat /srv/web/version\ninterval = 1s\n",
            "check app is not known: actual: exit status 1: /bin/cat: /srv/web/version: No such file or directory",
            async _ => await Machine.WriteAsync("/srv/web/version", "3.2.1\n"));
        (await DoAsync("curl --fail http://127.0.0.1:10042/check/version")).ShouldContain("ServiceOK app 3.2.1");

        // A bad value.
        await RefusedAsync(example.Replace("grace = 5s", "grace = soon", StringComparison.Ordinal), "[workers:web] grace: expected ");
        await ConfigureAsync(example);
        // The journal, of which systemctl status shows the end, goes on telling of it.
        await UntilAsync("the refusal is not the state any more", async () => !(await Machine.UnitAsync("StatusText")).Contains("refused", StringComparison.Ordinal));
        await RestsAsync("orders-db");
    }

    /// <summary>A mistake that is an error: each of the README's three commands says file, line and what was expected, and the agent goes on.</summary>
    private async Task RefusedAsync(string configuration, string reason)
    {
        await Machine.WriteAsync(Configuration, configuration);
        var commands = Page.Commands("README.md", "## Configure", block: 1);
        commands.Count.ShouldBe(3);
        var told = await DoAsync(commands[0], 78);
        output.WriteLine(told);
        told.ShouldMatch($@"{Regex.Escape(Configuration)}:\d+: {Regex.Escape(reason)}");
        await DoAsync(commands[1], 1);
        (await DoAsync(commands[2])).ShouldMatch($@"the last reload was refused, .*local\.conf:\d+: {Regex.Escape(reason)}");
        (await ConnectionsAsync()).Count.ShouldBe(Workers);
    }

    /// <summary>
    /// One mistake: status has one line about it, with what is to be done, and none any more once that was done.
    /// </summary>
    /// <param name="configuration">It, in a configuration that has no error.</param>
    /// <param name="line">What the line says, or part of it.</param>
    /// <param name="fix">Does what the line says.</param>
    private async Task MistakeAsync(string configuration, string line, Func<string, Task> fix)
    {
        await ConfigureAsync(configuration);
        await fix(await ToldAsync(line));
        await UntilAsync($"status no longer says: {line}", async () => (await LimitationsAsync()).Length == 0);
    }

    /// <summary>Waits for the line with this in it, which is the only one then.</summary>
    private async Task<string> ToldAsync(string line)
    {
        string[] told = [];
        await UntilAsync($"status says: {line}", async () => (told = await LimitationsAsync()).Any(one => one.Contains(line, StringComparison.Ordinal)));
        output.WriteLine(told.ShouldHaveSingleItem());
        return told[0];
    }

    private async Task BeRescuedAsync()
    {
        var (pid, _) = await Web.AskAsync(Workers);
        IPEndPoint? local = null;
        await UntilAsync("the worker's connection is seen", async () =>
            (local = (await ConnectionsAsync()).Where(one => one.Pid == pid).Select(one => one.Local).SingleOrDefault()) is not null);
        await Lab.Router.ForgetAsync(local!);

        (await Web.AskAsync(Workers)).Error.ShouldNotBeNull().ShouldContain("Software caused connection abort");
        (await Web.AskAsync(Workers)).ShouldBe((pid, null));

        (await DoAsync("conn-sidecar incidents")).ShouldContain("orders-db stuck: recycle released");
        (await DoAsync("conn-sidecar replay")).ShouldEndWith("same decision: recycle is carried out");
    }

    private async Task UpgradeAsync()
    {
        var before = await Machine.MainPidAsync();
        await InstallAsync(await DebianPackage.GetAsync());

        (await Machine.MainPidAsync()).ShouldNotBe(before);
        foreach (var command in Page.Commands("docs/upgrade.md", "## After"))
        {
            await DoAsync(command);
        }

        await RestsAsync("orders-db");
        (await DoAsync("conn-sidecar check-config")).ShouldContain("grace = 6s");
        (await DoAsync("conn-sidecar incidents")).ShouldContain("orders-db stuck: recycle released");
    }

    private async Task RemoveAsync()
    {
        var commands = Page.Commands("README.md", "## Install", block: 1);
        commands.ShouldBe(["apt remove conn-sidecar", "apt purge conn-sidecar"]);
        await DoAsync(commands[0]);
        (await Machine.UnitAsync("ActiveState")).ShouldBe("inactive");
        (await Lab.DatabaseSocketsAsync()).Where(socket => socket.State == "ESTAB").ShouldAllBe(socket => socket.Timer.StartsWith("keepalive,", StringComparison.Ordinal));
        await Machine.ShellAsync($"test -e {Configuration} && test -e /var/lib/conn-sidecar");

        await DoAsync(commands[1]);
        (await Machine.TryRunAsync("ls", "-d", "/etc/conn-sidecar", "/var/lib/conn-sidecar")).Output.ShouldBe("");
        for (var worker = 1; worker <= Workers; worker++)
        {
            (await Web.AskAsync(worker)).Error.ShouldBeNull();
        }
    }

    /// <summary>Installs a package as the README says: with the command that takes what was built.</summary>
    private async Task InstallAsync(string package)
    {
        await Machine.ShellAsync("rm -rf /root/out; mkdir /root/out");
        Machine.CopyIn(package, $"/root/out/conn-sidecar_{await Command.RunAsync("dpkg-deb", ["--field", package, "Version"])}_amd64.deb".Replace("\n", "", StringComparison.Ordinal));
        await DoAsync(Page.Commands("README.md", "## Install")[^1]);
        (await Machine.UnitAsync("ActiveState")).ShouldBe("active");
    }

    /// <summary>Puts a configuration in force with the commands of the README.</summary>
    private async Task ConfigureAsync(string configuration)
    {
        await Machine.WriteAsync(Configuration, configuration);
        foreach (var command in Page.Commands("README.md", "## Configure", block: 1))
        {
            await DoAsync(command);
        }
    }

    /// <summary>Types a command in the directory of the package, and says yes where it asks.</summary>
    /// <returns>What it says, in one line.</returns>
    private async Task<string> DoAsync(string command, int exitCode = 0)
    {
        var result = await Machine.TryRunAsync("bash", "-c", $"cd /root; echo y | {command}");
        var why = result.ExitCode == exitCode ? "" : await Machine.JournalAsync("-n", "40");
        result.ExitCode.ShouldBe(exitCode, $"{command}\n{result.Output}{result.Error}{why}");
        return Flat(result.Output + result.Error);
    }

    /// <summary>All connections of the workers are seen; none of them waits or is in trouble, now and in the next scans.</summary>
    private async Task RestsAsync(string upstream)
    {
        await UntilAsync("the workers' connections are seen", async () => (await ConnectionsAsync()).Count(one => one.Upstream == upstream) == Workers);
        await Wait.ThroughoutAsync(Wait.Seconds(4), async () =>
        {
            foreach (var connection in await ConnectionsAsync())
            {
                connection.Verdict.ShouldBe("healthy", connection.Why);
            }

            (await DoAsync("curl --silent --fail http://127.0.0.1:10042/check/pool")).ShouldMatch("^ServiceOK .* 0% ");
        });
    }

    private async Task<List<(string Upstream, int? Pid, IPEndPoint Local, string Verdict, string Why)>> ConnectionsAsync()
    {
        using var status = JsonDocument.Parse(await Machine.RunAsync("conn-sidecar", "status", "--json"));
        return [.. status.RootElement.GetProperty("connections").EnumerateArray().Select(one => (
            one.GetProperty("upstream").GetString()!, one.GetProperty("pid").Deserialize<int?>(), IPEndPoint.Parse(one.GetProperty("local").GetString()!),
            one.GetProperty("verdict").GetString()!, one.GetProperty("why").GetString()!))];
    }

    /// <summary>The lines with "!" of status, each with those that it was broken into.</summary>
    private async Task<string[]> LimitationsAsync() =>
        [.. (await Machine.RunAsync("conn-sidecar", "status")).Split("\n\n")[0].Split("\n! ")[1..].Select(Flat)];

    private async Task UntilAsync(string what, Func<Task<bool>> condition)
    {
        try
        {
            await Wait.UntilAsync(what, condition, Soon);
        }
        catch (TimeoutException e)
        {
            throw new TimeoutException($"{e.Message}\n{await Machine.ShellAsync("conn-sidecar status; journalctl --no-pager -u 'conn-sidecar*' -n 30")}", e);
        }
    }

    private async Task AskDatabaseAsync(string statements)
    {
        await using var connection = await Lab.Database.ConnectLocallyAsync();
        await using var command = connection.CreateCommand();
        command.CommandText = statements;
        await command.ExecuteNonQueryAsync();
    }

    private static string Flat(string text) => Whitespace().Replace(text, " ").Trim();

    [GeneratedRegex(@"\s+", RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1000)]
    private static partial Regex Whitespace();

    [GeneratedRegex(@"did you mean (?<unit>[\w.-]+)\?", RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1000)]
    private static partial Regex Meant();

    [GeneratedRegex("the line \"(?<line>stats socket [^\"]+)\"", RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1000)]
    private static partial Regex Quoted();

    [GeneratedRegex(@"GRANT \w+ TO \w+;", RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1000)]
    private static partial Regex Grant();
}
