using System.Diagnostics;
using Shouldly;

namespace Sidecar.UnitTests.Hostile;

/// <summary>A program in Python of a user without any right on this host; it ends with the test.</summary>
internal sealed class Stranger : IDisposable
{
    private readonly Process _process;

    /// <summary>Runs it until it says <c>ready</c>.</summary>
    /// <param name="asRoot">What it does before it gives its rights away, such as raising its own limits.</param>
    /// <param name="program">What it does as nobody; afterwards it waits for its input to end.</param>
    /// <param name="uid">Who it is; nobody.</param>
    internal Stranger(string asRoot, string program, uint uid = 65534)
    {
        Root.Needed("another user's program is to run");
        var start = new ProcessStartInfo("/usr/bin/python3", ["-c", $"""
            import ctypes, os, resource, socket, sys, time
            {asRoot}
            os.setgroups([]); os.setgid({uid}); os.setuid({uid})
            {program}
            print('ready', flush=True)
            sys.stdin.read()
            """])
        {
            UseShellExecute = false,
            RedirectStandardOutput = true,
            RedirectStandardInput = true,
            WorkingDirectory = "/",
        };
        _process = Process.Start(start)!;
        while (_process.StandardOutput.ReadLine() is { } line && line != "ready")
        {
            Lines.Add(line);
        }

        _process.HasExited.ShouldBeFalse();
    }

    internal int Pid => _process.Id;

    /// <summary>What it printed before it was ready.</summary>
    internal List<string> Lines { get; } = [];

    public void Dispose()
    {
        _process.Kill(entireProcessTree: true);
        _process.WaitForExit();
        _process.Dispose();
    }
}
