using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Shouldly;

namespace Sidecar.UnitTests.Paths;

/// <summary>A real server program of Debian's, started on a free port of 127.0.0.1 and ended with the test.</summary>
internal sealed class RealServer : IDisposable
{
    /// <summary>PostgreSQL's; others may leave it ignored, as a shell's background has it.</summary>
    private const string FastShutdown = "-INT";

    private static readonly TimeSpan Enough = TimeSpan.FromSeconds(60);

    private readonly TemporaryDirectory _directory = new();
    private Process? _process;
    private string _shutdown = "-TERM";

    private RealServer()
    {
        Sidecar.UnitTests.Root.Needed("servers are started as users of their own");
        using var free = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        free.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        Port = ((IPEndPoint)free.LocalEndPoint!).Port;
    }

    internal int Port { get; }

    internal IPEndPoint EndPoint => new(IPAddress.Loopback, Port);

    internal string Log => File.Exists(_directory.File("log")) ? File.ReadAllText(_directory.File("log")) : "";

    /// <summary>PostgreSQL 15 with trust for everybody on this loopback.</summary>
    internal static RealServer PostgreSql(bool tls, string options = "")
    {
        const string bin = "/usr/lib/postgresql/15/bin";
        var server = new RealServer();
        var d = server._directory.Path;
        Command("chown", "postgres", d);
        Command("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", bin + "/initdb", "-D", d + "/data", "-A", "trust", "-N");
        if (tls)
        {
            Command("openssl", "req", "-new", "-x509", "-days", "2", "-nodes", "-subj", "/CN=x", "-out", d + "/data/server.crt", "-keyout", d + "/data/server.key");
            Command("chown", "postgres", d + "/data/server.crt", d + "/data/server.key");
            Command("chmod", "0600", d + "/data/server.key");
        }

        return server.Start(
            $"exec setpriv --reuid=postgres --regid=postgres --init-groups {bin}/postgres -D {d}/data -p {server.Port} -c listen_addresses=127.0.0.1 "
            + $"-c unix_socket_directories={d} -c ssl={(tls ? "on" : "off")} {options}",
            ready: "ready to accept connections", shutdown: FastShutdown);
    }

    internal static RealServer Redis()
    {
        var server = new RealServer();
        return server.Start($"exec redis-server --bind 127.0.0.1 --port {server.Port} --save '' --dir {server._directory.Path} --requirepass secret", ready: "Ready to accept connections");
    }

    internal static RealServer Nginx()
    {
        var server = new RealServer();
        var d = server._directory.Path;
        server._directory.Write("conf", $"daemon off; error_log stderr notice; pid {d}/pid; events {{}} http {{ access_log off; server {{ listen 127.0.0.1:{server.Port}; }} }}");
        return server.Start($"exec nginx -p {d} -c {d}/conf", ready: "start worker process");
    }

    /// <summary>openssl s_server with these further options.</summary>
    internal static RealServer Tls(string options)
    {
        var server = new RealServer();
        var d = server._directory.Path;
        Command("openssl", "req", "-new", "-x509", "-days", "2", "-nodes", "-subj", "/CN=x", "-out", d + "/crt", "-keyout", d + "/key");
        return server.Start($"exec openssl s_server -accept 127.0.0.1:{server.Port} -cert {d}/crt -key {d}/key {options}", ready: "ACCEPT");
    }

    private RealServer Start(string command, string ready, string shutdown = "-TERM")
    {
        _shutdown = shutdown;
        _process = Process.Start(new ProcessStartInfo("sh", ["-c", $"{command} > {_directory.Path}/log 2>&1"]) { UseShellExecute = false, RedirectStandardInput = true })!;
        SpinWait.SpinUntil(() => Log.Contains(ready, StringComparison.Ordinal) || _process.HasExited, Enough).ShouldBeTrue();
        _process.HasExited.ShouldBeFalse(Log);
        return this;
    }

    internal static string Command(string program, params string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo(program, arguments) { UseShellExecute = false, RedirectStandardOutput = true, RedirectStandardError = true, WorkingDirectory = "/" })!;
        var errors = process.StandardError.ReadToEndAsync();
        var output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        process.ExitCode.ShouldBe(0, program + ": " + errors.GetAwaiter().GetResult());
        return output;
    }

    public void Dispose()
    {
        if (_process is not null)
        {
            // Not killed: children and shared memory end with it.
            using (var kill = Process.Start("kill", [_shutdown, _process.Id.ToString()]))
            {
                kill.WaitForExit();
            }

            if (!_process.WaitForExit(Enough))
            {
                _process.Kill(entireProcessTree: true);
            }

            _process.Dispose();
        }

        _directory.Dispose();
    }
}
