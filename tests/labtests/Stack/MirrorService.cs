using System.Globalization;

namespace Sidecar.LabTests.Stack;

/// <summary>HAProxy, Apache with mod_wsgi, and a server that forks for each connection of a Unix socket: all on the worker host of a lab.</summary>
internal sealed class MirrorService
{
    public const int FrontPort = 8080;
    public const int ApachePort = 8081;
    private const int Slots = 4;

    private MirrorService(TestLab lab, string directory)
    {
        Lab = lab;
        Directory = directory;
    }

    public TestLab Lab { get; }

    public string Directory { get; }

    /// <summary>The Unix socket of the forking server.</summary>
    public string Socket => Path.Combine(Directory, "forker.sock");

    /// <summary>HAProxy's stats socket.</summary>
    public string StatsSocket => Path.Combine(Directory, "haproxy.sock");

    public required ChildProcess Forker { get; init; }

    /// <summary>The sections for its programs in the agent's configuration.</summary>
    public string Sections => $"""
        [workers:apache]
        executable = /usr/sbin/apache2
        [workers:forker]
        executable = {File.ResolveLinkTarget("/usr/bin/python3", returnFinalTarget: true)!.FullName}
        [haproxy:edge]
        socket = {StatsSocket}

        """;

    public static async Task<MirrorService> StartAsync(TestLab lab, double seconds)
    {
        var directory = Path.Combine(lab.Directory, "mirror");
        System.IO.Directory.CreateDirectory(directory);
        File.Copy(Path.Combine(AppContext.BaseDirectory, "app", "front.py"), Path.Combine(directory, "front.py"));
        await Command.RunAsync("chown", ["-R", "www-data:", directory]);
        var host = lab.Network.Worker;
        await host.SysctlAsync("net.core.somaxconn=128");
        var forker = lab.StartScript("forker.py", Path.Combine(directory, "forker.sock"), "5", seconds.ToString(CultureInfo.InvariantCulture));
        await forker.WaitForLineAsync(l => l == "listening", Wait.Seconds(20));
        var service = new MirrorService(lab, directory) { Forker = forker };

        const string modules = "/usr/lib/apache2/modules";
        var apache = Path.Combine(directory, "apache.conf");
        await File.WriteAllTextAsync(apache, $"""
            ServerRoot {directory}
            ServerName lab
            PidFile {directory}/apache.pid
            ErrorLog {directory}/apache.log
            DefaultRuntimeDir {directory}
            Mutex pthread default
            LoadModule mpm_prefork_module {modules}/mod_mpm_prefork.so
            LoadModule authz_core_module {modules}/mod_authz_core.so
            LoadModule wsgi_module {modules}/mod_wsgi.so
            Listen 127.0.0.1:{ApachePort}
            ListenBacklog 511
            StartServers {Slots}
            MinSpareServers {Slots}
            ServerLimit {Slots}
            MaxRequestWorkers {Slots}
            KeepAlive Off
            WSGIScriptAlias / {directory}/front.py
            <Directory {directory}>
              Require all granted
            </Directory>

            """);
        lab.StartProgram("apache2", host, "www-data", "/usr/sbin/apache2", "-D", "FOREGROUND", "-f", apache);

        var haproxy = Path.Combine(directory, "haproxy.cfg");
        await File.WriteAllTextAsync(haproxy, $"""
            global
              stats socket {service.StatsSocket} mode 600 level user
            defaults
              mode http
              timeout connect 5s
              timeout client 30s
              timeout server 30s
              timeout check 2s
              retries 1
            frontend www
              bind 127.0.0.1:{FrontPort}
              default_backend mirrors
            backend mirrors
              option httpchk GET /
              server apache 127.0.0.1:{ApachePort} check inter 2s fall 3

            """);
        lab.StartProgram("haproxy", host, null, "/usr/sbin/haproxy", "-db", "-f", haproxy);
        await Wait.UntilServedAsync(host, FrontPort, Wait.Seconds(30));
        return service;
    }

    /// <summary>So many requests at once; the program says when the first answer of each status came.</summary>
    public ChildProcess Spike(int count, int seconds) => Lab.StartScript("spike.py", "127.0.0.1", $"{FrontPort}", $"{count}", $"{seconds}");
}
