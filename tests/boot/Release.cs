namespace Sidecar.BootTests;

/// <summary>A release as <c>scripts/release.sh</c> makes it, signed with a key that is made for it; gone when it is disposed of.</summary>
internal sealed class Release : IDisposable
{
    private readonly string _keys;

    private Release(string keys) => _keys = keys;

    /// <summary>Where <c>scripts/release.sh</c> put it.</summary>
    public string Directory => Path.Combine(_keys, "release");

    /// <summary>The repository in it.</summary>
    public string Repository => Path.Combine(Directory, "apt");

    /// <summary>Makes one, a draft.</summary>
    /// <param name="more">Further packages for the repository.</param>
    /// <exception cref="CommandFailedException">It could not be made.</exception>
    public static async Task<Release> MakeAsync(params IReadOnlyList<string> more)
    {
        await DebianPackage.GetAsync();
        var release = new Release(System.IO.Directory.CreateTempSubdirectory("sidecar-release-").FullName);
        var secret = Path.Combine(release._keys, "secret.asc");
        await release.GpgAsync("--pinentry-mode", "loopback", "--passphrase", "", "--quick-generate-key", "A release of the tests <tests@conn-sidecar.example.org>", "ed25519", "sign", "1d");
        await release.GpgAsync("--pinentry-mode", "loopback", "--passphrase", "", "--armor", "--output", secret, "--export-secret-keys");
        await Command.RunAsync("env", [$"RELEASE_KEY={secret}", "sh", Path.Combine(Lab.Repository.Root, "scripts", "release.sh"), "--draft", "--no-build", "--into", release.Directory, .. more]);
        return release;
    }

    /// <summary>Runs gpg with the key of this release alone.</summary>
    public Task<string> GpgAsync(params IReadOnlyList<string> arguments) => Command.RunAsync("gpg", ["--homedir", _keys, "--batch", "--quiet", .. arguments]);

    /// <summary>Puts the repository into a machine, in the place of one that was there, and tells its apt of it alone.</summary>
    public async Task PublishAsync(Machine machine)
    {
        await machine.ShellAsync("rm -rf /srv/apt; mkdir -p /srv/apt; : >/etc/apt/sources.list");
        await machine.CopyTreeAsync(Repository, "/srv/apt");
        await machine.WriteAsync("/etc/apt/sources.list.d/conn-sidecar.sources",
            "Types: deb\nURIs: file:/srv/apt\nSuites: stable\nComponents: main\nSigned-By: /srv/apt/conn-sidecar.gpg\n");
    }

    public void Dispose()
    {
        Command.RunAsync("gpgconf", ["--homedir", _keys, "--kill", "all"]).GetAwaiter().GetResult();
        System.IO.Directory.Delete(_keys, recursive: true);
    }
}
