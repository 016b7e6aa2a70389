namespace Sidecar.Fuzz;

/// <summary>Where files of a target are: in memory where that is to be had, since they are written by the hundred thousand.</summary>
internal static class Scratch
{
    private const string Memory = "/dev/shm";

    /// <summary>A new directory; its maker removes it.</summary>
    internal static string Directory()
    {
        var name = $"cs-fuzz-{Guid.NewGuid():N}";
        return System.IO.Directory.CreateDirectory(Path.Combine(System.IO.Directory.Exists(Memory) ? Memory : Path.GetTempPath(), name)).FullName;
    }
}
