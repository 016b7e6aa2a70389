using System.Diagnostics;

namespace Sidecar.UnitTests;

/// <summary>A directory of a test's own, removed with it. Short, because socket paths are limited to 107 bytes.</summary>
internal sealed class TemporaryDirectory : IDisposable
{
    public string Path { get; } = Directory.CreateTempSubdirectory("cs-").FullName;

    public string File(string name) => System.IO.Path.Combine(Path, name);

    public string Write(string name, string content)
    {
        var path = File(name);
        Directory.CreateDirectory(System.IO.Path.GetDirectoryName(path)!);
        System.IO.File.WriteAllText(path, content);
        return path;
    }

    /// <summary>
    /// A copy of a program, to be run under a name of its own. A process of its own makes it: were the file open for writing
    /// here while another test starts a child, that child would hold it open too, and it could not be run ("text file busy").
    /// </summary>
    public string Program(string name, string source)
    {
        using var copying = Process.Start("cp", [source, File(name)]);
        copying.WaitForExit();
        return File(name);
    }

    public void Dispose() => Directory.Delete(Path, recursive: true);
}
