using System.IO.Compression;

namespace Sidecar.BootTests;

/// <summary>What is built in is what the repository names: to the byte, and from the source that it names.</summary>
public sealed class SupplyChainTests : IDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("sidecar-supply-").FullName;

    public void Dispose() => Directory.Delete(_directory, recursive: true);

    [Fact]
    public async Task A_package_that_differs_from_the_lock_file_is_not_built_in()
    {
        var clone = Path.Combine(_directory, "clone");
        await Command.RunAsync("git", ["clone", "--quiet", "--no-local", Repository.Root, clone]);
        foreach (var locked in Directory.GetFiles(clone, "publish.lock.json", SearchOption.AllDirectories))
        {
            // The hash of a package that somebody else has put in its place.
            var text = await File.ReadAllTextAsync(locked);
            var hash = text.IndexOf("\"contentHash\": \"", StringComparison.Ordinal) + "\"contentHash\": \"".Length;
            await File.WriteAllTextAsync(locked, text[..hash] + (text[hash] == 'A' ? 'B' : 'A') + text[(hash + 1)..]);
        }

        var published = await Command.TryRunAsync("env", ["-C", clone, "-u", "RESTORE_LOCKED", "sh", "scripts/publish.sh"]);
        published.ExitCode.ShouldNotBe(0);
        (published.Output + published.Error).ShouldContain("NU1403");

        // Nor one of another version than the lock file has.
        await Command.RunAsync("git", ["-C", clone, "checkout", "--quiet", "."]);
        var versions = Path.Combine(clone, "Directory.Packages.props");
        var pinned = await File.ReadAllTextAsync(versions);
        pinned.ShouldContain("Include=\"Npgsql\" Version=\"10.0.0\"");
        await File.WriteAllTextAsync(versions, pinned.Replace("Include=\"Npgsql\" Version=\"10.0.0\"", "Include=\"Npgsql\" Version=\"10.0.1\"", StringComparison.Ordinal));
        published = await Command.TryRunAsync("env", ["-C", clone, "-u", "RESTORE_LOCKED", "sh", "scripts/publish.sh"]);
        published.ExitCode.ShouldNotBe(0);
        (published.Output + published.Error).ShouldContain("NU1004");
    }

    [Fact]
    public async Task Another_source_of_the_machine_gives_no_package()
    {
        var elsewhere = Path.Combine(_directory, "elsewhere");
        var project = Path.Combine(_directory, "repository", "project");
        Directory.CreateDirectory(elsewhere);
        Directory.CreateDirectory(project);
        await using (var package = new ZipArchive(File.Create(Path.Combine(elsewhere, "planted.1.0.0.nupkg")), ZipArchiveMode.Create))
        await using (var described = new StreamWriter(await package.CreateEntry("planted.nuspec").OpenAsync()))
        {
            await described.WriteAsync("<package><metadata><id>Planted</id><version>1.0.0</version><authors>a stranger</authors><description>planted</description></metadata></package>");
        }

        // The only source that there is, so that nobody else is asked.
        await File.WriteAllTextAsync(Path.Combine(_directory, "nuget.config"),
            $"<configuration><packageSources><clear /><add key=\"elsewhere\" value=\"{elsewhere}\" /></packageSources></configuration>");
        await File.WriteAllTextAsync(Path.Combine(project, "project.csproj"),
            "<Project Sdk=\"Microsoft.NET.Sdk\"><PropertyGroup><TargetFramework>net10.0</TargetFramework></PropertyGroup><ItemGroup><PackageReference Include=\"Planted\" Version=\"1.0.0\" /></ItemGroup></Project>");
        var here = Path.Combine(_directory, "repository", "nuget.config");

        (await RestoreAsync(project)).ExitCode.ShouldBe(0, "a source gives what it has");
        // What was fetched once is not asked for again.
        Directory.Delete(Path.Combine(_directory, "packages"), recursive: true);
        File.Copy(Path.Combine(Repository.Root, "nuget.config"), here);
        var mapped = await RestoreAsync(project);
        mapped.ExitCode.ShouldNotBe(0);
        mapped.Output.ShouldContain("NU1100");
        mapped.Output.ShouldContain("PackageSourceMapping is enabled");
    }

    private Task<CommandResult> RestoreAsync(string project) =>
        Command.TryRunAsync("env", [$"NUGET_PACKAGES={Path.Combine(_directory, "packages")}", "dotnet", "restore", project, "--force", "-nodeReuse:false"]);
}
