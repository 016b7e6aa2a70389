namespace Sidecar.Lab;

/// <summary>Where this source tree is.</summary>
public static class Repository
{
    /// <summary>The directory with the solution, above the running program.</summary>
    /// <exception cref="DirectoryNotFoundException">The program runs outside of its tree.</exception>
    public static string Root { get; } = Find();

    private static string Find()
    {
        for (var directory = new DirectoryInfo(AppContext.BaseDirectory); directory is not null; directory = directory.Parent)
        {
            if (File.Exists(Path.Combine(directory.FullName, "Sidecar.sln")))
            {
                return directory.FullName;
            }
        }

        throw new DirectoryNotFoundException($"no Sidecar.sln above {AppContext.BaseDirectory}");
    }
}
