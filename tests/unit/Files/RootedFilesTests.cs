using System.Text;
using Shouldly;
using Sidecar.Probes.Files;
using Xunit;

namespace Sidecar.UnitTests.Files;

public sealed class RootedFilesTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    public void Dispose() => _directory.Dispose();

    [Fact]
    public void Absolute_links_and_parent_directories_stay_below_the_root()
    {
        Directory.CreateDirectory(Path.Combine(_directory.Path, "etc"));
        _directory.Write("etc/a", "inside");
        File.CreateSymbolicLink(Path.Combine(_directory.Path, "link"), "/etc/a");
        File.CreateSymbolicLink(Path.Combine(_directory.Path, "out"), "/etc/hostname");
        var files = new RootedFiles(_directory.Path);

        Read(files, "/link").ShouldBe("inside");
        Read(files, "/../../../etc/a").ShouldBe("inside");
        files.Read("/out", out var problem).ShouldBeNull();
        problem.ShouldBe("it is not there");
        files.List("/etc").ShouldBe(["a"]);
        files.List("/link").ShouldBeNull();
    }

    [Fact]
    public void What_is_no_plain_file_neither_hangs_nor_fails()
    {
        using (var made = System.Diagnostics.Process.Start("mkfifo", [Path.Combine(_directory.Path, "fifo")]))
        {
            made.WaitForExit();
        }

        var files = new RootedFiles(_directory.Path);
        (files.Read("/fifo", out _) ?? []).ShouldBeEmpty();
        files.Read("/", out _).ShouldBeNull();
        files.Read("/a\0b", out _).ShouldBeNull();
        new RootedFiles("/").Read("/dev/zero", out var problem).ShouldBeNull();
        problem.ShouldContain("larger than");
    }

    private static string Read(RootedFiles files, string path) => Encoding.UTF8.GetString(files.Read(path, out var problem).ShouldNotBeNull(problem));
}
