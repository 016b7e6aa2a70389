using System.Collections.Concurrent;
using System.Security.Cryptography;
using System.Text;

namespace Sidecar.BootTests;

/// <summary>A Debian 12 root directory from the archive that this machine's apt uses, made once and kept under <c>out/cache</c>.</summary>
internal static class DebianRoot
{
    private static readonly ConcurrentDictionary<string, Lazy<Task<string>>> Made = new(StringComparer.Ordinal);

    /// <summary>Its path. Machines read it and never write to it.</summary>
    /// <param name="more">Debian's packages that it has besides; a root of its own.</param>
    /// <exception cref="CommandFailedException">debootstrap failed.</exception>
    public static Task<string> GetAsync(params IReadOnlyList<string> more) =>
        Made.GetOrAdd(string.Join(',', more), packages => new Lazy<Task<string>>(() => MakeAsync(packages))).Value;

    private static async Task<string> MakeAsync(string more)
    {
        var script = Path.Combine(AppContext.BaseDirectory, "debian-root.sh");
        // A changed recipe is another root.
        var key = Convert.ToHexStringLower(SHA256.HashData([.. await File.ReadAllBytesAsync(script), .. Encoding.UTF8.GetBytes(more)]))[..12];
        var cache = Path.Combine(Repository.Root, "out", "cache");
        Directory.CreateDirectory(cache);
        var root = Path.Combine(cache, $"debian-12-{key}");
        using var one = await LockAsync(Path.Combine(cache, "lock"));
        if (!Directory.Exists(root))
        {
            await Command.RunAsync("sh", [script, root, more]);
        }

        return root;
    }

    private static async Task<FileStream> LockAsync(string path)
    {
        for (var attempt = 0; ; attempt++)
        {
            try
            {
                return new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (IOException) when (attempt < 3000)
            {
                await Task.Delay(100);
            }
        }
    }
}
