using System.Globalization;

namespace Sidecar.BootTests;

/// <summary>
/// A booted Debian with a real systemd as its PID 1. It lives on an overlay in memory; nothing of it stays behind when it
/// is disposed of, when the tests end in whatever way, or when it is killed.
/// </summary>
internal sealed class Machine : IAsyncDisposable
{
    private static readonly string[] Environment =
        ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"];

    private static int _count;
    private readonly ChildProcess _process;
    private readonly string _mountPoint;
    private int _leader;

    private Machine(ChildProcess nspawn, string directory)
    {
        _process = nspawn;
        _mountPoint = directory;
    }

    /// <summary>Its first process, by its number on this host.</summary>
    public int Leader => _leader;

    /// <summary>
    /// Boots one and waits until systemd says that it is running, without a failed unit. Tried twice, as nothing of ours is
    /// in it yet: a unit of Debian's own may fail where the host is busy.
    /// </summary>
    /// <param name="network">The network namespace that it joins; null: none but its own loopback.</param>
    /// <param name="root">What it boots from; null: the Debian of <see cref="DebianRoot"/> without more.</param>
    /// <exception cref="TimeoutException">It did not come up.</exception>
    public static async Task<Machine> BootAsync(NetworkNamespace? network = null, string? root = null)
    {
        if (!System.Environment.IsPrivilegedProcess)
        {
            throw new InvalidOperationException("booting a Debian needs root: run the tests as root or with sudo");
        }

        try
        {
            return await BootOnceAsync(network, root);
        }
        catch (TimeoutException e)
        {
            await Console.Error.WriteLineAsync(e.Message);
            return await BootOnceAsync(network, root);
        }
    }

    /// <summary>Runs a command inside as root and returns its standard output.</summary>
    /// <exception cref="CommandFailedException">It ended with another exit code than 0.</exception>
    public async Task<string> RunAsync(params IReadOnlyList<string> commandLine)
    {
        var result = await TryRunAsync(commandLine);
        return result.ExitCode == 0
            ? result.Output
            : throw new CommandFailedException($"{string.Join(' ', commandLine)} ended with {result.ExitCode}: {result.Error}{result.Output}");
    }

    /// <summary>Runs a command inside as root, whatever its exit code.</summary>
    public Task<CommandResult> TryRunAsync(params IReadOnlyList<string> commandLine) => Command.TryRunAsync("nsenter", Inside(commandLine));

    /// <summary>Runs a shell script inside as root and returns its standard output.</summary>
    public Task<string> ShellAsync(string script) => RunAsync("bash", "-euc", script);

    /// <summary>Writes a file inside, with its directories. The path leads over no symbolic link.</summary>
    public async Task WriteAsync(string path, string content)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(PathInside(path))!);
        await File.WriteAllTextAsync(PathInside(path), content);
    }

    /// <summary>Copies a file of this host into the machine.</summary>
    public void CopyIn(string source, string target) => File.Copy(source, PathInside(target), overwrite: true);

    /// <summary>Copies what is in a directory of this host into one of the machine that is there, or is made.</summary>
    public async Task CopyTreeAsync(string source, string target)
    {
        Directory.CreateDirectory(PathInside(target));
        await Command.RunAsync("cp", ["-R", $"{source}/.", PathInside(target)]);
    }

    /// <summary>Installs a package with apt, which asks nothing.</summary>
    /// <exception cref="CommandFailedException">apt failed.</exception>
    public async Task InstallAsync(string package)
    {
        CopyIn(package, "/tmp/conn-sidecar.deb");
        await RunAsync("apt-get", "install", "-y", "-qq", "-o", "Dpkg::Options::=--force-confold", "/tmp/conn-sidecar.deb");
    }

    /// <summary>The journal's entries that match, all that were sent before this call included.</summary>
    public async Task<string> JournalAsync(params IReadOnlyList<string> matches)
    {
        await RunAsync("journalctl", "--sync");
        return await RunAsync(["journalctl", "--no-pager", "--quiet", .. matches]);
    }

    /// <summary>A property of a unit, as <c>systemctl show</c> has it.</summary>
    public async Task<string> UnitAsync(string property, string unit = "conn-sidecar.service") =>
        (await RunAsync("systemctl", "show", "--value", "-p", property, unit)).Trim();

    /// <summary>The main process of a unit, by its number inside; 0 where there is none.</summary>
    public async Task<int> MainPidAsync(string unit = "conn-sidecar.service") =>
        int.Parse(await UnitAsync("MainPID", unit), CultureInfo.InvariantCulture);

    public async ValueTask DisposeAsync()
    {
        await Task.Run(_process.Dispose);
        // The mounts went with their namespace, so this is the empty directory again.
        Directory.Delete(_mountPoint);
    }

    private static async Task<Machine> BootOnceAsync(NetworkNamespace? network, string? root)
    {
        root ??= await DebianRoot.GetAsync();
        var name = $"sidecar-boot-{System.Environment.ProcessId}-{Interlocked.Increment(ref _count)}";
        var directory = Directory.CreateTempSubdirectory($"{name}-").FullName;
        var nspawn = ChildProcess.Start(new ChildOptions
        {
            Name = name,
            // When unshare dies (and it dies with this process), the PID namespace dies, and with it everything in it:
            // a killed nspawn alone would leave the machine behind.
            CommandLine =
            [
                "unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc",
                "sh", Path.Combine(AppContext.BaseDirectory, "machine.sh"), root, directory, name,
                network is null ? "--private-network" : $"--network-namespace-path={network.Path}",
            ],
            Directory = "/",
        });
        var machine = new Machine(nspawn, directory);
        try
        {
            await Wait.UntilAsync($"{name} is up", machine.IsUpAsync, Patience.For(Wait.Seconds(30)));
            return machine;
        }
        catch (TimeoutException e)
        {
            var failed = machine._leader == 0 ? "" : (await machine.TryRunAsync("systemctl", "--failed", "--no-pager")).Output;
            await machine.DisposeAsync();
            throw new TimeoutException($"{e.Message}\n{nspawn.Output}\n{failed}", e);
        }
    }

    private string LeaderText => _leader.ToString(CultureInfo.InvariantCulture);

    private string PathInside(string path) => $"/proc/{LeaderText}/root{path}";

    private string[] Inside(IReadOnlyList<string> commandLine) => ["-t", LeaderText, "-a", "--", .. Environment, .. commandLine];

    private async Task<bool> IsUpAsync()
    {
        if (_process.HasExited)
        {
            throw new TimeoutException($"{_process.Name} ended with {_process.ExitCode}");
        }

        // unshare -> nspawn -> the machine's systemd; nspawn has other children on the way, so it is looked up each time.
        if (ChildOf(_process.Pid) is not { } nspawn || ChildOf(nspawn) is not { } init || ReadOrEmpty($"/proc/{init}/comm").Trim() != "systemd")
        {
            return false;
        }

        _leader = init;
        var state = (await TryRunAsync("systemctl", "is-system-running")).Output.Trim();
        return state == "degraded" ? throw new TimeoutException($"{_process.Name} has a unit that failed") : state == "running";
    }

    private static int? ChildOf(int pid)
    {
        var children = ReadOrEmpty($"/proc/{pid}/task/{pid}/children").Split(' ', StringSplitOptions.RemoveEmptyEntries);
        return children.Length == 1 ? int.Parse(children[0], CultureInfo.InvariantCulture) : null;
    }

    private static string ReadOrEmpty(string path)
    {
        try
        {
            return File.ReadAllText(path);
        }
        catch (IOException)
        {
            return "";
        }
    }
}
