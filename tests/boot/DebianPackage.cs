namespace Sidecar.BootTests;

/// <summary>The package, built from this source tree once for all tests.</summary>
internal static class DebianPackage
{
    private static readonly Lazy<Task<string>> Built = new(BuildAsync);

    /// <summary>Path of the .deb.</summary>
    /// <exception cref="CommandFailedException">The build failed.</exception>
    public static Task<string> GetAsync() => Built.Value;

    /// <summary>A field of the control file.</summary>
    public static async Task<string> FieldAsync(string name) => (await Command.RunAsync("dpkg-deb", ["--field", await GetAsync(), name])).Trim();

    /// <summary>
    /// What an earlier release would have been: the same files under a lower version, with a sample configuration that
    /// differs, so that the upgrade has something to decide.
    /// </summary>
    /// <param name="directory">Where it is made.</param>
    public static async Task<string> OlderAsync(string directory)
    {
        var tree = Path.Combine(directory, "older");
        await Command.RunAsync("dpkg-deb", ["--raw-extract", await GetAsync(), tree]);
        var control = Path.Combine(tree, "DEBIAN", "control");
        var version = await FieldAsync("Version");
        await File.WriteAllTextAsync(control, (await File.ReadAllTextAsync(control)).Replace($"Version: {version}\n", $"Version: {version}~before\n", StringComparison.Ordinal));
        await File.AppendAllTextAsync(Path.Combine(tree, "etc", "conn-sidecar", "conn-sidecar.conf"), "# a line of the earlier release\n");
        var package = Path.Combine(directory, "conn-sidecar-older.deb");
        await Command.RunAsync("dpkg-deb", ["--root-owner-group", "-Zgzip", "-z1", "--build", tree, package]);
        return package;
    }

    private static async Task<string> BuildAsync()
    {
        var output = await Command.RunAsync("sh", [Path.Combine(Repository.Root, "scripts", "deb.sh")]);
        return Path.Combine(Repository.Root, output.Split('\n', StringSplitOptions.RemoveEmptyEntries)[^1]);
    }
}
